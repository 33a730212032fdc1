"""Every registered system keeps to the contract: a new system is one row of the registry and nothing here."""

import itertools

import checks
import pytest
from brief import BRIEF
from trial import TRIALS

from jaxomarl.algorithms import REGISTRY

FIRST, *REST = REGISTRY
FIRST_THEN_LONG = [FIRST, *(pytest.param(name, marks=pytest.mark.long) for name in REST)]
"""One system in every session, all of them in `make test-long`: what these assert is the runner's doing."""
ALIKE = {
    "brpo-ind": "omsd", "brpo-ctde": "omsd", "brpo-jal": "omsd", "joint-score": "omsd", "iql-ind": "iql",
    "cql": "td3-bc", "omar": "td3-bc", "brac": "td3-bc", "dom2": "diffusion-ql", "edp": "diffusion-ql",
    "ind-diffusion": "dof-p", "madiff-c": "decision-diffuser", "madiff-d": "decision-diffuser",
    "dof-t": "decision-diffuser", "diffusion-bc": "sfbc", "omac": "omiga", "flow-bc": "mac-flow",
    "mean-flow": "mac-flow", "fql": "mac-flow", "om2p": "mac-flow", "macql": "qmix", "mabcq": "qmix",
}  # fmt: skip
"""System -> one whose stages are its own but for a loss or a network, and which compiles faster.

The first is traced here, and runs in `make test-long`; the second runs here.
"""
STOPPED = ("omsd", "bc", "qmix")
"""Systems that meet a NaN and a stop here, all others in `make test-long`: what is asserted is the runner's doing."""
TRAINED = (*STOPPED, *(name for name, system in REGISTRY.items() if system.online))
"""Systems that the runner trains here; the others have one program for all their stages (brief.py)."""
BRIEFLY = [name for name in REGISTRY if name not in TRAINED and name not in ALIKE]


def in_long(condition: bool) -> list:
    return [pytest.mark.long] * condition


def long_unless(names: tuple[str, ...]) -> list:
    return [pytest.param(name, marks=in_long(name not in names)) for name in REGISTRY]


def own_stages(name: str) -> list[int]:
    """The indices of the system's stages that no system before has, too."""
    before = itertools.takewhile(lambda other: other != name, REGISTRY)
    known = {(s.owner, s.name) for other in before for s in TRIALS[other].stages}
    return [k for k, s in enumerate(TRIALS[name].stages) if (s.owner, s.name) not in known]


def by_name(checks_: tuple) -> list:
    return [pytest.param(c, id=c.__name__) for c in checks_]


@pytest.mark.parametrize("check", by_name(checks.TRACED))
@pytest.mark.parametrize("name", REGISTRY)
def test_by_tracing(trials, name, check):
    check(trials[name])


@pytest.mark.parametrize("name", long_unless(TRAINED))
def test_half_the_bits_by_tracing(trials, name):
    checks.half_the_bits_stay_inside(trials[name])


@pytest.mark.parametrize("name", BRIEFLY)
def test_half_the_bits_of_updates_by_tracing(trials, name):
    checks.an_update_has_half_the_bits_inside(trials[name])


@pytest.mark.parametrize(
    "check", by_name((checks.init_holds_arrays_only, checks.update_keeps_types))
)
@pytest.mark.parametrize("name", FIRST_THEN_LONG)
def test_on_a_game(games, name, check):
    check(games[name])


def test_shared_stages_are_the_same_in_every_system(trials):
    checks.shared_stages_agree([trials[name] for name in REGISTRY])


@pytest.mark.parametrize("check", by_name(checks.RUN))
@pytest.mark.parametrize("name", long_unless(TRAINED))
def test_by_running(trials, name, check):
    check(trials[name])


@pytest.mark.parametrize("check", by_name(checks.OF_STATES))
@pytest.mark.parametrize("name", BRIEFLY)
def test_in_one_program(name, check):
    check(BRIEF[name])


@pytest.mark.parametrize("name", long_unless(STOPPED))
def test_a_nan_stays_in_its_run(trials, name):
    checks.nan_stays_in_its_run(trials[name])


@pytest.mark.parametrize("check", by_name(checks.ALONE))
@pytest.mark.parametrize("name", FIRST_THEN_LONG)
def test_alone(trials, name, check):
    check(trials[name])


@pytest.mark.parametrize("name", long_unless(TRAINED))
@pytest.mark.parametrize("after", [1, *(pytest.param(k, marks=pytest.mark.long) for k in (0, 2))])
def test_resume(trials, name, after, tmp_path):
    for index in own_stages(name):
        stage = trials[name].stages[index]
        chunks = stage.steps // stage.chunk
        assert chunks > 1, "nothing is left to resume after the first chunk"
        if after < chunks:  # SfBC's policy is a chunk shorter than the others
            checks.resumes_exactly(trials[name], index, after, tmp_path / str(index))


@pytest.mark.parametrize("name", FIRST_THEN_LONG)
def test_a_sweep_trains_shared_stages_once(trials, name):
    checks.shared_stages_are_trained_once(trials[name])

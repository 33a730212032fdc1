"""The runs axis laid over eight devices: the same numbers as on one, and states that stay where they were put."""

import checks
import pytest
from cloning import CLONING
from on_devices import COUNTS, SWEPT, copies
from trial import Trial

from jaxomarl.training.library import StageCache

STAGES = ("critic", "scores-conditional", "policy")


@pytest.fixture(scope="module")
def swept(trials):
    return trials["omsd"].sweep(StageCache(), SWEPT)


@pytest.mark.parametrize("runs", COUNTS)
def test_any_number_of_runs(laid_out, runs):
    trial = Trial("cloning", CLONING)
    one = trial.run(copies(trial, runs), tuple(range(runs)), StageCache(), env=False)
    checks.same(
        laid_out[0][f"cloning-{runs}"],
        checks.named(one.past["cloning"]),
        f"{runs} runs",
        checks.CLOSE,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_sweep_of_eight_runs(laid_out, swept, stage):
    found, wanted = laid_out[0][f"omsd-{stage}"], checks.named(swept.past[stage])
    checks.same(found, wanted, stage, checks.CLOSE)


def test_states_stay_on_the_runs_axis(laid_out):
    layouts = laid_out[1]
    assert all(kept for _, _, kept in layouts), layouts
    sizes = {
        name: {size for stage, size, _ in layouts if stage == name} for name in ("cloning", *STAGES)
    }
    assert sizes == {"cloning": {3, 8}, "critic": {4}, "scores-conditional": {4}, "policy": {8}}

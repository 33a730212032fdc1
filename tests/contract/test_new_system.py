"""A new system is one file and one row; and each check catches a system that breaks what it is about."""

import importlib.util
import math
from pathlib import Path
from unittest import mock

import checks
import cloning
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brief import BriefTrial
from trial import LIBRARIES, SEEDS, Trial, quick_compilation

import jaxomarl
from jaxomarl.algorithms import REGISTRY
from jaxomarl.training import runner
from jaxomarl.training.library import Folder, Identity, StageCache
from jaxomarl.training.program import last_step

SOURCE = Path(cloning.__file__).read_text()


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    """Each of these systems has its own, as they all call their stage the same."""
    for name in LIBRARIES:
        monkeypatch.setitem(LIBRARIES, name, StageCache())


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Write a system, with a change, into a file of its own; import it; give it a row."""

    def write(*change: str, kind: type[Trial] = Trial) -> Trial:
        for old in change[::2]:
            assert SOURCE.count(old) == 1, f"{old!r} is not in cloning.py once"
        text = SOURCE
        for old, new in zip(change[::2], change[1::2], strict=True):
            text = text.replace(old, new)
        path = tmp_path / "scratch.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("scratch", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(REGISTRY, "scratch", module.CLONING)
        return kind("scratch", REGISTRY["scratch"])

    return write


def test_one_row_is_enough(registered, tmp_path):
    trial = registered()
    more = (checks.half_the_bits_stay_inside, checks.nan_stays_in_its_run)
    for check in (*checks.TRACED, *checks.RUN, *checks.ALONE, *more):
        check(trial)
    checks.resumes_exactly(trial, 0, 1, tmp_path / "stages")


def test_a_stage_ends_where_every_run_has_diverged(registered, tmp_path):
    trial = registered()
    cfgs = [trial.with_traced(lambda k, v: math.nan)] * len(
        SEEDS
    )  # the first update's loss is a number yet
    found, again = (trial.run(cfgs, SEEDS, StageCache(tmp_path)) for _ in range(2))
    (stage,) = trial.stages
    assert stage.steps == 3 * stage.chunk == last_step(stage)
    assert [p.step for p in found.progress] == [stage.chunk, 2 * stage.chunk]
    told = [line for p in found.progress for line in p.bad]
    assert told == [f"seed {seed}: loss at update 2" for seed in SEEDS]
    trained = found.trained[stage.name]
    assert trained.facts["updates_executed"] == 2 * stage.chunk < trained.facts["updates"]
    assert np.isfinite(trained.evaluations["return"][:, 0]).all()
    assert np.isnan(trained.evaluations["return"][:, -1]).all()
    assert not again.progress, "it is finished: nothing is to be trained again"
    checks.same(
        checks.histories(again.trained[stage.name]), checks.histories(trained), "read again"
    )


def test_it_trains_end_to_end(registered, tmp_path):
    registered()
    out = tmp_path / "run"
    asked = {
        "out": out,
        "seeds": 2,
        "rows": 40,
        "episodes": 2,
        "steps": 4,
        "chunk": 2,
        "width": 8,
        "batch": 8,
    }
    asked["final_episodes"] = 3
    with quick_compilation():
        results = jaxomarl.train("scratch", "games/bandit", **asked)
    (returns,) = results.returns.values()
    assert returns.shape == (2, 3) and np.isfinite(returns).all()
    folder = results.runs[0].path
    assert (folder / "run.json").exists()
    action = jaxomarl.load(folder).act(np.ones((2, 1), np.float32))
    assert np.shape(action) == (2, 1) and np.isfinite(action).all()


STATE = ("    actor: Net\n", "    actor: Net\n    extra: object = ()\n")
INIT = "        return Cloned(create(tx, net.init(key)))"
LOSS = '{"loss": value}'
STEPPED = "        return Cloned(descend(tx, state.actor, grads)), "
WRONG = {
    "a function in the state": (
        checks.init_holds_arrays_only,
        (
            *STATE,
            INIT,
            "        return Cloned(create(tx, net.init(key)), jax.tree_util.Partial(lambda: 0))",
        ),
    ),
    "a Python number in the state": (
        checks.init_holds_arrays_only,
        (*STATE, INIT, "        return Cloned(create(tx, net.init(key)), 1.0)"),
    ),
    "a counter that becomes a float": (
        checks.update_keeps_types,
        (
            *STATE,
            INIT,
            "        return Cloned(create(tx, net.init(key)), jnp.zeros((), int))",
            STEPPED,
            "        return Cloned(descend(tx, state.actor, grads), state.extra + 1.0), ",
        ),
    ),
    "a metric for each agent": (
        checks.update_keeps_types,
        (LOSS, '{"loss": value + jnp.zeros(spec.agents)}'),
    ),
    "an undeclared traced field": (checks.declared_fields_are_true, (', "lr")', ")")),
    "an undeclared static field": (
        checks.declared_fields_are_true,
        (', "width", "lr")', ', "lr")'),
    ),
    "a field that does not exist": (checks.declared_fields_are_true, ('"lr")', '"lr", "rate")')),
    "a loss that is not finite": (checks.finite, (LOSS, '{"loss": value / 0}')),
    "junk in padded actions": (
        checks.actions_are_padded_with_zeros,
        ("        return mask * net", "        return net"),
    ),
    "a policy that reads padded columns": (
        checks.padded_observations_do_not_count,
        ("net.apply(params, obs * spec.obs_mask)", "net.apply(params, obs)"),
    ),
    "a loss that reads padded columns": (
        checks.padded_actions_do_not_count,
        (
            "jnp.mean(mask * (play(params, batch.obs) - batch.action) ** 2)",
            "jnp.mean((play(params, batch.obs) - batch.action) ** 2)",
        ),
    ),
    "a policy that reads o_j": (
        checks.acts_on_what_it_declares,
        (
            "        return play(state.actor.params, observation.obs)",
            "        return play(state.actor.params, observation.obs + observation.obs.mean(axis=0))",
        ),
    ),
    "a memory that mixes agents": (
        checks.acts_on_what_it_declares,
        (
            "        return play(state.actor.params, observation.obs), memory",
            "        return play(state.actor.params, observation.obs + memory), memory + observation.obs.sum()",
            "Algorithm(init, batch, update, act)",
            "Algorithm(init, batch, update, act, memory=jnp.zeros(()))",
        ),
    ),
    "centralised without need": (
        checks.acts_on_what_it_declares,
        (
            "Algorithm(init, batch, update, act)",
            "Algorithm(init, batch, update, act, centralised=True)",
        ),
    ),
    "a layer that is not updated": (
        checks.parameters_move,
        (
            STEPPED,
            "        new = descend(tx, state.actor, grads)\n"
            '        new = new._replace(params={**new.params, "out": state.actor.params["out"]})\n'
            "        return Cloned(new), ",
        ),
    ),
    "a step that the rate does not scale": (
        checks.parameters_move,
        (
            STEPPED,
            "        grads = jax.tree.map(jnp.sign, grads)\n"
            "        new = jax.tree.map(lambda p, g: p - 1e-3 * g, state.actor.params, grads)\n"
            "        return Cloned(state.actor._replace(params=new)), ",
        ),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_system_is_caught(registered, what):
    check, change = WRONG[what]
    kind = BriefTrial if check in checks.OF_STATES else Trial
    with pytest.raises(AssertionError):
        check(registered(*change, kind=kind))


@pytest.mark.long
@pytest.mark.parametrize(
    "what", [w for w, (check, _) in WRONG.items() if check in checks.OF_STATES]
)
def test_a_wrong_system_is_caught_by_the_runner_too(registered, what):
    check, change = WRONG[what]
    with pytest.raises(AssertionError):
        check(registered(*change))


# --- a wrong runner ---


@pytest.fixture
def trial(registered):
    return registered()


def caught(check, *args):
    with pytest.raises(AssertionError):
        check(*args)


def test_streams_by_place_are_caught(trial):
    assert trial.base
    rows = runner.Program.rows

    def by_place(self, chosen):
        cfgs, keys, past = rows(self, chosen)
        return cfgs, jnp.stack([self.key(place) for place in range(len(keys))]), past

    with mock.patch.object(runner.Program, "rows", by_place):
        caught(checks.same_beside_others, trial)
        caught(checks.same_when_alone, trial)


def test_a_lost_chunk_is_caught(trial, tmp_path):
    assert trial.base
    restore = Folder.restore
    with mock.patch.object(
        Folder, "restore", lambda *args: (found := restore(*args)) and (found[0] + 1, found[1])
    ):
        caught(checks.resumes_exactly, trial, 0, 1, tmp_path / "a")
    with mock.patch.object(Folder, "restore", lambda *args: None):
        caught(checks.resumes_exactly, trial, 0, 1, tmp_path / "b")


def test_a_nan_that_spreads_is_caught(trial):
    assert trial.base
    rows = runner.Program.rows

    def mixed_up(self, chosen):
        cfgs, keys, past = rows(self, chosen)
        return jax.tree.map(lambda x: x + 0 * x.sum(), cfgs), keys, past

    with mock.patch.object(runner.Program, "rows", mixed_up):
        caught(checks.nan_stays_in_its_run, trial)


def test_a_nan_that_is_not_told_is_caught(trial):
    with mock.patch.object(runner.Training, "not_finite", lambda *args: ()):
        caught(checks.nan_stays_in_its_run, trial)


def test_retracing_is_caught(trial):
    trial.base.traces["cloning"] += 1
    caught(checks.traced_once, trial)


def test_a_forgotten_field_is_caught(trial):
    of = Identity.of
    with mock.patch.object(
        Identity, "of", lambda stage, *rest: of(stage._replace(fields=("lr",)), *rest)
    ):
        caught(checks.identity_follows_fields, trial)


def test_shared_stages_that_differ_are_caught(registered):
    shared = (', owner="cloning"', "")
    one = registered(*shared)
    checks.shared_stages_agree([one, registered(*shared)])
    caught(
        checks.shared_stages_agree, [one, registered(*shared, "jnp.mean(mask *", "jnp.sum(mask *")]
    )


@pytest.mark.long
def test_training_a_shared_stage_twice_is_caught(trials):
    of = Identity.of

    def by_everything(stage, *rest):
        return of(stage._replace(fields=None), *rest)

    with (
        mock.patch.object(Identity, "of", by_everything),
        pytest.raises(AssertionError, match="critic"),
    ):
        checks.shared_stages_are_trained_once(trials["omsd"])

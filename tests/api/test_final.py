"""The final evaluation: fresh starts, pieces, what is kept and what is played again; and `evaluate`."""

import contextlib
import dataclasses
import io
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxomarl
from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan, session
from jaxomarl.api.evaluate import RunBatch, check_variant, evaluate
from jaxomarl.api.plan import find_system
from jaxomarl.api.policy import shapes
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.config import config, scaled_fields, static, static_fields
from jaxomarl.data.stats import identity
from jaxomarl.envs.catalog import make
from jaxomarl.presets import PRESETS
from jaxomarl.results import store
from jaxomarl.training import evaluation, final

SPREAD = (
    "--task",
    "mpe/spread",
    "--data",
    "random",
    "--rows",
    "200",
    "--episodes",
    "2",
    "--seeds",
    "2",
)
SMALL = ("--cfg.policy-steps", "2", "--cfg.policy-width", "8", "--cfg.policy-batch", "8")


def run(command, *flags):
    """(exit code, stdout, stderr) of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")  # leave the devices of this process as they are
        code = commands.run(command, list(flags))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """OUT of a finished run of two seeds with four final episodes; tests that write take a copy."""
    folder = tmp_path_factory.mktemp("final") / "out"
    code, _, err = run(
        "train", "bc", *SPREAD, *SMALL, "--final-episodes", "4", "--out", str(folder)
    )
    assert code == 0, err
    return folder


@pytest.fixture
def copy(out, tmp_path):
    return Path(shutil.copytree(out, tmp_path / "out"))


def finals(folder, name=store.FINAL):
    """The bytes of each seed's file."""
    return {r.info["seed"]: (r.path / name).read_bytes() for r in store.find_runs([folder])}


def executed(folder):
    return {p.parent.name: p.read_text() for p in folder.glob("stages/*/executed")}


# --- starts and pieces ---


def bits(keys):
    return {tuple(key) for key in np.asarray(jax.random.key_data(keys)).tolist()}


def test_fresh_starts_are_a_seeds_own_and_none_of_training():
    mine, other = final.reset_keys(0, 64), final.reset_keys(1, 64)
    assert len(bits(mine)) == 64
    seen = (
        bits(evaluation.reset_keys(256))
        | bits(evaluation.act_keys(0, 100, 64))
        | bits(final.act_keys(0, 64))
    )
    assert not bits(mine) & bits(other)
    assert not bits(mine) & seen
    assert not bits(final.act_keys(0, 64)) & bits(evaluation.act_keys(0, 100, 64))
    assert not bits(final.act_keys(0, 64)) & bits(final.act_keys(1, 64))


def test_more_episodes_begin_with_the_same_starts():
    few, many = (jax.random.key_data(final.reset_keys(3, count)) for count in (5, 64))
    np.testing.assert_array_equal(few, many[:5])


def test_a_piece_is_a_rule_of_sizes():
    assert final.piece("cpu", 1024, 16, 10**6) == final.WIDTH
    assert final.piece("cpu", 8, 16, 10**6) == 8
    assert final.piece("gpu", 1024, 16, 100) == 1024
    assert final.piece("gpu", 1024, 16, 10**6) == final.ROOM // (8 * 16 * 10**6)
    assert final.piece("gpu", 1024, 16, 10**12) == 1


def test_the_largest_array_is_found_inside_loops():
    def f(x):
        return jax.lax.scan(lambda c, _: (c + (x[:, None] * x).sum(), None), 0.0, None, length=3)[0]

    assert final.largest_array(f, jnp.ones(50)) == 2500


@pytest.fixture(scope="module")
def policies():
    """Three of BC's policies on spread, with numbers drawn at random."""
    task, system = make("mpe/spread"), REGISTRY["bc"]
    cfg = system.Config(policy_width=16)
    tree = shapes(system, cfg, system.pipeline(task.env.spec, cfg, None), task.env.spec)
    rng = np.random.default_rng(0)

    def drawn(x):
        many = (3, *x.shape)
        numbers = rng.normal(size=many) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(many)
        return jnp.asarray(numbers, x.dtype)

    return task, system, cfg, jax.tree.map(drawn, tree)


def rolled(policies, rows, episodes, **more):
    task, system, cfg, tree = policies
    state, past = jax.tree.map(lambda x: x[jnp.array(rows)], tree)
    cfgs = [cfg] * len(rows)
    return final.roll_out(
        task.env, system.pipeline, task.env.spec, cfgs, rows, state, past, episodes, **more
    )


def test_pieces_and_neighbours_change_no_bit(policies, monkeypatch):
    monkeypatch.setattr(final, "WIDTH", 4)
    all_of = rolled(policies, [0, 1, 2], 6)  # a whole piece and one that is filled up
    assert all_of["return"].shape == (3, 6)
    assert np.ptp(all_of["return"], axis=0).min() > 0
    alone = rolled(policies, [1], 6)
    more = rolled(policies, [2, 1], 12)
    for name, values in all_of.items():
        np.testing.assert_array_equal(alone[name][0], values[1])
        np.testing.assert_array_equal(more[name][::-1, :6], values[1:])
    monkeypatch.setattr(final, "WIDTH", 12)
    whole = rolled(policies, [0, 1, 2], 12)
    np.testing.assert_array_equal(whole["return"][1:], more["return"][::-1])


def test_attempts_share_their_start(policies):
    """BC draws nothing, so that the same start gives the same return."""
    shown = rolled(policies, [0, 1], 3, attempts=2)["return"].reshape(2, 3, 2)
    np.testing.assert_array_equal(shown[..., 0], shown[..., 1])
    once = rolled(policies, [0, 1], 6)["return"]
    np.testing.assert_array_equal(shown[..., 0], once[:, :3])


def test_it_stops_between_pieces(policies, monkeypatch):
    monkeypatch.setattr(final, "WIDTH", 4)
    pauses = []

    def pause():
        pauses.append(1)
        if len(pauses) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        rolled(policies, [0, 1, 2], 6, pause=pause)


# --- what a run keeps ---


def test_final_csv_is_of_the_last_step_and_of_other_starts_than_training(out):
    for r in store.find_runs([out]):
        rows, curve = (store.read_rows(r.path / name) for name in (store.FINAL, "returns.csv"))
        assert {(x.stage, x.step) for x in rows} == {(r.info["final_stage"], 2)}
        assert [x.episode for x in rows if x.metric == "return"] == [0, 1, 2, 3]
        assert {x.metric for x in rows} == {x.metric for x in curve}
        assert r.info["final_episodes"] == 4
        assert r.info["episodes"] == 2
        assert not {x.value for x in rows if x.metric == "return"} & {
            x.value for x in curve if x.metric == "return"
        }
        assert r.info["data_return"]["episodes"] == 8
        assert set(r.info["data_return"]) == {"mean", "std", "episodes"}
    one, two = finals(out).values()
    assert one != two
    (row,) = store.read_table(out / "summary.csv")
    assert (row["episodes"], row["starts"]) == ("4", "fresh")


def test_two_systems_meet_the_same_starts():
    """A policy that does nothing has the same returns whatever its system is called."""
    task = make("mpe/spread")
    still = []
    for name in ("bc", "td3-bc"):
        system = REGISTRY[name]
        cfg = system.Config(policy_width=8)
        tree = shapes(system, cfg, system.pipeline(task.env.spec, cfg, None), task.env.spec)
        state, past = jax.tree.map(lambda x: jnp.zeros((2, *x.shape), x.dtype), tree)
        past["stats"] = jax.tree.map(lambda x: jnp.stack([x, x]), identity(task.env.spec))
        shown = final.roll_out(
            task.env, system.pipeline, task.env.spec, [cfg] * 2, [0, 1], state, past, 3
        )
        still.append(shown["return"])
    np.testing.assert_array_equal(*still)
    assert not set(still[0][0]) & set(still[0][1])


def test_resume_plays_nothing_again_and_more_episodes_train_nothing(out, copy, monkeypatch):
    flags = ("train", "bc", *SPREAD, *SMALL, "--out", str(copy), "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(session, "roll_out", lambda *_, **__: pytest.fail("rolled out again"))
        assert run(*flags, "--final-episodes", "4")[0] == 0
    assert finals(copy) == finals(out)

    code, _, _ = run(*flags, "--final-episodes", "6")
    assert code == 0
    assert executed(copy) == executed(out)
    for r in store.find_runs([copy]):
        assert len([x for x in store.read_rows(r.path / store.FINAL) if x.metric == "return"]) == 6
        assert r.info["final_episodes"] == 6

    code, _, err = run(*flags, "--final-episodes", "4")  # fewer would throw numbers away
    assert code == 2
    assert "final_episodes" in err
    assert len(finals(copy)[0]) > len(finals(out)[0])


def test_resume_keeps_what_evaluate_added(out, copy):
    evaluate([copy], episodes=5, say=lambda line: None)
    longer = finals(copy)
    code, text, err = run(
        "train", "bc", *SPREAD, *SMALL, "--out", str(copy), "--resume", "--final-episodes", "4"
    )
    assert code == 0, err
    assert finals(copy) == longer != finals(out)
    assert "made again" not in err + text


def test_a_lost_or_torn_file_is_made_again_to_the_byte(out, copy):
    first, second = sorted((r.path / store.FINAL for r in store.find_runs([copy])), key=str)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-30])
    code, _, err = run(
        "train", "bc", *SPREAD, *SMALL, "--out", str(copy), "--resume", "--final-episodes", "4"
    )
    assert code == 0
    assert "torn" in err
    assert finals(copy) == finals(out)
    assert executed(copy) == executed(out)


def test_python_gives_the_final_returns(out):
    small = {"policy_steps": 2, "policy_width": 8, "policy_batch": 8}
    found = jaxomarl.train(
        "bc", "mpe/spread", "random", seeds=2, rows=200, episodes=2, final_episodes=4, **small
    ).returns["bc"]
    for r in store.find_runs([out]):
        rows = store.read_rows(r.path / store.FINAL)
        assert found[r.info["seed"]].tolist() == [x.value for x in rows if x.metric == "return"]


def test_dear_stages_take_fewer_unless_told():
    (group,) = plan.resolve(
        ["madiff-d"], ["mpe/spread"], ["random"], 1, rows=200, overrides={"episodes": [2]}
    )
    assert group.final_episodes == 2 * final.FEWER
    assert dataclasses.replace(group, asked_final=100).final_episodes == 100
    assert final.default_episodes(1024, 0) == 1024
    assert final.default_episodes(128, 100) == 128
    assert (make("games/bandit").final_episodes, make("mpe/tag").final_episodes) == (1024, 1024)
    assert make("mamujoco/3hopper").final_episodes == 128


# --- evaluate ---


def test_evaluate_reproduces_final_csv_from_the_policies_alone(out, copy):
    shutil.rmtree(copy / "stages")
    for r in store.find_runs([copy]):
        (r.path / store.FINAL).unlink()
    one = store.find_runs([copy])[1]
    code, _, err = run("evaluate", str(one.path))  # alone, then both
    assert code == 0, err
    assert (one.path / store.FINAL).read_bytes() == finals(out)[one.info["seed"]]
    code, text, err = run("evaluate", str(copy))
    assert code == 0, err
    assert finals(copy) == finals(out)
    assert "1 runs" in err
    (record,) = evaluate([copy], say=lambda line: pytest.fail(line))
    assert (record.seeds, record.episodes, record.starts) == (2, 4, "fresh")
    assert record.system in text
    assert f"{record.mean:.1f}" in text


def test_evaluate_reads_fewer_episodes_and_replaces_fewer_by_more(out, copy):
    (few,) = evaluate([copy], episodes=3, say=lambda line: pytest.fail(line))
    assert few.episodes == 3
    assert finals(copy) == finals(out)
    said = []
    (more,) = evaluate([copy], episodes=5, say=said.append)
    assert more.episodes == 5
    assert sum("4 episodes" in line and "made again with 5" in line for line in said) == 2


def test_evaluate_in_a_variant(out, copy):
    slow = "mpe/spread:speed_min=0.3"
    code, text, err = run("evaluate", str(copy), "--task", slow, "--episodes", "3")
    assert code == 0, err
    assert slow in text
    assert finals(copy) == finals(out)
    name = "final-mpe-spread-speed_min-0.3.csv"
    for content in finals(copy, name).values():
        assert slow.encode() in content
    (again,) = evaluate([copy], slow, 3, say=lambda line: pytest.fail(line))
    assert (again.task, again.episodes, again.normalised) == (slow, 3, None)
    code, _, err = run("evaluate", str(copy), "--task", "mpe/tag")
    assert code == 2
    assert "--task" in err


@pytest.mark.parametrize("variant", ["games/twin-peaks", "games/four-gaussians"])
def test_evaluate_takes_no_other_task_of_equal_shapes(variant):
    own = make("games/bandit")
    run_of = store.Run(Path("run"), {"spec": {}})
    last = find_system("bc").pipeline(own.env.spec, find_system("bc").Config(), None)[-1]
    batch = RunBatch([run_of], [], own, last)
    check_variant(batch, own)
    assert make(variant).env.spec == own.env.spec
    with pytest.raises(JaxomarlError, match="--task: expected games/bandit, or a variant of it"):
        check_variant(batch, make(variant))


def test_evaluate_hides_no_divergence(copy):
    from safetensors.numpy import load_file, save_file

    run_of = {r.info["seed"]: r for r in store.find_runs([copy])}
    file = run_of[1].path / "policy.safetensors"
    arrays = {name: np.full_like(x, np.nan) for name, x in load_file(file).items()}
    save_file(arrays, file, metadata={"format": "1"})
    (run_of[1].path / store.FINAL).unlink()
    (record,) = evaluate([copy], say=lambda line: None)
    assert (record.seeds, record.nonfinite) == (2, 1)
    assert np.isfinite(record.mean)
    rows = store.read_rows(run_of[1].path / store.FINAL)
    assert np.isnan([x.value for x in rows if x.metric == "return"]).all()


def test_evaluate_refuses_what_is_not_finished(out, copy, tmp_path):
    for r in store.find_runs([copy]):
        (r.path / "policy.safetensors").unlink()
    said = []
    with pytest.raises(JaxomarlError, match="at least one finished run"):
        evaluate([copy], say=said.append)
    assert len(said) == 2
    with pytest.raises(JaxomarlError):
        evaluate([tmp_path / "nowhere"])
    with pytest.raises(JaxomarlError, match="--episodes"):
        evaluate([out], episodes=-1)


# --- how often a run is evaluated in training ---


def chunks_and_marks(cfg):
    """(updates, evaluations after the first of them) of the stage that acts last."""
    values = static_fields(cfg)
    together = values.get("augment_refresh", 1)
    chunk = values["chunk"] * together
    length = values["policy_steps"]
    if values.get("sampler") == "consistency" and "student_steps" in values:
        length = min(length, values["student_steps"])
    chunks = length // min(chunk, length)
    every = max(1, values["every"] // together)
    return length, -(-chunks // every)


SCALES = (1.0, 3.0, 0.3, 0.1, 0.0123, 0.003, 1e-4, 1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_at_least_ten_evaluations_whatever_the_scale(scale):
    seen = 0
    for preset in PRESETS.values():
        for base in set(preset.systems) & set(REGISTRY):
            for name in (base,) if REGISTRY[base].online else (base, f"{base}+coda"):
                given = {k: v for k, v in preset.cfg.items() if k in plan.config_field_names(name)}
                ((cfg, _),) = plan.configs(name, given, {}, scale)
                length, marks = chunks_and_marks(cfg)
                assert marks >= min(10, length), (name, preset.name, cfg)
                for field, value in scaled_fields(cfg, "steps").items():
                    assert value % min(cfg.chunk, value) == 0, (name, preset.name, field)
                seen += 1
    assert seen > 60


def test_enough_evaluations_change_nothing():
    given = {"policy_steps": 100_000, "chunk": 1000, "every": 10}
    ((cfg, _),) = plan.configs("bc", given, {}, 1.0)
    assert cfg == REGISTRY["bc"].Config(**given)
    ((fewer, _),) = plan.configs("bc", {**given, "every": 50}, {}, 1.0)
    assert (fewer.chunk, fewer.every) == (1000, 10)  # training's own numbers stay


@pytest.mark.parametrize(
    ("given", "overrides", "scale", "wanted"),
    [
        ({}, {}, 0.01, (1000, 100, 1)),  # of 100,000 steps in chunks of 1000
        ({}, {}, 1e-4, (10, 1, 1)),
        ({}, {}, 5e-5, (5, 1, 1)),
        ({}, {"chunk": [1000]}, 0.01, (1000, 1000, 1)),  # what is asked for wins
        ({}, {"every": [7]}, 0.01, (1000, 100, 7)),
        ({}, {"chunk": [5], "every": [2], "policy_steps": [20]}, 1.0, (20, 5, 2)),
        ({}, {"policy_steps": [25]}, 1.0, (25, 1, 2)),  # 2 does not divide it
        ({}, {"policy_steps": [1500]}, 0.5, (1500, 150, 1)),  # and is not scaled
    ],
)
def test_the_rule(given, overrides, scale, wanted):
    base = {"policy_steps": 100_000, "chunk": 1000, "every": 10, **given}
    ((cfg, _),) = plan.configs("bc", base, overrides, scale)
    assert (cfg.policy_steps, cfg.chunk, cfg.every) == wanted


@config
class OwnWords:
    """Lengths under other names than the package's."""

    steps: int = static(default=7)
    chunk: int = static(default=5)
    width: int = static(default=64)


@config
class OneStage:
    """A stage that is not called policy, evaluated after every chunk."""

    model_steps: int = static(default=100, scaled="steps")
    chunk: int = static(default=50)


def test_systems_with_other_names_for_their_lengths():
    assert plan.scaled(OwnWords(), 1.0) == plan.scaled(OwnWords(), 0.1) == OwnWords()
    assert plan.scaled(OneStage(), 1.0) == OneStage(chunk=10)
    assert plan.scaled(OneStage(), 0.5) == OneStage(model_steps=50, chunk=5)

"""Runs whose numbers stop being finite: named with their swept values, frozen, and in every table."""

import contextlib
import io
import shutil

import jax
import numpy as np
import pytest

import jaxomarl
from jaxomarl.base import JaxomarlError
from jaxomarl.results import store, tables
from jaxomarl.training import divergence

GOOD, BAD = 0.001, 1e38
SMALL = dict(
    rows=64, episodes=2, final_episodes=2, seeds=2, chunk=2, every=1, policy_steps=8, policy_batch=8, policy_width=8, save_every=0.0,
)  # fmt: skip


def train(out, *rates, **more):
    """Behaviour cloning at some learning rates, two seeds each."""
    return jaxomarl.train("bc", "games/bandit", policy_lr=list(rates), out=out, **SMALL, **more)


def numbers(out, rate=None):
    """Tables and policies by name, of the runs with this rate."""
    runs = [r for r in store.find_runs([out]) if rate in (None, r.info["cfg"]["policy_lr"])]
    files = [p for r in runs for p in r.path.iterdir() if p.suffix in (".csv", ".safetensors")]
    return {p.relative_to(out): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(results, OUT, states after each chunk, stderr) of a good and a bad rate, two seeds each."""
    out = tmp_path_factory.mktemp("swept") / "out"
    states = []
    copy = lambda group, p: states.append(jax.tree.map(np.array, p.state))
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        results = train(out, GOOD, BAD, report=copy)
    return results, out, states, said.getvalue()


@pytest.mark.long
def test_the_other_runs_are_what_they_are_alone(swept, tmp_path):
    train(tmp_path / "out", GOOD, progress=False)
    alone = numbers(tmp_path / "out")
    assert len(alone) == 2 * 5
    assert numbers(swept[1], GOOD) == alone


def test_a_diverged_run_stays_as_it_is(swept):
    leaves = [jax.tree.leaves(state) for state in swept[2]]
    assert len(leaves) == 4
    for r, moves in ((0, True), (2, False), (3, False)):
        same = [
            np.array_equal(a[r], b[r], equal_nan=True)
            for a, b in zip(leaves[0], leaves[-1], strict=True)
        ]
        assert all(same) != moves
    assert not all(np.isfinite(leaf[2]).all() for leaf in leaves[0])


def test_it_is_named_in_the_run_and_in_every_table(swept):
    results, out, *_ = swept
    for run in store.find_runs([out]):
        stages = run.info["diverged"]
        assert bool(stages) == (run.info["cfg"]["policy_lr"] == BAD)
        for found in stages:
            assert found["stage"] == "policy" and found["update"] in (1, 2) and "." in found["leaf"]
    rows = {r.swept: r for r in results.records}
    bad = rows[f"policy_lr={BAD}"]
    assert bad.nonfinite == 2 and rows[f"policy_lr={GOOD}"].nonfinite == 0
    assert bad.diverged.startswith("seed 0: policy at update") and "; seed 1: " in bad.diverged
    for text in (results.table, (out / "summary.md").read_text(), results._repr_html_()):
        text = " ".join(text.split())
        assert f"bc policy_lr={BAD} on games/bandit/std0.3, seed 0: policy at update" in text


def test_lines_name_seed_and_swept_value(swept):
    said = swept[3]
    for seed in (0, 1):
        assert f"policy, seed {seed} policy_lr={BAD} has diverged: " in said
    assert f"policy_lr={GOOD} " not in said
    assert "other runs continue" in said


def test_it_stays_frozen_when_the_sweep_is_resumed(swept, tmp_path):
    out = shutil.copytree(swept[1], tmp_path / "out")
    (stage,) = out.glob("stages/*")
    assert (stage / divergence.FILE).exists()
    (stage / "DONE").unlink()
    shutil.rmtree(stage / "checkpoints" / "4")
    for path in out.rglob("policy.safetensors"):
        path.unlink()
    train(out, GOOD, BAD, resume=True, progress=False)
    assert (stage / "executed").read_text().split() == ["1", "2", "3", "4", "4"]
    assert numbers(out) == numbers(swept[1])


def test_finite_returns_hide_no_divergence(swept):
    """The policy of discrete actions acts by the largest output, and NaN has one."""
    results = swept[0]
    runs = [r for r in results.runs if not r.info["diverged"]]
    found = {"stage": "critic", "update": 7, "metric": "", "leaf": "critic.params"}
    runs[1] = runs[1]._replace(info={**runs[1].info, "diverged": [found]})
    keep = lambda rows: [row for row in rows if row.config == runs[0].info["config"]]
    (record,) = tables.summary(keep(results.rows), runs, keep(results.final))
    assert (record.nonfinite, record.seeds) == (1, 2)
    assert record.diverged == "seed 1: critic at update 7 (critic.params)"


def test_the_first_update_and_the_first_array():
    metrics = {
        "a": np.array([[0, 1, 2], [0, np.nan, 0]]),
        "b": np.array([[0, 1, 2], [np.inf, 0, 0]]),
    }
    assert divergence.first_bad_updates(metrics) == {1: (0, "b")}
    state = {
        "x": np.array([[1.0], [np.nan]]),
        "n": np.array([1, 2]),
        "z": np.array([np.inf, np.inf]),
    }
    bad = divergence.bad_leaves(state, 2)
    assert bad == {0: ["z"], 1: ["x", "z"]}
    assert divergence.everywhere(bad, 2) == {"z"} and divergence.everywhere({1: ["x"]}, 2) == set()
    assert divergence.bad_leaves(state, 1) == {0: ["z"]}


def test_a_damaged_file_is_refused(tmp_path):
    found = {"row": divergence.Divergence(3, "loss", "w")}
    divergence.write(tmp_path, found, {"z"})
    assert divergence.read(tmp_path, 3) == (found, {"z"})
    assert divergence.read(tmp_path, 2) == ({}, {"z"})
    text = (tmp_path / divergence.FILE).read_text().replace('"update": 3', '"update": 4')
    (tmp_path / divergence.FILE).write_text(text)
    with pytest.raises(JaxomarlError, match="damaged"):
        divergence.read(tmp_path, 3)

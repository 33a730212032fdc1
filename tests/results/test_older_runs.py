"""Results that version 0.1.0 wrote are read: policies act, and runs are scored again.

The fixture is what this printed, its pictures and all but the last checkpoints removed:

    python -m experiments.sweep --systems bc omsd --seeds 1 --scale 0.003 --final-episodes 8 --out OUT
"""

import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxomarl
from jaxomarl.api import session
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.envs.catalog import make
from jaxomarl.results import store

HELD = Path(__file__).parent / "files" / "run-0.1.0.tar.gz"
SYSTEMS = ("bc", "omsd")


@pytest.fixture
def out(tmp_path):
    with tarfile.open(HELD) as held:
        held.extractall(tmp_path, filter="data")
    return tmp_path


def runs(out):
    return {run.info["system"]: run for run in store.find_runs([out])}


def played(run):
    """The joint action of its final evaluation."""
    rows = [row for row in store.read_rows(run.path / store.FINAL) if row.episode == 0]
    return [next(row.value for row in rows if row.metric == f"action_{i}") for i in (1, 2)]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_policy_acts_as_it_did(out, system):
    run = runs(out)[system]
    _, first = make("games/bandit").env.reset(jax.random.key(0))
    action = jaxomarl.load(run.path).act(first.obs)
    np.testing.assert_allclose(np.asarray(action)[:, 0], played(run), atol=1e-6)


def test_runs_are_scored_again_from_their_policies(out, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    before = {name: played(run) for name, run in runs(out).items()}
    for run in runs(out).values():
        (run.path / store.FINAL).unlink()
    assert commands.run("evaluate", [str(out), "--episodes", "8"]) == 0
    for name, run in runs(out).items():
        np.testing.assert_allclose(played(run), before[name], atol=1e-6)


def test_a_sweep_does_not_go_on_with_them_and_says_why(out):
    held = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    asked = session.asked("mode-seeking", {}, 0, 0, 0.003, 8)
    with pytest.raises(JaxomarlError, match=r"version 0.1.0's, of all episodes.*--out takes"):
        session.check_folder(out, asked, resume=True, overwrite=False)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == held


def test_nobody_measured_the_health_of_their_stages(out, capsys):
    assert commands.run("health", [str(out)]) == 2
    assert "2 without" in capsys.readouterr().err
    assert {store.health_of(run) == [] for run in runs(out).values()} == {True}

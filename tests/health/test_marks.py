"""A stage that is shared has its figures where they were measured, however often policies are evaluated."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxomarl.cli import commands
from jaxomarl.results import store
from jaxomarl.training import program
from jaxomarl.training.program import Program

FLAGS = [
    "iql", "--task", "games/bandit", "--seeds", "1", "--rows", "100", "--episodes", "2",
    "--final-episodes", "2", "--cfg.critic-steps", "8", "--cfg.policy-steps", "8", "--cfg.chunk", "1",
    "--cfg.critic-width", "8", "--cfg.critic-batch", "8", "--cfg.policy-width", "8",
    "--cfg.policy-batch", "8",
]  # fmt: skip


def train(out, *flags):
    assert commands.run("train", [*FLAGS, "--out", str(out), *flags]) == 0


def bias(out):
    """How often a run evaluates -> step -> the critic's bias."""
    found = {}
    for run in store.find_runs([out]):
        rows = [r for r in store.read_rows(run.path / "health.csv") if r.metric == "value_bias"]
        found[run.info["cfg"]["every"]] = {r.step: r.value for r in rows}
    return found


def test_figures_are_measured_so_seldom_that_they_cost_little():
    """On 50 rows, with 10 updates of 64 rows between two marks: after 5,000 rows, thus every eighth."""
    one = SimpleNamespace(
        job=SimpleNamespace(held=SimpleNamespace(starts=np.zeros(50))),
        stage=SimpleNamespace(health=SimpleNamespace(at_end=False)),
        marks=range(1, 21),
        chunks=20,
        chunk=10,
        batch_rows=64,
    )
    assert Program.measured.func(one) == {8, 16, 20}
    one.stage.health.at_end = True
    assert Program.measured.func(one) == {20}
    one.stage.health = None
    assert Program.measured.func(one) == set()


def test_figures_of_a_shared_stage_stand_where_they_were_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "DRAWN", 0)
    train(tmp_path / "a", "--cfg.every", "3", "4")
    measured_in_one_command(tmp_path / "a")


def measured_in_one_command(out):
    """Check the figures, and return them."""
    found = bias(out)
    assert list(found[3]) == [3, 6, 8] and np.isfinite(list(found[3].values())).all()
    assert list(found[4]) == [4, 8]
    assert np.isnan(found[4][4]) and found[4][8] == found[3][8]
    return found


@pytest.mark.long
def test_figures_are_taken_from_the_files_of_another_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program, "DRAWN", 0)
    train(tmp_path / "a", "--cfg.every", "3", "4")
    found = measured_in_one_command(tmp_path / "a")
    train(tmp_path / "b", "--cfg.every", "2", "--from", str(tmp_path / "a"))
    shown = capsys.readouterr()
    assert "cannot be read" not in shown.out + shown.err
    (again,) = bias(tmp_path / "b").values()
    assert [step for step, value in again.items() if np.isfinite(value)] == [6, 8]
    assert again[6] == found[3][6]
    (run,) = store.find_runs([tmp_path / "b"])
    assert run.info["stages"]["critic"]["every"] == 3, "it was not trained again"

"""Every block of docs/extend.md runs as it is printed, in order and in one folder."""

import re
import runpy
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import register
from jaxomarl.cli import commands
from jaxomarl.envs import catalog

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
OWN = "".join(text for kind, text in BLOCKS if kind == "python" and text.startswith("# own.py"))
PROGRAM = "".join(
    text for kind, text in BLOCKS if kind == "python" and not text.startswith("# own.py")
)
COMMANDS = [
    line
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.replace("\\\n", " ").splitlines()
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with own.py; what it registers is gone afterwards."""
    tables = (REGISTRY, catalog.TASKS, register.MODULES, register._loaded)
    before = [dict(table) for table in tables]
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN, encoding="utf-8")
    yield tmp_path
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def test_the_page_has_the_blocks_that_it_speaks_of():
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["python"] * 4 + ["bash"] + ["python"] * 2
    assert all(sum(map(bool, text.splitlines())) <= 12 for _, text in BLOCKS), "examples are short"


def test_the_commands_are_understood(capsys):
    """What the sweep would train; the long test trains it, two systems on two tasks."""
    program, command, *flags = shlex.split(COMMANDS[0])
    assert (program, command) == ("jaxomarl", "sweep")
    assert commands.run(command, [*flags, "--dry-run"]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "noisy-bc" in shown and "own/apart:distance=0.25" in shown


@pytest.mark.long
def test_the_commands_run(capsys):
    for line in COMMANDS:
        program, command, *flags = shlex.split(line)
        assert program == "jaxomarl" and commands.run(command, flags) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        assert "noisy-bc" in shown and "own/apart:distance=0.25" in shown


def test_the_environment_of_several_steps_generates_data():
    """Rewards follow from the successor rows, and nothing terminates."""
    runpy.run_path("own.py")
    task = catalog.make("own/meet:horizon=4")
    rows = task.recipes["random"](jax.random.key(0), 8)
    live = np.asarray(rows.left) > 0
    assert live.sum() == 8 and not np.asarray(rows.done).any()
    after = np.asarray(rows.state)[1:][live[:-1]]
    apart = -np.abs(after[:, 0] - after[:, 1])
    np.testing.assert_allclose(np.asarray(rows.reward)[live], np.stack([apart] * 2, axis=1))


def test_the_program_runs(capsys):
    Path("program.py").write_text(PROGRAM, encoding="utf-8")
    made = runpy.run_path("program.py")
    assert made["data"].manifest["episodes"] == 3 and np.shape(made["action"]) == (2, 1)
    assert made["figure"].axes
    assert (
        "policy_lr | policy_lr=: expected a positive number, found -1.0." in capsys.readouterr().out
    )

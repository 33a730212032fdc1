"""`--dry-run` for every registered system on several kinds of task, and what training refuses it refuses too."""

from pathlib import Path

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands, dry_run
from jaxomarl.cli.fields import stated_task
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make

TASKS = {"games/bandit": 40, "games/climbing": 40, "games/xor": 40, "mpe/spread": 50, "mpe/tag": 50}
ONLINE = (None, {"quality": "online", "sha256": ""})


@pytest.fixture(scope="module")
def data():
    return {name: load(make(name), rows=rows) for name, rows in TASKS.items()}


def planned(name, task, data, **fields):
    """The text of a dry run; a width and a batch that are small make nothing quicker, as nothing is trained."""
    system = plan.find_system(name)
    dataset, manifest = ONLINE if system.online else data[task]
    small = {
        f: v
        for f, v in {"policy_batch": 8, "flow_batch": 8, "horizon": 3, "history": 0}.items()
        if f in plan.config_field_names(name)
    }
    cfgs = plan.configs(name, {**small, **fields}, {})
    groups = plan.groups(name, make(task), manifest["quality"], dataset, manifest, cfgs, [0, 1])
    return "\n".join(dry_run.plan_lines(groups, Path("out"), 1 << 50))


@pytest.mark.parametrize("name", [*REGISTRY, "bc+coda"])
def test_every_system_says_what_it_would_train(name, data):
    stated = stated_task(name)
    text = planned(name, stated, data)
    assert f"{name} on {stated}/" in text and "2 runs; updates: " in text and "MiB" in text


EVERYWHERE = ("bc", "omsd", "dof-t", "qmix")
"""A clone, a critic's policies, a planner and choices; a plan traces all of a system at its full size."""


@pytest.mark.parametrize(
    "name",
    [
        n if n in EVERYWHERE else pytest.param(n, marks=pytest.mark.long)
        for n in (*REGISTRY, "bc+coda")
    ],
)
def test_it_does_on_other_tasks_or_is_refused_as_in_training(name, data):
    for task in ("games/bandit", "games/climbing", "mpe/tag"):
        try:
            assert f"{name} on {task}/" in planned(name, task, data)
        except (
            JaxomarlError
        ) as error:  # as in training: a discrete task, a game of one step for a planner
            assert str(error).startswith("--")


def test_what_a_folder_would_refuse_is_refused_after_the_plan(tmp_path, capfd):
    (tmp_path / "thesis.tex").write_text("years of work")
    flags = ["bc", "--rows", "40", "--out", str(tmp_path), "--dry-run", "--cfg.policy-batch", "8"]
    assert commands.run("train", flags) == 2
    said = capfd.readouterr()
    assert "bc on games/bandit/" in said.out
    assert "one that jaxomarl made" in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

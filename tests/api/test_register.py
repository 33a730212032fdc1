"""Systems and tasks from outside: known wherever a name is taken, refused where the registry's own would be."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import owned
import pytest

import jaxomarl
from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan, register, runtime
from jaxomarl.base import JaxomarlError, Stage, System
from jaxomarl.cli import commands
from jaxomarl.config import config, static
from jaxomarl.envs import catalog

FILE = """
import jaxomarl
import owned

jaxomarl.register_system("mean-action", owned.MEAN)
jaxomarl.register_task("own/bandit", owned.quiet_bandit)
"""


@pytest.fixture(autouse=True)
def registries():
    """What a test registers is gone after it."""
    tables = (REGISTRY, catalog.TASKS, register.MODULES, register._loaded)
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.fixture
def own():
    jaxomarl.register_system("mean-action", owned.MEAN)
    jaxomarl.register_task("own/bandit", owned.quiet_bandit)


# --- in Python ---


def test_it_trains_evaluates_and_loads(own, tmp_path):
    results = jaxomarl.train(
        "mean-action", "own/bandit", seeds=2, rate=[0.1, 0.2], out=tmp_path, **owned.TINY
    )
    assert {record.system for record in results.records} == {"mean-action"} and len(
        results.records
    ) == 2
    folder = results.runs[0].path
    assert "own-bandit" in folder.parts
    info = json.loads((folder / "run.json").read_text())
    assert info["imports"] == ["owned"] and info["task"] == "own/bandit"
    assert json.loads((tmp_path / "sweep.json").read_text())["imports"] == ["owned"]
    action = jaxomarl.load(folder).act(np.ones((2, 1)))
    assert np.shape(action) == (2, 1)

    del REGISTRY["mean-action"]
    with pytest.raises(
        JaxomarlError, match=r"^run: expected a system among .*Register it first: import owned$"
    ):
        jaxomarl.load(folder)


def test_our_own_rows_say_nothing_of_imports(tmp_path):
    jaxomarl.train(
        "bc", "games/bandit", out=tmp_path, rows=40, episodes=2, final_episodes=3, scale=0.003
    )
    assert "imports" not in json.loads(next(tmp_path.rglob("run.json")).read_text())
    assert "imports" not in json.loads((tmp_path / "sweep.json").read_text())


def test_it_is_augmented_and_has_parameters(own):
    assert plan.find_system("mean-action+coda") is plan.find_system("mean-action+coda")
    assert {"rate", "augment_lambda"} <= set(plan.config_field_names("mean-action+coda"))
    assert catalog.parameters("own/bandit") == {"scale": 1.0}
    task = catalog.make("own/bandit:scale=2")
    assert task.name == "own/bandit:scale=2" and catalog.make("own/bandit:scale=2.0") is task
    assert register.modules("mean-action+coda", "own/bandit:scale=2", "bc", "games/bandit") == [
        "owned"
    ]


def test_the_same_again_changes_nothing_and_another_takes_its_place_where_asked(own):
    jaxomarl.register_system("mean-action", owned.MEAN)
    jaxomarl.register_task("own/bandit", owned.quiet_bandit)
    other = owned.MEAN._replace(prepare=lambda spec, cfg, data: data)
    with pytest.raises(
        JaxomarlError, match=r"^system: expected a name that is not taken.*replace=True"
    ):
        jaxomarl.register_system("mean-action", other)
    jaxomarl.register_system("mean-action", other, replace=True)
    assert REGISTRY["mean-action"] is other

    before = catalog.make("own/bandit")
    jaxomarl.register_task(
        "own/bandit", lambda: owned.quiet_bandit()._replace(rows=7), replace=True
    )
    assert catalog.make("own/bandit") is not before and catalog.make("own/bandit").rows == 7


# --- at the command line ---


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own_rows.py").write_text(FILE)
    return "own_rows.py"


SWEEP = [
    *(
        "--systems",
        "mean-action",
        "bc",
        "--tasks",
        "own/bandit",
        "--seeds",
        "1",
        "--rows",
        "40",
        "--episodes",
        "2",
    ),
    *("--final-episodes", "3", "--scale", "0.003", "--cfg.drawn-rows", "8"),
]


def test_a_file_is_imported_for_a_sweep_and_for_what_reads_it(file, capsys):
    flags = ["--import", file, *SWEEP, "--out", "out"]
    assert commands.run("sweep", [*flags, "--dry-run"]) == 0
    assert "mean-action on own/bandit" in capsys.readouterr().out
    assert commands.run("sweep", flags) == 0
    assert "mean-action" in capsys.readouterr().out
    assert json.loads(Path("out/sweep.json").read_text())["imports"] == [file]

    run = str(next(Path("out").rglob("mean-action-*/*/run.json")).parent)
    del REGISTRY["mean-action"], catalog.TASKS["own/bandit"]
    register._loaded.clear()
    for command, more in (("evaluate", []), ("render", ["-o", "x.gif"])):
        assert commands.run(command, [run, *more]) == 2
        assert f"Register it first: --import {file}" in capsys.readouterr().err
    assert commands.run("evaluate", [run, "--import", file]) == 0
    assert "mean-action" in capsys.readouterr().out


@pytest.mark.long
def test_a_sweep_that_is_extended_keeps_what_it_imported(file, capsys):
    small = [
        "--tasks",
        "games/bandit",
        "--rows",
        "40",
        "--episodes",
        "2",
        "--final-episodes",
        "3",
        "--seeds",
        "1",
    ]
    small += ["--scale", "0.003", "--out", "out"]
    assert commands.run("sweep", ["--import", file, "--systems", "mean-action", *small]) == 0
    assert commands.run("sweep", ["--systems", "bc", *small, "--resume"]) == 0
    assert json.loads(Path("out/sweep.json").read_text())["imports"] == [file]
    assert "imports" not in json.loads(next(Path("out").rglob("bc-*/*/run.json")).read_text())


def test_devices_and_numbers_are_ours_before_a_module_starts_jax(file, monkeypatch):
    order = []
    monkeypatch.setattr(runtime, "pin_numbers", lambda: order.append("numbers"))
    monkeypatch.setattr(runtime, "use_cores", lambda: order.append("cores"))
    monkeypatch.setattr(register, "import_modules", lambda names: order.append(list(names)))
    commands.run("train", ["bc", "--import", "a", "--import=b.py", "--rows", "40", "--dry-run"])
    assert order[:3] == ["numbers", "cores", ["a", "b.py"]]


def test_a_module_of_the_present_folder(file, capsys):
    flags = [
        "mean-action",
        "--import=own_rows",
        "--rows",
        "40",
        "--cfg.drawn-rows",
        "8",
        "--dry-run",
    ]
    assert commands.run("train", flags) == 0
    assert register.MODULES["mean-action"] == "own_rows"


def test_its_fields_are_flags_only_where_it_is_imported(capsys):
    assert commands.run("train", ["bc", "--cfg.drawn-rows", "8"]) == 2
    assert "--cfg.drawn-rows: expected a flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nowhere", None, "--import: expected a module that is there, found 'nowhere'"),
        ("nowhere.py", None, "--import: expected a .py file that is there, found 'nowhere.py'"),
        ("broken.py", "x = 1\ny = 1 / 0", "ZeroDivisionError: division by zero"),
        ("broken.py", "x = 1\ny = 1 / 0", "broken.py, line 2"),
        (
            "taken.py",
            "import jaxomarl, owned\njaxomarl.register_system('bc', owned.MEAN)",
            "a name that is not taken",
        ),
    ],
)
def test_what_cannot_be_imported(name, text, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text:
        Path(name).write_text(text)
    assert commands.run("train", ["bc", "--import", name]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_imports_nothing_and_repeats_no_odd_name():
    info = {"system": "unknown", "task": "own/none", "imports": ["\x1b[31m", 3, "fine.py"]}
    with pytest.raises(JaxomarlError, match=r"Register it first: --import fine\.py$"):
        register.check_system(info)
    with pytest.raises(JaxomarlError, match="Use the version that wrote it"):
        register.check_system({**info, "imports": "fine.py"})
    with pytest.raises(JaxomarlError, match=r"Register it first: --import fine\.py$"):
        register.check_task(info)


# --- what is refused ---


@config
class Typed:
    chunk: float = 1.0


@config
class Listed:
    sizes: tuple = static(default=(1, 2))


@dataclasses.dataclass
class Undeclared:
    rate: float = 0.1


def staged(*stages):
    return owned.MEAN._replace(pipeline=lambda spec, cfg, env=None: stages)


STAGE = owned.pipeline(catalog.make("games/bandit").env.spec, owned.Config())[0]


@pytest.mark.parametrize(
    ("name", "system", "said"),
    [
        ("bc", owned.MEAN, "system: expected a name that is not taken"),
        ("a+b", owned.MEAN, "system: expected a name that can be a folder's"),
        ("../up", owned.MEAN, "system: expected a name that can be a folder's"),
        ("", owned.MEAN, "system: expected a name that can be a folder's"),
        ("own", owned.Config, "system own: expected a jaxomarl.base.System"),
        (
            "own",
            System(owned.Config, None, owned.prepare, owned.pipeline),
            "system own, check: expected a function",
        ),
        (
            "own",
            owned.MEAN._replace(Config=dict),
            "system own, Config: expected a class declared by",
        ),
        (
            "own",
            owned.MEAN._replace(Config=Undeclared),
            "system own, Config: expected a class declared by",
        ),
        (
            "own",
            owned.MEAN._replace(Config=Listed),
            "system own, Config.sizes: expected bool, int, float or str",
        ),
        (
            "own",
            owned.MEAN._replace(Config=Typed),
            "system own, Config.chunk: expected the type int",
        ),
        ("own", staged(), "system own, pipeline: expected a tuple of stages"),
        ("own", staged("stage"), "system own, pipeline: expected a tuple of stages"),
        ("own", staged(STAGE, STAGE), "system own, stage mean: expected each stage's name once"),
        ("own", staged(STAGE._replace(chunk=60)), "system own, stage mean: expected whole chunks"),
        (
            "own",
            staged(STAGE._replace(name="a/b")),
            "system own, stage a/b: expected a name that can be a folder's",
        ),
        (
            "own",
            staged(STAGE._replace(fields=("lr",))),
            "system own, stage mean, fields: expected fields of the",
        ),
    ],
)
def test_a_system_that_is_refused(name, system, said):
    with pytest.raises(JaxomarlError) as error:
        register.register_system.__wrapped__(name, system)
    assert str(error.value).startswith(said)
    assert REGISTRY.get(name) is not system and isinstance(STAGE, Stage)


BANDIT = catalog.make("games/bandit")


def stepped(**change):
    """The bandit whose time steps differ in these entries."""
    env = BANDIT.env

    def reset(key):
        state, shown = env.reset(key)
        return state, shown._replace(**change)

    return lambda: BANDIT._replace(env=env._replace(reset=reset))


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("own", owned.quiet_bandit, "task: expected a name like family/task"),
        ("own/a/b", owned.quiet_bandit, "task: expected a name like family/task"),
        ("own/..", owned.quiet_bandit, "task: expected a name that can be a folder's"),
        ("own/a:b", owned.quiet_bandit, "task: expected a name that can be a folder's"),
        ("jaxmarl/x", owned.quiet_bandit, "task: expected a name like family/task"),
        ("games/bandit", owned.quiet_bandit, "task: expected a name that is not taken"),
        ("games-x/y", owned.quiet_bandit, ""),
        ("own/x", 3, "task own/x: expected a function"),
        ("own/x", lambda n: BANDIT, "task own/x, parameter n: expected a default"),
        ("own/x", lambda n=None: BANDIT, "task own/x, parameter n: expected a default"),
        ("own/x", lambda: BANDIT.env, "task own/x: expected a jaxomarl.base.Task"),
        ("own/x", lambda: BANDIT._replace(rows=0), "task own/x, rows: expected at least 1"),
        ("own/x", lambda: BANDIT._replace(quality="best"), "task own/x, quality: expected one of"),
        (
            "own/x",
            lambda: BANDIT._replace(recipes={"a/b": print}),
            "task own/x, recipes: expected a name that can",
        ),
        (
            "own/x",
            stepped(obs=np.ones((2, 3), np.float32)),
            "task own/x, reset, obs: expected shape (2, 1)",
        ),
        ("own/x", stepped(info={}), "task own/x, step, info: expected the keys []"),
    ],
)
def test_a_task_that_is_refused(name, make, said):
    if not said:
        register.register_task("games/x-y", make)
        said = "task: expected a name whose folder is not that of games/x-y"
        name = "games-x/y"
    with pytest.raises(JaxomarlError) as error:
        register.register_task(name, make)
    assert str(error.value).startswith(said)
    assert catalog.TASKS.get(name) is not make


def test_a_task_without_recipes_needs_data():
    jaxomarl.register_task("own/bare", lambda: BANDIT._replace(recipes={}, quality=""))
    with pytest.raises(JaxomarlError, match=r"^data=: expected a path, as own/bare has no recipe"):
        jaxomarl.train("bc", "own/bare")

"""Systems and tasks from outside the package: checked as its own rows are, then known wherever a name is taken.

A module that registers is named to the command line by `--import MODULE`. Its name is kept with the results, so that
whoever reads them later is told which module to import; nothing that a folder says is ever imported by itself.
"""

import contextlib
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan
from jaxomarl.base import Environment, JaxomarlError, Spec, Stage, System, Task, TimeStep, refuse
from jaxomarl.config import traced_fields
from jaxomarl.envs import catalog
from jaxomarl.numerics import pinned
from jaxomarl.paths import user_path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What the name of a system is, and each of the two parts of a task's name: it becomes a folder."""
PATH = re.compile(r"[\w./~ -]+")
"""What a folder's run.json may say of a module and is repeated."""
PLAIN = tuple(plan.PLAIN.values())
"""Types of a config field and of a task's parameter."""
TRIED = ("games/bandit", "games/climbing")
"""Tasks, one continuous and one discrete, on which a system's pipeline is built when it is registered."""
MODULES: dict[str, str] = {}
"""Registered system or task -> what `--import` takes to register it again; "" where no file does."""
WROTE = "Use the version that wrote it, or train again."
KEEPS = "Choose another name."

_importing: list[str] = []  # what `--import` is loading now
_loaded: dict[Path, Any] = {}  # files that were loaded, by their full path


# --- systems ---


@pinned()
def register_system(name: str, system: Any, replace: bool = False) -> None:
    """Make a system, a `jaxomarl.base.System`, known by a name in Python and at the command line.

    Registering the same system again changes nothing; `replace` takes the place of another one that was registered
    before, as a notebook's cell does that is run again. Raises JaxomarlError for a name that is taken or cannot be a
    folder's, and for a row that the registry would not hold.
    """
    _check_name("system", name, name)
    if REGISTRY.get(name) is system:
        return
    _check_free("system", name, REGISTRY, replace)
    _check_system(name, system)
    REGISTRY[name] = system
    MODULES[name] = _module(system.pipeline, system.Config, system.check, system.prepare)


def _check_system(name: str, system: Any) -> None:
    """Raise JaxomarlError where a row is not as the registry's own are."""
    field = f"system {name}"
    if not isinstance(system, System):
        way = "Build it: System(Config, check, prepare, pipeline), from jaxomarl.base."
        raise refuse(field, "a jaxomarl.base.System", type(system).__name__, way)
    for part in ("check", "prepare", "pipeline"):
        if not callable(getattr(system, part)):
            found = getattr(system, part)
            raise refuse(
                f"{field}, {part}", "a function", found, "jaxomarl/base.py says what it takes."
            )
    _check_config(field, system.Config, plan.config_fields(without=name))
    for task in TRIED:
        env = catalog.make(task).env
        try:
            system.check(env.spec, system.Config(), None)
        except JaxomarlError:  # it does not take such a task
            continue
        return _check_stages(field, system, env)


def _check_config(field: str, kind: Any, known: Mapping[str, type]) -> None:
    """Raise JaxomarlError where a Config is not declared by `@config`, or has fields that flags cannot give."""
    way = "Declare it: @config class Config, from jaxomarl.config."
    if not isinstance(kind, type) or not hasattr(kind, "__dataclass_fields__"):
        raise refuse(f"{field}, Config", "a class declared by jaxomarl.config.config", kind, way)
    try:
        default = kind()
    except TypeError as error:
        raise refuse(f"{field}, Config", "a default for every field", str(error), way) from None
    if jax.tree.leaves(default) != list(traced_fields(default).values()):
        raise refuse(
            f"{field}, Config", "a class declared by jaxomarl.config.config", kind.__name__, way
        )
    for name, declared in plan.field_types(kind).items():
        if declared not in PLAIN:
            expected = "bool, int, float or str, which a flag can give"
            raise refuse(f"{field}, Config.{name}", expected, declared, "Write it as one of these.")
        if known.get(name, declared) is not declared:
            expected = f"the type {known[name].__name__}, as other systems have it"
            raise refuse(
                f"{field}, Config.{name}", expected, declared.__name__, "Call the field otherwise."
            )


def _check_stages(field: str, system: System, env: Environment) -> None:
    """Raise JaxomarlError where a pipeline gives no stages on an environment that its system takes."""
    cfg = system.Config()
    online = env if system.online else None
    stages = system.pipeline(env.spec, cfg, online)
    if (
        not isinstance(stages, tuple)
        or not stages
        or not all(isinstance(stage, Stage) for stage in stages)
    ):
        raise refuse(
            f"{field}, pipeline",
            "a tuple of stages",
            stages,
            "Return (Stage(...),), from jaxomarl.base.",
        )
    names = [stage.name for stage in stages]
    for stage in stages:
        where = f"{field}, stage {stage.name}"
        _check_name(where, stage.name, stage.name)
        if names.count(stage.name) > 1:
            raise refuse(
                where, "each stage's name once", names, "Later stages find it in past by its name."
            )
        if stage.chunk < 1 or stage.steps < 1 or stage.steps % min(stage.chunk, stage.steps):
            found = f"{stage.steps} steps in chunks of {stage.chunk}"
            raise refuse(
                where, "whole chunks of steps", found, "Change the defaults of the Config."
            )
        unknown = [name for name in stage.fields or () if not hasattr(cfg, name)]
        if unknown:
            raise refuse(
                f"{where}, fields",
                "fields of the Config",
                unknown,
                "List those that reach the stage.",
            )


# --- tasks ---


@pinned()
def register_task(name: str, make: Any, replace: bool = False) -> None:
    """Make the task that the function `make` returns known by a name `family/task`.

    The arguments of `make` are the task's parameters, as in `family/task:parameter=value`.

    Registering the same function again changes nothing; `replace` takes the place of another one that was registered
    before. Raises JaxomarlError for a name that is taken or cannot be a folder's, for a parameter without a default,
    and for a task that is not as the catalog's are.
    """
    if not isinstance(name, str) or name.count("/") != 1 or name.startswith(catalog.JAXMARL):
        raise refuse("task", "a name like family/task", name, KEEPS)
    for part in name.split("/"):
        _check_name("task", part, name)
    if catalog.TASKS.get(name) is make:
        return
    _check_free("task", name, catalog.TASKS, replace)
    alike = [
        other
        for other in catalog.TASKS
        if other != name and other.replace("/", "-") == name.replace("/", "-")
    ]
    if alike:
        raise refuse("task", f"a name whose folder is not that of {alike[0]}", name, KEEPS)
    _check_parameters(name, make)
    before = catalog.TASKS.get(name)
    catalog.TASKS[name] = make
    try:
        _check_task(name, make)
    except BaseException:
        del catalog.TASKS[name]
        if before is not None:
            catalog.TASKS[name] = before
        raise
    MODULES[name] = _module(make)


def _check_parameters(name: str, make: Any) -> None:
    """Raise JaxomarlError where a factory cannot be called by the parameters of a name."""
    if not callable(make):
        raise refuse(
            f"task {name}",
            "a function that returns a jaxomarl.base.Task",
            make,
            "Give the function itself.",
        )
    for parameter in inspect.signature(make).parameters.values():
        if type(parameter.default) not in PLAIN:
            expected = "a default that is a bool, int, float or str"
            found = "none" if parameter.default is parameter.empty else parameter.default
            raise refuse(
                f"task {name}, parameter {parameter.name}", expected, found, "Give it a default."
            )


def _check_task(name: str, make: Callable[..., Task]) -> None:
    """Raise JaxomarlError where a task is not as the catalog's are."""
    field = f"task {name}"
    task = make()
    if (
        not isinstance(task, Task)
        or not isinstance(task.env, Environment)
        or not isinstance(task.env.spec, Spec)
    ):
        way = "Return Task(name, Environment(spec, reset, step), recipes, quality), from jaxomarl.base."
        raise refuse(field, "a jaxomarl.base.Task with its environment", type(task).__name__, way)
    for count in ("episodes", "rows", "final_episodes"):
        if getattr(task, count) < 1:
            raise refuse(
                f"{field}, {count}",
                "at least 1",
                getattr(task, count),
                "Leave it out for its default.",
            )
    for quality, recipe in task.recipes.items():
        _check_name(f"{field}, recipes", quality, quality)
        if not callable(recipe):
            raise refuse(
                f"{field}, recipe {quality}",
                "a function (key, rows) -> Episodes",
                recipe,
                "Write one.",
            )
    if task.recipes and task.quality not in task.recipes:
        way = "Name the recipe that is taken where none is asked for."
        raise refuse(f"{field}, quality", f"one of {', '.join(task.recipes)}", task.quality, way)
    _check_steps(field, task.env)


def _check_steps(field: str, env: Environment) -> None:
    """Raise JaxomarlError where the arrays of a time step have not the shapes that the spec says."""
    spec = env.spec
    key = jax.random.key(0)
    action = jax.ShapeDtypeStruct((spec.agents, spec.act_width), "float32")
    state, first = jax.eval_shape(env.reset, key)
    then_state, then = jax.eval_shape(env.step, key, state, action)
    wanted = {
        "obs": (spec.agents, spec.obs_width),
        "state": (spec.state_dim,),
        "reward": (spec.agents,),
        "done": (),
        "alive": (spec.agents,),
        "available": (spec.agents, spec.act_width),
    }
    for function, shown in (("reset", first), ("step", then)):
        if not isinstance(shown, TimeStep):
            way = "Return (state, TimeStep(...)), from jaxomarl.base."
            raise refuse(
                f"{field}, {function}", "a jaxomarl.base.TimeStep", type(shown).__name__, way
            )
        for name, shape in wanted.items():
            found = getattr(shown, name).shape
            if found != shape:
                way = "Pad to the widest agent, as the spec has it."
                raise refuse(f"{field}, {function}, {name}", f"shape {shape}", found, way)
    same = jax.tree.structure(state) == jax.tree.structure(then_state)
    if not same or _shapes(state) != _shapes(then_state):
        way = "Keep the structure, the shapes and the types of reset's."
        raise refuse(f"{field}, step, state", f"{_shapes(state)}", f"{_shapes(then_state)}", way)
    if set(first.info) != set(then.info):
        raise refuse(
            f"{field}, step, info",
            f"the keys {sorted(first.info)}",
            sorted(then.info),
            "Give the same keys.",
        )


def _shapes(tree: Any) -> list[tuple[tuple[int, ...], str]]:
    return [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree)]


# --- names ---


def _check_name(field: str, part: str, name: str) -> None:
    """Raise JaxomarlError where a name, or this part of it, cannot be that of a folder."""
    if not isinstance(part, str) or not NAME.fullmatch(part):
        way = "Letters, digits, underscores, dots and hyphens make a folder's name."
        raise refuse(field, "a name that can be a folder's", name, way)


def _check_free(kind: str, name: str, table: Mapping[str, Any], replace: bool) -> None:
    """Raise JaxomarlError where a name is taken."""
    if name not in table or (replace and name in MODULES):
        return
    own = name in MODULES
    way = f"{KEEPS} replace=True takes its place." if own else KEEPS
    raise refuse(kind, "a name that is not taken", name, way)


def _module(*parts: Any) -> str:
    """What `--import` takes to have these defined again: the module of the first that is not ours; "" in a notebook."""
    if _importing:
        return _importing[-1]
    for part in parts:
        module = str(
            getattr(getattr(part, "func", part), "__module__", "")
        )  # a partial's function says it
        if module == "__main__":
            return str(getattr(sys.modules[module], "__file__", "") or "")
        if module.partition(".")[0] != "jaxomarl":
            return module
    return ""


# --- `--import` ---


def import_modules(names: Sequence[str]) -> None:
    """Load modules, or .py files, that register systems and tasks; each once.

    A module is looked for in the present folder too. Raises JaxomarlError where there is none, or where it fails.
    """
    for name in names:
        with _in_import(name):
            if name.endswith(".py"):
                _load_file(name)
            else:
                _import_module(name)


@contextlib.contextmanager
def _in_import(name: str) -> Iterator[None]:
    """Note what is imported, and say what went wrong in it."""
    _importing.append(name)
    try:
        yield
    except JaxomarlError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
        raise refuse(
            f"--import {name}", "a module that can be imported", found, "Correct the module."
        ) from error
    finally:
        _importing.pop()


def _import_module(name: str) -> None:
    with _also_in(Path.cwd()):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            way = "Name a module as Python imports it, or the path of a .py file."
            raise refuse("--import", "a module that is there", name, way) from None


def _load_file(name: str) -> None:
    path = user_path(name).resolve()
    if path in _loaded:
        return
    if not path.is_file():
        raise refuse("--import", "a .py file that is there", name, "Check the path.")
    spec = importlib.util.spec_from_file_location(f"{path.stem}@{len(_loaded)}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    with _also_in(path.parent):
        spec.loader.exec_module(module)
    _loaded[path] = module


@contextlib.contextmanager
def _also_in(folder: Path) -> Iterator[None]:
    """Look for modules in a folder too, after all other places."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


# --- what results say of it ---


def modules(*names: str) -> list[str]:
    """What `--import` takes for these systems and tasks, which may have augmentations and parameters; sorted."""
    bases = [name.partition("+")[0].partition(":")[0] for name in names]
    return sorted({MODULES[base] for base in bases if MODULES.get(base)})


def check_system(info: Mapping[str, Any]) -> None:
    """Raise JaxomarlError where the system of a run.json is not known, naming what to import."""
    if info["system"].partition("+")[0] not in REGISTRY:
        way = f"Register it first: {_imports(info)}" if _imports(info) else WROTE
        raise refuse("RUN", f"a system among {', '.join(REGISTRY)}", info["system"], way)


def check_task(info: Mapping[str, Any]) -> None:
    """Raise JaxomarlError where the task of a run.json is not known, naming what to import."""
    base = info["task"].partition(":")[0]
    if base not in catalog.TASKS and not base.startswith(catalog.JAXMARL):
        way = f"Register it first: {_imports(info)}" if _imports(info) else WROTE
        raise refuse("RUN", f"a task among {', '.join(catalog.TASKS)}", info["task"], way)


def _imports(info: Mapping[str, Any]) -> str:
    """The flags by which a run.json says that its system and its task are registered; "" where it says none."""
    said = info.get("imports")
    if not isinstance(said, list):
        return ""
    named = [name for name in said if isinstance(name, str) and PATH.fullmatch(name)]
    return " ".join(f"--import {shlex.quote(name)}" for name in named)

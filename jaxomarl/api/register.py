"""Systems and tasks from outside the package.

They are checked as the package's own are, and then known wherever a name is taken.

A command imports a module that registers by `--import MODULE`. The module's name is kept with the
results, so that a later reader learns which module to import. A name that stands in a folder is
never imported by itself.
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
from types import ModuleType
from typing import Any

import jax

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan
from jaxomarl.base import (
    Environment,
    JaxomarlError,
    Spec,
    Stage,
    State,
    System,
    Task,
    TimeStep,
    refuse,
)
from jaxomarl.config import traced_fields
from jaxomarl.envs import catalog
from jaxomarl.numerics import pinned
from jaxomarl.paths import user_path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A system's name, and each of the two parts of a task's name; each becomes a folder's name."""
PATH = re.compile(r"[\w./~ -]+")
"""A module in a folder's run.json that a message may repeat."""
PLAIN = tuple(plan.PLAIN.values())
"""Types of a config field and of a task's parameter."""
TRIED = ("games/bandit", "games/climbing")
"""A continuous and a discrete task, on which a new system's pipeline is built."""
MODULES: dict[str, str] = {}
"""Registered system or task -> the `--import` that registers it again; "" without a file."""
WROTE = "Use the version that wrote it, or train again."
KEEPS = "Choose another name."

_importing: list[str] = []
"""Modules that `--import` is loading now."""
_loaded: dict[Path, ModuleType] = {}
"""Loaded files by their full path."""


# --- systems ---


@pinned()
def register_system(name: str, system: Any, replace: bool = False) -> None:
    """Make a system, a `jaxomarl.base.System`, known by a name in Python and at the command line.

    Registering the same system again changes nothing. `replace` takes the place of another one that
    was registered before, as when a notebook's cell is run again. Raises JaxomarlError for a name
    that is taken or cannot be a folder's, and for a system that is not as the package's own are.
    """
    _check_name("system", name, name)
    if REGISTRY.get(name) is system:
        return
    _check_free("system", name, REGISTRY, replace)
    _check_system(name, system)
    REGISTRY[name] = system
    MODULES[name] = _module(system.pipeline, system.Config, system.check, system.prepare)


def _check_system(name: str, system: object) -> None:
    """Raise JaxomarlError where a system is not as the registry's own are."""
    field = f"system {name}"
    if not isinstance(system, System):
        way = "Build it: System(Config, check, prepare, pipeline), from jaxomarl.base."
        raise refuse(field, "a jaxomarl.base.System", type(system).__name__, way)
    for part in ("check", "prepare", "pipeline"):
        function = getattr(system, part)
        if not callable(function):
            way = "jaxomarl/base.py says what it takes."
            raise refuse(f"{field}, {part}", "a function", function, way)
    _check_config(field, system.Config, plan.config_fields(without=name))
    for task in TRIED:
        env = catalog.make(task).env
        try:
            system.check(env.spec, system.Config(), None)
        except JaxomarlError:
            # the system does not take such a task
            continue
        return _check_stages(field, system, env)


def _check_config(field: str, kind: object, known: Mapping[str, type]) -> None:
    """Raise JaxomarlError where a Config is not declared by `@config`.

    Flags can give each of its fields, and a field has the type that other systems give it.
    """
    declaration = "a class declared by jaxomarl.config.config"
    way = "Declare it: @config class Config, from jaxomarl.config."
    if not isinstance(kind, type) or not hasattr(kind, "__dataclass_fields__"):
        raise refuse(f"{field}, Config", declaration, kind, way)
    try:
        default = kind()
    except TypeError as error:
        raise refuse(f"{field}, Config", "a default for every field", str(error), way) from None
    if jax.tree.leaves(default) != list(traced_fields(default).values()):
        raise refuse(f"{field}, Config", declaration, kind.__name__, way)

    for name, declared in plan.field_types(kind).items():
        where = f"{field}, Config.{name}"
        if declared not in PLAIN:
            expected = "bool, int, float or str, which a flag can give"
            raise refuse(where, expected, declared, "Write it as one of these.")
        if known.get(name, declared) is not declared:
            expected = f"the type {known[name].__name__}, as other systems have it"
            raise refuse(where, expected, declared.__name__, "Call the field otherwise.")


def _check_stages(field: str, system: System, env: Environment) -> None:
    """Raise JaxomarlError where a pipeline gives no stages on an environment its system takes."""
    cfg = system.Config()
    online = env if system.online else None
    stages = system.pipeline(env.spec, cfg, online)
    are_stages = isinstance(stages, tuple) and all(isinstance(stage, Stage) for stage in stages)
    if not are_stages or not stages:
        way = "Return (Stage(...),), from jaxomarl.base."
        raise refuse(f"{field}, pipeline", "a tuple of stages", stages, way)

    names = [stage.name for stage in stages]
    for stage in stages:
        where = f"{field}, stage {stage.name}"
        _check_name(where, stage.name, stage.name)
        if names.count(stage.name) > 1:
            way = "Later stages find it in past by its name."
            raise refuse(where, "each stage's name once", names, way)
        if stage.chunk < 1 or stage.steps < 1 or stage.steps % min(stage.chunk, stage.steps):
            found = f"{stage.steps} steps in chunks of {stage.chunk}"
            way = "Change the defaults of the Config."
            raise refuse(where, "whole chunks of steps", found, way)
        unknown = [name for name in stage.fields or () if not hasattr(cfg, name)]
        if unknown:
            way = "List those that reach the stage."
            raise refuse(f"{where}, fields", "fields of the Config", unknown, way)


# --- tasks ---


@pinned()
def register_task(name: str, make: Any, replace: bool = False) -> None:
    """Make the task that the function `make` returns known by a name `family/task`.

    The arguments of `make` are the task's parameters, as in `family/task:parameter=value`.

    Registering the same function again changes nothing. `replace` takes the place of another one
    that was registered before. Raises JaxomarlError for a name that is taken or cannot be a
    folder's, for a parameter without a default, and for a task that is not as the catalog's are.
    """
    families = tuple(catalog.FAMILIES)
    if not isinstance(name, str) or name.count("/") != 1 or name.startswith(families):
        raise refuse("task", "a name like family/task", name, KEEPS)
    for part in name.split("/"):
        _check_name("task", part, name)
    if catalog.TASKS.get(name) is make:
        return
    _check_free("task", name, catalog.TASKS, replace)
    folder = name.replace("/", "-")
    for other in catalog.TASKS:
        if other != name and other.replace("/", "-") == folder:
            raise refuse("task", f"a name whose folder is not that of {other}", name, KEEPS)
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


def _check_parameters(name: str, make: object) -> None:
    """Raise JaxomarlError where a factory cannot be called by the parameters of a name."""
    if not callable(make):
        expected = "a function that returns a jaxomarl.base.Task"
        raise refuse(f"task {name}", expected, make, "Give the function itself.")
    for parameter in inspect.signature(make).parameters.values():
        default = parameter.default
        if type(default) not in PLAIN:
            where = f"task {name}, parameter {parameter.name}"
            expected = "a default that is a bool, int, float or str"
            if default is parameter.empty:
                default = "none"
            raise refuse(where, expected, default, "Give it a default.")


def _check_task(name: str, make: Callable[..., Task]) -> None:
    """Raise JaxomarlError where a task is not as the catalog's are."""
    field = f"task {name}"
    task = make()
    is_task = isinstance(task, Task) and isinstance(task.env, Environment)
    if not is_task or not isinstance(task.env.spec, Spec):
        way = (
            "Return Task(name, Environment(spec, reset, step), recipes, quality), "
            "from jaxomarl.base."
        )
        raise refuse(field, "a jaxomarl.base.Task with its environment", type(task).__name__, way)

    for count in ("episodes", "rows", "final_episodes"):
        value = getattr(task, count)
        if value < 1:
            raise refuse(f"{field}, {count}", "at least 1", value, "Leave it out for its default.")
    for quality, recipe in task.recipes.items():
        _check_name(f"{field}, recipes", quality, quality)
        if not callable(recipe):
            expected = "a function (key, rows) -> Episodes"
            raise refuse(f"{field}, recipe {quality}", expected, recipe, "Write one.")
    if task.recipes and task.quality not in task.recipes:
        expected = f"one of {', '.join(task.recipes)}"
        way = "Name the recipe that is taken where none is asked for."
        raise refuse(f"{field}, quality", expected, task.quality, way)
    _check_steps(field, task.env)


def _check_steps(field: str, env: Environment) -> None:
    """Raise JaxomarlError where the arrays of a time step have other shapes than the spec says."""
    spec = env.spec
    key = jax.random.key(0)
    action = jax.ShapeDtypeStruct((spec.agents, spec.act_width), "float32")
    state, first = jax.eval_shape(env.reset, key)
    then_state, then = jax.eval_shape(env.step, key, state, action)
    _check_time_step(f"{field}, reset", spec, first)
    _check_time_step(f"{field}, step", spec, then)

    before = _shapes(state)
    after = _shapes(then_state)
    same = jax.tree.structure(state) == jax.tree.structure(then_state)
    if not same or before != after:
        way = "Keep the structure, the shapes and the types of reset's."
        raise refuse(f"{field}, step, state", str(before), str(after), way)
    if set(first.info) != set(then.info):
        expected = f"the keys {sorted(first.info)}"
        way = "Give the same keys."
        raise refuse(f"{field}, step, info", expected, sorted(then.info), way)


def _check_time_step(where: str, spec: Spec, shown: object) -> None:
    """Raise JaxomarlError where an environment returns no TimeStep, or one of other shapes."""
    if not isinstance(shown, TimeStep):
        way = "Return (state, TimeStep(...)), from jaxomarl.base."
        raise refuse(where, "a jaxomarl.base.TimeStep", type(shown).__name__, way)
    shapes = {
        "obs": (spec.agents, spec.obs_width),
        "state": (spec.state_dim,),
        "reward": (spec.agents,),
        "done": (),
        "alive": (spec.agents,),
        "available": (spec.agents, spec.act_width),
    }
    for name, shape in shapes.items():
        found = getattr(shown, name).shape
        if found != shape:
            way = "Pad to the widest agent, as the spec has it."
            raise refuse(f"{where}, {name}", f"shape {shape}", found, way)


def _shapes(tree: State) -> list[tuple[tuple[int, ...], str]]:
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
    way = KEEPS
    if name in MODULES:
        way = f"{KEEPS} replace=True takes its place."
    raise refuse(kind, "a name that is not taken", name, way)


def _module(*parts: object) -> str:
    """The value of `--import` that defines these again; "" in a notebook.

    It is the module of the first that does not come from the package.
    """
    if _importing:
        return _importing[-1]
    for part in parts:
        # a partial's module is that of its function
        function = getattr(part, "func", part)
        module = str(getattr(function, "__module__", ""))
        if module == "__main__":
            return str(getattr(sys.modules[module], "__file__", "") or "")
        if module.partition(".")[0] != "jaxomarl":
            return module
    return ""


# --- `--import` ---


def import_modules(names: Sequence[str]) -> None:
    """Load modules, or .py files, that register systems and tasks; each once.

    A module is looked for in the current folder too. Raises JaxomarlError where there is none, or
    where it fails.
    """
    for name in names:
        with _in_import(name):
            if name.endswith(".py"):
                _load_file(name)
            else:
                _import_module(name)


@contextlib.contextmanager
def _in_import(name: str) -> Iterator[None]:
    """Note the module that is imported, and refuse it where it fails."""
    _importing.append(name)
    try:
        yield
    except JaxomarlError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
        expected = "a module that can be imported"
        raise refuse(f"--import {name}", expected, found, "Correct the module.") from error
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
    # dataclasses look for it there
    sys.modules[spec.name] = module
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


# --- modules that results name ---


def modules(*names: str) -> list[str]:
    """The values of `--import` for these systems and tasks, sorted.

    Their names may have augmentations and parameters.
    """
    bases = [name.partition("+")[0].partition(":")[0] for name in names]
    return sorted({MODULES[base] for base in bases if MODULES.get(base)})


def check_system(info: Mapping[str, Any]) -> None:
    """Raise JaxomarlError where the system of a run.json is not known, naming what to import."""
    if info["system"].partition("+")[0] not in REGISTRY:
        expected = f"a system among {', '.join(REGISTRY)}"
        raise refuse("RUN", expected, info["system"], _how_to_register(info))


def check_task(info: Mapping[str, Any]) -> None:
    """Raise JaxomarlError where the task of a run.json is not known, naming what to import."""
    base = info["task"].partition(":")[0]
    if not catalog.is_known(base):
        expected = f"a task among {', '.join(catalog.TASKS)}"
        raise refuse("RUN", expected, info["task"], _how_to_register(info))


def _how_to_register(info: Mapping[str, Any]) -> str:
    """The way out where a run.json has an unknown system or task."""
    flags = _imports(info)
    if not flags:
        return WROTE
    return f"Register it first: {flags}"


def _imports(info: Mapping[str, Any]) -> str:
    """The flags that register the system and the task of a run.json; "" where it names none."""
    modules = info.get("imports")
    if not isinstance(modules, list):
        return ""
    named = [name for name in modules if isinstance(name, str) and PATH.fullmatch(name)]
    return " ".join(f"--import {shlex.quote(name)}" for name in named)

"""Tasks by name: `make("games/consensus:n=4,modes=3")`. A new task is one row of `TASKS`."""

import difflib
import functools
import importlib
import inspect
import math
from collections.abc import Callable

from jaxomarl.base import Task, refuse
from jaxomarl.numerics import pinned

TASKS: dict[str, str | Callable[..., Task]] = {
    "games/additive": "jaxomarl.envs.matrix:additive",
    "games/bandit": "jaxomarl.envs.games:bandit",
    "games/chain": "jaxomarl.envs.chain:chain",
    "games/climbing": "jaxomarl.envs.matrix:climbing",
    "games/consensus": "jaxomarl.envs.games:consensus",
    "games/four-gaussians": "jaxomarl.envs.games:four_gaussians",
    "games/multiplication": "jaxomarl.envs.polynomial:multiplication",
    "mamujoco/2ant": "jaxomarl.envs.mamujoco.tasks:two_ant",
    "mamujoco/2halfcheetah": "jaxomarl.envs.mamujoco.tasks:two_halfcheetah",
    "mamujoco/3hopper": "jaxomarl.envs.mamujoco.tasks:three_hopper",
    "mamujoco/4ant": "jaxomarl.envs.mamujoco.tasks:four_ant",
    "mamujoco/6halfcheetah": "jaxomarl.envs.mamujoco.tasks:six_halfcheetah",
    "mamujoco/ant": "jaxomarl.envs.mamujoco.tasks:ant",
    "mamujoco/halfcheetah": "jaxomarl.envs.mamujoco.tasks:halfcheetah",
    "mamujoco/hopper": "jaxomarl.envs.mamujoco.tasks:hopper",
    "mamujoco/walker2d": "jaxomarl.envs.mamujoco.tasks:walker2d",
    "mpe/six": "jaxomarl.envs.mpe.tasks:six",
    "mpe/spread": "jaxomarl.envs.mpe.tasks:spread",
    "mpe/tag": "jaxomarl.envs.mpe.tasks:tag",
    "mpe/world": "jaxomarl.envs.mpe.tasks:world",
    "games/twin-peaks": "jaxomarl.envs.polynomial:twin_peaks",
}
"""Name -> "module:factory", whose module is imported when its task is asked for; or a registered task's factory."""

JAXMARL = "jaxmarl/"
"""Begins the names of JaxMARL's own environments: `jaxmarl/MPE_simple_spread_v3`."""

Value = bool | int | float | str


def names() -> list[str]:
    """Names of all tasks, sorted, without parameters."""
    return sorted(TASKS)


def make(name: str) -> Task:
    """The task called `family/task` or `family/task:parameter=value,...`; parameters are its factory's arguments.

    `Task.name` is canonical: the factory's order, and no parameter that equals its default. Equal names give the same
    object, so that what was compiled for it is found again. Raises JaxomarlError for an unknown task or parameter, or
    a value that does not have the default's type.
    """
    base, _, text = name.partition(":")
    if base not in TASKS and not base.startswith(JAXMARL):
        raise refuse("task", "a task of the catalog", base, _nearest(base, names()))
    defaults = parameters(base)
    values = _parse(name, text, defaults)
    changed = {k: values[k] for k in defaults if k in values and values[k] != defaults[k]}
    canonical = base + (
        ":" + ",".join(f"{k}={_show(v)}" for k, v in changed.items()) if changed else ""
    )
    return _build(canonical, base, tuple(changed.items()), TASKS.get(base))


def parameters(base: str) -> dict[str, Value]:
    """Parameters of the task called `base` and their defaults, in order."""
    return {k: p.default for k, p in inspect.signature(_factory(base)).parameters.items()}


@functools.cache
@pinned()
def _build(canonical: str, base: str, items: tuple[tuple[str, Value], ...], row: object) -> Task:
    """Build a task once for each row of `TASKS`: another row under the same name is another task."""
    return _factory(base)(**dict(items))._replace(name=canonical)


def _factory(base: str) -> Callable[..., Task]:
    if base.startswith(JAXMARL):
        adapter = importlib.import_module("jaxomarl.envs.jaxmarl")
        return functools.partial(adapter.task, base.removeprefix(JAXMARL))
    row = TASKS[base]
    if callable(row):
        return row
    module, _, factory = row.partition(":")
    return getattr(importlib.import_module(module), factory)


def _parse(name: str, text: str, defaults: dict[str, Value]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for item in text.split(",") if text else []:
        field, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise refuse(
                f"task {name!r}",
                "parameter=value, separated by commas",
                item,
                _nearest(field, [*defaults]),
            )
        if field not in defaults:
            raise refuse(
                f"task {name!r}", "a parameter of this task", field, _nearest(field, [*defaults])
            )
        if field in values:
            raise refuse(
                f"task {name!r}", "each parameter once", field, "Keep one of the two values."
            )
        values[field] = _read(f"task {name!r}, parameter {field!r}", value, defaults[field])
    return values


def _read(field: str, text: str, default: Value) -> Value:
    if isinstance(default, str):
        return text
    kind = type(default)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        value = None
    if value is None or not math.isfinite(value):
        expected = "true or false" if kind is bool else f"a finite {kind.__name__}"
        raise refuse(field, expected, text, f"The default is {_show(default)}.")
    return value


def _show(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        str(int(value))
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        else str(value)
    )


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "It takes no parameters."
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return (f"Did you mean {', '.join(close)}? " if close else "") + f"Known: {', '.join(known)}."

"""Tasks by name: `make("games/consensus:n=4,modes=3")`. A new task is one row of `TASKS`."""

import difflib
import functools
import importlib
import inspect
import math
import re
from collections.abc import Callable

from jaxomarl.base import Task, refuse
from jaxomarl.numerics import pinned

QUALITIES = (
    "random",
    "medium",
    "medium-replay",
    "medium-expert",
    "random-medium",
    "expert",
    "good",
    "poor",
    "replay",
)
"""Words for data that people append to the name of a task."""

TASKS: dict[str, str | Callable[..., Task]] = {
    "games/additive": "jaxomarl.envs.matrix:additive",
    "games/bandit": "jaxomarl.envs.games:bandit",
    "games/bridge": "jaxomarl.envs.bridge:bridge",
    "games/chain": "jaxomarl.envs.chain:chain",
    "games/climbing": "jaxomarl.envs.matrix:climbing",
    "games/consensus": "jaxomarl.envs.games:consensus",
    "games/four-gaussians": "jaxomarl.envs.games:four_gaussians",
    "games/penalty": "jaxomarl.envs.matrix:penalty",
    "games/xor": "jaxomarl.envs.matrix:xor",
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
"""Name -> "module:factory", or a registered task's factory.

The module is imported when its task is asked for.
"""

FAMILIES = {
    "battle/": "jaxomarl.envs.battle.tasks:task",
    "jaxmarl/": "jaxomarl.envs.jaxmarl:task",
    "smax/": "jaxomarl.envs.smax.tasks:task",
}
"""Start of a name -> the factory, which gets the rest of the name: `jaxmarl/<id>`, `smax/<map>`."""

Value = bool | int | float | str


def names() -> list[str]:
    """Names of all tasks, sorted, without parameters."""
    return sorted(TASKS)


def is_known(base: str) -> bool:
    """Whether a name without parameters is a row, or may be a task of a family."""
    family, slash, rest = base.partition("/")
    return base in TASKS or (family + slash in FAMILIES and rest != "" and "/" not in rest)


def make(name: str) -> Task:
    """The task called `family/task` or `family/task:parameter=value,...`.

    Parameters are the arguments of the task's factory. `Task.name` is canonical: parameters stand
    in the factory's order, and one that equals its default is left out. Equal names give the same
    object, so that programs compiled for it are found again. Raises JaxomarlError for an unknown
    task or parameter, and for a value that does not have the default's type.
    """
    base, _, text = name.partition(":")
    if not is_known(base):
        raise refuse("task", "a task of the catalog", base, _nearest(base, names()))
    defaults = parameters(base)
    values = _parse(name, text, defaults)
    changed = {
        parameter: values[parameter]
        for parameter, default in defaults.items()
        if parameter in values and values[parameter] != default
    }
    canonical = base
    if changed:
        shown = [f"{parameter}={_show(value)}" for parameter, value in changed.items()]
        canonical = f"{base}:{','.join(shown)}"
    return _build(canonical, base, tuple(changed.items()), TASKS.get(base))


def parameters(base: str) -> dict[str, Value]:
    """Parameters of the task called `base` and their defaults, in order."""
    signature = inspect.signature(_factory(base))
    return {name: parameter.default for name, parameter in signature.parameters.items()}


@functools.cache
@pinned()
def _build(canonical: str, base: str, items: tuple[tuple[str, Value], ...], row: object) -> Task:
    """Build a task once for each row of `TASKS`; a new row under the same name is another task."""
    return _factory(base)(**dict(items))._replace(name=canonical)


def _factory(base: str) -> Callable[..., Task]:
    for family, row in FAMILIES.items():
        if base.startswith(family) and base not in TASKS:
            return functools.partial(_imported(row), base.removeprefix(family))
    row = TASKS[base]
    if callable(row):
        return row
    return _imported(row)


def _imported(row: str) -> Callable[..., Task]:
    """The factory that a text "module:factory" names."""
    module, _, factory = row.partition(":")
    return getattr(importlib.import_module(module), factory)


def _parse(name: str, text: str, defaults: dict[str, Value]) -> dict[str, Value]:
    """The values in a text `parameter=value,...`, each of its default's type."""
    if not text:
        return {}
    known = [*defaults]
    values: dict[str, Value] = {}
    for item in text.split(","):
        field, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            expected = "parameter=value, separated by commas"
            raise refuse(f"task {name!r}", expected, item, _nearest(field, known))
        if field not in defaults:
            expected = "a parameter of this task"
            raise refuse(f"task {name!r}", expected, field, _nearest(field, known))
        if field in values:
            way = "Keep one of the two values."
            raise refuse(f"task {name!r}", "each parameter once", field, way)
        values[field] = _read(f"task {name!r}, parameter {field!r}", value, defaults[field])
    return values


def _read(field: str, text: str, default: Value) -> Value:
    """The value that a text stands for, of the default's type."""
    if isinstance(default, str):
        return text
    kind = type(default)
    parse: Callable[[str], Value] = kind
    expected = f"a finite {kind.__name__}"
    if kind is bool:
        parse = _boolean
        expected = "true or false"
    try:
        value = parse(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(float(value)):
        raise refuse(field, expected, text, f"The default is {_show(default)}.")
    return value


def _boolean(text: str) -> bool:
    """True or False by its name; ValueError for another text."""
    return ("false", "true").index(text.lower()) == 1


def _show(value: Value) -> str:
    """A value as it stands in a task's name."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _nearest(name: str, known: list[str]) -> str:
    """The way out for an unknown name: the names that it is most like, and all of them."""
    if not known:
        return "It takes no parameters."
    listed = f"Known: {', '.join(known)}."
    # a task by its own name, as in "tag" or "tag-medium"
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    own = [task for task in known if "/" in task and task.partition("/")[2] in words]
    if own:
        hint = f"Did you mean {', '.join(own)}?"
        quality = [word for word in QUALITIES if name.lower().endswith(f"-{word}")]
        if quality:
            hint += f" Data are named by --data {max(quality, key=len)}."
        return f"{hint} {listed}"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if not close:
        return listed
    return f"Did you mean {', '.join(close)}? {listed}"

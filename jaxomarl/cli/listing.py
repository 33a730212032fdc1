"""The command `list`: plain tables of names, with a sentence each."""

from collections.abc import Callable, Iterator

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import Task, nearest, refuse
from jaxomarl.cli import boxes, columns, reproduce
from jaxomarl.cli.qualities import behaviours
from jaxomarl.envs import catalog
from jaxomarl.envs.battle import QUALITIES as BATTLE_QUALITIES
from jaxomarl.envs.smax import MAPS
from jaxomarl.envs.smax import QUALITIES as SMAX_QUALITIES
from jaxomarl.presets import PRESETS

SMAX = f"A battle of SMAX against scripted foes; MAP is {', '.join(MAPS)}, or another of SMAX's."
"""What the list says of SMAX. No map is built for it: that takes JaxMARL seconds."""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A head, and rows under it."""


def systems() -> Table:
    """Every system: how it learns and is executed, its sentence and its paper."""
    rows = []
    for name in REGISTRY:
        box = boxes.box(name)
        rows.append((name, boxes.kind(name), f"{box.sentence} {box.cited}"))
    return ("system", "kind", "what it is, and its paper"), rows


def tasks() -> Table:
    """Every task: agents, steps of an episode, rules, qualities of data and its sentence."""
    head = (
        "task",
        "agents",
        "horizon",
        "dialect",
        "its rule, and qualities of data (the default first)",
    )
    rows = []
    for task in catalog_tasks():
        spec = task.env.spec
        text = f"{task.about}. Data: {', '.join(qualities(task))}."
        rows.append((task.name, str(spec.agents), str(spec.horizon), spec.dialect, text))
    jaxmarl = "Any environment of JaxMARL, such as jaxmarl/MPE_simple_spread_v3. Data: random."
    rows.append(("jaxmarl/ID", "", "", "", jaxmarl))
    battle = "N against N scripted units on a plane, of any N; rewards in kind with DoF's."
    battle_data = f"Data: {', '.join(BATTLE_QUALITIES)}."
    rows.append(("battle/N", "N", "100", "battle-v1-N", f"{battle} {battle_data}"))
    rows.append(("smax/MAP", "", "100", "", f"{SMAX} Data: {', '.join(SMAX_QUALITIES)}."))
    return head, rows


def data() -> Table:
    """Every data set that a task generates: its transitions, and the behaviours behind it."""
    rows = []
    for task in catalog_tasks():
        for quality in qualities(task):
            rows.append((task.name, quality, f"{task.rows:,}", behaviours(task, quality)))
    return ("task", "quality", "rows", "behaviours"), rows


def presets() -> Table:
    """Every preset: for which tasks and systems, and where its values come from."""
    rows = []
    for name, preset in PRESETS.items():
        parts = (preset, *preset.families.values())
        texts = (f"{part.about}. For {', '.join(part.systems)}." for part in parts)
        tasks = (task for part in parts for task in part.tasks)
        rows.append((name, " ".join(tasks), " ".join(texts)))
    return ("preset", "tasks", "where its values come from, and for which systems"), rows


def tables() -> Table:
    """Every table and figure that `reproduce` measures again."""
    return ("table", "what it shows"), list(reproduce.known().items())


LISTS: dict[str, Callable[[], Table]] = {
    "systems": systems,
    "tasks": tasks,
    "data": data,
    "presets": presets,
    "tables": tables,
}
"""What can be listed."""


def catalog_tasks() -> Iterator[Task]:
    """Every task of the catalog, with its default parameters."""
    for name in catalog.names():
        yield catalog.make(name)


def qualities(task: Task) -> list[str]:
    """A task's qualities of data, its default first."""
    return sorted(task.recipes, key=lambda quality: quality != task.quality)


def listed(kind: str) -> str:
    """A table of what there is of a kind; without a kind, what can be listed.

    Raises JaxomarlError for an unknown kind.
    """
    size = columns.width()
    if not kind:
        return columns.table(("command", "what it lists"), commands(), size)
    if kind not in LISTS:
        raise refuse("WHAT", f"one of {', '.join(LISTS)}", kind, nearest(kind, LISTS))
    return columns.table(*LISTS[kind](), size)


def commands() -> list[tuple[str, str]]:
    """The commands that list, and what each lists."""
    rows = [(f"jaxomarl list {name}", first_line(table)) for name, table in LISTS.items()]
    about_show = "One system: its paper, its pseudo-code, its stages and its fields."
    return [*rows, ("jaxomarl show SYSTEM", about_show)]


def first_line(function: Callable[[], Table]) -> str:
    """The sentence of a table's function."""
    return (function.__doc__ or "").partition("\n")[0]

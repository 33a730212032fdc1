"""`reproduce one-step`: diffusions, flows and their one-step kin, joint and apart, side by side.

Without `--tasks` it trains small models on games, whose exact values are known; `--data` chooses
among `PARTS`, and with `--data landmarks` `--systems` chooses models. With `--tasks` it trains the
systems there, such as mpe/spread with `--data expert medium`.
"""

from collections.abc import Callable

from jaxomarl.base import nearest, refuse
from jaxomarl.papers import measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.measured import Part
from jaxomarl.papers.one_step import games, systems
from jaxomarl.results.curves import curves

PARTS: dict[str, Callable[[Asked], Part]] = {
    "value": games.with_value,
    "agreements": games.agreements,
    "landmarks": games.landmarks,
    "time": systems.speed,
}
"""The parts of the report on games."""
UNUSED = ("episodes", "rows", "overrides", "source", "final_episodes")
"""Fields that mean nothing to games."""


def one_step(asked: Asked) -> str:
    """The games with their figure, or the systems on tasks."""
    if asked.tasks:
        return systems.trained(asked)
    because = "it trains on its own games unless --tasks names others."
    asked.check_unused("one-step", because, UNUSED)
    if asked.data != ("landmarks",):
        because = "it chooses models with --data landmarks, and systems with --tasks."
        asked.check_unused("one-step", because, ("systems",))
    parts = [part_called(name)(asked) for name in asked.data or PARTS]
    measures = [measure for part in parts for measure in part.measures]
    measured.save_measures(asked.out, measures)
    preface = (
        f"One-step policies on games, seeds {asked.seeds}, {asked.updates(games.UPDATES)} updates "
        f"of each small model, {asked.updates(games.LANDMARK_UPDATES)} on landmarks; ± is the "
        'standard error over seeds. "law" rows are exact values, without training. A model\'s '
        "number is that of its calls in a decision."
    )
    texts = [preface, *(part.text for part in parts)]
    if not asked.data:
        found, named = games.points(measures)
        look = {"ordered": True, "columns": 2, "slots": games.SLOTS}
        asked.draw(curves, "one-step.png", found, "", "", named, **look)
        texts.insert(1, "![](one-step.png)")
    return "\n\n".join(texts) + "\n"


def part_called(name: str) -> Callable[[Asked], Part]:
    """The part of that name; JaxomarlError where there is none."""
    if name not in PARTS:
        wanted = f"one of {', '.join(PARTS)}, or a task's data with --tasks"
        raise refuse("--data", wanted, name, nearest(name, PARTS))
    return PARTS[name]

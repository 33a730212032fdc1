"""DoF's Figure 8 in kind, with its Tables 16, 17 and 19: what planners owe to how they draw and what they know.

Steps and kind of the sampler, guidance, the return that is asked for, the temperature and replanning act alone: each
planner is trained once and played by each value. Histories are trained for, one planner each.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.cli import cells, planners, points
from jaxomarl.cli.cells import Asked, Cell
from jaxomarl.cli.session import Results
from jaxomarl.cli.shifted import Meeting, played
from jaxomarl.config import flag
from jaxomarl.results.curves import Point

STEPS = (1, 2, 5, 10, 20, 50)
SAMPLERS = ("ddpm", "ddim")
ACTING: dict[str, tuple[str, Sequence[Any]]] = {
    "guidance": ("weight of guidance", (0.0, 1.0, 1.2, 1.4, 1.6, 1.8, 3.0)),
    "target": ("return asked for", (0.3, 0.6, 0.9, 1.2)),
    "temperature": ("temperature", (0.0, 0.25, 0.5, 1.0)),
    "replan": ("steps that a plan is followed", (1, 2, 4)),
}
"""Field -> panel, and the values that finished planners are played by."""
HISTORY = (0, 1, 4, 8)
HOW = (
    "Histories are trained for, one planner each; all else is how one finished planner acts, with the starts and draws "
    "of its last evaluation. The paper's curves are of SMAC, and pictures alone; by its Table 19 a return without "
    "history is 60 to 70 % less there."
)


def fig8(asked: Asked) -> str:
    """Returns of planners against steps, guidance, the return asked for, temperature, replanning and history."""
    if "consistency" in asked.overrides.get("sampler", ()):
        way = "Its model is distilled for one step."
        raise refuse("--cfg.sampler", f"one of {', '.join(SAMPLERS)} for dof-fig8", "consistency", way)
    for field in ("calls", "sampler", "history", *ACTING):
        if len(asked.overrides.get(field, ())) > 1:
            way = "It is swept anyway; one value is what the other panels have."
            raise refuse(flag(field), "one value for dof-fig8", asked.overrides[field], way)
    made: list[Cell] = []
    found: list[Point] = []
    for task in asked.tasks or ("mpe/spread",):
        for quality in asked.data or ("expert",):
            cell, results = cells.train(asked, asked.systems or ("dof-t",), task, quality)
            made.append(cell)
            found += acted(cell, results)
            found += of_history(cell, results)
            others = histories(results)
            del results  # and the data with them
            for history in others:
                part = dataclasses.replace(asked, overrides={**asked.overrides, "history": [history]})
                name = cells.folder_name(task, quality, f"history={history}")
                found += of_history(*cells.train(part, asked.systems or ("dof-t",), task, quality, name=name))
    found.sort(key=lambda p: (p.panel, p.curve, p.x))
    points.keep(asked, found, "", "return", {}, logarithmic=False)
    notes = [planners.DIFFERENCES[0], planners.DIFFERENCES[2], HOW]
    return points.text(asked, made, notes, planners.THEIRS, found, "value", {})


def settings() -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """(panel, curve, x, what is changed) of everything that acts alone."""
    for sampler in SAMPLERS:
        for calls in STEPS:
            yield "steps of the sampler", sampler, float(calls), {"sampler": sampler, "calls": calls}
    for field, (panel, values) in ACTING.items():
        for value in values:
            yield panel, "", float(value), {field: value}


def histories(results: Results) -> list[int]:
    """Those that these planners do not have and that fit into the longest episode beside their horizon."""
    group = results.past[0][0]
    assert group.data is not None
    room = int(np.asarray(group.data.left).max()) - max(g.cfgs[0].horizon for g, _ in results.past)
    own = {g.cfgs[0].history for g, _ in results.past}
    return [history for history in HISTORY if history <= room and {history} != own]


def fits(cfg: Any, changed: dict[str, Any]) -> bool:
    """Whether a planner can be asked for so many steps of its sampler or of its plan."""
    return changed.get("replan", 1) <= cfg.horizon and changed.get("calls", 1) <= cfg.levels


def acted(cell: Cell, results: Results) -> list[Point]:
    """Finished planners by every setting that acts alone."""
    out = []
    few = min((group.cfgs[0] for group, _ in results.past), key=lambda cfg: cfg.horizon)
    for panel, curve, x, changed in (each for each in settings() if fits(few, each[3])):
        for group, _, shown in played(results, Meeting(cell.task, cell.task.episodes, 1, tuple(changed.items()))):
            name = " ".join(part for part in (group.name, cell.quality, curve) if part)
            out.append(points.point(f"{cell.task.name}: {panel}", name, x, [shown["return"].mean(axis=(1, 2))]))
    return out


def of_history(cell: Cell, results: Results) -> list[Point]:
    """The last evaluations of planners, at their own history."""
    panel, ends = f"{cell.task.name}: rows of history", points.ends(results, None)
    return [
        points.point(panel, f"{group.name} {cell.quality}", float(group.cfgs[0].history), [ends[group.name]])
        for group, _ in results.past
    ]

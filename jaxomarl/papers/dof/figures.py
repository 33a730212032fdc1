"""DoF's Figure 8 in kind, with its Tables 16, 17 and 19: what planners owe to how they draw and what they know.

Steps and kind of the sampler, guidance, the return that is asked for, the temperature and replanning act alone: each
planner is trained once and played by each value. Histories and horizons are trained for, one planner each. Several
values of a field (`--cfg.history 0 4`) take the place of its own here; the other panels have the first of them.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxomarl.api.session import Results
from jaxomarl.base import refuse
from jaxomarl.papers import cells, points
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.dof import planners
from jaxomarl.papers.shifted import Meeting, final_episodes, played
from jaxomarl.paths import folder_name
from jaxomarl.results.curves import Point

SYSTEMS = ("dof-t",)
SAMPLERS = ("ddpm", "ddim")
ACTING: dict[str, tuple[str, tuple]] = {
    "calls": ("steps of the sampler", (1, 2, 5, 10, 20, 50)),
    "guidance": ("weight of guidance", (0.0, 1.0, 1.2, 1.4, 1.6, 1.8, 3.0)),
    "target": ("return asked for", (0.3, 0.6, 0.9, 1.2)),
    "temperature": ("temperature", (0.0, 0.25, 0.5, 1.0)),
    "replan": ("steps that a plan is followed", (1, 2, 4)),
}
"""Field -> panel, and the values that finished planners are played by; each number of steps by both samplers."""
TRAINED: dict[str, tuple[str, tuple]] = {
    "history": ("rows of history", (0, 2, 4, 8)),
    "horizon": ("rows ahead", (1, 3, 7, 15)),
}
"""Field -> panel, and the values that planners are trained with."""
HOW = (
    "Histories and horizons are trained, one planner each; all else is how a finished planner acts, with the starts "
    "and draws of its final evaluation. The paper's curves are of SMAC, and pictures alone; by its Table 19 a return "
    "without history is 60 to 70 % less there."
)


def fig8(asked: Asked) -> str:
    """Returns of planners against steps, guidance, the return asked for, temperature, replanning, history, horizon."""
    if (
        set(asked.overrides.get("sampler", ())) - set(SAMPLERS)
        or len(asked.overrides.get("sampler", ())) > 1
    ):
        way = "Both are played anyway; one is what the other panels have."
        raise refuse(
            "--cfg.sampler",
            f"{' or '.join(SAMPLERS)} for dof-fig8",
            asked.overrides["sampler"],
            way,
        )
    given = {field: tuple(values) for field, values in asked.overrides.items() if len(values) > 1}
    base = dataclasses.replace(
        asked, overrides={field: values[:1] for field, values in asked.overrides.items()}
    )
    made: list[Cell] = []
    found: list[Point] = []
    for task in asked.tasks or ("mpe/spread",):
        for quality in asked.data or ("expert",):
            cell, results = cells.train(base, asked.systems or SYSTEMS, task, quality)
            made.append(cell)
            found += acted(cell, results, given)
            found += [p for field in TRAINED for p in trained(field, cell, results)]
            others = unlike(results, given)
            del results  # and the data with them
            for field, value in others:
                part = dataclasses.replace(base, overrides={**base.overrides, field: [value]})
                name = folder_name(task, quality, f"{field}={value}")
                found += trained(
                    field, *cells.train(part, asked.systems or SYSTEMS, task, quality, name=name)
                )
    found.sort(key=lambda p: (p.panel, p.curve, p.x))
    points.keep(asked, found, "", "return", {}, logarithmic=False)
    notes = [planners.DIFFERENCES[0], planners.DIFFERENCES[2], HOW]
    return points.text(asked, made, notes, planners.THEIRS, found, "value", {})


def settings(given: dict[str, tuple]) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """(panel, curve, x, what is changed) of everything that acts alone."""
    for field, (panel, values) in ACTING.items():
        for value in given.get(field, values):
            if field != "calls":
                yield panel, "", float(value), {field: value}
                continue
            for sampler in SAMPLERS:
                yield panel, sampler, float(value), {"sampler": sampler, field: value}


def unlike(results: Results, given: dict[str, tuple]) -> list[tuple[str, int]]:
    """(field, value) that these planners were not trained with, where history and horizon fit into an episode."""
    first = results.past[0][0]
    assert first.data is not None
    room, out = int(np.asarray(first.data.left).max()), []
    for field, (_, values) in TRAINED.items():
        for value in given.get(field, values):
            tried = [
                dataclasses.replace(group.cfgs[0], **{field: value}) for group, _ in results.past
            ]
            fit = all(
                cfg.history + cfg.horizon <= room and cfg.replan <= cfg.horizon for cfg in tried
            )
            if fit and any(getattr(group.cfgs[0], field) != value for group, _ in results.past):
                out.append((field, value))
    return out


def fits(cfg: Any, changed: dict[str, Any]) -> bool:
    """Whether a planner can be asked for so many steps of its sampler or of its plan."""
    return changed.get("replan", 1) <= cfg.horizon and changed.get("calls", 1) <= cfg.levels


def acted(cell: Cell, results: Results, given: dict[str, tuple]) -> list[Point]:
    """Finished planners by every setting that acts alone."""
    out = []
    few = min((group.cfgs[0] for group, _ in results.past), key=lambda cfg: cfg.horizon)
    starts = final_episodes(results)
    for panel, curve, x, changed in (each for each in settings(given) if fits(few, each[3])):
        for group, _, shown in played(
            results, Meeting(cell.task, starts, 1, tuple(changed.items()))
        ):
            name = " ".join(part for part in (group.name, cell.quality, curve) if part)
            out.append(
                points.point(
                    f"{cell.task.name}: {panel}", name, x, [shown["return"].mean(axis=(1, 2))]
                )
            )
    return out


def trained(field: str, cell: Cell, results: Results) -> list[Point]:
    """The final evaluations of planners, at their own value of a field."""
    panel, ends = f"{cell.task.name}: {TRAINED[field][0]}", points.ends(results, None)
    return [
        points.point(
            panel,
            f"{group.name} {cell.quality}",
            float(getattr(group.cfgs[0], field)),
            [ends[group.name]],
        )
        for group, _ in results.past
    ]

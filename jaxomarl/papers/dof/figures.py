"""DoF's Figure 8 in kind, with its Tables 16, 17 and 19: planners by their settings.

Steps and kind of the sampler, guidance, the return that is asked for, the temperature and
replanning change acting alone: each planner is trained once and rolled out by each value. Histories
and horizons are trained for, one planner each. Several values of a field (`--cfg.history 0 4`) take
the place of its own here; the other panels have the first of them.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxomarl.api.session import Results
from jaxomarl.base import refuse
from jaxomarl.papers import cells, measured, points, shifted
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.dof import planners
from jaxomarl.papers.shifted import EvaluationSetting, final_episodes, outcomes
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
"""Field -> panel, and the values that finished planners act by.

Each number of steps is by both samplers.
"""
TRAINED: dict[str, tuple[str, tuple]] = {
    "history": ("rows of history", (0, 2, 4, 8)),
    "horizon": ("rows ahead", (1, 3, 7, 15)),
}
"""Field -> panel, and the values that planners are trained with."""
HOW = (
    "Histories and horizons are trained, one planner each; all else is how a finished planner "
    "acts, with the starts and draws of its final evaluation. The paper's curves are of SMAC, and "
    "pictures alone; by its Table 19 a return without history is 60 to 70 % less there."
)


@runtime_checkable
class PlannerConfig(Protocol):
    """The fields of a planner's settings that limit how it can act."""

    horizon: int
    """Rows of a plan."""
    levels: int
    """Levels of the diffusion."""


class ActingSetting(NamedTuple):
    """A value of a field that changes acting alone."""

    panel: str
    curve: str
    x: float
    changed: dict[str, Any]


def fig8(asked: Asked) -> str:
    """Figure 8: returns of planners against the settings of `ACTING` and `TRAINED`."""
    samplers = asked.overrides.get("sampler", ())
    if set(samplers) - set(SAMPLERS) or len(samplers) > 1:
        wanted = f"{' or '.join(SAMPLERS)} for dof-fig8"
        way_out = "Both are played anyway; one is what the other panels have."
        raise refuse("--cfg.sampler", wanted, samplers, way_out)
    several = {field: tuple(values) for field, values in asked.overrides.items() if len(values) > 1}
    first = {field: values[:1] for field, values in asked.overrides.items()}
    base = dataclasses.replace(asked, overrides=first)
    systems = asked.systems or SYSTEMS
    trained: list[Cell] = []
    shown: list[Point] = []
    for task in asked.tasks or ("mpe/spread",):
        for quality in asked.data or ("expert",):
            # --- one training, rolled out by each acting setting ---
            cell, results = cells.train(base, systems, task, quality)
            trained.append(cell)
            shown += acting_points(asked, cell, results, several)
            for field in TRAINED:
                shown += trained_points(field, cell, results)
            others = other_values(results, several)
            # the results hold the data
            del results

            # --- a training for each other history and horizon ---
            for field, value in others:
                part = dataclasses.replace(base, overrides={**base.overrides, field: [value]})
                name = folder_name(task, quality, f"{field}={value}")
                other_cell, results = cells.train(part, systems, task, quality, name=name)
                shown += trained_points(field, other_cell, results)
                del results
    shown.sort(key=lambda p: (p.panel, p.curve, p.x))
    points.save_points(asked, shown, "", "return", {}, logarithmic=False)
    notes = [planners.DIFFERENCES[0], planners.DIFFERENCES[2], HOW]
    return points.points_report(asked, trained, notes, planners.THEIRS, shown, "value", {})


def acting_settings(given: Mapping[str, tuple]) -> Iterator[ActingSetting]:
    """Every value of every field that changes acting alone.

    `given` takes the place of a field's values.
    """
    for field, (panel, values) in ACTING.items():
        for value in given.get(field, values):
            if field != "calls":
                yield ActingSetting(panel, "", float(value), {field: value})
                continue
            for sampler in SAMPLERS:
                changed = {"sampler": sampler, field: value}
                yield ActingSetting(panel, sampler, float(value), changed)


def other_values(results: Results, given: Mapping[str, tuple]) -> list[tuple[str, int]]:
    """(field, value) that these planners were not trained with.

    History and horizon have to fit into an episode.
    """
    first = results.past[0][0]
    assert first.data is not None
    longest = int(np.asarray(first.data.left).max())
    cfgs = [group.cfgs[0] for group, _ in results.past]
    others = []
    for field, (_, values) in TRAINED.items():
        for value in given.get(field, values):
            changed = [dataclasses.replace(cfg, **{field: value}) for cfg in cfgs]
            fit = all(
                cfg.history + cfg.horizon <= longest and cfg.replan <= cfg.horizon
                for cfg in changed
            )
            if fit and any(getattr(cfg, field) != value for cfg in cfgs):
                others.append((field, value))
    return others


def fits(cfg: PlannerConfig, changed: Mapping[str, Any]) -> bool:
    """Whether a planner can be asked for so many steps of its sampler or of its plan."""
    return changed.get("replan", 1) <= cfg.horizon and changed.get("calls", 1) <= cfg.levels


def acting_points(
    asked: Asked, cell: Cell, results: Results, given: Mapping[str, tuple]
) -> list[Point]:
    """Finished planners by every setting that changes acting alone.

    Each run's returns go to `asked.out` as evidence.
    """
    shown = []
    shortest = min((group.cfgs[0] for group, _ in results.past), key=lambda cfg: cfg.horizon)
    starts = final_episodes(results)
    for acting in acting_settings(given):
        if not fits(shortest, acting.changed):
            continue
        setting = EvaluationSetting(cell.task, starts, 1, tuple(acting.changed.items()))
        panel = f"{cell.task.name}: {acting.panel}"
        rows = shifted.setting_measures(results, setting, tuple(TRAINED))
        measured.add_measures(asked.out, rows)
        for group, _, outcome in outcomes(results, setting):
            curve = " ".join(filter(None, (group.name, cell.quality, acting.curve)))
            scores = outcome["return"].mean(axis=(1, 2))
            shown.append(points.point(panel, curve, acting.x, [scores]))
    return shown


def trained_points(field: str, cell: Cell, results: Results) -> list[Point]:
    """The final evaluations of planners, at their own value of a field."""
    panel = f"{cell.task.name}: {TRAINED[field][0]}"
    scores = points.final_scores(results, None)
    shown = []
    for group, _ in results.past:
        x = float(getattr(group.cfgs[0], field))
        curve = f"{group.name} {cell.quality}"
        shown.append(points.point(panel, curve, x, [scores[group.name]]))
    return shown

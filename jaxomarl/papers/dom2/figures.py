"""DOM2's Figures 5 to 7: scores by the data, without parts of DOM2, and by eta and N."""

import dataclasses
from collections import defaultdict

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, points, shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.dom2 import tables
from jaxomarl.papers.shown import Content
from jaxomarl.paths import folder_name
from jaxomarl.results.curves import Point

FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)
QUALITIES = tuple(q for q in tables.QUALITIES if q != "medium-replay")
"""Kinds of data over which Figure 5 (a)-(c) averages."""
SWEEPS = {
    "eta": (0.1, 1.0, 10.0, 100.0),
    "levels": (1, 2, 5, 10),
}
"""Figure 7's fields with values in its ranges: eta in [0.1, 100], N in [1, 10]."""
KINDS_PANEL = "all tasks, by kind of data"

ScoresByKind = dict[tuple[str, str, float], dict[str, np.ndarray]]
"""(task, system, fraction) -> kind of data -> the seeds' normalised scores."""


# --- Figure 5 ---


def fig5(asked: Asked) -> str:
    """Figure 5: (a)-(c) mean normalised score by the data's size and the task; (d) by its kind."""
    scores: ScoresByKind = defaultdict(dict)
    trained = []
    for task in asked.tasks or tables.TASKS:
        trained += train_fractions(asked, task, scores)
    kinds, order = kind_points(scores)
    drawn = [*size_points(scores), *kinds]
    named = {KINDS_PANEL: order}
    points.save_points(
        asked, drawn, "fraction of the data", "normalised score", named, logarithmic=True
    )
    how = (
        f"Size: {', '.join(f'{f:g}' for f in FRACTIONS)} of the rows, in whole episodes; a smaller "
        "set is made by the same behaviours in the same shares. The score is the mean over kinds "
        "of data, without medium-replay unless `--data` names it; the paper's curves are a "
        "picture, without numbers."
    )
    notes = [tables.DATA, tables.PREY, tables.SETTINGS, how]
    x = "fraction of the data, or kind"
    return points.points_report(asked, trained, notes, tables.THEIRS, drawn, x, named)


def train_fractions(asked: Asked, task: str, scores: ScoresByKind) -> list[Cell]:
    """Train a task's systems on each fraction and kind of data.

    Their scores go into `scores`.
    """
    scale = make(task).scale
    if scale is None:
        way_out = "Figure 5 averages over kinds of data."
        raise refuse("--tasks", "tasks with normalised scores", task, way_out)
    all_rows = asked.rows or make(task).rows
    systems = asked.systems or tables.SYSTEMS
    trained = []
    for fraction in FRACTIONS:
        part = dataclasses.replace(asked, rows=max(1, round(fraction * all_rows)))
        for quality in tables.qualities(asked, task, QUALITIES):
            name = folder_name(task, quality, f"{fraction:g}")
            cell, results = cells.train(part, systems, task, quality, name=name)
            for system, values in points.final_scores(results, scale).items():
                scores[cell.task.name, system, fraction][cell.quality] = values
            trained.append(cell)
            # the results hold the data
            del results
    return trained


def size_points(scores: ScoresByKind) -> list[Point]:
    """The mean over kinds of data, by task, system and fraction."""
    return [
        points.point(task, system, fraction, list(by_kind.values()))
        for (task, system, fraction), by_kind in scores.items()
    ]


def kind_points(scores: ScoresByKind) -> tuple[list[Point], list[str]]:
    """(the mean over tasks by system and kind of data, the kinds in their order).

    These are of all the data.
    """
    by_kind = defaultdict(list)
    for (_, system, fraction), of_kinds in scores.items():
        if fraction == max(FRACTIONS):
            for quality, values in of_kinds.items():
                by_kind[system, quality].append(values)
    known = {quality for _, quality in by_kind}
    order = [q for q in tables.QUALITIES if q in known]
    order += sorted(known - set(order))
    kinds = []
    for (system, quality), values in by_kind.items():
        kinds.append(points.point(KINDS_PANEL, system, float(order.index(quality)), values))
    return kinds, order


# --- Figure 6 ---

ABLATED = Content(
    systems=("dom2",),
    tasks=tables.TASKS,
    data=("random", "medium-replay", "medium", "expert"),
    notes=(
        tables.DATA,
        tables.PREY,
        "Parts: the value term, the diffusion term, the residual network (a plain perceptron in "
        "its place), and the reweighting of trajectories; the paper's bars are a picture, without "
        "numbers.",
    ),
    theirs=tables.THEIRS,
)
PARTS: dict[str, tuple[str, object]] = {
    "no value term": ("improvement", False),
    "no diffusion term": ("denoising", False),
    "plain perceptron": ("network", "mlp"),
    "no reweighting": ("thresholds", ""),
}
"""What is left out of DOM2, and the field that leaves it out."""


def fig6(asked: Asked) -> str:
    """Figure 6: DOM2's final scores without each of its parts."""
    return shown.without_parts(asked, ABLATED, PARTS)


# --- Figure 7 ---

SWEPT = Content(
    systems=("dom2",),
    tasks=("mpe/world",),
    data=tables.QUALITIES,
    notes=(tables.DATA, tables.PREY, "The paper's curves are a picture, without numbers."),
    theirs=tables.THEIRS,
)


def fig7(asked: Asked) -> str:
    """Figure 7: DOM2's return against eta and the number N of sampling steps."""
    return shown.swept_fields(asked, SWEPT, SWEEPS, {"levels": "N"})

"""DOM2's Figure 5, scores against the size and the kind of the data, and Figure 7, returns against eta and N."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxomarl.base import JaxomarlError, Scale, refuse
from jaxomarl.cli import cells, comparison, dom2_tables
from jaxomarl.cli.cells import Asked
from jaxomarl.cli.session import Results
from jaxomarl.envs.catalog import make
from jaxomarl.results import curves, statistics, store
from jaxomarl.results.curves import Point

FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)
QUALITIES = tuple(q for q in dom2_tables.QUALITIES if q != "medium-replay")  # the average of its Figure 5 (a)-(c)
SWEEPS = {"eta": (0.1, 1.0, 10.0, 100.0), "levels": (1, 2, 5, 10)}  # its Figure 7: eta in [0.1, 100], N in [1, 10]

Scores = dict[str, np.ndarray]
"""System, with what was swept -> the last evaluation's mean return of each finished seed."""


def fig5(asked: Asked) -> str:
    """Figure 5: (a)-(c) mean normalised score over data sets against their size, by task; (d) by kind of data."""
    tasks, held, made = asked.tasks or dom2_tables.TASKS, defaultdict(dict), []
    for task in tasks:
        rows, scale = asked.rows or make(task).rows, make(task).scale
        if scale is None:
            raise refuse("--tasks", "tasks with normalised scores", task, "Figure 5 averages over kinds of data.")
        for fraction in FRACTIONS:
            part = dataclasses.replace(asked, rows=max(1, round(fraction * rows)))
            for quality in dom2_tables.qualities(asked, task, QUALITIES):
                name = cells.folder_name(task, quality, f"{fraction:g}")
                cell, results = cells.train(part, asked.systems or dom2_tables.SYSTEMS, task, quality, name=name)
                for system, scores in ends(results, scale).items():
                    held[cell.task.name, system, fraction][cell.quality] = scores
                made.append(cell)
                del results  # and the data with them
    sizes = [point(task, system, f, list(by_kind.values())) for (task, system, f), by_kind in held.items()]
    kinds = defaultdict(list)
    for (_, system, fraction), by_kind in held.items():
        for quality, scores in by_kind.items() if fraction == max(FRACTIONS) else ():
            kinds[system, quality].append(scores)
    order = [q for q in dom2_tables.QUALITIES if any(q == kind for _, kind in kinds)]
    order += sorted({kind for _, kind in kinds} - set(order))
    panel = "all tasks, by kind of data"
    bars = [point(panel, s, float(order.index(q)), scores) for (s, q), scores in kinds.items()]
    _keep(asked, [*sizes, *bars], "fraction of the data", "normalised score", {panel: order}, logarithmic=True)
    how = (
        f"Size: {', '.join(f'{f:g}' for f in FRACTIONS)} of the rows, in whole episodes; a smaller set is made by the "
        "same behaviours in the same shares. The score is the mean over kinds of data, without medium-replay unless "
        "`--data` names it; the paper's curves are a picture, without numbers."
    )
    notes = [dom2_tables.DATA, dom2_tables.PREY, dom2_tables.SETTINGS, how]
    return _text(asked, made, notes, [*sizes, *bars], "fraction of the data, or kind", {panel: order})


def fig7(asked: Asked) -> str:
    """Figure 7: DOM2's return against eta and against the number N of sampling steps, by kind of data."""
    tasks, made, points = asked.tasks or ("mpe/world",), [], []
    for field, values in SWEEPS.items():
        if field in asked.overrides:
            raise refuse(f"--cfg.{field}", "nothing for dom2-fig7", asked.overrides[field], "It is what is swept.")
        part = dataclasses.replace(asked, overrides={**asked.overrides, field: list(values)})
        for task in tasks:
            for quality in dom2_tables.qualities(asked, task):
                name = cells.folder_name(task, quality, field)
                cell, results = cells.train(part, asked.systems or ("dom2",), task, quality, name=name)
                title = f"{cell.task.name}: {'N' if field == 'levels' else field}"
                for system, scores in ends(results, None).items():
                    before, _, value = f"{system} ".partition(f" {field}=")
                    x, _, after = value.partition(" ")
                    points.append(point(title, f"{before} {after}{cell.quality}", float(x), [scores]))
                made.append(cell)
                del results  # and the data with them
    points.sort(key=lambda p: (p.panel, p.curve, p.x))
    _keep(asked, points, "eta, or N", "return", {}, logarithmic=True)
    notes = [dom2_tables.DATA, dom2_tables.PREY, "The paper's curves are a picture, without numbers."]
    return _text(asked, made, notes, points, "value", {})


def ends(results: Results, scale: Scale | None) -> Scores:
    """Each finished seed's last mean return, normalised where there is a scale; a diverged seed is nan."""
    found = {k: v.mean(axis=1) for k, v in results.returns.items()}
    return {k: scale.normalise(v) for k, v in found.items()} if scale else found


def point(panel: str, curve: str, x: float, scores: Sequence[np.ndarray]) -> Point:
    """The mean of data sets' scores with the 95 % interval of a bootstrap over seeds; nan where a seed diverged."""
    table = np.stack(scores, axis=1)
    if not np.isfinite(table).all():
        return Point(panel, curve, x, float("nan"), float("nan"), float("nan"), len(table))
    low, high = statistics.stratified_bootstrap(table, statistics.mean)
    return Point(panel, curve, x, float(table.mean()), low, high, len(table))


def _keep(asked: Asked, points: Sequence[Point], x: str, y: str, named: dict, logarithmic: bool) -> list[Path]:
    """points.csv and curves.png of a figure."""
    made = [asked.out / "points.csv", asked.out / "curves.png"]
    store.write_table(made[0], points, Point._fields)
    try:
        curves.curves(made[1], points, x, y, named, logarithmic)
    except JaxomarlError as error:
        asked.lines.say(f"no pictures: {error}")
    return made


def _text(asked: Asked, made: Sequence, notes: Sequence[str], points: Sequence[Point], x: str, named: dict) -> str:
    """Preface and the points as a table."""
    rows = []
    for p in points:
        at = named[p.panel][int(p.x)] if p.panel in named else f"{p.x:g}"
        interval = "" if np.isnan(p.low) else f"{p.low:.1f} to {p.high:.1f}"
        rows.append((p.panel, p.curve, at, "diverged" if np.isnan(p.mean) else f"{p.mean:.1f}", interval))
    loose = sorted(
        {f"{r.task} {r.data} {comparison.named(r)}" for c in made for r in c.records if r.converged is False}
    )
    lines = "\n".join(f"- {line}" for line in loose)
    tail = f"\nNot converged, at one of the points or more:\n\n{lines}\n" if loose else ""
    head = ("panel", "curve", x, "mean", "95 % over seeds")
    return f"{cells.preface(asked, made, notes, dom2_tables.THEIRS)}\n{comparison.markdown(head, rows)}{tail}"

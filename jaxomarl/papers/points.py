"""Figures over settings: final evaluations as points, kept as a csv, a picture and a table."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxomarl.api.session import Results
from jaxomarl.base import Scale
from jaxomarl.papers import cells, comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.results import curves, intervals, store, tables
from jaxomarl.results.curves import Point

Scores = dict[str, np.ndarray]
"""System, with what was swept -> the final evaluation's mean return of each finished seed."""


def final_scores(results: Results, scale: Scale | None) -> Scores:
    """Each finished seed's final mean return, normalised where there is a scale.

    A diverged seed is nan.
    """
    scores = {name: returns.mean(axis=1) for name, returns in results.returns.items()}
    if not scale:
        return scores
    return {name: scale.normalise(values) for name, values in scores.items()}


def point(panel: str, curve: str, x: float, scores: Sequence[np.ndarray]) -> Point:
    """Return the mean of data sets' scores with its 95 % t interval over seeds.

    It is nan where a seed diverged.
    """
    table = np.stack(scores, axis=1)
    seeds = len(table)
    if not np.isfinite(table).all():
        nan = float("nan")
        return Point(panel, curve, x, nan, nan, nan, seeds)
    estimate = intervals.average([intervals.of_samples(column) for column in table.T])
    low, high = intervals.interval(estimate)
    return Point(panel, curve, x, float(estimate.mean), float(low), float(high), seeds)


def save_points(
    asked: Asked,
    points: Sequence[Point],
    x: str,
    y: str,
    named: Mapping[str, Sequence[str]],
    logarithmic: bool,
) -> None:
    """Write points.csv and curves.png of a figure, which says its scale."""
    store.write_table(asked.out / "points.csv", points, Point._fields)
    note = scale_note(asked)
    asked.draw(curves.curves, "curves.png", points, x, y, named, logarithmic, note)


def scale_note(asked: Asked) -> str:
    """What a figure says of its scale; "" at that of the preset."""
    if asked.scale == 1.0:
        return ""
    return tables.reduced(asked.scale)


def points_report(
    asked: Asked,
    trained: Sequence[Cell],
    notes: Sequence[str],
    their_seeds: str,
    points: Sequence[Point],
    x: str,
    named: Mapping[str, Sequence[str]],
) -> str:
    """Preface and the points as a table."""
    records = [record for cell in trained for record in cell.records]
    before = cells.preface(asked, trained, notes, their_seeds)
    head = ("panel", "curve", x, "mean", "95 %")
    table = comparison.markdown_table(head, [_row(p, named) for p in points])
    covered = "".join(f"\n{line}\n" for line in tables.coverage(records))
    return f"{before}\n{table}{covered}{_unfinished(records)}"


def _row(p: Point, named: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A point's cells; `named` gives the x positions of a panel words."""
    at = f"{p.x:g}"
    if p.panel in named:
        at = named[p.panel][int(p.x)]
    mean = "diverged" if np.isnan(p.mean) else f"{p.mean:.1f}"
    interval = "" if np.isnan(p.low) else f"{p.low:.1f} to {p.high:.1f}"
    return p.panel, p.curve, at, mean, interval


def _unfinished(records: Sequence[tables.Record]) -> str:
    """A list of the systems that have not converged or not learned; "" where all have."""
    names = set()
    for r in records:
        if r.converged is False or not r.ranked:
            names.add(f"{r.task} {r.data} {comparison.full_name(r)}")
    if not names:
        return ""
    lines = "\n".join(f"- {name}" for name in sorted(names))
    return f"\nNot finished, at one of the points or more:\n\n{lines}\n"

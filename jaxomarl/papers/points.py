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


def ends(results: Results, scale: Scale | None) -> Scores:
    """Each finished seed's final mean return, normalised where there is a scale; a diverged seed is nan."""
    found = {k: v.mean(axis=1) for k, v in results.returns.items()}
    return {k: scale.normalise(v) for k, v in found.items()} if scale else found


def point(panel: str, curve: str, x: float, scores: Sequence[np.ndarray]) -> Point:
    """Return the mean of data sets' scores with its 95 % t interval over seeds; nan where a seed diverged."""
    table = np.stack(scores, axis=1)
    if not np.isfinite(table).all():
        return Point(panel, curve, x, float("nan"), float("nan"), float("nan"), len(table))
    estimate = intervals.average([intervals.of_samples(column) for column in table.T])
    low, high = intervals.interval(estimate)
    return Point(panel, curve, x, float(estimate.mean), float(low), float(high), len(table))


def keep(
    asked: Asked,
    points: Sequence[Point],
    x: str,
    y: str,
    named: Mapping[str, Sequence[str]],
    logarithmic: bool,
) -> None:
    """Write points.csv and curves.png of a figure."""
    store.write_table(asked.out / "points.csv", points, Point._fields)
    asked.draw(curves.curves, "curves.png", points, x, y, named, logarithmic)


def text(
    asked: Asked,
    made: Sequence[Cell],
    notes: Sequence[str],
    theirs: str,
    points: Sequence[Point],
    x: str,
    named: Mapping[str, Sequence[str]],
) -> str:
    """Preface and the points as a table."""
    rows = []
    for p in points:
        at = named[p.panel][int(p.x)] if p.panel in named else f"{p.x:g}"
        interval = "" if np.isnan(p.low) else f"{p.low:.1f} to {p.high:.1f}"
        rows.append(
            (p.panel, p.curve, at, "diverged" if np.isnan(p.mean) else f"{p.mean:.1f}", interval)
        )
    loose = sorted(
        {
            f"{r.task} {r.data} {comparison.named(r)}"
            for c in made
            for r in c.records
            if r.converged is False
        }
    )
    lines = "\n".join(f"- {line}" for line in loose)
    tail = f"\nNot converged, at one of the points or more:\n\n{lines}\n" if loose else ""
    said = tables.coverage([r for c in made for r in c.records])
    covered = "".join(f"\n{line}\n" for line in said)
    head = ("panel", "curve", x, "mean", "95 %")
    return f"{cells.preface(asked, made, notes, theirs)}\n{comparison.markdown(head, rows)}{covered}{tail}"

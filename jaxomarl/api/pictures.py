"""Every figure of a command's results, by name.

A figure is drawn when it is asked for, and written only where a path is given.
"""

from pathlib import Path

from jaxomarl.api import directions
from jaxomarl.api.plan import Group
from jaxomarl.base import Past, nearest, refuse
from jaxomarl.results import figures, tables
from jaxomarl.results.canvas import Figure
from jaxomarl.results.store import Row

KINDS = ("returns", "intervals", "directions")
"""Learning curves, final scores with their intervals, and the score fields of a game."""


def figure(
    kind: str,
    rows: list[Row],
    records: list[tables.Record],
    trained: list[tuple[Group, Past]],
    path: str | Path | None = None,
) -> Figure:
    """The figure of a kind; one that shows a single task shows the first.

    Raises JaxomarlError for another kind, where these results have no such figure, and where
    matplotlib is missing.
    """
    if kind not in KINDS:
        raise refuse("kind", f"one of {', '.join(KINDS)}", kind, nearest(kind, KINDS))

    scales = {group.scale for group, _ in trained}
    note = "  ".join(tables.reduced(scale) for scale in sorted(scales - {1.0}))
    if kind == "returns":
        labels = {record.config: record.swept for record in records}
        return figures.learning_curves(path, rows, labels=labels, note=note)
    if kind == "intervals":
        return figures.score_intervals(path, records, note)

    drawn = directions.draw_directions(path, trained, rows, note)
    if drawn is None:
        expected = "score models on a game of two agents with one action each"
        found = ", ".join(sorted({f"{group.name} on {group.task.name}" for group, _ in trained}))
        way = "Train omsd or one of its ablations on games/bandit."
        raise refuse("kind", expected, found, way)
    return drawn

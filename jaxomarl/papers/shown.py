"""Figures of trained systems: curves of training, final scores next to one another, swept settings.

Each figure trains what it needs into OUT, or reads it where it was trained. So it is drawn from
result folders, at whatever scale they have, and says which.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxomarl.api.session import Results
from jaxomarl.base import refuse
from jaxomarl.config import flag
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, points
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.paths import folder_name
from jaxomarl.results import figures, tables
from jaxomarl.results.curves import Point
from jaxomarl.results.store import Row
from jaxomarl.results.tables import Record


class Content(NamedTuple):
    """What a figure shows where nothing else is asked for."""

    systems: tuple[str, ...]
    tasks: tuple[str, ...]
    data: tuple[str, ...]
    notes: tuple[str, ...]
    """What differs from the paper, besides the code."""
    theirs: str
    """What the paper says of its own seeds."""


def trained_cells(asked: Asked, content: Content, part: str = "") -> Iterator[tuple[Cell, Results]]:
    """Each task and quality with its results, which hold the data: one cell at a time.

    `part` names a part of the figure, which has folders of its own.
    """
    for task, quality in wanted_cells(asked, content):
        name = ""
        if part:
            name = folder_name(task, quality, part)
        yield cells.train(asked, asked.systems or content.systems, task, quality, name=name)


def wanted_cells(asked: Asked, content: Content) -> Iterator[tuple[str, str]]:
    """Each task and quality.

    A quality that a task cannot make is left out, unless it is asked for.
    """
    for task in asked.tasks or content.tasks:
        recipes = make(task).recipes
        for quality in asked.data or [q for q in content.data if q in recipes]:
            yield task, quality


# --- curves of training ---


def training_curves(asked: Asked, content: Content) -> str:
    """Draw the returns in training, a panel for each task and quality; the table of final scores.

    A field of several values in `asked.overrides` makes a curve for each.
    """
    trained = []
    rows: list[Row] = []
    for cell, results in trained_cells(asked, content):
        rows += [row for row in results.rows if row.metric == "return"]
        trained.append(cell)
        # the results hold the data
        del results
    records = records_of(trained)
    labels = {record.config: record.swept for record in records}
    note = points.scale_note(asked)
    asked.draw(figures.learning_curves, "curves.png", rows, labels=labels, note=note)
    return text(asked, content, trained, records)


# --- final scores ---


def final_scores(asked: Asked, content: Content) -> str:
    """Draw the final scores with their intervals, a panel for each task and quality; the table."""
    trained = [cell for cell, _ in trained_cells(asked, content)]
    records = records_of(trained)
    asked.draw(figures.score_intervals, "intervals.png", records, note=points.scale_note(asked))
    return text(asked, content, trained, records)


def without_parts(asked: Asked, content: Content, parts: Mapping[str, tuple[str, object]]) -> str:
    """Draw the final scores of the full system and of one without each part.

    `parts` maps words to the (field, value) that leaves the part out.
    """
    refuse_swept(asked, [field for field, _ in parts.values()])
    trained = []
    records: list[Record] = []
    changes: dict[str, dict[str, list[object]]] = {"complete": {}}
    changes |= {words: {field: [value]} for words, (field, value) in parts.items()}
    for k, (words, change) in enumerate(changes.items()):
        variant = dataclasses.replace(asked, overrides={**asked.overrides, **change})
        for cell, results in trained_cells(variant, content, f"variant-{k}"):
            named = [r._replace(swept=f"{words} {r.swept}".strip()) for r in cell.records]
            records += named
            if not change:
                trained.append(cell)
            # the results hold the data
            del results
    records.sort(key=lambda r: (r.task, r.data))
    asked.draw(figures.score_intervals, "intervals.png", records, note=points.scale_note(asked))
    return text(asked, content, trained, records)


# --- swept settings ---


def swept_fields(
    asked: Asked,
    content: Content,
    sweeps: Mapping[str, Sequence[float]],
    names: Mapping[str, str] | None = None,
) -> str:
    """Draw the return against each swept field, a panel for each field and task.

    Systems and data are its curves. `names` are the papers' names of fields.
    """
    refuse_swept(asked, list(sweeps))
    shown = []
    trained = []
    for field, values in sweeps.items():
        part = dataclasses.replace(asked, overrides={**asked.overrides, field: list(values)})
        for cell, results in trained_cells(part, content, field):
            for system, scores in points.final_scores(results, None).items():
                shown.append(sweep_point(cell, field, system, scores, names or {}))
            trained.append(cell)
            # the results hold the data
            del results
    shown.sort(key=lambda p: (p.panel, p.curve, p.x))
    # zero has no place on a logarithmic axis
    logarithmic = all(p.x > 0 for p in shown)
    x = ", or ".join((names or {}).get(field, field) for field in sweeps)
    points.save_points(asked, shown, x, "return", {}, logarithmic)
    return points.points_report(asked, trained, content.notes, content.theirs, shown, "value", {})


def sweep_point(
    cell: Cell, field: str, system: str, scores: np.ndarray, names: Mapping[str, str]
) -> Point:
    """The point of one value of a swept field.

    The value stands in the system's name, as `field=value`.
    """
    name, _, rest = f"{system} ".partition(f" {field}=")
    value, _, others = rest.partition(" ")
    panel = f"{cell.task.name}: {names.get(field, field)}"
    return points.point(panel, f"{name} {others}{cell.quality}", float(value), [scores])


# --- what all of them say ---


def refuse_swept(asked: Asked, fields: Sequence[str]) -> None:
    """Raise JaxomarlError where a field is set that the figure itself changes."""
    for field in fields:
        if field in asked.overrides:
            given = asked.overrides[field]
            raise refuse(flag(field), "nothing for this figure", given, "It is what is swept.")


def records_of(trained: Sequence[Cell]) -> list[Record]:
    """The records of all cells."""
    return [record for cell in trained for record in cell.records]


def text(asked: Asked, content: Content, trained: Sequence[Cell], records: Sequence[Record]) -> str:
    """Preface, and the final scores as a table."""
    before = cells.preface(asked, trained, content.notes, content.theirs)
    return f"{before}\n{tables.markdown(records)}"

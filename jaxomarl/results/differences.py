"""Differences of systems that had the same fresh starts.

Their intervals are narrower than two intervals side by side suggest.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.results import intervals
from jaxomarl.results.intervals import Estimate
from jaxomarl.results.store import Row, write_table
from jaxomarl.results.tables import Record

Scores = dict[int, Float[np.ndarray, " E"]]
"""Seed -> the returns of its final episodes, all finite."""


class Difference(NamedTuple):
    """How far the highest mean of a task and data set lies above another row's."""

    leader: Record
    other: Record
    pairs: int
    """Seeds that both have, each on the same starts; 0 where nothing is paired."""
    mean: float
    low: float | None
    """Lower end of the 95 % interval; None where there are too few values for one."""
    high: float | None


def differences(records: Sequence[Record], final: Iterable[Row]) -> list[Difference]:
    """Compare every row of a task and data set with the one of the highest mean.

    Two systems are paired by seed and episode, since both have the same start there. Where they
    have no seed in common, Welch's difference of their seeds' means stands. Records without a final
    evaluation are left out, and those of which a stage has not learned.
    """
    returns = _returns_by_cell(final)
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.starts == "fresh" and np.isfinite(record.mean) and record.ranked:
            groups[record.task, record.data].append(record)
    result = []
    for group in groups.values():
        leader = max(group, key=lambda record: record.mean)
        first = returns[_cell(leader)]
        for other in group:
            if other is not leader:
                result.append(_difference(leader, first, other, returns[_cell(other)]))
    return result


def markdown(compared: Sequence[Difference]) -> str:
    """Return the differences as a Markdown table under a sentence, or "" where there is none."""
    if not compared:
        return ""
    head = ("task", "data", "highest mean", "other", "difference [95 %]", "pairs of seeds")
    lines = [_markdown_row(head), _markdown_row(["---"] * len(head))]
    for d in compared:
        leader = d.leader
        row = (leader.task, leader.data, _name(leader), _name(d.other), _interval(d), str(d.pairs))
        lines.append(_markdown_row(row))
    note = (
        "How far the highest mean lies above the others, paired by seed and start where both have "
        "them. It was chosen by these scores, so that differences lean its way."
    )
    return "\n".join([note, "", *lines]) + "\n"


def write(folder: str | Path, compared: Sequence[Difference]) -> None:
    """Write differences.csv: a row for each, with all numbers in full precision."""
    columns = ("task", "data", "highest", "other", "difference", "low", "high", "pairs")
    rows = [
        (
            d.leader.task,
            d.leader.data,
            _name(d.leader),
            _name(d.other),
            d.mean,
            d.low,
            d.high,
            d.pairs,
        )
        for d in compared
    ]
    write_table(Path(folder) / "differences.csv", rows, columns)


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _returns_by_cell(final: Iterable[Row]) -> dict[tuple[str, ...], Scores]:
    """Group the final evaluations' returns by cell and seed; a diverged seed is left out."""
    episodes_of: dict[tuple[tuple[str, ...], int], dict[int, float]] = defaultdict(dict)
    for row in final:
        if row.metric == "return":
            cell = (row.system, row.task, row.data, row.config)
            episodes_of[cell, row.seed][int(row.episode)] = row.value
    scores: dict[tuple[str, ...], Scores] = defaultdict(dict)
    for (cell, seed), episodes in episodes_of.items():
        values = np.array([episodes[e] for e in sorted(episodes)], np.float64)
        if np.isfinite(values).all():
            scores[cell][seed] = values
    return scores


def _difference(leader: Record, x: Scores, other: Record, y: Scores) -> Difference:
    """Return the difference of two cells, paired where it can be."""
    common = sorted(x.keys() & y.keys())
    if common:
        # a seed's first episodes have the same starts however many were asked for
        episodes = min(len(returns[seed]) for returns in (x, y) for seed in common)
        first = np.stack([x[seed][:episodes] for seed in common])
        second = np.stack([y[seed][:episodes] for seed in common])
        estimate = intervals.paired_difference(first, second)
    else:
        estimate = intervals.difference(_estimate(list(x.values())), _estimate(list(y.values())))
    low, high = map(float, intervals.interval(estimate))
    ends = (None, None)
    if np.isfinite([low, high]).all():
        ends = (low, high)
    return Difference(leader, other, len(common), float(estimate.mean), *ends)


def _estimate(seeds: Sequence[Float[np.ndarray, " _"]]) -> Estimate:
    """Estimate a mean by its seeds' means, or by the episodes of a single seed."""
    if len(seeds) == 1:
        return intervals.of_samples(seeds[0])
    return intervals.of_samples(np.array([x.mean() for x in seeds]))


def _cell(record: Record) -> tuple[str, ...]:
    return record.system, record.task, record.data, record.config


def _name(record: Record) -> str:
    return " ".join(filter(None, (record.system, record.swept)))


def _interval(d: Difference) -> str:
    if d.low is None:
        return f"{d.mean:.4g}"
    return f"{d.mean:.4g} [{d.low:.4g}, {d.high:.4g}]"

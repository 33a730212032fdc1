"""Differences of systems that met the same fresh starts: narrower than two intervals side by side let one guess."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.results import intervals
from jaxomarl.results.intervals import Estimate
from jaxomarl.results.store import Row
from jaxomarl.results.tables import Record

Scores = dict[int, Float[np.ndarray, " E"]]
"""Seed -> the returns of its final episodes, all finite."""


class Difference(NamedTuple):
    """How far the highest mean of a task and data set lies above another row's."""

    leader: Record
    other: Record
    pairs: int  # seeds that both have, each on the same starts; 0 where they have none and nothing is paired
    mean: float
    low: float | None  # ends of the 95 % interval; None where there is none, for want of values
    high: float | None


def differences(records: Sequence[Record], final: Iterable[Row]) -> list[Difference]:
    """Compare every row of a task and data set with the one of the highest mean, by rows of their final evaluations.

    Two systems are paired by seed and episode, since both meet the same start there. Where they have no seed in common,
    Welch's difference of their seeds' means stands. Records without a final evaluation are left out.
    """
    returns = _returns(final)
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.starts == "fresh" and np.isfinite(record.mean):
            groups[record.task, record.data].append(record)
    out = []
    for group in groups.values():
        leader = max(group, key=lambda record: record.mean)
        first = returns[_cell(leader)]
        out += [
            _difference(leader, first, other, returns[_cell(other)])
            for other in group
            if other is not leader
        ]
    return out


def markdown(found: Sequence[Difference]) -> str:
    """Return the differences as a Markdown table under a sentence, or "" where there is none."""
    if not found:
        return ""
    head = ("task", "data", "highest mean", "other", "difference [95 %]", "pairs of seeds")
    rows = [
        (d.leader.task, d.leader.data, _name(d.leader), _name(d.other), _interval(d), str(d.pairs))
        for d in found
    ]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)
    ]
    lines.insert(1, "| " + " | ".join(["---"] * len(head)) + " |")
    said = (
        "How far the highest mean lies above the others, paired by seed and start where both have them. "
        "It was chosen by these scores, so that differences lean its way."
    )
    return "\n".join([said, "", *lines]) + "\n"


def _returns(final: Iterable[Row]) -> dict[tuple[str, ...], Scores]:
    """Group the final evaluations' returns by cell and seed; a diverged seed is left out."""
    held: dict[tuple[str, ...], dict[int, dict[int, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in final:
        if row.metric == "return":
            cell = (row.system, row.task, row.data, row.config)
            held[cell][row.seed][int(row.episode)] = row.value
    out: dict[tuple[str, ...], Scores] = defaultdict(dict)
    for cell, seeds in held.items():
        for seed, episodes in seeds.items():
            values = np.array([episodes[e] for e in sorted(episodes)], np.float64)
            if np.isfinite(values).all():
                out[cell][seed] = values
    return out


def _difference(leader: Record, x: Scores, other: Record, y: Scores) -> Difference:
    """Return the difference of two cells, paired where it can be."""
    common = sorted(x.keys() & y.keys())
    if common:
        # a seed's first episodes have the same starts however many were asked for
        episodes = min(len(returns[seed]) for returns in (x, y) for seed in common)
        first, second = (
            np.stack([returns[seed][:episodes] for seed in common]) for returns in (x, y)
        )
        estimate = intervals.paired_difference(first, second)
    else:
        estimate = intervals.difference(_estimate(list(x.values())), _estimate(list(y.values())))
    low, high = map(float, intervals.interval(estimate))
    told = np.isfinite([low, high]).all()
    ends = (low, high) if told else (None, None)
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
    interval = "" if d.low is None else f" [{d.low:.4g}, {d.high:.4g}]"
    return f"{d.mean:.4g}{interval}"

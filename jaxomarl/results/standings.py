"""Systems over all tasks: their numbers, performance profiles and probabilities of improvement.

The three figures are those of Agarwal et al. 2021, figures 2, 4 and 7.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.results import aggregate
from jaxomarl.results.aggregate import Curve, Number
from jaxomarl.results.canvas import COLOURS, GREY, Figure, few_ticks, grid, legend, quiet, save
from jaxomarl.results.figures import LINE_STYLES
from jaxomarl.results.study import Comparable

THRESHOLDS = 101
"""Number of thresholds of a profile."""
PAIRS = 28
"""Number of pairs of systems up to which all are compared; else each with the best alone."""
SHORT = "† a stage has not learned: the system's method is not judged."
"""What the mark at a system's name means."""


class Standings(NamedTuple):
    """Numbers of systems over all tasks, in the order of their interquartile mean."""

    unit: str
    target: float | None
    tasks: list[str]
    numbers: dict[str, dict[str, Number]]
    """Statistic -> system -> number."""
    thresholds: Float[np.ndarray, " T"]
    profiles: dict[str, Curve]
    improvements: dict[tuple[str, str], Number]
    """(X, Y) -> probability that a run of X scores above one of Y."""
    short: frozenset[str]
    diverged: dict[str, int]
    """System -> runs that are not finite, which count in profiles alone."""


def standings(compared: Comparable) -> Standings:
    """All statistics of comparable scores.

    A diverged run is left out of the numbers, and counts as a failure in the profiles. Systems of
    which a stage has not learned are in no probability of improvement.
    """
    finite = {name: [x[np.isfinite(x)] for x in of] for name, of in compared.scores.items()}
    finite = {name: of for name, of in finite.items() if all(len(x) for x in of)}
    kinds = {"IQM": aggregate.iqm, "median": aggregate.median, "mean": aggregate.mean}
    if compared.target is not None:
        gap = functools.partial(aggregate.optimality_gap, target=compared.target)
        kinds["optimality gap"] = gap
    numbers = {
        kind: {name: aggregate.interval(statistic, of) for name, of in finite.items()}
        for kind, statistic in kinds.items()
    }
    order = sorted(finite, key=lambda name: -numbers["IQM"][name].value)
    numbers = {kind: {name: of[name] for name in order} for kind, of in numbers.items()}

    thresholds = _thresholds([x for of in finite.values() for x in of])
    profiles = {}
    for name in order:
        # comparisons with NaN are false: a diverged run is above no threshold
        runs = [np.where(np.isfinite(x), x, -np.inf) for x in compared.scores[name]]
        profiles[name] = aggregate.performance_profile(runs, thresholds)
    diverged = {name: _diverged(compared.scores[name]) for name in order}
    return Standings(
        compared.unit,
        compared.target,
        compared.tasks,
        numbers,
        thresholds,
        profiles,
        _improvements([name for name in order if name not in compared.short], finite),
        compared.short,
        {name: count for name, count in diverged.items() if count},
    )


def _thresholds(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Thresholds from below the lowest score to above the highest."""
    every = np.concatenate([np.zeros(0), *scores])
    if not len(every):
        return np.linspace(0.0, 1.0, THRESHOLDS)
    low = float(every.min())
    high = float(every.max())
    room = 0.05 * max(high - low, 1e-6)
    return np.linspace(low - room, high + room, THRESHOLDS)


def _improvements(
    order: Sequence[str], finite: Mapping[str, list[np.ndarray]]
) -> dict[tuple[str, str], Number]:
    """Each system against those behind it; with many systems, the first against each alone."""
    pairs = [(x, y) for k, x in enumerate(order) for y in order[k + 1 :]]
    if len(pairs) > PAIRS:
        pairs = [pair for pair in pairs if pair[0] == order[0]]
    return {(x, y): aggregate.probability_of_improvement(finite[x], finite[y]) for x, y in pairs}


def _diverged(runs: Sequence[np.ndarray]) -> int:
    return sum(int((~np.isfinite(x)).sum()) for x in runs)


def _marked(name: str, short: frozenset[str]) -> str:
    return f"{name}†" if name in short else name


# --- figures ---


def numbers_figure(path: str | Path | None, shown: Standings) -> Figure:
    """Draw each statistic with its 95 % interval, a panel for each, the systems down the panel."""
    names = list(shown.numbers["IQM"])
    height = 1.1 + 0.3 * len(names)
    figure, axes = grid(len(shown.numbers), 3.4, height, 2)
    for panel, (kind, of) in zip(axes, shown.numbers.items(), strict=True):
        for y, name in enumerate(names):
            colour = GREY if name in shown.short else COLOURS[0]
            _draw_number(panel, y, of[name], colour)
        panel.set_yticks(range(len(names)), [_marked(x, shown.short) for x in names], fontsize=9)
        panel.set_ylim(len(names) - 0.4, -0.6)
        better = "lower" if kind == "optimality gap" else "higher"
        panel.set_title(kind, fontsize=10)
        panel.set_xlabel(f"{better} is better", fontsize=8)
        panel.tick_params(axis="x", labelsize=8)
        few_ticks(panel)
        quiet(panel)
    sets = f"{len(shown.tasks)} data set{'s' * (len(shown.tasks) != 1)}"
    note = f"Over {sets}; {shown.unit}. 95 % intervals."
    return save(figure, path, "\n".join([note, *_short_note(shown)]))


def _draw_number(panel: Any, y: int, number: Number, colour: str) -> None:
    if np.isfinite(number.low):
        style = {"color": colour, "linewidth": 4, "alpha": 0.35, "solid_capstyle": "butt"}
        panel.plot([number.low, number.high], [y, y], **style)
    style = {"color": colour, "markersize": 6, "markeredgecolor": "white", "mew": 0.8}
    panel.plot(number.value, y, "o", **style)


def profiles_figure(path: str | Path | None, shown: Standings) -> Figure:
    """Draw the share of runs above each threshold, with pointwise 95 % bands."""
    figure, (panel,) = grid(1, 6.4, 3.4, 1)
    lines = []
    # the colours of learning curves, which are by name
    places = sorted(shown.profiles)
    for name, curve in shown.profiles.items():
        k = places.index(name)
        colour = COLOURS[k % len(COLOURS)]
        style = {"color": colour, "linestyle": LINE_STYLES[k // 7 % 3], "linewidth": 1.8}
        label = _marked(name, shown.short)
        lines += panel.plot(shown.thresholds, curve.value, label=label, **style)
        band = {"color": colour, "alpha": 0.15, "linewidth": 0}
        panel.fill_between(shown.thresholds, curve.low, curve.high, **band)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel(f"threshold: {shown.unit}", fontsize=9)
    panel.set_ylabel("share of runs above", fontsize=9)
    panel.tick_params(labelsize=8)
    quiet(panel)
    legend(figure, lines)
    note = "Higher is better. Bands: pointwise 95 %. A diverged run is above no threshold."
    return save(figure, path, "\n".join([note, *_short_note(shown)]))


def improvements_figure(path: str | Path | None, shown: Standings) -> Figure:
    """Draw the probability that a run of X scores above one of Y, a row for each pair."""
    pairs = list(shown.improvements.items())
    figure, (panel,) = grid(1, 6.4, 1.0 + 0.3 * len(pairs), 1)
    for y, (_, number) in enumerate(pairs):
        _draw_number(panel, y, number, COLOURS[0])
    panel.axvline(0.5, color="0.5", linewidth=1, linestyle="--")
    panel.set_yticks(range(len(pairs)), [f"{x} over {y}" for (x, y), _ in pairs], fontsize=9)
    panel.set_ylim(len(pairs) - 0.4, -0.6)
    panel.set_xlim(-0.02, 1.02)
    panel.set_xlabel("P(a run of the first scores above one of the second)", fontsize=9)
    panel.tick_params(axis="x", labelsize=8)
    quiet(panel)
    return save(figure, path, "95 % intervals. At 0.5, neither is better.")


def _short_note(shown: Standings) -> list[str]:
    return [SHORT] if shown.short & set(shown.profiles) else []

"""Figures over settings: scores against a size, counts of solutions, and their paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.canvas import COLOURS, Axes, Figure, grid, legend, quiet, save

LANDMARK_COLOUR = "#6FBF73"
MARKS = (("o", "-"), ("s", "--"), ("^", ":"))
"""Marker and dashes of the first curves, of those after all colours, ..."""
SOLUTION_COLOURS = (
    "#DCE9F5",
    "#FBE5D6",
    "#DDF0E6",
    "#F4E1EC",
    "#FFF3D1",
    "#E4F1FA",
    "#E6E6E6",
)
"""Backgrounds of attempts, one for each joint solution."""

Attempts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions [E, T, agents, 2], landmarks [L, 2], and joint solutions [E], of which -1 is none."""


class Point(NamedTuple):
    """One point of a curve, with its 95 % interval; nan where there is none."""

    panel: str
    curve: str
    x: float
    mean: float
    low: float
    high: float
    seeds: int


# --- scores against a setting ---


def curves(
    path: str | Path,
    points: Sequence[Point],
    x: str,
    y: str,
    named: Mapping[str, Sequence[str]] | None = None,
    logarithmic: bool = False,
    note: str = "",
    ordered: bool = False,
    columns: int = 0,
    slots: Mapping[str, int] | None = None,
) -> Figure:
    """Draw each curve with its interval, a panel for each `Point.panel`; `x` and `y` name the axes.

    `named` gives a panel's x positions 0, 1, ... words instead of numbers; points are then not
    joined, unless the words are `ordered`. `columns` is the number of panels in a row; 0 means
    three, and two where there are four panels. `slots` gives curves other places in the order of
    colours, marks and dashes than their own. JaxomarlError where there is no point, or matplotlib
    is missing.
    """
    if not points:
        raise refuse("points", "one or more", "none", "Train more than nothing.")
    panels = list(dict.fromkeys(p.panel for p in points))
    names = list(dict.fromkeys(p.curve for p in points))
    places = {**{name: k for k, name in enumerate(names)}, **(slots or {})}
    if not columns:
        columns = 2 if len(panels) == 4 else 3
    figure, axes = grid(len(panels), 4.0, 3.0, columns)
    lines = {}
    for axis, panel in zip(axes, panels, strict=True):
        words = (named or {}).get(panel, ())
        in_panel = [p for p in points if p.panel == panel]
        joined = ordered or not words
        for name, line in _draw_curves(axis, in_panel, names, places, joined).items():
            lines.setdefault(name, line)
        if words:
            axis.set_xticks(range(len(words)), words, fontsize=8, rotation=20)
        else:
            axis.set_xlabel(x, fontsize=9)
            if logarithmic:
                _logarithmic_axis(axis, sorted({float(p.x) for p in in_panel}))
        axis.set_ylabel(y, fontsize=9)
        axis.set_title(panel, fontsize=10)
        axis.tick_params(labelsize=8)
        quiet(axis)
    legend(figure, [lines[name] for name in names])
    return save(figure, path, note)


def _draw_curves(
    axis: Axes,
    points: Sequence[Point],
    names: Sequence[str],
    places: Mapping[str, int],
    joined: bool,
) -> dict[str, Any]:
    """Draw one panel's curves and return their lines by name."""
    lines = {}
    for k, name in enumerate(names):
        on_curve = sorted((p for p in points if p.curve == name), key=lambda p: p.x)
        if not on_curve:
            continue
        # points that are not joined stand next to one another
        aside = 0.0
        if not joined:
            aside = 0.12 * (k - (len(names) - 1) / 2)
        lines[name] = _draw_curve(axis, on_curve, places[name], aside, joined)
    return lines


def _draw_curve(axis: Axes, points: Sequence[Point], k: int, aside: float, joined: bool) -> Any:
    colour = COLOURS[k % len(COLOURS)]
    # where there are more curves than colours, the next have another marker and dashes
    marker, dashes = MARKS[k // len(COLOURS) % len(MARKS)]
    at = np.array([p.x for p in points]) + aside
    mean = np.array([p.mean for p in points])
    low = np.array([p.low for p in points])
    high = np.array([p.high for p in points])
    style = {"color": colour, "markersize": 4, "linewidth": 1.6, "label": points[0].curve}
    (line,) = axis.plot(at, mean, marker, linestyle=dashes if joined else "none", **style)
    known = np.isfinite(low)
    if not known.any():
        return line
    if joined:
        band = {"color": colour, "alpha": 0.15, "linewidth": 0}
        axis.fill_between(at[known], low[known], high[known], **band)
    else:
        axis.vlines(at[known], low[known], high[known], color=colour, linewidth=3, alpha=0.35)
    return line


def _logarithmic_axis(axis: Axes, ticks: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axis.minorticks_off()


# --- counts ---


def counts(
    path: str | Path,
    counted: Mapping[str, Mapping[str, Sequence[Sequence[int]]]],
    titles: Sequence[str],
    note: str = "",
) -> Figure:
    """Draw counts as a bar for each name, and its seeds as dots.

    Each title has a panel, and each data set a group of bars.

    `counted` is name -> data set -> for each title, one count per seed. JaxomarlError where there
    is nothing to draw, or matplotlib is missing.
    """
    groups = list(dict.fromkeys(group for by_group in counted.values() for group in by_group))
    if not groups:
        raise refuse("counted", "one count or more", "none", "Evaluate a run first.")
    figure, axes = grid(len(titles), 2.6 + 0.5 * len(groups), 3.0, 3)
    # grid has said what to do where matplotlib is missing
    from matplotlib.ticker import MaxNLocator

    width = 0.8 / len(counted)
    bars = []
    for k, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        bars = []
        for j, (name, by_group) in enumerate(counted.items()):
            aside = (j - (len(counted) - 1) / 2) * width
            at = [groups.index(group) + aside for group in by_group]
            seeds = [np.asarray(values[k]) for values in by_group.values()]
            bars.append(_draw_bars(axis, at, seeds, width, COLOURS[j % len(COLOURS)], name))
        axis.set_xticks(range(len(groups)), groups, fontsize=8, rotation=15)
        axis.set_ylim(bottom=0.0)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="y", labelsize=8)
        quiet(axis)
    legend(figure, bars)
    return save(figure, path, note)


def _draw_bars(
    axis: Axes,
    at: Sequence[float],
    seeds: Sequence[np.ndarray],
    width: float,
    colour: str,
    name: str,
) -> Any:
    """Draw the means of counts as bars, and each seed's count as a dot."""
    means = [x.mean() for x in seeds]
    bars = axis.bar(at, means, 0.9 * width, color=colour, alpha=0.55, label=name)
    for middle, x in zip(at, seeds, strict=True):
        spread = np.zeros(1)
        if len(x) > 1:
            spread = np.linspace(-0.25, 0.25, len(x)) * width
        axis.plot(middle + spread, x, "o", color=colour, markersize=3, clip_on=False)
    return bars


# --- joint solutions ---


def solution_paths(path: str | Path, by_name: Mapping[str, Attempts], note: str = "") -> Figure:
    """Draw the agents' paths from one start: a row for each name, a panel for each attempt.

    Attempts of one joint solution have one background, and those of none a white one. JaxomarlError
    where a shape is wrong, or matplotlib is missing.
    """
    for name, attempts in by_name.items():
        _check_attempts(name, attempts)
    columns = max(len(positions) for positions, _, _ in by_name.values())
    figure, axes = grid(columns * len(by_name), 1.7, 1.8, columns)
    from matplotlib.lines import Line2D

    agents = 0
    for row, (name, attempts) in enumerate(by_name.items()):
        own_axes = axes[row * columns : (row + 1) * columns]
        agents = attempts[0].shape[2]
        for e, axis in enumerate(own_axes):
            if e < len(attempts[0]):
                _draw_attempt(axis, attempts, e)
            axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=(), yticks=(), aspect="equal")
        own_axes[0].set_title(name, fontsize=9, loc="left")
    handles = [Line2D([], [], color=COLOURS[j], label=f"agent {j + 1}") for j in range(agents)]
    landmark = Line2D([], [], marker="o", linestyle="", color=LANDMARK_COLOUR, label="landmark")
    legend(figure, [*handles, landmark])
    return save(figure, path, note)


def _check_attempts(name: str, attempts: Attempts) -> None:
    """Raise JaxomarlError where attempts do not have the shapes of `Attempts`."""
    positions, landmarks, solutions = attempts
    right = (
        positions.ndim == 4
        and positions.shape[-1] == 2
        and landmarks.shape[1:] == (2,)
        and solutions.shape == positions.shape[:1]
    )
    if not right:
        shapes = (positions.shape, landmarks.shape, solutions.shape)
        wanted = "[E, T, agents, 2], [L, 2] and [E]"
        raise refuse(f"solutions of {name}", wanted, shapes, "Draw agents in a plane.")


def _draw_attempt(axis: Axes, attempts: Attempts, e: int) -> None:
    """Draw one attempt's paths over the landmarks, on the background of its joint solution."""
    positions, landmarks, solutions = attempts
    axis.plot(*landmarks.T, "o", color=LANDMARK_COLOUR, markersize=9, alpha=0.8)
    for j in range(positions.shape[2]):
        axis.plot(*positions[e, :, j].T, color=COLOURS[j], linewidth=1.4)
        axis.plot(*positions[e, -1, j], "o", color=COLOURS[j], markersize=4)
    distinct = [s for s in dict.fromkeys(solutions.tolist()) if s >= 0]
    if solutions[e] in distinct:
        k = distinct.index(solutions[e])
        axis.set_facecolor(SOLUTION_COLOURS[k % len(SOLUTION_COLOURS)])

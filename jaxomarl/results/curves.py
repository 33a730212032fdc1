"""Figures over settings, not over training: scores against a size, counts of solutions, and ways to go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.canvas import COLOURS, Figure, grid, legend, quiet, save


class Point(NamedTuple):
    """One point of a curve, with its 95 % interval; nan where there is none."""

    panel: str
    curve: str
    x: float
    mean: float
    low: float
    high: float
    seeds: int


def curves(
    path: str | Path,
    points: Sequence[Point],
    x: str,
    y: str,
    named: Mapping[str, Sequence[str]] | None = None,
    logarithmic: bool = False,
    note: str = "",
) -> Figure:
    """Draw each curve with its interval, a panel for each `Point.panel`; `x` and `y` name the axes.

    `named` gives a panel's x positions 0, 1, ... words instead of numbers; points are then not joined.
    JaxomarlError where there is no point, or matplotlib is missing.
    """
    if not points:
        raise refuse("points", "one or more", "none", "Train more than nothing.")
    panels, names = (
        list(dict.fromkeys(p.panel for p in points)),
        list(dict.fromkeys(p.curve for p in points)),
    )
    figure, axes = grid(len(panels), 4.0, 3.0, 2 if len(panels) == 4 else 3)
    lines = {}
    for axis, panel in zip(axes, panels, strict=True):
        words = (named or {}).get(panel)
        for k, name in enumerate(names):
            mine = sorted(
                (p for p in points if (p.panel, p.curve) == (panel, name)), key=lambda p: p.x
            )
            if mine:
                aside = 0.12 * (k - (len(names) - 1) / 2) if words else 0.0
                line = _curve(axis, mine, COLOURS[k % len(COLOURS)], name, aside, joined=not words)
                lines.setdefault(name, line)
        if words:
            axis.set_xticks(range(len(words)), words, fontsize=8, rotation=20)
        elif logarithmic:
            axis.set_xscale("log")
            ticks = sorted({p.x for p in points if p.panel == panel})
            axis.set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=8)
            axis.minorticks_off()
        axis.set_xlabel("" if words else x, fontsize=9)
        axis.set_ylabel(y, fontsize=9)
        axis.set_title(panel, fontsize=10)
        axis.tick_params(labelsize=8)
        quiet(axis)
    legend(figure, [lines[name] for name in names])
    return save(figure, path, note)


def _curve(
    axis: Any, mine: Sequence[Point], colour: str, name: str, aside: float, joined: bool
) -> Any:
    at, mean = np.array([p.x for p in mine]) + aside, np.array([p.mean for p in mine])
    low, high = np.array([p.low for p in mine]), np.array([p.high for p in mine])
    (line,) = axis.plot(
        at, mean, "o-" if joined else "o", color=colour, markersize=4, linewidth=1.6, label=name
    )
    told = np.isfinite(low)
    if told.any() and joined:
        axis.fill_between(at[told], low[told], high[told], color=colour, alpha=0.15, linewidth=0)
    elif told.any():
        axis.vlines(at[told], low[told], high[told], color=colour, linewidth=3, alpha=0.35)
    return line


def counts(
    path: str | Path,
    held: Mapping[str, Mapping[str, Sequence[Sequence[int]]]],
    titles: Sequence[str],
    note: str = "",
) -> Figure:
    """Draw counts as a bar for each name, its seeds as dots: a panel for each title, a group for each data set.

    `held` is name -> data set -> for each title, one count per seed.
    JaxomarlError where there is nothing to draw, or matplotlib is missing.
    """
    groups = list(dict.fromkeys(group for by_group in held.values() for group in by_group))
    if not groups:
        raise refuse("held", "one count or more", "none", "Evaluate a run first.")
    figure, axes = grid(len(titles), 2.6 + 0.5 * len(groups), 3.0, 3)
    from matplotlib.ticker import MaxNLocator  # grid has told a user without matplotlib what to do

    width, bars = 0.8 / len(held), []
    for k, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        bars = []
        for j, (name, by_group) in enumerate(held.items()):
            at = [groups.index(g) + (j - (len(held) - 1) / 2) * width for g in by_group]
            seeds = [np.asarray(values[k]) for values in by_group.values()]
            colour = COLOURS[j % len(COLOURS)]
            bars.append(
                axis.bar(
                    at, [x.mean() for x in seeds], 0.9 * width, color=colour, alpha=0.55, label=name
                )
            )
            for where, x in zip(at, seeds, strict=True):
                spread = np.linspace(-0.25, 0.25, len(x)) * width if len(x) > 1 else np.zeros(1)
                axis.plot(where + spread, x, "o", color=colour, markersize=3, clip_on=False)
        axis.set_xticks(range(len(groups)), groups, fontsize=8, rotation=15)
        axis.set_ylim(bottom=0.0)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="y", labelsize=8)
        quiet(axis)
    legend(figure, bars)
    return save(figure, path, note)


def ways(
    path: str | Path, held: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], note: str = ""
) -> Figure:
    """Draw how agents go from one start: a row for each name, a panel for each attempt.

    `held` is name -> (positions [E, T, agents, 2], landmarks [L, 2], solution [E]). Attempts of one solution have one
    background, and those of none (-1) a white one. JaxomarlError where a shape is wrong, or matplotlib is missing.
    """
    for name, (pos, marks, solutions) in held.items():
        if (
            pos.ndim != 4
            or pos.shape[-1] != 2
            or marks.shape[1:] != (2,)
            or solutions.shape != pos.shape[:1]
        ):
            found = (pos.shape, marks.shape, solutions.shape)
            raise refuse(
                f"ways of {name}",
                "[E, T, agents, 2], [L, 2] and [E]",
                found,
                "Draw agents in a plane.",
            )
    attempts = max(len(pos) for pos, _, _ in held.values())
    figure, axes = grid(attempts * len(held), 1.7, 1.8, attempts)
    from matplotlib.lines import Line2D

    paints = ("#DCE9F5", "#FBE5D6", "#DDF0E6", "#F4E1EC", "#FFF3D1", "#E4F1FA", "#E6E6E6")
    agents = 0
    for k, axis in enumerate(axes):
        name, (pos, marks, solutions) = list(held.items())[k // attempts]
        e, agents = k % attempts, pos.shape[2]
        if e < len(pos):
            axis.plot(*marks.T, "o", color="#6FBF73", markersize=9, alpha=0.8)
            for j in range(agents):
                axis.plot(*pos[e, :, j].T, color=COLOURS[j], linewidth=1.4)
                axis.plot(*pos[e, -1, j], "o", color=COLOURS[j], markersize=4)
            found = [s for s in dict.fromkeys(solutions.tolist()) if s >= 0]
            if solutions[e] in found:
                axis.set_facecolor(paints[found.index(solutions[e]) % len(paints)])
        axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=(), yticks=(), aspect="equal")
        if e == 0:
            axis.set_title(name, fontsize=9, loc="left")
    handles = [Line2D([], [], color=COLOURS[j], label=f"agent {j + 1}") for j in range(agents)]
    handles.append(Line2D([], [], marker="o", linestyle="", color="#6FBF73", label="landmark"))
    legend(figure, handles)
    return save(figure, path, note)

"""Figures of what small generative models make: clouds of points, plans in a plane, matrices of numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.canvas import COLOURS, Figure, grid, legend, save


def clouds(
    path: str | Path,
    held: Mapping[str, np.ndarray],
    reach: float,
    shares: bool = False,
    names: tuple[str, str] = ("agent 1", "agent 2"),
    columns: int = 4,
    note: str = "",
) -> Figure:
    """Draw points [K, 2] in +-reach, a panel for each name, "data" in grey; `shares` writes each quadrant's into it.

    JaxomarlError where there is nothing to draw, a shape is wrong, or matplotlib is missing.
    """
    for name, points in held.items():
        if points.ndim != 2 or points.shape[1] != 2:
            raise refuse(f"clouds of {name}", "points [K, 2]", points.shape, "Draw two columns.")
    figure, axes = grid(_some(held), 2.3, 2.45, columns)
    for k, (axis, (name, points)) in enumerate(zip(axes, held.items(), strict=True)):
        colour = "#7A7A7A" if name == "data" else COLOURS[0]
        axis.scatter(*points.T, s=2.5, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        axis.set(
            xlim=(-reach, reach),
            ylim=(-reach, reach),
            aspect="equal",
            xticks=(-1, 0, 1),
            yticks=(-1, 0, 1),
        )
        axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)
        for x, y in ((-1, 1), (1, 1), (-1, -1), (1, -1)) if shares else ():
            share = np.mean((x * points[:, 0] > 0) & (y * points[:, 1] > 0))
            where = (0.3 * x * reach, 0.16 * y * reach)
            axis.text(*where, f"{share:.2f}", color="#C00000", ha="center", va="center", fontsize=9)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7, length=2)
        if k >= len(held) - columns:
            axis.set_xlabel(names[0], fontsize=8)
        if k % columns == 0:
            axis.set_ylabel(names[1], fontsize=8)
    return save(figure, path, note)


def plans(
    path: str | Path,
    held: Mapping[str, np.ndarray],
    marks: Mapping[str, np.ndarray],
    columns: int = 4,
    note: str = "",
) -> Figure:
    """Draw paths [E, T, agents, 2] over the landmarks [L, 2] of the same name; starts are rings, ends are dots.

    JaxomarlError where there is nothing to draw, a shape is wrong, or matplotlib is missing.
    """
    for name, pos in held.items():
        if pos.ndim != 4 or pos.shape[-1] != 2:
            raise refuse(
                f"plans of {name}", "paths [E, T, agents, 2]", pos.shape, "Draw agents in a plane."
            )
    figure, axes = grid(_some(held), 2.3, 2.4, columns)
    from matplotlib.lines import Line2D

    agents = 0
    for axis, (name, pos) in zip(axes, held.items(), strict=True):
        agents = pos.shape[2]
        axis.plot(*marks[name].T, "o", color="#6FBF73", markersize=15, alpha=0.55, zorder=0)
        for j in range(agents):
            for one in pos[:, :, j]:
                axis.plot(*one.T, color=COLOURS[j], linewidth=0.6, alpha=0.3)
            axis.plot(*pos[:, -1, j].T, ".", color=COLOURS[j], markersize=4, alpha=0.7)
            axis.plot(*pos[0, 0, j], "o", markerfacecolor="white", color=COLOURS[j], markersize=6)
        axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=(), yticks=(), aspect="equal")
        axis.set_title(name, fontsize=8)
    handles = [Line2D([], [], color=COLOURS[j], label=f"agent {j + 1}") for j in range(agents)]
    handles.append(Line2D([], [], marker="o", linestyle="", color="#6FBF73", label="landmark"))
    legend(figure, handles)
    return save(figure, path, note)


def matrices(
    path: str | Path, held: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]
) -> Figure:
    """Draw matrices as coloured tables, a row for each name and a column for each title; one scale per row.

    JaxomarlError where there is nothing to draw, or matplotlib is missing.
    """
    figure, axes = grid(_some(held) * len(titles), 2.2, 2.0, len(titles))
    for k, axis in enumerate(axes):
        name = list(held)[k // len(titles)]
        row, values = held[name], held[name][k % len(titles)]
        top = max(np.abs(m).max() for m in row)
        axis.imshow(values, cmap="RdBu_r", vmin=-1.3 * top, vmax=1.3 * top)
        for i, j in np.ndindex(*values.shape):
            paint = "white" if abs(values[i, j]) > 0.6 * top else "black"
            number = f"{round(float(values[i, j]), 1) + 0.0:.1f}"  # no minus before a zero
            axis.text(j, i, number, ha="center", va="center", fontsize=9, color=paint)
        axis.set(xticks=(), yticks=())
        axis.spines[:].set_visible(False)
        if k < len(titles):
            axis.set_title(titles[k], fontsize=9)
        if k % len(titles) == 0:
            axis.set_ylabel(name, fontsize=9)
    return save(figure, path)


def _some(held: Mapping) -> int:
    if not held:
        raise refuse("held", "one panel or more", "none", "Train a model first.")
    return len(held)

"""Figures of what small generative models sample: points, plans in a plane, matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.canvas import COLOURS, Axes, Figure, grid, legend, save

DATA_COLOUR = "#7A7A7A"
SHARE_COLOUR = "#C00000"
LANDMARK_COLOUR = "#6FBF73"
QUADRANTS = ((-1, 1), (1, 1), (-1, -1), (1, -1))
"""Signs of x and y in each quadrant."""


def clouds(
    path: str | Path,
    samples: Mapping[str, np.ndarray],
    reach: float,
    shares: bool = False,
    names: tuple[str, str] = ("agent 1", "agent 2"),
    columns: int = 4,
    note: str = "",
) -> Figure:
    """Draw points [K, 2] in +-reach, a panel for each name, "data" in grey.

    With `shares`, the share of points in each quadrant is written into it. JaxomarlError where
    there is nothing to draw, a shape is wrong, or matplotlib is missing.
    """
    for name, points in samples.items():
        if points.ndim != 2 or points.shape[1] != 2:
            raise refuse(f"clouds of {name}", "points [K, 2]", points.shape, "Draw two columns.")
    figure, axes = grid(_count(samples), 2.3, 2.45, columns)
    for k, (name, points) in enumerate(samples.items()):
        axis = axes[k]
        colour = DATA_COLOUR if name == "data" else COLOURS[0]
        _scatter(axis, points, reach, colour)
        if shares:
            _write_shares(axis, points, reach)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7, length=2)
        if k >= len(samples) - columns:
            axis.set_xlabel(names[0], fontsize=8)
        if k % columns == 0:
            axis.set_ylabel(names[1], fontsize=8)
    return save(figure, path, note)


def _scatter(axis: Axes, points: np.ndarray, reach: float, colour: str) -> None:
    axis.scatter(*points.T, s=2.5, color=colour, alpha=0.35, linewidths=0, rasterized=True)
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)


def _write_shares(axis: Axes, points: np.ndarray, reach: float) -> None:
    """Write the share of points in each quadrant into it."""
    style = {"color": SHARE_COLOUR, "ha": "center", "va": "center", "fontsize": 9}
    for x, y in QUADRANTS:
        inside = (x * points[:, 0] > 0) & (y * points[:, 1] > 0)
        axis.text(0.3 * x * reach, 0.16 * y * reach, f"{np.mean(inside):.2f}", **style)


def evolutions(
    path: str | Path,
    panels: Mapping[str, tuple[np.ndarray, Mapping[int, np.ndarray]]],
    note: str = "",
) -> Figure:
    """Draw points [K, 2] of policies after each number of updates over those of the data.

    Policies are blue, the later the darker, and the data are grey. `panels` maps a title to (data,
    updates -> policies). Raises JaxomarlError where there is nothing to draw, or matplotlib is
    missing.
    """
    figure, axes = grid(_count(panels), 3.2, 3.2, 4)
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    counts = sorted({updates for _, policies in panels.values() for updates in policies})
    shades = colormaps["Blues"](np.linspace(0.35, 1.0, len(counts)))
    colours = dict(zip(counts, map(tuple, shades), strict=True))
    style: Any = {"s": 4, "linewidths": 0, "rasterized": True}
    for axis, (title, (data, policies)) in zip(axes, panels.items(), strict=True):
        axis.scatter(*data.T, color=DATA_COLOUR, alpha=0.3, zorder=0, **style)
        for updates, placed in policies.items():
            axis.scatter(*placed.T, color=colours[updates], alpha=0.6, **style)
        axis.set(xticks=(), yticks=(), title=title)
        axis.title.set_size(9)
    mark: Any = {"marker": "o", "linestyle": ""}
    handles = [Line2D([], [], color=DATA_COLOUR, label="data", **mark)]
    for updates, colour in colours.items():
        handles.append(Line2D([], [], color=colour, label=f"after {updates:,} updates", **mark))
    legend(figure, handles)
    return save(figure, path, note)


def plans(
    path: str | Path,
    positions: Mapping[str, np.ndarray],
    landmarks: Mapping[str, np.ndarray],
    columns: int = 4,
    note: str = "",
) -> Figure:
    """Draw paths [E, T, agents, 2] over the landmarks [L, 2] of the same name.

    Starts are rings and ends are dots. JaxomarlError where there is nothing to draw, a shape is
    wrong, or matplotlib is missing.
    """
    for name, pos in positions.items():
        if pos.ndim != 4 or pos.shape[-1] != 2:
            wanted = "paths [E, T, agents, 2]"
            raise refuse(f"plans of {name}", wanted, pos.shape, "Draw agents in a plane.")
    figure, axes = grid(_count(positions), 2.3, 2.4, columns)
    from matplotlib.lines import Line2D

    agents = 0
    for axis, (name, pos) in zip(axes, positions.items(), strict=True):
        agents = pos.shape[2]
        style = {"color": LANDMARK_COLOUR, "markersize": 15, "alpha": 0.55, "zorder": 0}
        axis.plot(*landmarks[name].T, "o", **style)
        for j in range(agents):
            _draw_agent_paths(axis, pos[:, :, j], COLOURS[j])
        axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=(), yticks=(), aspect="equal")
        axis.set_title(name, fontsize=8)
    handles = [Line2D([], [], color=COLOURS[j], label=f"agent {j + 1}") for j in range(agents)]
    landmark = Line2D([], [], marker="o", linestyle="", color=LANDMARK_COLOUR, label="landmark")
    legend(figure, [*handles, landmark])
    return save(figure, path, note)


def _draw_agent_paths(axis: Axes, paths: np.ndarray, colour: str) -> None:
    """Draw one agent's paths [E, T, 2] with their ends, and the start that they share."""
    for one_path in paths:
        axis.plot(*one_path.T, color=colour, linewidth=0.6, alpha=0.3)
    axis.plot(*paths[:, -1].T, ".", color=colour, markersize=4, alpha=0.7)
    axis.plot(*paths[0, 0], "o", markerfacecolor="white", color=colour, markersize=6)


def matrices(
    path: str | Path, rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]
) -> Figure:
    """Draw matrices as coloured tables, a row for each name and a column for each title.

    A row has one scale of colours. JaxomarlError where there is nothing to draw, or matplotlib is
    missing.
    """
    figure, axes = grid(_count(rows) * len(titles), 2.2, 2.0, len(titles))
    for i, (name, row) in enumerate(rows.items()):
        largest = max(np.abs(matrix).max() for matrix in row)
        own_axes = axes[i * len(titles) : (i + 1) * len(titles)]
        for axis, values in zip(own_axes, row, strict=True):
            _draw_matrix(axis, values, largest)
        own_axes[0].set_ylabel(name, fontsize=9)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=9)
    return save(figure, path)


def _draw_matrix(axis: Axes, values: np.ndarray, largest: float) -> None:
    axis.imshow(values, cmap="RdBu_r", vmin=-1.3 * largest, vmax=1.3 * largest)
    for i, j in np.ndindex(*values.shape):
        dark = abs(values[i, j]) > 0.6 * largest
        colour = "white" if dark else "black"
        # adding zero takes the minus from a rounded zero
        number = round(float(values[i, j]), 1) + 0.0
        axis.text(j, i, f"{number:.1f}", ha="center", va="center", fontsize=9, color=colour)
    axis.set(xticks=(), yticks=())
    axis.spines[:].set_visible(False)


def _count(panels: Mapping) -> int:
    """The number of panels; JaxomarlError where there is none."""
    if not panels:
        raise refuse("panels", "one panel or more", "none", "Train a model first.")
    return len(panels)

"""The picture of a generator's fidelity: its rows next to real rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.canvas import COLOURS, Axes, Figure, grid, legend, quiet, save

GREY = "#7A7A7A"
SYNTHETIC = COLOURS[1]
DOTS = {"markersize": 2.5, "alpha": 0.4, "rasterized": True}


def fidelity(
    path: str | Path,
    columns: tuple[np.ndarray, np.ndarray],
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    steps: Mapping[str, np.ndarray],
    reward: tuple[np.ndarray, np.ndarray],
    note: str = "",
) -> Figure:
    """Draw two panels, or four where rows were replayed.

    `columns` are distances of each column, synthetic and floor. `pairs` are correlations, synthetic
    and of two draws of the data. `steps` maps whose rows -> their errors, the synthetic first, then
    the real. `reward` is the synthetic rows' and the environment's. JaxomarlError where there is no
    column, or matplotlib is missing.
    """
    if not len(columns[0]):
        raise refuse("columns", "one that varies", "none", "Draw windows of another task.")
    figure, axes = grid(4 if steps else 2, 3.6, 3.2, 2)
    _draw_columns(axes[0], *columns)
    _draw_correlations(axes[1], *pairs)
    if steps:
        _draw_step_errors(axes[2], steps)
        _draw_rewards(axes[3], *reward)
    _draw_legend(figure, steps)
    return save(figure, path, note)


def _draw_columns(axis: Axes, synthetic: np.ndarray, floor: np.ndarray) -> None:
    order = np.argsort(synthetic)
    axis.plot(floor[order], ".", color=GREY, markersize=5)
    axis.plot(synthetic[order], ".", color=SYNTHETIC, markersize=5)
    _label(axis, "columns of a row", "column, the worst last", "Kolmogorov-Smirnov distance")
    axis.set_ylim(bottom=0.0)


def _draw_correlations(
    axis: Axes, synthetic: np.ndarray, data: np.ndarray, other_draw: np.ndarray
) -> None:
    _draw_diagonal(axis, -1.0, 1.0)
    axis.plot(data, other_draw, ".", color=GREY, **DOTS)
    axis.plot(data, synthetic, ".", color=SYNTHETIC, **DOTS)
    _label(axis, "correlations within two rows", "of the data", "of the windows")


def _draw_step_errors(axis: Axes, steps: Mapping[str, np.ndarray]) -> None:
    """Draw the distribution function of each kind of row's errors."""
    for errors, colour in zip(steps.values(), (SYNTHETIC, GREY, COLOURS[0]), strict=True):
        x = np.sort(np.maximum(errors, 1e-7))
        axis.plot(x, np.arange(1, len(x) + 1) / len(x), color=colour, linewidth=1.6)
    axis.set_xscale("log")
    title = "next state against the environment"
    _label(axis, title, "error, in deviations of the data", "share of rows below")


def _draw_rewards(axis: Axes, predicted: np.ndarray, true: np.ndarray) -> None:
    low, high = np.quantile(np.concatenate([predicted, true]), (0.005, 0.995))
    _draw_diagonal(axis, low, high)
    axis.plot(true, predicted, ".", color=SYNTHETIC, **DOTS)
    axis.set(xlim=(low, high), ylim=(low, high))
    _label(axis, "reward", "of the environment", "of the window")


def _label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    quiet(axis)


def _draw_diagonal(axis: Axes, low: float, high: float) -> None:
    axis.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=1)


def _draw_legend(figure: Figure, steps: Mapping[str, np.ndarray]) -> None:
    from matplotlib.lines import Line2D

    def mark(colour: str, label: str) -> Any:
        style = {"marker": "o", "linestyle": "", "markersize": 5}
        return Line2D([], [], color=colour, label=label, **style)

    handles = [
        mark(SYNTHETIC, "synthetic"),
        mark(GREY, "real rows: what draws of the data differ by"),
    ]
    handles += [mark(COLOURS[0], name) for name in list(steps)[2:]]
    legend(figure, handles)

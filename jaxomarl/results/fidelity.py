"""The picture of a generator's fidelity: columns, correlations, next states and rewards, beside those of real rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.canvas import COLOURS, Figure, grid, legend, quiet, save

GREY = "#7A7A7A"
SYNTHETIC = COLOURS[1]


def fidelity(
    path: str | Path,
    columns: tuple[np.ndarray, np.ndarray],
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    steps: Mapping[str, np.ndarray],
    reward: tuple[np.ndarray, np.ndarray],
    note: str = "",
) -> Figure:
    """Draw two panels, or four where rows were replayed.

    `columns` are distances of each column, synthetic and floor; `pairs` correlations, synthetic and of two draws of
    the data; `steps` whose rows -> their errors, the synthetic first, then the real; `reward` the synthetic rows' and
    the environment's. JaxomarlError where there is no column, or matplotlib is missing.
    """
    if not len(columns[0]):
        raise refuse("columns", "one that varies", "none", "Draw windows of another task.")
    figure, axes = grid(4 if steps else 2, 3.6, 3.2, 2)
    order = np.argsort(columns[0])
    for values, colour in ((columns[1], GREY), (columns[0], SYNTHETIC)):
        axes[0].plot(values[order], ".", color=colour, markersize=5)
    _named(axes[0], "columns of a row", "column, the worst last", "Kolmogorov-Smirnov distance")
    axes[0].set_ylim(bottom=0.0)
    _line(axes[1], -1.0, 1.0)
    for values, colour in ((pairs[2], GREY), (pairs[0], SYNTHETIC)):
        axes[1].plot(
            pairs[1], values, ".", color=colour, markersize=2.5, alpha=0.4, rasterized=True
        )
    _named(axes[1], "correlations within two rows", "of the data", "of the windows")
    if steps:
        for values, colour in zip(steps.values(), (SYNTHETIC, GREY, COLOURS[0]), strict=True):
            x = np.sort(np.maximum(values, 1e-7))
            axes[2].plot(x, np.arange(1, len(x) + 1) / len(x), color=colour, linewidth=1.6)
        axes[2].set_xscale("log")
        _named(
            axes[2],
            "next state against the environment",
            "error, in deviations of the data",
            "share of rows below",
        )
        said, true = reward
        low, high = np.quantile(np.concatenate([said, true]), (0.005, 0.995))
        _line(axes[3], low, high)
        axes[3].plot(true, said, ".", color=SYNTHETIC, markersize=2.5, alpha=0.4, rasterized=True)
        axes[3].set(xlim=(low, high), ylim=(low, high))
        _named(axes[3], "reward", "of the environment", "of the window")
    _legend(figure, steps)
    return save(figure, path, note)


def _named(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    quiet(axis)


def _line(axis: Any, low: float, high: float) -> None:
    axis.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=1)


def _legend(figure: Figure, steps: Mapping[str, np.ndarray]) -> None:
    from matplotlib.lines import Line2D

    mark = lambda colour, label: Line2D(
        [], [], marker="o", linestyle="", color=colour, markersize=5, label=label
    )
    handles = [
        mark(SYNTHETIC, "synthetic"),
        mark(GREY, "real rows: what draws of the data differ by"),
    ]
    legend(figure, handles + [mark(COLOURS[0], name) for name in list(steps)[2:]])

"""Figures from rows, records and plain arrays.

matplotlib is imported when a figure is drawn, and needs no display.
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from jaxomarl.base import refuse
from jaxomarl.results import statistics
from jaxomarl.results.canvas import (
    COLOURS,
    GREY,
    Axes,
    Figure,
    few_ticks,
    grid,
    legend,
    quiet,
    save,
)
from jaxomarl.results.store import Row
from jaxomarl.results.tables import Record, coverage

COORDINATED = "#0072B2"
ASTRAY = "#D55E00"
SAMPLE = "#C9A227"


# --- the directions of a regularisation, on joint actions of two agents ---


def score_fields(
    path: str | Path | None,
    data: Num[np.ndarray, "K 2"],
    fields: Mapping[str, tuple[np.ndarray, np.ndarray]],
    paths: Mapping[str, np.ndarray] | None = None,
    threshold: float = 0.3,
    note: str = "",
) -> Figure:
    """Draw the data and, per title, a field of directions with the policies that followed it.

    `data` [K, 2] are joint actions, agent 1 on x. `fields` maps a title to (points [G, 2],
    directions [G, 2]), drawn with unit length and coloured by their magnitude on one logarithmic
    scale. `paths` maps a title to [seeds, V, 2], drawn from an open circle to a filled dot. The
    path is blue where its end is coordinated: both actions have one sign and |a| > threshold. A
    path that ends in nan ends in a cross, at its last finite action.

    JaxomarlError where a path has no field, a shape is wrong, or matplotlib is missing. Source: the
    OMSD paper, figure 2, which is a sketch; here the numbers are measured.
    """
    paths = paths or {}
    _check_fields(fields, paths)
    figure, axes = grid(1 + len(fields), 3.0, 3.2, 4 if len(fields) < 4 else 3)

    # --- data ---
    _scatter_data(axes[0], data, size=5.0, opacity=0.5)
    _label_square(axes[0], "(a) data")

    # --- fields and paths ---
    greys, norm = _magnitude_colours([directions for _, directions in fields.values()])
    arrows = None
    for k, (title, (points, directions)) in enumerate(fields.items(), 1):
        panel = axes[k]
        _scatter_data(panel, data, size=3.0, opacity=0.22)
        arrows = _draw_arrows(panel, points, directions, greys, norm)
        for path_of_seed in paths.get(title, ()):
            _draw_path(panel, path_of_seed, threshold)
        _label_square(panel, f"({chr(ord('a') + k)}) {title}")

    # --- colour bar and legend ---
    if arrows is not None:
        _add_colour_bar(figure, axes, arrows)
    diverged = not all(np.isfinite(lines).all() for lines in paths.values())
    _draw_field_legend(figure, bool(paths), diverged)
    return save(figure, path, note)


def _check_fields(
    fields: Mapping[str, tuple[np.ndarray, np.ndarray]], paths: Mapping[str, np.ndarray]
) -> None:
    """Raise JaxomarlError where a shape is wrong or a path has no field."""
    for title, (points, directions) in fields.items():
        if points.ndim != 2 or points.shape[1] != 2 or points.shape != directions.shape:
            wanted = "points and directions, each [G, 2]"
            shapes = (points.shape, directions.shape)
            raise refuse(f"fields[{title!r}]", wanted, shapes, "Draw two agents.")
    for title, lines in paths.items():
        if title not in fields:
            wanted = f"titles of fields, {tuple(fields)}"
            raise refuse("paths", wanted, title, "Name each path as its field.")
        if lines.ndim != 3 or lines.shape[2] != 2:
            way_out = "Give each seed's mean joint action."
            raise refuse(f"paths[{title!r}]", "[seeds, V, 2]", lines.shape, way_out)


def _magnitude_colours(fields: Sequence[np.ndarray]) -> tuple[Any, Any]:
    """(colour map, norm): greys that leave the foreground to the paths.

    They span the middle 96 % of all magnitudes.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    low, high = _middle_magnitudes(fields)
    greys = LinearSegmentedColormap.from_list("greys", ["#DDE2E7", "#A0AAB5", "#525D69"])
    return greys, LogNorm(low, max(high, 1.5 * low))


def _middle_magnitudes(fields: Sequence[np.ndarray]) -> tuple[float, float]:
    """The ends of the middle 96 % of all magnitudes that are finite and above zero."""
    if not fields:
        return 1.0, 1.0
    lengths = np.concatenate([np.linalg.norm(x, axis=-1) for x in fields])
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if not len(lengths):
        return 0.5, 2.0
    low, high = np.quantile(lengths, [0.02, 0.98])
    return float(low), float(high)


def _scatter_data(panel: Axes, data: np.ndarray, size: float, opacity: float) -> None:
    style = {"color": SAMPLE, "linewidths": 0, "rasterized": True, "zorder": 1}
    panel.scatter(*data.T, s=size, alpha=opacity, **style)


def _draw_arrows(
    panel: Axes, points: np.ndarray, directions: np.ndarray, cmap: Any, norm: Any
) -> Any:
    """Draw unit arrows, as long as the grid is wide.

    There is none where a direction is zero or not finite.
    """
    spacing = 2.0 / max(np.sqrt(len(directions)) - 1, 1)
    length = np.linalg.norm(directions, axis=-1)
    drawn = np.isfinite(length) & (length > 0)
    points = points[drawn]
    length = length[drawn]
    unit = directions[drawn] / length[:, None]
    shape = {"width": 0.006, "headwidth": 3.6, "headlength": 3.8, "headaxislength": 3.4}
    scale = {"angles": "xy", "scale_units": "xy", "scale": 1 / (0.8 * spacing)}
    colours = {"cmap": cmap, "norm": norm}
    style = {"pivot": "mid", "zorder": 2, **shape, **scale, **colours}
    return panel.quiver(*points.T, *unit.T, length, **style)


def _add_colour_bar(figure: Figure, axes: Sequence[Axes], arrows: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    bar = figure.colorbar(arrows, ax=axes, shrink=0.8, aspect=28, pad=0.012, extend="both")
    bar.set_label("magnitude of the direction", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 5)),
        major_formatter="{x:g}",
        minor_locator=NullLocator(),
    )
    bar.outline.set_visible(False)


def _draw_path(panel: Axes, path: np.ndarray, threshold: float) -> None:
    """Draw one policy's path [V, 2] from an open circle to a filled dot.

    A path that stops being finite ends in a cross.
    """
    finite = np.isfinite(path).all(-1)
    path = path[finite]
    if len(path) == 0:
        return
    end = path[-1]
    together = end[0] * end[1] > 0 and np.abs(end).min() > threshold
    colour = COORDINATED if finite.all() and together else ASTRAY
    panel.plot(*path.T, color=colour, linewidth=1.1, alpha=0.85, zorder=3, clip_on=False)
    start = {"markersize": 4, "markerfacecolor": "white", "markeredgecolor": colour, "zorder": 4}
    panel.plot(*path[0], "o", clip_on=False, **start)
    style = {"color": colour, "markeredgecolor": "white", "mew": 0.6, "zorder": 5}
    if finite.all():
        panel.plot(*end, "o", markersize=5.5, clip_on=False, **style)
    else:
        panel.plot(*end, "X", markersize=7, clip_on=False, **style)


def _label_square(panel: Axes, title: str) -> None:
    panel.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    panel.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    panel.set_title(textwrap.fill(title, 30), fontsize=10)
    panel.set_xlabel("action of agent 1", fontsize=9, labelpad=1)
    panel.set_ylabel("action of agent 2", fontsize=9, labelpad=-4)
    panel.tick_params(labelsize=8)


def _draw_field_legend(figure: Figure, has_paths: bool, diverged: bool) -> None:
    from matplotlib.lines import Line2D

    def dot(colour: str, label: str, face: str, marker: str = "o") -> Any:
        style: dict[str, Any] = {"marker": marker, "linestyle": "", "color": colour}
        style["markerfacecolor"] = face
        return Line2D([], [], label=label, **style)

    entries = [dot(SAMPLE, "joint action in the data", SAMPLE)]
    if has_paths:
        entries += [
            dot("0.3", "policy at the start", "white"),
            dot(COORDINATED, "policy at the end, coordinated", COORDINATED),
            dot(ASTRAY, "policy at the end, not coordinated", ASTRAY),
        ]
    if diverged:
        entries.append(dot(ASTRAY, "policy diverged", ASTRAY, marker="X"))
    legend(figure, entries, handletextpad=0.1)


# --- learning curves ---


CURVES = "Evaluations in training, on common starts."
"""What is said above learning curves."""
BAND = "band: mean ± one standard error"
"""What the legend says of the bands."""
FEW = 12
"""Number of evaluations up to which a curve shows each of them by a dot."""
LINE_STYLES = ("-", "--", ":")
"""Line styles of the first, second and third round of colours."""

Curve = dict[int, dict[int, float]]
"""Seed -> step -> mean over episodes."""


def learning_curves(
    path: str | Path | None,
    rows: Iterable[Row],
    metric: str = "return",
    labels: Mapping[str, str] | None = None,
    note: str = "",
    said: str = CURVES,
    order: Sequence[str] = (),
) -> Figure:
    """Draw each system's mean over seeds against the step, one panel per (task, data).

    A curve is one (system, config, stage), and its band is one standard error of the seeds. Curves
    are of training's evaluations, on starts that all seeds and systems share. `labels` maps a
    config's digest to words for it, such as its swept values. `said` says above the curves what is
    drawn, and `order` which names come first in the order of colours. A cross marks a step at which
    a seed is missing or not finite: the mean there is over the others. Where there are no others,
    the cross stands at the last mean. JaxomarlError where no row has the metric.
    """
    panels = _curves_by_panel(rows, metric, labels or {})
    if not panels:
        way_out = "Name a metric of returns.csv."
        raise refuse("rows", f"rows of the metric {metric!r}", "none", way_out)
    names = sorted({name for curves in panels.values() for name in curves})
    names = [*order, *(name for name in names if name not in order)]
    figure, axes = grid(len(panels), 4.0, 3.0, 3)
    # grid has said what to do where matplotlib is missing
    from matplotlib.ticker import EngFormatter

    some_missing = False
    for panel, (title, curves) in zip(axes, sorted(panels.items()), strict=True):
        for name, seeds in sorted(curves.items()):
            some_missing |= _draw_learning_curve(panel, name, seeds, names.index(name))
        panel.set_title("  ".join(title), fontsize=10)
        panel.set_xlabel("updates", fontsize=9)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_ylabel("episode return" if metric == "return" else metric, fontsize=9)
        panel.tick_params(labelsize=8)
        quiet(panel)
    counts = {len(seeds) for curves in panels.values() for seeds in curves.values()}
    _draw_curve_legend(figure, axes, some_missing, counts)
    return save(figure, path, _caption([said, note]))


def _draw_learning_curve(panel: Axes, name: str, seeds: Curve, k: int) -> bool:
    """Draw the k-th system's mean and band.

    Return whether a seed is missing or not finite somewhere.
    """
    colour = COLOURS[k % 7]
    style = LINE_STYLES[k // 7 % 3]
    steps, means, low, high, complete = _band(seeds)
    marker = "o" if len(steps) <= FEW else ""
    line = {"color": colour, "linestyle": style, "marker": marker, "linewidth": 1.8}
    line["markersize"] = 3.5
    panel.plot(steps, means, label=name, **line)
    panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    heights = _last_finite(means)
    panel.plot(steps[~complete], heights[~complete], "x", color=colour, markersize=6)
    return not complete.all()


def _caption(parts: Sequence[str]) -> str:
    """The lines of a figure's note."""
    return "\n".join(filter(None, parts))


def _curves_by_panel(
    rows: Iterable[Row], metric: str, labels: Mapping[str, str]
) -> dict[tuple[str, str], dict[str, Curve]]:
    """(task, data) -> label -> Curve.

    A label says no more than what tells its system's curves apart.
    """
    episodes = defaultdict(list)
    for row in rows:
        if row.metric == metric:
            episodes[row[:7]].append(row.value)
    configs = defaultdict(set)
    stages = defaultdict(set)
    for system, task, data, config, _, stage, _ in episodes:
        configs[system, task, data, labels.get(config, "")].add(config)
        stages[system].add(stage)
    panels: dict[tuple[str, str], dict[str, Curve]] = {}
    for (system, task, data, config, seed, stage, step), values in episodes.items():
        words = [system, labels.get(config, "")]
        if len(configs[system, task, data, words[1]]) > 1:
            words.append(f"({config[:8]})")
        if len(stages[system]) > 1:
            words.append(stage)
        label = " ".join(filter(None, words))
        curve = panels.setdefault((task, data), {}).setdefault(label, {})
        curve.setdefault(seed, {})[step] = float(np.mean(values))
    return panels


def _band(seeds: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(steps, mean, low, high, whether every seed is there and finite), each [V]."""
    steps = sorted({step for curve in seeds.values() for step in curve})
    means = np.full(len(steps), np.nan)
    errors = np.full(len(steps), np.nan)
    complete = np.zeros(len(steps), bool)
    for v, step in enumerate(steps):
        values = np.array([curve.get(step, np.nan) for curve in seeds.values()])
        finite = values[np.isfinite(values)]
        complete[v] = len(finite) == len(seeds)
        if len(finite):
            means[v] = statistics.mean(finite)
            errors[v] = statistics.std(finite) / len(finite) ** 0.5
    return np.array(steps), means, means - errors, means + errors, complete


def _last_finite(means: np.ndarray) -> np.ndarray:
    """Means [V], each that is not finite replaced by the last one that is."""
    places = np.where(np.isfinite(means), np.arange(len(means)), 0)
    return means[np.maximum.accumulate(places)]


def _draw_curve_legend(
    figure: Figure, axes: Sequence[Axes], some_missing: bool, counts: set[int]
) -> None:
    """Draw the legend: systems, what a band is over how many seeds, and what a cross is."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = {}
    for panel in axes:
        for line, name in zip(*panel.get_legend_handles_labels(), strict=True):
            entries[name] = line
    handles = [entries[name] for name in sorted(entries)]
    if max(counts) > 1:
        seeds = " or ".join(str(count) for count in sorted(counts))
        label = f"{BAND} of {seeds} seeds"
        handles.append(Patch(facecolor="0.3", alpha=0.15, linewidth=0, label=label))
    if some_missing:
        label = "a seed is missing or not finite"
        handles.append(Line2D([], [], marker="x", linestyle="", color="0.3", label=label))
    legend(figure, handles)


# --- final scores ---


def score_intervals(path: str | Path | None, records: Sequence[Record], note: str = "") -> Figure:
    """Draw each record's IQM of the final return with its 95 % interval.

    There is one panel per (task, data).

    Systems are listed down the panel in order of their names. A record with diverged seeds says so
    next to its name, and one of which a stage has not learned is grey. The caption says what the
    intervals cover. JaxomarlError where there is no record.
    """
    if not records:
        raise refuse("records", "one record or more", "none", "Evaluate a run first.")
    panels = defaultdict(list)
    for record in records:
        panels[record.task, record.data].append(record)
    tallest = max(map(len, panels.values()))
    figure, axes = grid(len(panels), 4.6, 0.9 + 0.3 * tallest, 2)
    for panel, (title, group) in zip(axes, sorted(panels.items()), strict=True):
        for y, record in enumerate(group):
            _draw_interval(panel, y, record)
        panel.set_yticks(range(len(group)), [_name(record, group) for record in group], fontsize=9)
        panel.set_ylim(tallest - 0.4, -0.6)
        panel.set_title("  ".join(title), fontsize=10)
        panel.set_xlabel("final return, IQM over seeds with 95 % interval", fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
        few_ticks(panel)
        quiet(panel)
    short = ""
    if not all(record.ranked for record in records):
        short = "† a stage has not learned."
    return save(figure, path, _caption([*coverage(records), short, note]))


def _draw_interval(panel: Axes, y: int, record: Record) -> None:
    colour = COLOURS[0] if record.ranked else GREY
    if record.iqm_low is not None:
        ends = [record.iqm_low, record.iqm_high]
        style = {"color": colour, "linewidth": 4, "alpha": 0.35, "solid_capstyle": "butt"}
        panel.plot(ends, [y, y], **style)
    panel.plot(record.iqm, y, "o", color=colour, markersize=6, markeredgecolor="white", mew=0.8)


def _name(record: Record, group: Sequence[Record]) -> str:
    words = [record.system, record.swept]
    same_name = [r for r in group if (r.system, r.swept) == (record.system, record.swept)]
    if len(same_name) > 1:
        words.append(f"({record.config[:8]})")
    name = " ".join(filter(None, words))
    if not record.ranked:
        name += "†"
    if record.nonfinite:
        name += f"\n{record.nonfinite} of {record.seeds} diverged"
    return name

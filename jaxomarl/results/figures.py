"""Figures from rows, records and plain arrays; matplotlib is imported when one is drawn, and needs no display."""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from jaxomarl.base import refuse
from jaxomarl.results import statistics
from jaxomarl.results.canvas import COLOURS, Figure, grid, legend, quiet, save
from jaxomarl.results.store import Row
from jaxomarl.results.tables import Record, coverage

COORDINATED, ASTRAY, SAMPLE = "#0072B2", "#D55E00", "#C9A227"


# --- the directions of a regularisation, on joint actions of two agents ---


def score_fields(
    path: str | Path | None,
    data: Num[np.ndarray, "K 2"],
    fields: Mapping[str, tuple[np.ndarray, np.ndarray]],
    paths: Mapping[str, np.ndarray] | None = None,
    threshold: float = 0.3,
) -> Figure:
    """Draw the data and, per title, a field of directions with the policies that followed it; write it to `path`.

    data [K, 2] joint actions, agent 1 on x; fields title -> (points [G, 2], directions [G, 2]), drawn with unit length
    and coloured by their magnitude on one logarithmic scale; paths title -> [seeds, V, 2], from an open circle to a
    filled dot, blue where the end is coordinated: both actions have one sign and |a| > threshold; a path that ends in
    nan ends in a cross, at its last finite action.
    JaxomarlError where a path has no field, a shape is wrong, or matplotlib is missing.
    Source: the OMSD paper, figure 2, which is a sketch; here the numbers are measured.
    """
    paths = paths or {}
    _check_fields(fields, paths)
    figure, axes = grid(1 + len(fields), 3.0, 3.2, 4 if len(fields) < 4 else 3)
    colours = _magnitudes([directions for _, directions in fields.values()])
    mesh = None
    for k, (panel, title) in enumerate(zip(axes, ["data", *fields], strict=True)):
        size, opacity = (5, 0.5) if k == 0 else (3, 0.22)
        panel.scatter(
            *data.T, s=size, color=SAMPLE, alpha=opacity, linewidths=0, rasterized=True, zorder=1
        )
        if k:
            mesh = _arrows(panel, *fields[title], *colours)
        for line in paths.get(title, ()):
            _walk(panel, line, threshold)
        _square(panel, f"({chr(ord('a') + k)}) {title}")
    if mesh is not None:
        from matplotlib.ticker import LogLocator, NullLocator

        bar = figure.colorbar(mesh, ax=axes, shrink=0.8, aspect=28, pad=0.012, extend="both")
        bar.set_label("magnitude of the direction", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.ax.yaxis.set(
            major_locator=LogLocator(subs=(1, 2, 5)),
            major_formatter="{x:g}",
            minor_locator=NullLocator(),
        )
        bar.outline.set_visible(False)
    diverged = not all(np.isfinite(lines).all() for lines in paths.values())
    _field_legend(figure, bool(paths), diverged)
    return save(figure, path)


def _check_fields(
    fields: Mapping[str, tuple[np.ndarray, np.ndarray]], paths: Mapping[str, np.ndarray]
) -> None:
    for title, (points, directions) in fields.items():
        if points.ndim != 2 or points.shape[1] != 2 or points.shape != directions.shape:
            found = (points.shape, directions.shape)
            raise refuse(
                f"fields[{title!r}]",
                "points and directions, each [G, 2]",
                found,
                "Draw two agents.",
            )
    for title, lines in paths.items():
        if title not in fields:
            raise refuse(
                "paths", f"titles of fields, {tuple(fields)}", title, "Name each path as its field."
            )
        if lines.ndim != 3 or lines.shape[2] != 2:
            raise refuse(
                f"paths[{title!r}]",
                "[seeds, V, 2]",
                lines.shape,
                "Give each seed's mean joint action.",
            )


def _magnitudes(fields: Sequence[np.ndarray]) -> tuple[Any, Any]:
    """(colour map, norm): greys that leave the foreground to the paths, over the middle 96 % of all magnitudes."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    lengths = np.concatenate([np.linalg.norm(x, axis=-1) for x in fields] or [np.ones(1)])
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    low, high = np.quantile(lengths, [0.02, 0.98]) if len(lengths) else (0.5, 2.0)
    greys = LinearSegmentedColormap.from_list("greys", ["#DDE2E7", "#A0AAB5", "#525D69"])
    return greys, LogNorm(low, max(high, 1.5 * low))


def _arrows(panel: Any, points: np.ndarray, directions: np.ndarray, cmap: Any, norm: Any) -> Any:
    """Unit arrows, as long as the grid is wide; none where a direction is zero or not finite."""
    length = np.linalg.norm(directions, axis=-1)
    drawn = np.isfinite(length) & (length > 0)
    points, length, unit = points[drawn], length[drawn], directions[drawn] / length[drawn, None]
    spacing = 2.0 / max(np.sqrt(len(drawn)) - 1, 1)
    style = {
        "pivot": "mid",
        "width": 0.006,
        "headwidth": 3.6,
        "headlength": 3.8,
        "headaxislength": 3.4,
    }
    scale = {"angles": "xy", "scale_units": "xy", "scale": 1 / (0.8 * spacing)}
    return panel.quiver(
        *points.T, *unit.T, length, cmap=cmap, norm=norm, zorder=2, **scale, **style
    )


def _walk(panel: Any, line: np.ndarray, threshold: float) -> None:
    """One policy's way [V, 2] from an open circle to a filled dot, or to a cross where it stops being finite."""
    finite = np.isfinite(line).all(-1)
    line = line[finite]
    if len(line) == 0:
        return
    end = line[-1]
    coordinated = finite.all() and end[0] * end[1] > 0 and np.abs(end).min() > threshold
    colour = COORDINATED if coordinated else ASTRAY
    mark, size = ("o", 5.5) if finite.all() else ("X", 7)
    panel.plot(*line.T, color=colour, linewidth=1.1, alpha=0.85, zorder=3, clip_on=False)
    panel.plot(
        *line[0],
        "o",
        markersize=4,
        markerfacecolor="white",
        markeredgecolor=colour,
        zorder=4,
        clip_on=False,
    )
    panel.plot(
        *end,
        mark,
        markersize=size,
        color=colour,
        markeredgecolor="white",
        mew=0.6,
        zorder=5,
        clip_on=False,
    )


def _square(panel: Any, title: str) -> None:
    panel.set(
        xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal"
    )
    panel.set_title(textwrap.fill(title, 30), fontsize=10)
    panel.set_xlabel("action of agent 1", fontsize=9, labelpad=1)
    panel.set_ylabel("action of agent 2", fontsize=9, labelpad=-4)
    panel.tick_params(labelsize=8)


def _field_legend(figure: Figure, walked: bool, diverged: bool) -> None:
    from matplotlib.lines import Line2D

    def dot(colour: str, label: str, face: str | None = None, marker: str = "o") -> Any:
        return Line2D(
            [],
            [],
            marker=marker,
            linestyle="",
            color=colour,
            markerfacecolor=face or colour,
            label=label,
        )

    entries = [dot(SAMPLE, "joint action in the data")]
    if walked:
        entries += [
            dot("0.3", "policy at the start", "white"),
            dot(COORDINATED, "policy at the end, coordinated"),
            dot(ASTRAY, "policy at the end, not coordinated"),
        ]
    if diverged:
        entries.append(dot(ASTRAY, "policy diverged", marker="X"))
    legend(figure, entries, handletextpad=0.1)


# --- scores ---


CURVES = "Evaluations in training, on common starts; band: one standard error of the seeds."
"""What is said above learning curves."""


def learning_curves(
    path: str | Path | None,
    rows: Iterable[Row],
    metric: str = "return",
    labels: Mapping[str, str] | None = None,
    note: str = "",
) -> Figure:
    """Draw each system's mean over seeds against the step, one panel per (task, data).

    A curve is one (system, config, stage), and its band is one standard error of the seeds. Curves are of training's
    evaluations, on starts that all seeds and systems share. `labels` maps a config's digest to words for it. A cross
    marks a step at which a seed is missing or not finite: the mean there is over the others.
    JaxomarlError where no row has the metric.
    """
    panels = _curves(rows, metric, labels or {})
    if not panels:
        raise refuse(
            "rows", f"rows of the metric {metric!r}", "none", "Name a metric of returns.csv."
        )
    names = sorted({name for curves in panels.values() for name in curves})
    figure, axes = grid(len(panels), 4.0, 3.0, 3)
    from matplotlib.ticker import EngFormatter  # grid has told a user without matplotlib what to do

    marked = False
    for panel, (title, curves) in zip(axes, sorted(panels.items()), strict=True):
        for name, seeds in sorted(curves.items()):
            style = {
                "color": COLOURS[names.index(name) % 7],
                "linestyle": ("-", "--", ":")[names.index(name) // 7 % 3],
            }
            steps, means, low, high, whole = _band(seeds)
            panel.plot(
                steps,
                means,
                marker="o" if len(steps) == 1 else "",
                linewidth=1.8,
                label=name,
                **style,
            )
            panel.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
            panel.plot(steps[~whole], means[~whole], "x", color=style["color"], markersize=6)
            marked |= not whole.all()
        panel.set_title("  ".join(title), fontsize=10)
        panel.set_xlabel("updates", fontsize=9)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_ylabel(f"episode {metric}" if metric == "return" else metric, fontsize=9)
        panel.tick_params(labelsize=8)
        quiet(panel)
    _curve_legend(figure, axes, marked)
    return save(figure, path, _caption([CURVES, note]))


Curve = dict[int, dict[int, float]]  # seed -> step -> mean over episodes


def _caption(parts: Sequence[str]) -> str:
    """The lines of a figure's note."""
    return "\n".join(filter(None, parts))


def _curves(
    rows: Iterable[Row], metric: str, labels: Mapping[str, str]
) -> dict[tuple[str, str], dict[str, Curve]]:
    """(task, data) -> label -> Curve; a label says no more than what tells the curves of its system apart."""
    episodes = defaultdict(list)
    for row in rows:
        if row.metric == metric:
            episodes[row[:7]].append(row.value)
    configs, stages = defaultdict(set), defaultdict(set)
    for system, task, data, config, _, stage, _ in episodes:
        configs[system, task, data].add(config)
        stages[system].add(stage)
    panels: dict[tuple[str, str], dict[str, Curve]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for (system, task, data, config, seed, stage, step), x in episodes.items():
        several = len(configs[system, task, data]) > 1
        words = [
            system,
            labels.get(config, config[:8] if several else ""),
            stage if len(stages[system]) > 1 else "",
        ]
        panels[task, data][" ".join(filter(None, words))][seed][step] = float(np.mean(x))
    return panels


def _band(seeds: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(steps, mean, low, high, whether every seed is there and finite), each [V]."""
    steps = sorted({step for curve in seeds.values() for step in curve})
    columns = [np.array([curve.get(step, np.nan) for curve in seeds.values()]) for step in steps]
    finite = [column[np.isfinite(column)] for column in columns]
    means = [float(statistics.mean(x)) if len(x) else np.nan for x in finite]
    errors = np.array(
        [float(statistics.std(x)) / len(x) ** 0.5 if len(x) else np.nan for x in finite]
    )
    whole = np.array([len(x) == len(seeds) for x in finite])
    return np.array(steps), np.array(means), means - errors, means + errors, whole


def _curve_legend(figure: Figure, axes: Sequence[Any], marked: bool) -> None:
    from matplotlib.lines import Line2D

    entries = {
        name: line
        for panel in axes
        for line, name in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    handles = [entries[name] for name in sorted(entries)]
    if marked:
        handles.append(
            Line2D(
                [],
                [],
                marker="x",
                linestyle="",
                color="0.3",
                label="a seed is missing or not finite",
            )
        )
    legend(figure, handles)


def score_intervals(path: str | Path | None, records: Sequence[Record], note: str = "") -> Figure:
    """Draw each record's IQM and 95 % interval of the final return as point and whisker, one panel per (task, data).

    Systems run down the panel in order of their names; a record with diverged seeds says so next to its name. The
    caption says what the intervals cover.
    JaxomarlError where there is no record.
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
            _whisker(panel, y, record)
        panel.set_yticks(range(len(group)), [_name(record, group) for record in group], fontsize=9)
        panel.set_ylim(tallest - 0.4, -0.6)
        panel.set_title("  ".join(title), fontsize=10)
        panel.set_xlabel("final return, IQM over seeds with 95 % interval", fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
        quiet(panel)
    return save(figure, path, _caption([*coverage(records), note]))


def _whisker(panel: Any, y: int, record: Record) -> None:
    colour = COLOURS[0]
    if record.iqm_low is not None:
        panel.plot(
            [record.iqm_low, record.iqm_high],
            [y, y],
            color=colour,
            linewidth=4,
            alpha=0.35,
            solid_capstyle="butt",
        )
    panel.plot(record.iqm, y, "o", color=colour, markersize=6, markeredgecolor="white", mew=0.8)


def _name(record: Record, group: Sequence[Record]) -> str:
    twins = [(r.system, r.swept) for r in group].count((record.system, record.swept)) > 1
    words = [record.system, record.swept, f"({record.config[:8]})" if twins else ""]
    name = " ".join(filter(None, words))
    return f"{name}\n{record.nonfinite} of {record.seeds} diverged" if record.nonfinite else name

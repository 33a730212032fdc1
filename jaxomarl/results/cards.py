"""The picture of data sets' cards, from their JSON alone: violins, histograms, ranges."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results import canvas
from jaxomarl.results.canvas import Axes
from jaxomarl.results.card_text import Card, pooled

GREY = "#555555"
MOST_COLUMNS = 40
MARKS = "bar: quartiles, dot: median, line: mean"
"""What the parts of a violin are, as its axis says."""

Histogram = Mapping[str, Sequence[float]]
"""Edges and counts of bins, as a card has them."""


def picture(path: str | Path | None, cards: Sequence[Card]) -> canvas.Figure:
    """Draw the cards and write them to `path`: the violins and histograms of each task's data sets.

    A single set has its columns' ranges next to them. JaxomarlError where no card has a return, or
    matplotlib is missing. Source: the violins of the OMSD paper, figures 11 to 13.
    """
    drawn = [card for card in cards if card["return"]["histogram"]]
    if not drawn:
        way_out = "Describe a set that has an episode."
        raise refuse("cards", "one with returns", f"{len(cards)} without", way_out)
    if len(drawn) == 1:
        return _picture_of_one(path, drawn[0])
    tasks: dict[Any, list[Card]] = {}
    for card in drawn:
        tasks.setdefault(card["task"] or card["name"], []).append(card)
    most_sets = max(len(group) for group in tasks.values())
    width = max(3.2, 0.9 + 0.95 * most_sets)
    figure, panels = canvas.grid(2 * len(tasks), width, 3.3, max(2, len(tasks)))
    for k, (task, group) in enumerate(tasks.items()):
        _draw_violins(panels[k], group)
        panels[k].set_title(str(task), fontsize=10)
        _draw_histograms(panels[k + len(tasks)], group)
    return canvas.save(figure, path)


def _picture_of_one(path: str | Path | None, card: Card) -> canvas.Figure:
    columns = [column for kind in ("obs", "action") for column in pooled(card["columns"], kind)]
    columns = columns[:MOST_COLUMNS]
    height = max(3.4, 0.8 + 0.155 * len(columns))
    figure, (left, middle, right) = canvas.grid(3, 3.7, height, 3)
    _draw_violins(left, [card])
    _draw_histograms(middle, [card])
    _draw_ranges(right, columns)
    counts = card["counts"]
    ends = card["ends"]
    facts = [
        f"{card['name']}:  {counts['transitions']:,} transitions",
        f"{counts['episodes']:,} episodes",
        f"{card['agents']} agents",
        f"rules {' or '.join(card['dialects']) or 'unknown'}",
        f"{ends['terminations']:,} terminations",
        f"{ends['time_outs']:,} time-outs",
    ]
    return canvas.save(figure, path, ",  ".join(facts))


def _colour(k: int) -> str:
    """The colour of the k-th data set."""
    return canvas.COLOURS[k % len(canvas.COLOURS)]


# --- violins ---


def _draw_violins(panel: Axes, cards: Sequence[Card]) -> None:
    """Draw each set's density of returns, with its quartiles, median and mean."""
    for x, card in enumerate(cards):
        _draw_violin(panel, x, card["return"])
    panel.set_xticks(range(len(cards)), [_short_name(card) for card in cards], fontsize=9)
    panel.set_xlim(-0.6, len(cards) - 0.4)
    panel.set_ylabel("episode return", fontsize=9)
    panel.tick_params(axis="y", labelsize=8)
    canvas.quiet(panel)
    panel.grid(visible=False, axis="x")
    _add_normalised_axis(panel, cards)


def _draw_violin(panel: Axes, x: int, score: Mapping[str, Any]) -> None:
    colour = _colour(x)
    at, density = _density(score["histogram"])
    half = 0.4 * density
    panel.fill_betweenx(at, x - half, x + half, color=colour, alpha=0.45, linewidth=0)
    q = score["quantiles"]
    panel.plot([x, x], [q["25 %"], q["75 %"]], color=colour, linewidth=5, solid_capstyle="butt")
    panel.plot([x - 0.4, x + 0.4], [score["mean"]] * 2, color="black", linewidth=1.2)
    dot = {"color": "white", "markeredgecolor": "black", "markersize": 4.5, "zorder": 3}
    panel.plot(x, q["median"], "o", **dot)


def _add_normalised_axis(panel: Axes, cards: Sequence[Card]) -> None:
    """Add an axis of normalised scores, where all sets have the same references.

    Lines stand at 0 and 100.
    """
    scales = [card["return"]["references"] for card in cards]
    first = scales[0]
    if not first or any(scale != first for scale in scales):
        panel.set_xlabel(MARKS, fontsize=8, color=GREY)
        return
    low = first["random"]
    high = first["expert"]
    for y in (low, high):
        panel.axhline(y, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0.5)
    axis = panel.twinx()
    axis.set_ylim(*(100.0 * (y - low) / (high - low) for y in panel.get_ylim()))
    axis.set_ylabel("normalised score", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    legend = f"{MARKS}\ndashed: 0 and 100 of {first['source']}"
    panel.set_xlabel(legend, fontsize=8, color=GREY)


def _density(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """(returns, density with largest value 1), as a violin's outline.

    The density is the histogram under a Gaussian of a bin's width.
    """
    edges = np.asarray(histogram["edges"])
    counts = np.asarray(histogram["counts"], float)
    # a flat line of a single return would be invisible
    if len(counts) == 1:
        return edges, np.ones(2)
    at = np.linspace(edges[0], edges[-1], 200)
    middle = (edges[1:] + edges[:-1]) / 2.0
    width = edges[1] - edges[0]
    density = np.exp(-0.5 * ((at[:, None] - middle) / (0.8 * width)) ** 2) @ counts
    return at, density / density.max()


# --- histograms ---


def _draw_histograms(panel: Axes, cards: Sequence[Card]) -> None:
    """Draw the share of episodes in each bin, with triangles at the means of several behaviours.

    Several sets are drawn relative to their own fullest bin.
    """
    several = len(cards) > 1
    width = max(_bin_width(card["return"]["histogram"]) for card in cards)
    means = [_behaviour_means(card) for card in cards]
    top = 0.0
    for k, card in enumerate(cards):
        edges, counts = _merged(card["return"]["histogram"], width)
        share = 100.0 * counts / counts.sum()
        if several:
            share = counts / counts.max()
        top = max(top, share.max())
        name = _short_name(card).replace("\n", "")
        panel.stairs(share, edges, color=_colour(k), fill=True, alpha=0.2)
        panel.stairs(share, edges, color=_colour(k), linewidth=1.2, label=name)
        heights = [-0.05 * (k + 1)] * len(means[k])
        triangles = {"color": _colour(k), "markersize": 5, "alpha": 0.8, "linewidth": 0}
        panel.plot(means[k], heights, "^", **triangles)
    for line in panel.lines:
        line.set_ydata(top * np.asarray(line.get_ydata()))

    triangles_drawn = any(len(card["behaviours"]["each"]) > 1 for card in cards)
    low = 0.0
    high = 1.08 * top
    x_label = "episode return"
    unit = "% of all"
    if triangles_drawn:
        low = -0.05 * (len(cards) + 1) * top
        x_label += "\ntriangles: each behaviour's mean"
    if several:
        # room for the legend
        high = (1.08 + 0.13 * len(cards)) * top
        unit = "fullest = 1"
    panel.set_ylim(low, high)
    panel.set_xlabel(x_label, fontsize=9)
    panel.set_ylabel(f"episodes in {width:g} of return, {unit}", fontsize=9)
    panel.tick_params(labelsize=8)
    canvas.quiet(panel)
    if several:
        panel.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
        panel.legend(frameon=False, fontsize=8, loc="upper right", borderpad=0.1)


def _bin_width(histogram: Histogram) -> float:
    edges = histogram["edges"]
    return float(edges[1] - edges[0])


def _behaviour_means(card: Card) -> list[float]:
    """The mean returns of a set's behaviours, where it has several."""
    each = card["behaviours"]["each"]
    if len(each) < 2:
        return []
    return [x["return"] for x in each.values() if x["return"] is not None]


def _merged(histogram: Histogram, width: float) -> tuple[np.ndarray, np.ndarray]:
    """(edges, counts) with wider bins, into which the card's own nest.

    A set of one return keeps its bin.
    """
    edges = np.asarray(histogram["edges"])
    counts = np.asarray(histogram["counts"], float)
    if len(counts) == 1 or edges[1] - edges[0] > 0.99 * width:
        return edges, counts
    middle = (edges[1:] + edges[:-1]) / 2.0
    bins = np.floor(middle / width).astype(int)
    first = bins.min()
    wide_edges = width * np.arange(first, bins.max() + 2)
    return wide_edges, np.bincount(bins - first, weights=counts)


# --- ranges ---


def _draw_ranges(panel: Axes, columns: Sequence[Mapping[str, Any]]) -> None:
    """Draw each column's least and largest value as a line, and its mean as a dot."""
    for y, column in enumerate(columns):
        if column["mean"] is None:
            continue
        colour = _colour(1) if column["kind"] == "action" else _colour(0)
        ends = [column["min"], column["max"]]
        style = {"color": colour, "linewidth": 4, "alpha": 0.4, "solid_capstyle": "butt"}
        panel.plot(ends, [y, y], **style)
        panel.plot(column["mean"], y, "o", color=colour, markersize=4)
    panel.set_yticks(range(len(columns)), [c["name"] for c in columns], fontsize=7)
    panel.set_ylim(len(columns) - 0.4, -0.6)
    label = "least, mean and largest value, agents pooled"
    if any(c["name"].endswith("*") for c in columns):
        label += "\n* the first agent's name of it"
    panel.set_xlabel(label, fontsize=9)
    panel.tick_params(axis="x", labelsize=8)
    canvas.quiet(panel)


def _short_name(card: Card) -> str:
    """What tells a set within its task: its quality, or the end of its path."""
    name = card["quality"] or Path(card["name"]).name
    if len(name) <= 14:
        return name
    return name.replace("-", "-\n", 1)

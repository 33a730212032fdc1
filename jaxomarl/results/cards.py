"""The picture of data sets' cards, from their JSON alone: violins of the returns, histograms, ranges of the columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results import canvas
from jaxomarl.results.card_text import pooled

Card = Mapping[str, Any]  # what data.card.describe returns
GREY = "#555555"
MOST_COLUMNS = 40


def picture(path: str | Path, cards: Sequence[Card]) -> canvas.Figure:
    """Draw the cards and write them to `path`: for each task its sets' violins side by side, and their histograms.

    A single set has its columns' ranges beside them. JaxomarlError where no card has a return, or matplotlib is
    missing. Source: the violins of the OMSD paper, figures 11 to 13.
    """
    drawn = [card for card in cards if card["return"]["histogram"]]
    if not drawn:
        raise refuse(
            "cards",
            "one with returns",
            f"{len(cards)} without",
            "Describe a set that has an episode.",
        )
    tasks: dict[Any, list[Card]] = {}
    for card in drawn:
        tasks.setdefault(card["task"] or card["name"], []).append(card)
    if len(drawn) == 1:
        return _single(path, drawn[0])
    wide = max(3.2, 0.9 + 0.95 * max(map(len, tasks.values())))
    figure, panels = canvas.grid(2 * len(tasks), wide, 3.3, max(2, len(tasks)))
    for k, (task, group) in enumerate(tasks.items()):
        _violins(panels[k], group)
        panels[k].set_title(str(task), fontsize=10)
        _histograms(panels[k + len(tasks)], group)
    return canvas.save(figure, path)


def _single(path: str | Path, card: Card) -> canvas.Figure:
    columns = [c for kind in ("obs", "action") for c in pooled(card["columns"], kind)][
        :MOST_COLUMNS
    ]
    figure, (left, middle, right) = canvas.grid(3, 3.7, max(3.4, 0.8 + 0.155 * len(columns)), 3)
    _violins(left, [card])
    _histograms(middle, [card])
    _ranges(right, columns)
    counts, ends = card["counts"], card["ends"]
    said = [
        f"{card['name']}:  {counts['transitions']:,} transitions",
        f"{counts['episodes']:,} episodes",
        f"{card['agents']} agents",
        f"rules {' or '.join(card['dialects']) or 'unknown'}",
        f"{ends['terminations']:,} terminations",
        f"{ends['time_outs']:,} time-outs",
    ]
    return canvas.save(figure, path, ",  ".join(said))


def _violins(panel: Any, cards: Sequence[Card]) -> None:
    """Density of each set's returns, a bar from quartile to quartile, a dot at the median, a line at the mean."""
    for x, card in enumerate(cards):
        score, colour = card["return"], canvas.COLOURS[x % len(canvas.COLOURS)]
        at, density = _density(score["histogram"])
        panel.fill_betweenx(
            at, x - 0.4 * density, x + 0.4 * density, color=colour, alpha=0.45, linewidth=0
        )
        q = score["quantiles"]
        panel.plot([x, x], [q["25 %"], q["75 %"]], color=colour, linewidth=5, solid_capstyle="butt")
        panel.plot([x - 0.4, x + 0.4], [score["mean"]] * 2, color="black", linewidth=1.2)
        panel.plot(
            x, q["median"], "o", color="white", markeredgecolor="black", markersize=4.5, zorder=3
        )
    panel.set_xticks(range(len(cards)), [_short(card) for card in cards], fontsize=9)
    panel.set_xlim(-0.6, len(cards) - 0.4)
    panel.set_ylabel("episode return", fontsize=9)
    panel.tick_params(axis="y", labelsize=8)
    canvas.quiet(panel)
    panel.grid(visible=False, axis="x")
    _normalised(panel, cards)


def _normalised(panel: Any, cards: Sequence[Card]) -> None:
    """A second axis of normalised scores, and lines at 0 and 100, where all sets have the same references."""
    scales = [card["return"]["references"] for card in cards]
    if not scales[0] or any(s != scales[0] for s in scales):
        panel.set_xlabel("bar: quartiles, dot: median, line: mean", fontsize=8, color=GREY)
        return
    low, high = scales[0]["random"], scales[0]["expert"]
    for y in (low, high):
        panel.axhline(y, color=GREY, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0.5)
    axis = panel.twinx()
    axis.set_ylim(*(100.0 * (y - low) / (high - low) for y in panel.get_ylim()))
    axis.set_ylabel("normalised score", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    legend = f"bar: quartiles, dot: median, line: mean\ndashed: 0 and 100 of {scales[0]['source']}"
    panel.set_xlabel(legend, fontsize=8, color=GREY)


def _histograms(panel: Any, cards: Sequence[Card]) -> None:
    """Share of episodes in each bin, of several sets relative to its own largest; triangles at behaviours' means."""
    width = max(
        h["edges"][1] - h["edges"][0] for h in (card["return"]["histogram"] for card in cards)
    )
    several = [
        card["behaviours"]["each"] if len(card["behaviours"]["each"]) > 1 else {} for card in cards
    ]
    top = 0.0
    for k, (card, each) in enumerate(zip(cards, several, strict=True)):
        colour = canvas.COLOURS[k % len(canvas.COLOURS)]
        edges, counts = _merged(card["return"]["histogram"], width)
        share = counts / counts.max() if len(cards) > 1 else 100.0 * counts / counts.sum()
        top = max(top, share.max())
        panel.stairs(share, edges, color=colour, fill=True, alpha=0.2)
        panel.stairs(
            share, edges, color=colour, linewidth=1.2, label=_short(card).replace("\n", "")
        )
        means = [x["return"] for x in each.values() if x["return"] is not None]
        panel.plot(
            means,
            [-0.05 * (k + 1)] * len(means),
            "^",
            color=colour,
            markersize=5,
            alpha=0.8,
            linewidth=0,
        )
    for line in panel.lines:
        line.set_ydata(top * np.asarray(line.get_ydata()))
    low = -0.05 * (len(cards) + 1) * top if any(several) else 0.0
    panel.set_ylim(
        low, (1.08 if len(cards) == 1 else 1.08 + 0.13 * len(cards)) * top
    )  # room for the legend
    panel.set_xlabel(
        "episode return" + ("\ntriangles: each behaviour's mean" if any(several) else ""),
        fontsize=9,
    )
    unit = "% of all" if len(cards) == 1 else "fullest = 1"
    panel.set_ylabel(f"episodes in {width:g} of return, {unit}", fontsize=9)
    panel.tick_params(labelsize=8)
    canvas.quiet(panel)
    if len(cards) > 1:
        panel.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
        panel.legend(frameon=False, fontsize=8, loc="upper right", borderpad=0.1)


def _merged(
    histogram: Mapping[str, Sequence[float]], width: float
) -> tuple[np.ndarray, np.ndarray]:
    """(edges, counts) with wider bins, into which the card's own nest; a set of one return keeps its bin."""
    edges, counts = np.asarray(histogram["edges"]), np.asarray(histogram["counts"], float)
    if len(counts) == 1 or edges[1] - edges[0] > 0.99 * width:
        return edges, counts
    bins = np.floor((edges[1:] + edges[:-1]) / 2.0 / width).astype(int)
    first = bins.min()
    return width * np.arange(first, bins.max() + 2), np.bincount(bins - first, weights=counts)


def _ranges(panel: Any, columns: Sequence[Mapping[str, Any]]) -> None:
    """A line from the least to the largest value of each column, and a dot at its mean, agents pooled."""
    for y, column in enumerate(columns):
        if column["mean"] is None:
            continue
        colour = canvas.COLOURS[1] if column["kind"] == "action" else canvas.COLOURS[0]
        panel.plot(
            [column["min"], column["max"]],
            [y, y],
            color=colour,
            linewidth=4,
            alpha=0.4,
            solid_capstyle="butt",
        )
        panel.plot(column["mean"], y, "o", color=colour, markersize=4)
    panel.set_yticks(range(len(columns)), [c["name"] for c in columns], fontsize=7)
    panel.set_ylim(len(columns) - 0.4, -0.6)
    starred = (
        "\n* the first agent's name of it" if any(c["name"].endswith("*") for c in columns) else ""
    )
    panel.set_xlabel(f"least, mean and largest value, agents pooled{starred}", fontsize=9)
    panel.tick_params(axis="x", labelsize=8)
    canvas.quiet(panel)


def _density(histogram: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """(returns, density with largest value 1): the histogram under a Gaussian of a bin, as a violin's outline."""
    edges, counts = np.asarray(histogram["edges"]), np.asarray(histogram["counts"], float)
    if len(counts) == 1:  # one return: a flat line would be invisible
        return edges, np.ones(2)
    at = np.linspace(edges[0], edges[-1], 200)
    middle, width = (edges[1:] + edges[:-1]) / 2.0, edges[1] - edges[0]
    density = np.exp(-0.5 * ((at[:, None] - middle) / (0.8 * width)) ** 2) @ counts
    return at, density / density.max()


def _short(card: Card) -> str:
    """What tells a set within its task: its quality, or the end of its path."""
    name = card["quality"] or Path(card["name"]).name
    return name if len(name) <= 14 else name.replace("-", "-\n", 1)

"""What folders of results say of coordination: ways of acting together, infos, distance from data.

A way is a joint outcome of an episode, by the infos of its task: the level on which all agree, the
cell of a payoff matrix, or the signs of the joint action. Tables of papers write further counts
into measured.csv, such as landmarks that were covered.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.base import refuse
from jaxomarl.paths import user_path
from jaxomarl.results import intervals, store, study, tables, tabular
from jaxomarl.results.canvas import COLOURS, GREY, Axes, Figure, grid, legend, quiet, save
from jaxomarl.results.store import Run, health_of
from jaxomarl.results.study import Study
from jaxomarl.results.tables import Record
from jaxomarl.results.tabular import Table

ACTION = re.compile(r"action_(\d+)")
"""An info that is an agent's action, by the agent's number."""
KNOWN = ("return", "length", "coordinated", "win", "level", "nonfinite")
"""Metrics of an episode that have columns of their own, or say nothing of coordination."""
DISTANCES = {
    "nearest_distance": "distance from the data",
    "nearest_data_distance": "of the data's own",
    "nearest_random_distance": "of uniform actions",
}
"""Figures of a stage's health that compare its actions with the data's -> columns."""
NOTES = {
    "ways": "A way is a joint outcome: the level or cell on which agents agree, or the signs of "
    "their actions. Ways are counted over all seeds, and in a seed: the mean number in one "
    "policy's episodes.",
    "distance from the data": "Distance: from the policy's action to the nearest of the data's "
    "actions in the most similar held-out rows. A clone has that of the data's own; uniform "
    "actions are where there are no data.",
}
"""What has to be known of a column."""
COUNTS = (
    "coordinated",
    "coordinated share",
    "covered",
    "collisions",
    "total variation",
    "good starts",
    "good from one start",
    "ways",
)
"""Metrics of measured.csv that tell of coordination."""
MEASURED = "measured.csv"
BY_SEED = "seeds"
"""The folder in which a table keeps each seed's numbers until it has all."""
NONE = "#CCCCCC"
"""Colour of episodes that are not coordinated."""

Infos = dict[int, dict[str, np.ndarray]]
"""Seed -> metric -> its value in each episode."""


class Ways(NamedTuple):
    """In which ways a system's final episodes ended."""

    shares: dict[str, float]
    """Way -> share of all episodes; what is missing to 1 is not coordinated."""
    in_a_seed: float
    """Mean number of ways in the episodes of one seed."""


# --- what the files hold ---


def infos(read: Study) -> dict[Record, Infos]:
    """The final episodes' metrics of every record, by seed.

    Diverged seeds are left out, and those without a return, which are not finished. Raises
    JaxomarlError where a seed has more values of one metric than of another.
    """
    diverged = {study.run_key(run.info) for run in read.runs if run.info.get("diverged")}
    values: dict[tuple, dict[int, dict[str, list[float]]]] = {}
    for starts, rows in (("fresh", read.final), ("common", read.rows)):
        for row in rows:
            if row[:5] in diverged:
                continue
            cell = (starts, row.system, row.task, row.data, row.config, row.stage, row.step)
            of_seed = values.setdefault(cell, {}).setdefault(row.seed, {})
            of_seed.setdefault(row.metric, []).append(row.value)

    found = {}
    for r in read.records:
        seeds = values.get((r.starts, r.system, r.task, r.data, r.config, r.stage, r.step), {})
        arrays = {
            seed: {name: np.array(x, np.float64) for name, x in of_seed.items()}
            for seed, of_seed in seeds.items()
        }
        finished = {seed: of for seed, of in arrays.items() if "return" in of}
        for seed, of in finished.items():
            _check_lengths(f"{r.system} on {r.task}/{r.data}, seed {seed}", of)
        found[r] = {seed: of for seed, of in finished.items() if np.isfinite(of["return"]).all()}
    return found


def _check_lengths(where: str, metrics: Mapping[str, np.ndarray]) -> None:
    """Raise JaxomarlError where an episode has not every metric once."""
    lengths = {name: len(values) for name, values in metrics.items()}
    if len(set(lengths.values())) > 1:
        way = "Its final.csv is torn: --resume makes it again."
        raise refuse(where, "each metric of each episode once", lengths, way)


def ways_of(episodes: Mapping[str, np.ndarray], discrete: bool) -> list[str] | None:
    """The way of each episode of one seed, "" where none; None where the task does not tell."""
    if "level" in episodes:
        return [f"level {x:g}" if x >= 0 else "" for x in episodes["level"]]
    numbers = sorted(int(found[1]) for found in map(ACTION.fullmatch, episodes) if found)
    if len(numbers) < 2:
        return None
    actions = np.stack([episodes[f"action_{k}"] for k in numbers], axis=1)
    together = episodes.get("coordinated", np.ones(len(actions)))
    return [
        _joint(joint, discrete) if agreed else ""
        for joint, agreed in zip(actions, together, strict=True)
    ]


def _joint(action: Float[np.ndarray, " N"], discrete: bool) -> str:
    """A joint action as a way: its cell, or its signs."""
    if discrete:
        return f"({', '.join(f'{x:g}' for x in action)})"
    return f"({', '.join('+' if x > 0 else '-' for x in action)})"


def ways(of_record: Infos, discrete: bool) -> Ways | None:
    """The ways of a record, each seed counting alike; None where its task does not tell."""
    by_seed = [ways_of(episodes, discrete) for episodes in of_record.values()]
    known = [of_seed for of_seed in by_seed if of_seed is not None]
    if not known:
        return None
    shares: dict[str, float] = defaultdict(float)
    for of_seed in known:
        for way in filter(None, of_seed):
            shares[way] += 1.0 / len(of_seed) / len(known)
    distinct = [len(set(filter(None, of_seed))) for of_seed in known]
    return Ways(dict(sorted(shares.items())), float(np.mean(distinct)))


def distances(runs: Iterable[Run], stage: str) -> dict[str, float]:
    """The mean over runs of a stage's distances from the data, by column; {} where none has any."""
    values = defaultdict(list)
    for run in runs:
        for health in health_of(run):
            if health["stage"] != stage:
                continue
            for name, column in DISTANCES.items():
                if name in health["figures"]:
                    values[column].append(float(health["figures"][name]))
    return {column: float(np.mean(x)) for column, x in values.items() if np.isfinite(x).all()}


# --- tables ---


def table(read: Study) -> Table | None:
    """A row for each record whose files say anything of coordination; None where none does."""
    named = study.names(read.records)
    episodes = infos(read)
    rows = []
    columns: dict[str, None] = {}
    for r in read.records:
        cells = _cells(r, episodes[r], _runs_of(read, r))
        if cells:
            rows.append(
                {"task": r.task, "data": r.data, "system": named[r] + tables.marks(r), **cells}
            )
            columns |= dict.fromkeys(rows[-1])
    if not rows:
        return None
    last = list(DISTANCES.values())
    ordered = [name for name in columns if name not in last]
    ordered += [name for name in last if name in columns]
    notes = [note for name, note in NOTES.items() if name in columns]
    return tabular.table(ordered, [[row.get(x, "") for x in ordered] for row in rows], notes)


def _cells(r: Record, of_record: Infos, runs: Sequence[Run]) -> dict[str, str]:
    """What is known of a record, by column."""
    cells = {}
    if r.coordinated is not None:
        cells["coordinated"] = tables.coordinated(r)
    found = ways(of_record, _discrete(runs))
    if found is not None:
        cells["ways"] = str(len(found.shares))
        cells["in a seed"] = f"{found.in_a_seed:.1f}"
        if found.shares:
            most = max(found.shares, key=lambda way: found.shares[way])
            cells["commonest way"] = f"{most}: {found.shares[most]:.0%}"
    if r.win is not None:
        cells["win rate [95 %]"] = tables.win_rate(r)
    names = dict.fromkeys(name for episodes in of_record.values() for name in episodes)
    for name in names:
        if name in KNOWN or ACTION.fullmatch(name):
            continue
        means = [episodes[name].mean() for episodes in of_record.values() if name in episodes]
        cells[f"{name.replace('_', ' ')} [95 %]"] = _interval(means)
    near = distances(runs, r.stage)
    return cells | {column: f"{x:.3f}" for column, x in near.items()}


def _runs_of(read: Study, r: Record) -> list[Run]:
    cell = (r.system, r.task, r.data, r.config)
    return [run for run in read.runs if study.run_key(run.info)[:4] == cell]


def _discrete(runs: Sequence[Run]) -> bool:
    spec = runs[0].info.get("spec") or {}
    return bool(spec.get("discrete"))


def _interval(values: Sequence[float]) -> str:
    """The mean over seeds, with its 95 % interval where there are two or more."""
    samples = np.array(values, np.float64)
    cell = f"{samples.mean():z.3g}"
    if len(samples) > 1:
        low, high = intervals.interval(intervals.of_samples(samples))
        cell += f" [{low:z.3g}, {high:z.3g}]"
    return cell


def counted(folders: Iterable[str | Path]) -> Table | None:
    """The counts that tables wrote into measured.csv below the folders; None where there are none.

    Raises JaxomarlError where such a file is torn.
    """
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for folder in map(user_path, folders):
        for file in sorted(folder.rglob(MEASURED)):
            if BY_SEED in file.relative_to(folder).parts:
                continue
            for row in store.read_table(file):
                if row.get("metric") in COUNTS:
                    cell = (row["game"], row["system"], row["setting"])
                    of_cell = values.setdefault(cell, {}).setdefault(row["metric"], [])
                    of_cell.append(float(row["value"]))
    if not values:
        return None
    shown = [name for name in COUNTS if any(name in of_cell for of_cell in values.values())]
    rows = []
    for cell, of_cell in values.items():
        numbers = [_interval(of_cell[name]) if name in of_cell else "" for name in shown]
        rows.append((*cell, str(max(map(len, of_cell.values()))), *numbers))
    head = ("game", "system", "setting", "seeds", *(f"{name} [95 %]" for name in shown))
    return tabular.table(head, rows)


# --- figure ---


def ways_figure(path: str | Path | None, read: Study) -> Figure | None:
    """Draw the share of final episodes in each way, a bar for each system, a panel for each task.

    The result is None where no task tells of ways. JaxomarlError where matplotlib is missing.
    """
    named = study.names(read.records)
    episodes = infos(read)
    panels: dict[tuple[str, str], dict[str, Ways]] = defaultdict(dict)
    for r in read.records:
        found = ways(episodes[r], _discrete(_runs_of(read, r)))
        if found is not None:
            panels[r.task, r.data][named[r] + tables.marks(r)] = found
    if not panels:
        return None

    every = sorted({way for bars in panels.values() for found in bars.values() for way in found[0]})
    colours = dict(zip(every, COLOURS, strict=False))
    tallest = max(map(len, panels.values()))
    figure, axes = grid(len(panels), 4.6, 0.9 + 0.3 * tallest, 2)
    for panel, (title, bars) in zip(axes, panels.items(), strict=True):
        _draw_bars(panel, bars, colours)
        panel.set_ylim(tallest - 0.4, -0.6)
        panel.set_title("  ".join(title), fontsize=10)
    _draw_legend(figure, colours, more=len(every) > len(colours))
    return save(figure, path, "Each seed counts alike.")


def _draw_bars(panel: Axes, bars: Mapping[str, Ways], colours: Mapping[str, str]) -> None:
    """A bar for each system: its ways side by side, then what is not coordinated."""
    style = {"height": 0.62, "edgecolor": "white", "linewidth": 0.8}
    for y, found in enumerate(bars.values()):
        left = 0.0
        for way, share in found.shares.items():
            panel.barh(y, share, left=left, color=colours.get(way, GREY), **style)
            left += share
        panel.barh(y, max(0.0, 1.0 - left), left=left, color=NONE, **style)
    panel.set_yticks(range(len(bars)), list(bars), fontsize=9)
    panel.set_xlim(0.0, 1.0)
    panel.set_xlabel("share of final episodes", fontsize=9)
    panel.tick_params(axis="x", labelsize=8)
    quiet(panel)


def _draw_legend(figure: Figure, colours: Mapping[str, str], more: bool) -> None:
    from matplotlib.patches import Patch

    entries: list[Any] = [Patch(color=colour, label=way) for way, colour in colours.items()]
    if more:
        entries.append(Patch(color=GREY, label="other ways"))
    entries.append(Patch(color=NONE, label="not coordinated"))
    legend(figure, entries)

"""Cells of a paper's table.

They are trained one task and quality at a time, and then compared with the paper.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxomarl.algorithms import coda, dom2
from jaxomarl.api import plan, session
from jaxomarl.api.plan import Group
from jaxomarl.base import JaxomarlError, Task
from jaxomarl.config import flag
from jaxomarl.data.catalog import load
from jaxomarl.data.reweight import trajectories
from jaxomarl.envs.catalog import make
from jaxomarl.papers import comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import Published
from jaxomarl.paths import folder_name
from jaxomarl.presets import find
from jaxomarl.results import statistics, tables


class Cell(NamedTuple):
    """What is kept of a task and a quality once systems were trained on their data."""

    task: Task
    quality: str
    manifest: dict
    records: list[tables.Record]
    note: str = ""


# --- training ---


def train(
    asked: Asked, systems: Sequence[str], task: str, quality: str, preset: str = "", name: str = ""
) -> tuple[Cell, session.Results]:
    """Train systems on one data set into `asked.out/name`, or load them where they were trained.

    The results hold the data set: drop them before the next cell is trained. `preset` "" gives each
    system the first preset that fits it and the task. Raises JaxomarlError where the folder holds
    results of other settings.
    """
    groups, asked, note = resolve(asked, systems, task, quality, preset)
    folder = asked.out / (name or folder_name(task, quality))
    with open_cell_folder(asked, folder, preset):
        results = train_groups(asked, groups, folder)
    first = groups[0]
    return Cell(first.task, first.quality, first.manifest, results.records, note), results


@contextlib.contextmanager
def open_cell_folder(asked: Asked, folder: Path, preset: str) -> Iterator[None]:
    """Lock a cell's folder, new or of the same settings.

    JaxomarlError where it has results of other settings.
    """
    settings = session.asked(
        preset, asked.overrides, asked.rows, asked.episodes, asked.scale, asked.final_episodes
    )
    with session.locked(folder):
        resume = (folder / "sweep.json").exists()
        session.open_folder(folder, settings, resume=resume, overwrite=False)
        yield


def train_groups(
    asked: Asked, groups: Sequence[Group], folder: Path, sources: Sequence[Path] = ()
) -> session.Results:
    """Train groups into a folder that is locked, or load them where they were trained.

    Finished stages are taken from `sources`, and from the folder of the same name under `--from`.
    """
    if asked.source:
        sources = [*sources, asked.source / folder.name]
    progress = asked.progress
    return session.train_groups(
        groups, folder, sources, report=progress, stopped=asked.stopped, say=progress.say
    )


# --- settings that the data cannot give ---


def resolve(
    asked: Asked, systems: Sequence[str], task: str, quality: str, preset: str
) -> tuple[list[Group], Asked, str]:
    """(groups, what was asked, a note).

    What these data cannot give is left out of the settings, and the note says so. That is: DOM2's
    printed thresholds that no trajectory reaches, and CODA's windows of episodes that are shorter.
    """

    def groups(chosen: Asked) -> list[Group]:
        return plan.resolve(
            systems,
            [task],
            [quality],
            chosen.seeds,
            preset,
            chosen.overrides,
            chosen.rows,
            chosen.episodes,
            chosen.scale,
            final_episodes=chosen.final_episodes,
        )

    try:
        return groups(asked), asked, ""
    except JaxomarlError as error:
        given = set(asked.overrides)
        if error.field == flag("thresholds") and "thresholds" not in given:
            chosen, note = without_high_thresholds(asked, task, quality, preset)
            return groups(chosen), chosen, note
        about_windows = {"augment_horizon", "augment_short"}
        if error.field == flag("augment_horizon") and not about_windows & given:
            overrides = {**asked.overrides, "augment_short": ["skip"]}
            chosen = dataclasses.replace(asked, overrides=overrides)
            resolved = groups(chosen)
            return resolved, chosen, short_episodes_note(resolved)
        raise


def short_episodes_note(groups: Sequence[Group]) -> str:
    """A note on the episodes that an augmentation's generator does not see."""
    augmented = next(group for group in groups if "+" in group.name)
    horizon = coda.horizon_of(augmented.task.env.spec, augmented.cfgs[0])
    assert augmented.data is not None
    short = coda.shorter(augmented.data, horizon)
    episodes = coda.shorter(augmented.data, np.iinfo(np.int32).max)
    return (
        f"; {short} of {episodes} episodes are shorter than the generator's {horizon} steps"
        " and not among its windows"
    )


def without_high_thresholds(
    asked: Asked, task: str, quality: str, preset: str
) -> tuple[Asked, str]:
    """What was asked without DOM2's printed thresholds above every return, and a note of them."""
    named_task = make(task)
    data, manifest = load(named_task, quality, asked.rows)
    printed = find(preset, named_task.name, "dom2").at(named_task.name, manifest["quality"])
    highest = trajectories(data)[1].max()
    thresholds = dom2.bounds(str(printed["thresholds"]))
    kept = ",".join(f"{x:g}" for x in thresholds if x <= highest)
    dropped = ", ".join(f"{x:g}" for x in thresholds if x > highest)
    note = f"; DOM2's thresholds {dropped} are above every return here, {highest:.1f} at most"
    overrides = {**asked.overrides, "thresholds": [kept]}
    return dataclasses.replace(asked, overrides=overrides), note


# --- reports ---


def comparison_table(
    asked: Asked,
    default: tuple[Sequence[str], Sequence[str], Sequence[str]],
    printed: Published,
    spread: str,
    differences: Sequence[str],
    their_seeds: str,
    preset: str = "",
    alone: bool = False,
    normalised: bool = True,
) -> str:
    """Train every cell that was asked for, and compare it with the paper.

    A task and quality is trained at a time.

    `default` are systems, tasks and data where none are asked for. `normalised` says that the
    `printed` scores are; otherwise they are returns.
    Cells are kept under `out`, so that the same command continues where it was stopped.
    """
    default_systems, default_tasks, default_data = default
    systems = asked.systems or default_systems
    trained = []
    for task in asked.tasks or default_tasks:
        for quality in asked.data or default_data:
            cell, _ = train(asked, systems, task, quality, preset)
            trained.append(cell)
    records = [record for cell in trained for record in cell.records]
    return report(
        asked,
        trained,
        records,
        printed,
        spread,
        differences,
        their_seeds,
        alone=alone,
        normalised=normalised,
    )


def data_means(trained: Sequence[Cell]) -> dict[tuple[str, str], float]:
    """(task, data) -> the data's mean return."""
    return {(c.task.name, c.quality): c.manifest["return"]["mean"] for c in trained}


def base_name(task: str) -> str:
    """A task's name without its parameters."""
    return task.partition(":")[0]


def report(
    asked: Asked,
    trained: Sequence[Cell],
    records: Sequence[tables.Record],
    printed: Published,
    spread: str,
    differences: Sequence[str],
    their_seeds: str,
    key: Callable[[str], str] = base_name,
    alone: bool = False,
    normalised: bool = False,
) -> str:
    """Preface, overview and full table of cells.

    The arguments are those of `preface` and `comparison.full_table`. `normalised` says that the
    printed scores are. Where systems are asked for, those of the paper alone get no row.
    """
    before = preface(asked, trained, differences, their_seeds)
    others = not asked.systems
    overview = comparison.overview(records, printed, key, normalised, others)
    full = comparison.full_table(records, printed, key, spread, alone and others)
    return f"{before}\n{overview}{full}"


def preface(
    asked: Asked, trained: Sequence[Cell], differences: Sequence[str], their_seeds: str
) -> str:
    """What has to be known before ours and the published numbers are compared.

    The paper's `differences` come first, then ours.
    """
    scale = "Scale: the preset of the paper."
    if asked.scale != 1.0:
        scale = tables.reduced(asked.scale)
    if asked.overrides:
        scale += f" Besides: {', '.join(map(_override, asked.overrides.items()))}."
    lines = [
        "Ours and the published scores differ in more than the code:",
        "",
        *(f"- {line}" for line in differences),
        f"- {scale}",
        f"- Seeds: ours {len(asked.seeds)}, last policy; {their_seeds}",
        "",
        *map(_data_line, trained),
    ]
    return "\n".join(lines) + "\n"


def _override(item: tuple[str, Sequence]) -> str:
    field, values = item
    if len(values) == 1:
        return f"{field} = {values[0]}"
    return f"{field} = {list(values)}"


def _data_line(cell: Cell) -> str:
    """A line of a cell's data set: its size, its mean return, and what identifies it."""
    manifest = cell.manifest
    returns = manifest["return"]
    mean = returns["mean"]
    score = f"mean return {mean:.1f}"
    error = statistics.standard_error(returns["std"], manifest["episodes"])
    if error is not None:
        score += f" ± {error:.1f} (standard error)"
    if cell.task.scale:
        score += f", normalised {cell.task.scale.normalise(mean):.1f}"
    size = f"{manifest['transitions']} transitions of {manifest['behaviours']} behaviours"
    identity = f"content {manifest['sha256'][:12]}, dialect {manifest['dialect']}"
    return f"- {cell.task.name} {cell.quality}: {size}, {score}, {identity}{cell.note}"

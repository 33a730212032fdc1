"""Cells of a paper's table: trained one task and quality at a time, then set beside what is printed."""

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
    """What is kept of a task and a quality once systems were trained on them; the data are let go."""

    task: Task
    quality: str
    manifest: dict
    records: list[tables.Record]
    note: str = ""


def train(
    asked: Asked, systems: Sequence[str], task: str, quality: str, preset: str = "", name: str = ""
) -> tuple[Cell, session.Results]:
    """Train systems on one data set into `asked.out/name`, or find them trained there.

    The results hold the data set: drop them before the next cell is trained. `preset` "" gives each system the first
    preset made for it and the task. Raises JaxomarlError where the folder holds results of other settings.
    """
    groups, asked, note = resolve(asked, systems, task, quality, preset)
    name = name or folder_name(task, quality)
    folder = asked.out / name
    with opened(asked, folder, preset):
        done = trained(asked, groups, folder)
    first = groups[0]
    return Cell(first.task, first.quality, first.manifest, done.records, note), done


@contextlib.contextmanager
def opened(asked: Asked, folder: Path, preset: str) -> Iterator[None]:
    """Hold a cell's folder, new or of the same settings; JaxomarlError where it has results of others."""
    settings = session.asked(
        preset, asked.overrides, asked.rows, asked.episodes, asked.scale, asked.final_episodes
    )
    with session.locked(folder):
        session.open_folder(
            folder, settings, resume=(folder / "sweep.json").exists(), overwrite=False
        )
        yield


def trained(
    asked: Asked, groups: Sequence[Group], folder: Path, sources: Sequence[Path] = ()
) -> session.Results:
    """Train groups into a folder that is held, or find them trained there.

    Finished stages are taken from `sources`, and from the folder of the same name under `--from`.
    """
    lines = asked.lines
    if asked.source:
        sources = [*sources, asked.source / folder.name]
    return session.train_groups(
        groups, folder, sources, report=lines, stopped=asked.stopped, say=lines.say
    )


def resolve(
    asked: Asked, systems: Sequence[str], task: str, quality: str, preset: str
) -> tuple[list[Group], Asked, str]:
    """(groups, what was asked, a note). What these data cannot give is left out of the settings, and the note says so.

    That is: DOM2's printed thresholds that no trajectory reaches, and CODA's windows of episodes that are shorter.
    """

    def groups(chosen: Asked) -> list[Group]:
        return plan.resolve(
            systems, [task], [quality], chosen.seeds, preset, chosen.overrides, chosen.rows, chosen.episodes,
            chosen.scale, final_episodes=chosen.final_episodes,
        )  # fmt: skip

    try:
        return groups(asked), asked, ""
    except JaxomarlError as error:
        given = {*asked.overrides}
        if error.field == flag("thresholds") and "thresholds" not in given:
            chosen, note = within_reach(asked, task, quality, preset)
        elif (
            error.field == flag("augment_horizon")
            and not {"augment_horizon", "augment_short"} & given
        ):
            chosen = dataclasses.replace(
                asked, overrides={**asked.overrides, "augment_short": ["skip"]}
            )
            made = groups(chosen)
            return made, chosen, too_short(made)
        else:
            raise
    return groups(chosen), chosen, note


def too_short(groups: Sequence[Group]) -> str:
    """What an augmentation's generator does not see."""
    of = next(g for g in groups if "+" in g.name)
    horizon = coda.horizon_of(of.task.env.spec, of.cfgs[0])
    assert of.data is not None
    few, all_of = coda.shorter(of.data, horizon), coda.shorter(of.data, np.iinfo(np.int32).max)
    return f"; {few} of {all_of} episodes are shorter than the generator's {horizon} steps and not among its windows"


def within_reach(asked: Asked, task: str, quality: str, preset: str) -> tuple[Asked, str]:
    """The same without those of DOM2's printed thresholds that lie above every return, and which those are."""
    named = make(task)
    data, manifest = load(named, quality, asked.rows)
    given = find(preset, named.name, "dom2").at(named.name, manifest["quality"])
    top = trajectories(data)[1].max()
    wanted = dom2.bounds(str(given["thresholds"]))
    kept = ",".join(f"{x:g}" for x in wanted if x <= top)
    lost = ", ".join(f"{x:g}" for x in wanted if x > top)
    note = f"; DOM2's thresholds {lost} are above every return here, {top:.1f} at most"
    return dataclasses.replace(asked, overrides={**asked.overrides, "thresholds": [kept]}), note


def table(
    asked: Asked,
    default: tuple[Sequence[str], Sequence[str], Sequence[str]],
    printed: Published,
    spread: str,
    differences: Sequence[str],
    theirs: str,
    preset: str = "",
    alone: bool = False,
) -> str:
    """Train every cell that was asked for, a task and quality at a time, and set it beside what is printed.

    `default` are systems, tasks and data where none are asked for; `printed` are normalised scores. Cells are kept
    under `out`, so that the same command goes on where it was stopped.
    """
    systems, tasks, data = (
        mine or its
        for mine, its in zip((asked.systems, asked.tasks, asked.data), default, strict=True)
    )
    made = [train(asked, systems, task, quality, preset)[0] for task in tasks for quality in data]
    records = [record for cell in made for record in cell.records]
    return beside(
        asked, made, records, printed, spread, differences, theirs, alone=alone, normalised=True
    )


def means(made: Sequence[Cell]) -> dict[tuple[str, str], float]:
    """(task, data) -> the data's mean return."""
    return {(c.task.name, c.quality): c.manifest["return"]["mean"] for c in made}


def beside(
    asked: Asked,
    made: Sequence[Cell],
    records: Sequence[tables.Record],
    printed: Published,
    spread: str,
    differences: Sequence[str],
    theirs: str,
    key: Callable[[str], str] = lambda task: task.partition(":")[0],
    alone: bool = False,
    normalised: bool = False,
) -> str:
    """Preface and body of a table of cells; arguments as theirs. `normalised`: what is printed counts so."""
    shown = (records, printed, key)
    said = preface(asked, made, differences, theirs)
    return (
        f"{said}\n{comparison.glance(*shown, normalised)}{comparison.body(*shown, spread, alone)}"
    )


def preface(asked: Asked, cells: Sequence[Cell], differences: Sequence[str], seeds: str) -> str:
    """What has to be known before ours and the published numbers are compared: the paper's `differences`, then ours."""
    changed = ", ".join(
        f"{k} = {v[0] if len(v) == 1 else list(v)}" for k, v in asked.overrides.items()
    )
    lines = [
        "Ours and the published scores differ in more than the code:",
        "",
        *(f"- {line}" for line in differences),
        f"- {tables.reduced(asked.scale) if asked.scale != 1.0 else 'Scale: the preset of the paper.'}"
        + (f" Besides: {changed}." if changed else ""),
        f"- Seeds: ours {len(asked.seeds)}, last policy; {seeds}",
        "",
    ]
    for cell in cells:
        held, scale = cell.manifest, cell.task.scale
        mean = held["return"]["mean"]
        error = statistics.standard_error(held["return"]["std"], held["episodes"])
        spread = "" if error is None else f" ± {error:.1f} (standard error)"
        normal = f", normalised {scale.normalise(mean):.1f}" if scale else ""
        lines.append(
            f"- {cell.task.name} {cell.quality}: {held['transitions']} transitions of {held['behaviours']} behaviours, "
            f"mean return {mean:.1f}{spread}{normal}, content {held['sha256'][:12]}, "
            f"dialect {held['dialect']}{cell.note}"
        )
    return "\n".join(lines) + "\n"

"""The findings of a study in sentences: who leads where, by how much, and what casts doubt."""

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxomarl.results import stage_health, study, tables
from jaxomarl.results.differences import Difference, differences
from jaxomarl.results.stage_health import CellHealth
from jaxomarl.results.store import Run
from jaxomarl.results.study import Cell, Study
from jaxomarl.results.tables import Record

QUESTION = "Which system has the highest return on which task, and how sure is that?"
CHOSEN = (
    "The leader was chosen by these scores, so that differences lean its way. Differences are "
    "paired by seed and start where both systems have them."
)
"""What has to be known of every difference."""


class Lead(NamedTuple):
    """What is said of one task and data set."""

    task: str
    data: str
    leader: str
    """Name of the leading system; "" where none can be named."""
    sentences: tuple[str, ...]


class Findings(NamedTuple):
    """Sentences that open a report."""

    leads: list[Lead]
    cautions: list[str]
    """What diverged, has not learned, or is not finished."""


def findings(read: Study) -> Findings:
    """The findings of a study; without runs there are no leads, and a caution says so."""
    if not read.runs:
        return Findings([], ["There is no run below the folders: nothing has been trained yet."])
    compared: dict[Cell, list[Difference]] = defaultdict(list)
    for d in differences(read.records, read.final):
        compared[d.leader.task, d.leader.data].append(d)
    named = study.names(read.records)
    records: dict[Cell, list[Record]] = defaultdict(list)
    for r in read.records:
        records[r.task, r.data].append(r)
    leads = [_lead(cell, records[cell], compared[cell], named) for cell in study.cells(read)]
    return Findings(leads, cautions(read, named))


def text(read: Study) -> str:
    """The findings as lines for a terminal."""
    said = findings(read)
    lines = []
    for lead in said.leads:
        lines.append(f"{lead.task}, {lead.data}: {' '.join(lead.sentences)}")
    lines += [f"! {caution}" for caution in said.cautions]
    return "\n".join(textwrap.fill(line, tables.WIDTH, subsequent_indent="  ") for line in lines)


# --- one task ---


def _lead(
    cell: Cell,
    records: Sequence[Record],
    compared: Sequence[Difference],
    named: Mapping[Record, str],
) -> Lead:
    task, data = cell
    if not records:
        return Lead(task, data, "", ("Nothing was evaluated here yet.",))
    finite = [r for r in records if np.isfinite(r.mean)]
    if not finite:
        return Lead(task, data, "", ("Every seed of every system diverged.",))
    judged = [r for r in finite if r.ranked]
    if not judged:
        highest = max(finite, key=lambda r: r.mean)
        return Lead(
            task,
            data,
            "",
            (
                f"No system can be named: of {_count(len(finite), 'system')} none has learned in "
                "all its stages.",
                f"The highest mean is that of {named[highest]}, {_mean(highest)}.",
            ),
        )
    leader = max(judged, key=lambda r: r.mean)
    sentences = [_first_sentence(leader, judged, named), *_distances(leader, compared, named)]
    for r in finite:
        if not r.ranked and r.mean > leader.mean:
            higher = f"{named[r]} has a higher mean, {_mean(r)}"
            sentences.append(f"{higher}, but is not judged: {r.health}.")
    # a mean leads where there is another to compare it with
    alone = len(judged) == 1 < len(finite)
    return Lead(task, data, "" if alone else named[leader], tuple(sentences))


def _first_sentence(leader: Record, judged: Sequence[Record], named: Mapping[Record, str]) -> str:
    """Who leads, with which mean, over how many seeds and episodes."""
    finite = leader.seeds - leader.nonfinite
    size = f"{_count(finite, 'seed')} of {_count(leader.episodes, f'{leader.starts} episode')} each"
    mean = f"a mean return of {_mean(leader)} over {size}"
    if len(judged) == 1:
        return f"{named[leader]} is the only system that can be judged, with {mean}."
    return f"{named[leader]} leads with {mean}."


def _distances(
    leader: Record, compared: Sequence[Difference], named: Mapping[Record, str]
) -> list[str]:
    """How far the leader lies above the next, and which systems are not told apart from it."""
    own = sorted((d for d in compared if d.leader == leader), key=lambda d: d.mean)
    if not own:
        if leader.starts != "fresh":
            return ["There is no final evaluation yet: these are evaluations in training."]
        return []
    unclear = [named[d.other] for d in own if d.low is None or d.low <= 0]
    sentences = []
    nearest = own[0]
    next_one = f"It lies {_signed(nearest)} above {named[nearest.other]}, the next"
    if unclear:
        sentences.append(f"{next_one}.")
        others = _listed(unclear)
        sentences.append(f"It is not told apart from {others}: an interval holds 0.")
    else:
        sentences.append(f"{next_one}: apart from all others.")
    return sentences


def _signed(d: Difference) -> str:
    if d.low is None:
        return f"{d.mean:.3g}"
    return f"{d.mean:.3g} [{d.low:.3g}, {d.high:.3g}]"


def _mean(r: Record) -> str:
    return tables.interval(r, r.mean, r.mean_low, r.mean_high)


# --- cautions ---


def cautions(read: Study, named: Mapping[Record, str]) -> list[str]:
    """What speaks against reading the scores as they stand, a sentence each."""
    lines = []
    for r in read.records:
        where = f"{named[r]} on {r.task}, {r.data}"
        if r.nonfinite:
            left = "scores are of the others" if r.nonfinite < r.seeds else "it has no score"
            lines.append(f"{r.nonfinite} of {_count(r.seeds, 'seed')} of {where} diverged: {left}.")
    lines += [line for cell in stage_health.cells_of(read.runs) for line in _not_learned(cell)]
    lines += unfinished(read)
    lines += not_begun(read)
    short = [f"{named[r]} on {r.task}" for r in read.records if r.converged is False]
    if short:
        what = "training's last two evaluations differ by more than two standard errors"
        lines.append(f"Not converged, {what}: {_listed(sorted(set(short)))}.")
    lines += [tables.reduced(scale) for scale in sorted({r.scale for r in read.records} - {1.0})]
    return lines


def _not_learned(cell: CellHealth) -> list[str]:
    """A sentence for each stage that has not learned in some run."""
    lines = []
    for stage in cell.stages:
        if not stage.failed:
            continue
        lines.append(f"{cell.name}: {stage.stage} is {stage_health.verdict(stage)}.")
    return lines


def unfinished(read: Study) -> list[str]:
    """A sentence for each group of runs that has not ended."""
    finished = study.final_seeds(read)
    lines = []
    for folder, runs in study.groups(read).items():
        missing = [run for run in runs if not _ended(folder, run, finished)]
        if missing:
            first = missing[0]
            where = f"{first.info['system']} on {first.info['task']}, {first.info['data']}"
            lines.append(
                f"{len(missing)} of {_count(len(runs), 'run')} of {where} {_verb(missing)} not "
                f"finished: {_reached(first)}."
            )
    return lines


def not_begun(read: Study) -> list[str]:
    """A sentence for each system that has runs elsewhere, and none on some task and data set."""
    tasks: dict[str, set[Cell]] = defaultdict(set)
    for run in read.runs:
        tasks[run.info["system"]].add((run.info["task"], run.info["data"]))
    lines = []
    for system, of_system in sorted(tasks.items()):
        missing = [cell for cell in study.cells(read) if cell not in of_system]
        if missing:
            where = "; ".join(f"{task}, {data}" for task, data in missing)
            lines.append(f"{system} has no run yet on {where}.")
    return lines


def _ended(folder: Path, run: Run, finished: set[tuple]) -> bool:
    """Whether a run has its final evaluation, or a group without one says that it is done."""
    if study.run_key(run.info) in finished or (folder / "DONE").exists():
        return True
    # runs that were kept without their rows: all stages were trained
    return run.info["final_stage"] in run.info.get("stages", {}) and not _has_rows(run)


def _has_rows(run: Run) -> bool:
    return (run.path / "returns.csv").exists()


def _reached(run: Run) -> str:
    """Which stages of a run have ended."""
    stages = list(run.info.get("stages", {}))
    if not stages:
        return "no stage has ended"
    if run.info["final_stage"] in stages:
        return "all stages have ended, the final evaluation has not"
    return f"of its stages {_listed(stages)} {'have' if len(stages) > 1 else 'has'} ended"


def _verb(items: Sequence[object]) -> str:
    return "are" if len(items) > 1 else "is"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def _listed(words: Sequence[str]) -> str:
    """Words in a sentence: "a", "a and b", "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"

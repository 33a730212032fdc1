"""The numbers that a command measured, a seed in a row, next to its table.

OUT/measured.csv      game, system, setting, seed, metric, value
OUT/stages.csv        whether the trained stages behind them have learned
OUT/provenance.json   the command, the commit, versions, the machine

Tables of trained systems write what the runs' own folders do not have: returns in other tasks,
counts of good episodes. `keep` puts both together.

The columns know nothing of a paper's claims: `reproduce verdicts` reads them, and anyone else can.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.api import provenance as origin
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.config import digest
from jaxomarl.health.verdict import DIVERGED, LEARNED, SHORT, UNJUDGED
from jaxomarl.papers.asked import Asked
from jaxomarl.paths import folder_name
from jaxomarl.results import stage_health, store

MEASURED = "measured.csv"
STAGES = "stages.csv"
PROVENANCE = origin.FILE
SEEDS = "seeds"
"""The folder of what was measured seed by seed."""
COUNTS = ("learned", "short", "diverged", "unjudged")
"""The columns of stages.csv that count seeds."""


class Measure(NamedTuple):
    """One number of one seed."""

    game: str
    system: str
    setting: str
    seed: int | str
    """The seed, or "" where nothing is drawn: exact values and the data's own."""
    metric: str
    value: float


class StageWord(NamedTuple):
    """The verdicts on a trained stage: of how many seeds each."""

    game: str
    system: str
    setting: str
    stage: str
    learned: int
    short: int
    diverged: int
    unjudged: int
    """Seeds whose stage has no gate, or of which nothing was held out."""
    failed: str
    """The gates that a seed did not pass, in words."""


class Part(NamedTuple):
    """A part of a report: its Markdown, and the numbers behind it."""

    text: str
    measures: list[Measure]


def of_seeds(
    game: str,
    system: str,
    setting: str,
    seeds: Sequence[int | str],
    values: Mapping[str, Iterable[float] | np.ndarray],
) -> list[Measure]:
    """A measure for each metric and seed; `values` maps a metric to a number for each seed."""
    rows = []
    for metric, of_metric in values.items():
        for seed, value in zip(seeds, of_metric, strict=True):
            rows.append(Measure(game, system, setting, seed, metric, float(value)))
    return rows


def stage_words(game: str, setting: str, runs: Iterable[store.Run]) -> list[StageWord]:
    """What the runs' folders say of their stages."""
    rows = []
    for cell in stage_health.cells_of(runs):
        rows += [_stage_word(game, cell.system, setting, stage) for stage in cell.stages]
    return rows


def _stage_word(game: str, system: str, setting: str, stage: stage_health.StageHealth) -> StageWord:
    """A stage's verdicts, and the gates that the first of its seeds did not pass."""
    failed = next(iter(stage.failed.values()), ())
    return StageWord(
        game,
        system,
        setting,
        stage=stage.stage,
        learned=stage.words.count(LEARNED),
        short=stage.words.count(SHORT),
        diverged=stage.words.count(DIVERGED),
        unjudged=stage.words.count(UNJUDGED),
        failed="; ".join(failed),
    )


# --- parts that were measured apart ---


def joined(rows: Iterable[Measure], where: str) -> list[Measure]:
    """The rows of several parts; what all of them have alike, such as an exact value, once.

    Raises JaxomarlError where two parts have different numbers of one name. `where` says of what.
    """
    found: dict[tuple, Measure] = {}
    for row in rows:
        name = row[:-1]
        if name in found and not _same(found[name].value, row.value):
            both = f"{' '.join(map(str, name))}: {found[name].value:g} and {row.value:g}"
            raise refuse(where, "each number once", both, "Leave one of the folders out.")
        found.setdefault(name, row)
    return list(found.values())


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def joined_stages(words: Iterable[StageWord]) -> list[StageWord]:
    """The verdicts on each stage, with the seeds of all parts added up."""
    found: dict[tuple[str, ...], StageWord] = {}
    for word in words:
        name = word[:4]
        if name in found:
            before = found[name]
            counts = {field: getattr(before, field) + getattr(word, field) for field in COUNTS}
            word = word._replace(failed=before.failed or word.failed, **counts)
        found[name] = word
    return list(found.values())


# --- a seed at a time ---


def seed_by_seed(
    asked: Asked, name: str, facts: Sequence[Any], measure: Callable[[int], list[Measure]]
) -> list[Measure]:
    """What `measure` gives for each seed, kept under OUT/seeds as soon as it is there.

    A command that was stopped reads what it finds, and measures the rest. `facts` are what the
    numbers depend on besides the seed and the code.
    """
    code = digest(origin.source(), *facts)
    rows = []
    for seed in asked.seeds:
        folder = asked.out / SEEDS / folder_name(name, code, f"seed{seed}")
        if not (folder / MEASURED).exists():
            asked.say(f"{name}, seed {seed}")
            save_measures(folder, measure(seed))
        rows += read(folder)
    return rows


# --- files ---


def save_measures(
    folder: Path, measures: Sequence[Measure], stages: Sequence[StageWord] = ()
) -> None:
    """Write the numbers into a folder, rounded to six digits."""
    rounded = [row._replace(value=float(f"{row.value:.6g}")) for row in measures]
    store.write_table(folder / MEASURED, rounded, Measure._fields)
    if stages:
        store.write_table(folder / STAGES, stages, StageWord._fields)


def add_measures(folder: Path, measures: Sequence[Measure]) -> None:
    """Write numbers next to those that tables of the same folder left; equal names are replaced."""
    before = read(folder) if (folder / MEASURED).exists() else []
    rows = {row[:-1]: row for row in (*before, *measures)}
    save_measures(folder, list(rows.values()))


def provenance(asked: Asked, command: str) -> dict[str, Any]:
    """Where the numbers of a command come from, without any path.

    It is asked for before they are measured: a checkout, or the packages, may change meanwhile.
    """
    return origin.facts(command, asked.seeds, asked.scale)


def read(folder: Path) -> list[Measure]:
    """The rows of a folder's measured.csv; JaxomarlError where it is torn or has other columns."""
    path = folder / MEASURED
    with _numbers_of(path):
        return [_measure(row) for row in _table(path, Measure._fields)]


def _measure(row: Mapping[str, str]) -> Measure:
    """A row from its cells; ValueError where one is no number."""
    seed = int(row["seed"]) if row["seed"] else ""
    value = float(row["value"])
    return Measure(row["game"], row["system"], row["setting"], seed, row["metric"], value)


def read_stages(folder: Path) -> list[StageWord]:
    """The rows of a folder's stages.csv; [] where nothing was trained in stages."""
    path = folder / STAGES
    if not path.exists():
        return []
    with _numbers_of(path):
        return [_stage(row) for row in _table(path, StageWord._fields)]


def _stage(row: Mapping[str, str]) -> StageWord:
    """A row from its cells; ValueError where one is no number."""
    counts = {name: int(row[name]) for name in COUNTS}
    return StageWord(**{**row, **counts})  # type: ignore[arg-type]


@contextlib.contextmanager
def _numbers_of(path: Path) -> Iterator[None]:
    """Refuse a file of which a cell is no number."""
    try:
        yield
    except JaxomarlError:
        raise
    except ValueError as error:
        way = "Measure it again."
        raise refuse(str(path), "whole numbers and a value", str(error), way) from None


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    rows = store.read_table(path)
    if rows and tuple(rows[0]) != tuple(columns):
        raise refuse(f"the columns of {path}", repr(columns), tuple(rows[0]), "Measure it again.")
    return rows

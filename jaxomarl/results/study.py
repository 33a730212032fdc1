"""What folders of results hold, read for a report: runs, rows, records, and scores by seed.

Everything comes from files, so that a study can be read while it trains. A group of runs has files
once its first stage has ended.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.results import store, tables
from jaxomarl.results.aggregate import common_tasks
from jaxomarl.results.store import Row, Run
from jaxomarl.results.tables import Record

Cell = tuple[str, str]
"""A task and a data set."""


class Study(NamedTuple):
    """The runs below some folders, and what their files say."""

    runs: list[Run]
    records: list[Record]
    """One for each system, swept values, task and data set that was evaluated."""
    rows: list[Row]
    """Evaluations in training."""
    final: list[Row]
    """Final evaluations, on fresh starts."""
    metrics: list[Row]
    """What training measured, by chunk."""


def load(paths: Iterable[str | Path]) -> Study:
    """Read every run at or below the folders; a folder without runs gives an empty study.

    Raises JaxomarlError where a path does not exist, a file is damaged, or two folders hold the
    same run.
    """
    runs = store.find_runs(paths)
    rows = store.load_returns(runs)
    final = store.load_final(runs)
    files = [run.path / "metrics.csv" for run in runs]
    metrics = [row for file in files if file.exists() for row in store.read_rows(file)]
    return Study(runs, tables.summary(rows, runs, final), rows, final, metrics)


# --- names and cells ---


def cells(study: Study) -> list[Cell]:
    """Every task and data set with runs, in order."""
    return sorted({(run.info["task"], run.info["data"]) for run in study.runs})


def names(records: Sequence[Record]) -> dict[Record, str]:
    """A name for each record: its system, what was swept, and a digest where these do not do."""
    counts: dict[tuple[str, ...], int] = defaultdict(int)
    for r in records:
        counts[r.task, r.data, r.system, r.swept] += 1
    found = {}
    for r in records:
        words = [r.system, r.swept]
        if counts[r.task, r.data, r.system, r.swept] > 1:
            words.append(f"({r.config[:8]})")
        found[r] = " ".join(filter(None, words))
    return found


def groups(study: Study) -> dict[Path, list[Run]]:
    """The runs of each program, by its folder."""
    found: dict[Path, list[Run]] = defaultdict(list)
    for run in study.runs:
        found[run.path.parent].append(run)
    return dict(found)


def scored(run: Run, seeds: Mapping[tuple, Any]) -> bool:
    """Whether a run has a final evaluation; `seeds` are those of `final_seeds`."""
    return run_key(run.info) in seeds


def run_key(info: Mapping[str, Any]) -> tuple:
    """What tells a run from all others."""
    return info["system"], info["task"], info["data"], info["config"], int(info["seed"])


def final_seeds(study: Study) -> set[tuple]:
    """The keys of the runs with a final evaluation."""
    return {row[:5] for row in study.final}


def facts_of(study: Study) -> dict[Cell, Mapping[str, Any]]:
    """What a run.json of each task and data set says of both."""
    return {(run.info["task"], run.info["data"]): run.info for run in study.runs}


# --- scores ---


def seed_scores(study: Study) -> dict[Record, Float[np.ndarray, " _"]]:
    """Each record's score of every finished seed, in order of seeds; a diverged one is NaN."""
    by_cell: dict[tuple, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for kind, rows in (("fresh", study.final), ("common", study.rows)):
        for row in rows:
            if row.metric == "return":
                cell = (kind, row.system, row.task, row.data, row.config, row.stage, row.step)
                by_cell[cell][row.seed].append(row.value)
    scores = {}
    for r in study.records:
        seeds = by_cell[r.starts, r.system, r.task, r.data, r.config, r.stage, r.step]
        means = [_finite_mean(seeds[seed]) for seed in sorted(seeds)]
        scores[r] = np.array(means, np.float64)
    return scores


def _finite_mean(values: Sequence[float]) -> float:
    """The mean of a seed's episodes; NaN where one is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return float(np.mean(values))


class Comparable(NamedTuple):
    """Scores in one unit on all tasks."""

    unit: str
    """What 0 and 1 are; "" where the tasks have no common unit."""
    why_not: str
    """Why there is no common unit; "" where there is one."""
    target: float | None
    """The score below which a gap counts; None where nobody states one."""
    tasks: list[str]
    scores: dict[str, list[np.ndarray]]
    """System, with what was swept -> for each task, one score for each seed; NaN: diverged."""
    left_out: list[str]
    """Systems that lack a task."""
    short: frozenset[str]
    """Systems of which a stage has not learned on some task."""


def comparable(study: Study) -> Comparable:
    """Every system's scores in the best common unit: normalised, else a share of the data's mean.

    A single task needs no unit: its returns are taken as they are.
    """
    facts = facts_of(study)
    unit, why_not, scale, target = _unit(study.records, facts)
    if not unit:
        return Comparable("", why_not, None, [], {}, [], frozenset())

    named = names(study.records)
    by_name: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    short = set()
    for record, values in seed_scores(study).items():
        if not np.isfinite(values).any():
            continue
        by_name[named[record]][f"{record.task} {record.data}"] = scale(record, values)
        if not record.ranked:
            short.add(named[record])
    every = [" ".join(cell) for cell in sorted({(r.task, r.data) for r in study.records})]
    complete = {name: of for name, of in by_name.items() if set(of) == set(every)}
    left_out = sorted(set(named.values()) - set(complete))
    if not complete:
        why = "No system was evaluated on every task."
        return Comparable("", why, None, [], {}, left_out, frozenset())
    tasks = common_tasks(complete)
    scores = {name: [of[task] for task in tasks] for name, of in sorted(complete.items())}
    return Comparable(unit, "", target, tasks, scores, left_out, frozenset(short))


def _unit(records: Sequence[Record], facts: Mapping[Cell, Mapping[str, Any]]) -> tuple:
    """(unit, why there is none, function of a record and returns, target)."""
    if not records:
        return "", "Nothing was evaluated yet.", None, None
    evaluated = {(r.task, r.data) for r in records}
    if all(facts[cell].get("normaliser") for cell in evaluated):

        def normalise(r: Record, x: np.ndarray) -> np.ndarray:
            ends = facts[r.task, r.data]["normaliser"]
            return (x - ends["random"]) / (ends["expert"] - ends["random"])

        return "normalised return: 0 is random, 1 is expert", "", normalise, 1.0
    if all(r.data_mean is not None and r.data_mean > 0 for r in records):
        unit = "return as a share of the data's mean return"
        return unit, "", lambda r, x: x / r.data_mean, 1.0
    if len(evaluated) == 1:
        (info,) = (facts[cell] for cell in evaluated)
        optimum = info.get("optimum")
        return "return", "", lambda r, x: x, optimum
    why = (
        "The tasks have no common unit: some have no references for a normalised score, and some "
        "data have a mean return that is not positive."
    )
    return "", why, None, None

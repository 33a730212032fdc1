"""The files that judged commands have left in one folder each, docs/evidence/NAME.

measured.csv, stages.csv, provenance.json    of games (`papers.measured`)
summary.csv, */run.json                      of trained systems (`results.tables`)
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl import documents
from jaxomarl.base import refuse
from jaxomarl.papers import measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.rules import Answer
from jaxomarl.results import store
from jaxomarl.results.intervals import Estimate

SUMMARY = "summary.csv"


class Evidence(NamedTuple):
    """What one folder holds."""

    name: str
    measures: list[Measure]
    stages: list[StageWord]
    summary: list[dict[str, str]]
    provenance: dict[str, Any]


def load_evidence(folder: Path) -> Evidence | None:
    """A folder's evidence, or None where there is none; JaxomarlError where a file is torn."""
    measures = []
    summary = []
    if (folder / measured.MEASURED).exists():
        measures = measured.read(folder)
    if (folder / SUMMARY).exists():
        summary = store.read_table(folder / SUMMARY)
    if not measures and not summary:
        return None
    provenance = documents.read(
        folder / measured.PROVENANCE,
        "Measure it again.",
        command=str,
        seeds=list,
        scale=float,
        cores=int,
        source=dict,
    )
    return Evidence(folder.name, measures, measured.read_stages(folder), summary, provenance)


# --- measured.csv ---


def values(
    evidence: Evidence, game: str, system: str, setting: str, metric: str
) -> Float[np.ndarray, " R"]:
    """A metric of all seeds, in their order; JaxomarlError where there is none."""
    wanted = (game, system, setting, metric)
    found = {m.seed: m.value for m in evidence.measures if _cell(m) == wanted}
    if not found:
        raise refuse(
            f"the evidence {evidence.name}", f"a row of {wanted}", "none", "Measure it again."
        )
    return np.array([found[seed] for seed in sorted(found)])


def exact(evidence: Evidence, game: str, system: str, setting: str, metric: str) -> float:
    """A number that has no seed."""
    return float(values(evidence, game, system, setting, metric)[0])


def _cell(m: Measure) -> tuple[str, str, str, str]:
    return m.game, m.system, m.setting, m.metric


# --- stages.csv ---


def stages_passed(evidence: Evidence, setting: str) -> Answer:
    """Open under the names of the stages that half of the seeds or more have not learned."""
    failed = []
    for word in evidence.stages:
        seeds = word.learned + word.short + word.diverged + word.unjudged
        if word.setting == setting and 2 * (word.short + word.diverged) >= seeds:
            failed.append(word.stage)
    return rules.gate(", ".join(dict.fromkeys(failed)), not failed)


def stages_shown(evidence: Evidence, setting: str) -> str:
    """Each judged stage, and in how many seeds it has learned; "" where none was judged."""
    words = {}
    for word in evidence.stages:
        judged = word.learned + word.short + word.diverged
        if word.setting == setting and judged:
            words[word.stage] = f"{word.stage} learned in {word.learned} of {judged}"
    return ", ".join(words.values())


# --- summary.csv ---


class Score(NamedTuple):
    """A system's mean return over seeds."""

    estimate: Estimate
    seeds: int
    health: str
    """What the table says of its stages; "" where they were not measured."""


def score(evidence: Evidence, task: str, data: str, system: str) -> Score:
    """A system's row of summary.csv; JaxomarlError where there is none or several."""
    scores = swept_scores(evidence, task, data, system)
    if len(scores) != 1:
        cell = (task, data, system)
        raise refuse(f"the evidence {evidence.name}", f"one row of {cell}", len(scores), "Look.")
    return next(iter(scores.values()))


def swept_scores(evidence: Evidence, task: str, data: str, system: str) -> dict[str, Score]:
    """A system's rows of summary.csv, by what was swept."""
    cell = (task, data, system)
    rows = [r for r in evidence.summary if (r["task"], r["data"], r["system"]) == cell]
    return {row["swept"]: _score(row) for row in rows}


def data_mean(evidence: Evidence, task: str, data: str) -> Estimate:
    """The data's mean return; JaxomarlError where no row has it."""
    for row in evidence.summary:
        if (row["task"], row["data"]) == (task, data) and row["data_se"]:
            error = float(row["data_se"])
            mean = np.asarray(float(row["data_mean"]))
            # so many episodes that t is normal
            return Estimate(mean, np.asarray(error**2), np.asarray(1e6))
    raise refuse(f"the evidence {evidence.name}", "a row with data_se", "none", "Look.")


def _score(row: dict[str, str]) -> Score:
    seeds = int(row["seeds"]) - int(row["nonfinite"])
    variance = float(row["std"] or "nan") ** 2 / seeds
    mean = np.asarray(float(row["mean"]))
    estimate = Estimate(mean, np.asarray(variance), np.asarray(max(seeds - 1.0, 1.0)))
    return Score(estimate, seeds, row.get("health", ""))


def score_gate(system: str, of_system: Score) -> Answer:
    """Open where a stage of the system has not learned."""
    failed = of_system.health.startswith(("short", "diverged"))
    return rules.gate(f"{system}: {of_system.health}", not failed)

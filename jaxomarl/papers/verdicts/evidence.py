"""The files that judged commands have left in one folder each, docs/evidence/NAME.

measured.csv, stages.csv, provenance.json    of games (`papers.measured`), of trained systems
                                             and of costs (`papers.keep`)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl import documents
from jaxomarl.base import refuse
from jaxomarl.papers import measured
from jaxomarl.papers.keep import FACTS
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.rules import Answer


class Evidence(NamedTuple):
    """What one folder holds."""

    name: str
    measures: list[Measure]
    stages: list[StageWord]
    provenance: dict[str, Any]


def load_evidence(folder: Path) -> Evidence | None:
    """A folder's evidence, or None where there is none; JaxomarlError where a file is torn."""
    if not (folder / measured.MEASURED).exists():
        return None
    measures = measured.read(folder)
    way = "Measure it again."
    path = folder / measured.PROVENANCE
    provenance = documents.read(path, way, **FACTS)
    documents.check_known(f"{path}, source", provenance["source"], way, commit=str)
    return Evidence(folder.name, measures, measured.read_stages(folder), provenance)


# --- measured.csv ---


def values(
    evidence: Evidence, game: str, system: str, setting: str, metric: str
) -> Float[np.ndarray, " R"]:
    """A metric of all seeds, in their order; JaxomarlError where there is none."""
    found = values_by_seed(evidence, game, system, setting, metric)
    # a number without a seed has "" in its place
    seeds = sorted(found, key=lambda seed: (seed == "", seed))
    return np.array([found[seed] for seed in seeds])


def values_by_seed(
    evidence: Evidence, game: str, system: str, setting: str, metric: str
) -> dict[Any, float]:
    """Seed -> a metric; JaxomarlError where there is none."""
    wanted = (game, system, setting, metric)
    found = {m.seed: m.value for m in evidence.measures if _cell(m) == wanted}
    if not found:
        raise refuse(
            f"the evidence {evidence.name}", f"a row of {wanted}", "none", "Measure it again."
        )
    return found


def settings_of(evidence: Evidence, game: str, system: str) -> list[str]:
    """The settings under which a system was measured, in their order."""
    of_system = (m for m in evidence.measures if (m.game, m.system) == (game, system))
    return list(dict.fromkeys(m.setting for m in of_system))


def exact(evidence: Evidence, game: str, system: str, setting: str, metric: str) -> float:
    """A number that has no seed."""
    return float(values(evidence, game, system, setting, metric)[0])


def _cell(m: Measure) -> tuple[str, str, str, str]:
    return m.game, m.system, m.setting, m.metric


# --- stages.csv ---


def stages_of(
    evidence: Evidence, setting: str, game: str = "", system: str = ""
) -> Iterator[StageWord]:
    """The trained stages of a setting; of a game's or a system's alone where these are given."""
    for word in evidence.stages:
        if word.setting == setting and game in ("", word.game) and system in ("", word.system):
            yield word


def stages_passed(evidence: Evidence, setting: str, game: str = "", system: str = "") -> Answer:
    """Open under the names of the stages that half of the seeds or more have not learned."""
    failed = []
    for word in stages_of(evidence, setting, game, system):
        seeds = word.learned + word.short + word.diverged + word.unjudged
        if 2 * (word.short + word.diverged) >= seeds:
            failed.append(word.stage)
    return rules.gate(", ".join(dict.fromkeys(failed)), not failed)


def stages_shown(evidence: Evidence, setting: str, game: str = "", system: str = "") -> str:
    """Each judged stage, and in how many seeds it has learned; "" where none was judged."""
    words = {}
    for word in stages_of(evidence, setting, game, system):
        judged = word.learned + word.short + word.diverged
        if judged:
            words[word.stage] = f"{word.stage} learned in {word.learned} of {judged}"
    return ", ".join(words.values())

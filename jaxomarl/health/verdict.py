"""Whether a trained stage has learned, from its figures and its gates."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import Gate, Health, Stage

LEARNED, SHORT, DIVERGED, UNJUDGED = "learned", "short", "diverged", "not judged"
WORDS = (DIVERGED, SHORT, LEARNED, UNJUDGED)
"""Every verdict, the worst first."""


class Verdict(NamedTuple):
    """What is said of one stage of one run."""

    word: str
    """LEARNED, SHORT, DIVERGED or UNJUDGED (the stage has no gate, or nothing was held out)."""
    failed: tuple[str, ...]
    """A sentence for each gate that is not passed."""


def judge(gates: Sequence[Gate], figures: Mapping[str, float]) -> Verdict:
    """The verdict on a stage's last figures.

    Without figures, and where no gate applies, it is not judged.
    """
    if not gates or not figures:
        return Verdict(UNJUDGED, ())
    asked = {gate.figure for gate in gates}
    bad = sorted(name for name in asked if not np.isfinite(figures[name]))
    if bad:
        return Verdict(DIVERGED, tuple(f"{name} is not finite" for name in bad))
    if not any(applies(gate, figures) for gate in gates):
        return Verdict(UNJUDGED, ())
    failed = tuple(said(gate, figures) for gate in gates if not passes(gate, figures))
    return Verdict(SHORT if failed else LEARNED, failed)


def threshold(gate: Gate, figures: Mapping[str, float]) -> float:
    """The number that the gate's figure has to reach, or may not exceed."""
    factor = gate.at_most if gate.at_least is None else gate.at_least
    assert factor is not None
    if gate.times:
        return factor * figures[gate.times]
    return factor


def applies(gate: Gate, figures: Mapping[str, float]) -> bool:
    """Whether there is something to judge: the gate's condition is finite."""
    return not gate.where or bool(np.isfinite(figures[gate.where]))


def passes(gate: Gate, figures: Mapping[str, float]) -> bool:
    """Whether a finite figure is on the right side of its threshold.

    A gate that does not apply, or whose reference is not finite, asks nothing.
    """
    limit = threshold(gate, figures)
    if not applies(gate, figures) or not np.isfinite(limit):
        return True
    value = figures[gate.figure]
    if gate.at_least is not None:
        return value >= limit
    return value <= limit


def said(gate: Gate, figures: Mapping[str, float]) -> str:
    """A gate and its figure in words: "action_error is 0.61, at most 0.52 (linear_error) is
    asked".
    """
    side = "at least" if gate.at_least is not None else "at most"
    asked = f"{side} {threshold(gate, figures):.3g}"
    if gate.times:
        asked += f" ({gate.times})"
    asked += " is asked"
    if gate.way_out:
        asked += f": {gate.way_out}"
    return f"{gate.figure} is {figures[gate.figure]:.3g}, {asked}"


def stage_facts(stage: Stage, figures: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What run.json says of a stage: its name, verdict, failed gates, last figures, what to raise.

    `figures` are the stage's, one number for each evaluation; without any it is not judged.
    Nothing is to be raised where every failed gate has a way out of its own.
    """
    last = {name: float(values[-1]) for name, values in figures.items()}
    health = stage.health or Health(measure=lambda *_: {})
    verdict = judge(health.gates, last)
    raised = health.raise_fields
    if verdict.word == SHORT and not judge(by_training(health.gates), last).failed:
        raised = ()
    return {
        "stage": stage.name,
        "verdict": verdict.word,
        "failed": list(verdict.failed),
        "figures": last,
        "raise": list(raised),
    }


def by_training(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates that more or wider training passes."""
    return tuple(gate for gate in gates if not gate.way_out)


def of_runs(runs: Sequence[Mapping[str, str]]) -> str:
    """The verdict on runs that differ in their seed, from each one's stage -> word.

    It is that of the worst stage that half of the runs or more agree on, with the stages' names;
    "" where no stage was judged.
    """
    stages = list(dict.fromkeys(stage for run in runs for stage in run))
    for word in (DIVERGED, SHORT):
        counts = {stage: sum(run.get(stage) == word for run in runs) for stage in stages}
        most = {stage: n for stage, n in counts.items() if 2 * n >= len(runs)}
        found = [stage + _share(n, len(runs)) for stage, n in most.items()]
        if found:
            return f"{word}: {', '.join(found)}"
    judged = any(word == LEARNED for run in runs for word in run.values())
    return LEARNED if judged else ""


def _share(count: int, runs: int) -> str:
    """How many of the runs, where it is not all of them."""
    if count == runs:
        return ""
    return f" in {count} of {runs}"

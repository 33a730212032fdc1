"""Whether a trained stage has learned, from its figures and its gates."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxomarl.base import Gate

LEARNED, SHORT, DIVERGED, UNJUDGED = "learned", "short", "diverged", "not judged"


class Verdict(NamedTuple):
    """What is said of one stage of one run."""

    word: str
    """LEARNED, SHORT, DIVERGED or UNJUDGED (the stage has no gate, or nothing was held out)."""
    failed: tuple[str, ...]
    """A sentence for each gate that is not passed."""


def judge(gates: Sequence[Gate], figures: Mapping[str, float]) -> Verdict:
    """The verdict on a stage's last figures; no figures and no gates leave it unjudged."""
    if not gates or not figures:
        return Verdict(UNJUDGED, ())
    asked = {gate.figure for gate in gates}
    bad = sorted(name for name in asked if not np.isfinite(figures[name]))
    if bad:
        return Verdict(DIVERGED, tuple(f"{name} is not finite" for name in bad))
    failed = tuple(said(gate, figures) for gate in gates if not passes(gate, figures))
    return Verdict(SHORT if failed else LEARNED, failed)


def threshold(gate: Gate, figures: Mapping[str, float]) -> float:
    """The number that the gate's figure has to reach, or may not exceed."""
    factor = gate.at_most if gate.at_least is None else gate.at_least
    assert factor is not None
    return factor * figures[gate.times] if gate.times else factor


def passes(gate: Gate, figures: Mapping[str, float]) -> bool:
    """Whether a finite figure is on the right side of its threshold; a reference that is not
    finite asks nothing.
    """
    limit = threshold(gate, figures)
    if not np.isfinite(limit):
        return True
    value = figures[gate.figure]
    return value >= limit if gate.at_least is not None else value <= limit


def said(gate: Gate, figures: Mapping[str, float]) -> str:
    """A gate and its figure in words: "action_error is 0.61, at most 0.52 (linear_error) is
    asked".
    """
    side = "at least" if gate.at_least is not None else "at most"
    reference = f" ({gate.times})" if gate.times else ""
    limit = threshold(gate, figures)
    return f"{gate.figure} is {figures[gate.figure]:.3g}, {side} {limit:.3g}{reference} is asked"


def worst(verdicts: Mapping[str, Verdict]) -> str:
    """The verdict on a whole run: that of its worst stage, with the stages' names."""
    for word in (DIVERGED, SHORT):
        stages = [name for name, verdict in verdicts.items() if verdict.word == word]
        if stages:
            return f"{word}: {', '.join(stages)}"
    judged = any(verdict.word == LEARNED for verdict in verdicts.values())
    return LEARNED if judged else UNJUDGED

"""The four verdicts, and the rules by which intervals and gates lead to them.

A claim is judged in parts, one for each condition under which it is measured. Each part is
answered yes, no or open:

    all yes                          reproduced
    some yes                         only under the conditions of those
    all no                           refuted
    nothing is yes, something open   not judged, for the reasons of the open parts

A part whose gate fails is open: what has not learned cannot speak for or against a method. "No"
takes eight seeds, so that "refuted" does. What is exact has no seeds and needs none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.base import refuse
from jaxomarl.results import intervals
from jaxomarl.results.intervals import Estimate

REPRODUCED, ONLY_UNDER, REFUTED = "reproduced", "only under", "refuted"
NOT_JUDGED = "not judged"
WORDS = (REPRODUCED, ONLY_UNDER, REFUTED, NOT_JUDGED)

YES, NO, OPEN = "yes", "no", "open"
SEEDS_TO_REFUTE = 8
NO_RUN = "no run on record"


class Answer(NamedTuple):
    """Whether a measurement says yes or no, and why it says neither."""

    word: str
    """YES, NO or OPEN."""
    reason: str = ""
    """Why it is open."""


class Part(NamedTuple):
    """A claim under one condition."""

    condition: str
    answer: Answer
    numbers: tuple[str, ...]
    """Lines on what was measured."""


class Verdict(NamedTuple):
    """What is said of a claim."""

    word: str
    detail: str
    """The conditions of "only under", or why it is not judged."""
    parts: tuple[Part, ...] = ()


def verdict(parts: Sequence[Part]) -> Verdict:
    """The verdict that the answers of all parts give."""
    answers = [part.answer.word for part in parts]
    if all(word == YES for word in answers):
        return Verdict(REPRODUCED, "", tuple(parts))
    if YES in answers:
        held = [part.condition for part in parts if part.answer.word == YES]
        return Verdict(ONLY_UNDER, "; ".join(held), tuple(parts))
    if all(word == NO for word in answers):
        return Verdict(REFUTED, "", tuple(parts))
    reasons = dict.fromkeys(part.answer.reason for part in parts if part.answer.word == OPEN)
    return Verdict(NOT_JUDGED, "; ".join(reasons), tuple(parts))


# --- answers ---


def every(answers: Sequence[Answer]) -> Answer:
    """No where one is; yes where all are; else the first that is open."""
    for word in (NO, OPEN):
        found = [answer for answer in answers if answer.word == word]
        if found:
            return found[0]
    return Answer(YES)


def gated(gates: Sequence[Answer], answer: Answer) -> Answer:
    """The answer, or the first gate that is not passed."""
    return next((gate for gate in gates if gate.word != YES), answer)


def gate(stage: str, passed: bool) -> Answer:
    """A gate as an answer: open under the name of the part that has not learned."""
    return Answer(YES) if passed else Answer(OPEN, stage)


def refuting(seeds: int, answer: Answer) -> Answer:
    """The answer, but a "no" of fewer than eight seeds is open."""
    if answer.word == NO and seeds < SEEDS_TO_REFUTE:
        return Answer(OPEN, f"{seeds} of the {SEEDS_TO_REFUTE} seeds that a refutation takes")
    return answer


def ahead(
    difference: Estimate, seeds: int, margin: float = 0.0, printed: float | None = None
) -> Answer:
    """Whether a difference of two systems is what a paper says.

    Yes: its interval lies above the margin, and reaches half of the printed difference. No: it
    lies below half of the printed difference, or of 0 where none is printed.
    """
    low, high = map(float, intervals.interval(difference))
    if not np.isfinite([low, high]).all():
        return Answer(OPEN, "too few seeds for an interval")
    enough = 0.0 if printed is None else printed / 2.0
    if high < enough:
        return refuting(seeds, Answer(NO))
    if low > margin:
        return Answer(YES)
    return Answer(OPEN, f"the interval {ends(low, high)} of the difference settles nothing")


def better(difference: Estimate, seeds: int, level: float) -> Answer:
    """Whether a difference is above 0 (yes), or within `level` of 0 or below (no)."""
    low, high = map(float, intervals.interval(difference))
    if low > 0:
        return Answer(YES)
    if high < level:
        return refuting(seeds, Answer(NO))
    return Answer(OPEN, f"the interval {ends(low, high)} of the difference settles nothing")


def near(values: Float[np.ndarray, " R"], law: float, close: float, far: float) -> Answer:
    """Whether seeds' mean is within `close` of a law (yes), or its interval `far` from it (no)."""
    low, high = interval_of(values)
    if abs(float(values.mean()) - law) <= close:
        return Answer(YES)
    if low > law + far or high < law - far:
        return refuting(len(values), Answer(NO))
    return Answer(
        OPEN, f"the mean is farther than {close:g} from {law:.4g}, and nearer than {far:g}"
    )


def below(values: Float[np.ndarray, " R"], limit: float) -> Answer:
    """Whether seeds' interval lies below a limit (yes) or above it (no)."""
    low, high = interval_of(values)
    if high < limit:
        return Answer(YES)
    if low > limit:
        return refuting(len(values), Answer(NO))
    return Answer(OPEN, f"the interval {ends(low, high)} holds the limit {limit:.3g}")


def above(values: Float[np.ndarray, " R"], limit: float) -> Answer:
    """Whether seeds' interval lies above a limit (yes) or below it (no)."""
    return below(-values, -limit)


# --- numbers ---


def paired(one: Float[np.ndarray, " R"], other: Float[np.ndarray, " S"]) -> Estimate:
    """The difference of two systems with the same seeds; JaxomarlError where they have others."""
    check_paired(one, other)
    return intervals.of_samples(one - other)


def check_paired(one: Float[np.ndarray, " R"], other: Float[np.ndarray, " S"]) -> None:
    """Raise JaxomarlError where two lists of numbers are not of as many seeds."""
    if len(one) != len(other):
        found = f"{len(one)} and {len(other)}"
        raise refuse("the evidence", "as many seeds of both systems", found, "Measure it again.")


def interval_of(values: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """The ends of the t interval of seeds' mean; infinite where there is one seed."""
    low, high = map(float, intervals.interval(intervals.of_samples(values)))
    if not np.isfinite([low, high]).all():
        return -np.inf, np.inf
    return low, high


def shown(values: Float[np.ndarray, " R"]) -> str:
    """Seeds' mean with its 95 % t interval."""
    return f"{number(float(values.mean()))} {ends(*interval_of(values))}"


def estimate_shown(estimate: Estimate) -> str:
    """An estimate with its 95 % t interval."""
    return f"{number(float(estimate.mean))} {ends(*map(float, intervals.interval(estimate)))}"


def ends(low: float, high: float) -> str:
    """An interval in brackets."""
    return f"[{number(low)}, {number(high)}]"


def number(x: float) -> str:
    """Three decimals below 10, one above; what rounds to 0 has no sign."""
    if abs(x) < 5e-4:
        return "0.000"
    return f"{x:.3f}" if abs(x) < 10 else f"{x:.1f}"

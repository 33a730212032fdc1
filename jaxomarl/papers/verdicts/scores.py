"""Judges of claims on trained systems: what a summary.csv holds."""

from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.evidence import Evidence, score, score_gate
from jaxomarl.papers.verdicts.rules import Answer, Part
from jaxomarl.results import intervals

MODES_MARGIN = 30.0
"""Return on spread, of 570, from which on a sequence of scores is said to matter."""


def sequence_on_modes(evidence: Evidence) -> list[Part]:
    """OMSD-4: OMSD returns more than its ablation with marginal scores where data have modes."""
    task, data = "mpe/spread", "expert-modes"
    systems = ("omsd", "brpo-ctde", "bc")
    scores = {system: score(evidence, task, data, system) for system in systems}
    omsd, marginal = scores["omsd"], scores["brpo-ctde"]

    # the summary has no episodes, so that nothing is paired
    difference = intervals.difference(omsd.estimate, marginal.estimate)
    seeds = min(omsd.seeds, marginal.seeds)
    answer = rules.ahead(difference, seeds, margin=MODES_MARGIN)
    if answer.word == rules.NO and not omsd.health:
        answer = Answer(rules.OPEN, "score model: its health is not on record")
    gates = [score_gate(system, scores[system]) for system in ("omsd", "brpo-ctde")]
    cells = [f"{s} {rules.estimate_shown(scores[s].estimate)}" for s in systems]
    numbers = (
        f"{task} {data}, return over {seeds} seeds: {', '.join(cells)}",
        f"OMSD over brpo-ctde, unpaired: {rules.estimate_shown(difference)}; the margin is "
        f"{MODES_MARGIN:g}",
        f"stages: {omsd.health or 'their health is not on record (an older run)'}",
    )
    return [Part("", rules.gated(gates, answer), numbers)]

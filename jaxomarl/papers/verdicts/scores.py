"""Judges of claims on trained systems: what a summary.csv holds."""

from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.evidence import (
    Evidence,
    data_mean,
    score,
    score_gate,
    swept_scores,
)
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


def best_beta_on_medium(evidence: Evidence) -> list[Part]:
    """OMSD-5: OMSD at its best beta returns more than behaviour cloning and than the data."""
    task, data = "mpe/spread", "medium"
    clone = score(evidence, task, data, "bc")
    by_beta = swept_scores(evidence, task, data, "omsd")
    best = max(by_beta, key=lambda swept: float(by_beta[swept].estimate.mean))
    omsd = by_beta[best]

    # the summary has no episodes, so that nothing is paired
    over_clone = intervals.difference(omsd.estimate, clone.estimate)
    over_data = intervals.difference(omsd.estimate, data_mean(evidence, task, data))
    differences = {"BC": over_clone, "the data": over_data}
    answers = [rules.ahead(x, min(omsd.seeds, clone.seeds)) for x in differences.values()]
    cells = [f"omsd {s} {rules.estimate_shown(x.estimate)}" for s, x in by_beta.items()]
    ahead = [f"over {name} {rules.estimate_shown(x)}" for name, x in differences.items()]
    numbers = (
        f"{task} {data}, return over {omsd.seeds} seeds: {', '.join(cells)}, bc "
        f"{rules.estimate_shown(clone.estimate)}",
        f"omsd {best}, unpaired: {', '.join(ahead)}",
        f"stages: {omsd.health or 'their health is not on record (an older run)'}",
    )
    return [Part("", rules.gated([score_gate("omsd", omsd)], rules.every(answers)), numbers)]

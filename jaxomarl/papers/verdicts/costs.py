"""Judges of costs: what benchmarks timed, as `keep` takes their lines along.

A timing has samples, not seeds. Their range stands where seeds have an interval, and a "no" asks
for no eight seeds. A machine that others use times nothing: that is the gate.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.papers.cost_lines import LOAD
from jaxomarl.papers.keep import RETURN, SECONDS
from jaxomarl.papers.verdicts import rules, trained
from jaxomarl.papers.verdicts.evidence import Evidence, exact, settings_of, values_by_seed
from jaxomarl.papers.verdicts.rules import Answer, Part

MUCH, LITTLE = 3.0, 1.5
"""DOM2-9: ratio of costs from which on one is much cheaper, and below which it is not."""
LEVEL = 1.25
"""DOF-9: ratio of costs within which two are level."""
BUSY = 1.0
"""Processes beyond one per core that may have been busy while a cost was timed."""
PAPER_SIZE = "mpe"
"""The name of the papers' widths among a benchmark's sizes."""


class Cost(NamedTuple):
    """A timing, or a size of memory, and its range."""

    middle: float
    low: float
    high: float
    load: float

    def shown(self) -> str:
        """Milliseconds with their range."""
        low, high = 1e3 * self.low, 1e3 * self.high
        return f"{rules.number(1e3 * self.middle)} {rules.ends(low, high)} ms"


# --- lines ---


def fields_of(setting: str) -> dict[str, str]:
    """The fields of a setting."""
    return dict(word.split("=", 1) for word in setting.split())


def lines_of(
    evidence: Evidence, benchmark: str, system: str, **wanted: str
) -> dict[str, dict[str, str]]:
    """Setting -> its fields, of a system's lines with the wanted values; refused without any."""
    found = {s: fields_of(s) for s in settings_of(evidence, benchmark, system)}
    kept = {s: fields for s, fields in found.items() if wanted.items() <= fields.items()}
    if not kept:
        expected = f"a line of {benchmark} for {system} with {wanted}"
        raise refuse(f"the evidence {evidence.name}", expected, list(found), "Time it.")
    return kept


def cost(evidence: Evidence, benchmark: str, system: str, setting: str, metric: str) -> Cost:
    """A cost with the range of its samples; one without samples has no range."""
    value = lambda name: exact(evidence, benchmark, system, setting, name)
    known = {m.metric for m in evidence.measures if m.game == benchmark and m.setting == setting}
    middle = value(metric)
    if f"{metric}_low" not in known:
        return Cost(middle, middle, middle, value(LOAD))
    return Cost(middle, value(f"{metric}_low"), value(f"{metric}_high"), value(LOAD))


def total(costs: Sequence[Cost]) -> Cost:
    """The cost of all of several."""
    low, middle, high = (sum(getattr(c, f) for c in costs) for f in ("low", "middle", "high"))
    return Cost(middle, low, high, max(c.load for c in costs))


def quiet(evidence: Evidence, costs: Sequence[Cost]) -> Answer:
    """The gate: nobody else used the machine. A line's load is that of the minute before it."""
    most = evidence.provenance["cores"] + BUSY
    load = max(c.load for c in costs)
    return rules.gate(
        f"the machine was busy: a load of {load:.1f}, at most {most:g} is asked", load <= most
    )


def cheaper(one: Cost, other: Cost, enough: float, least: float) -> Answer:
    """Whether the other costs `enough` times as much (yes), or less than `least` times (no)."""
    ratio = other.middle / one.middle
    if other.low >= enough * one.high:
        return Answer(rules.YES)
    if other.high < least * one.low:
        return Answer(rules.NO)
    return Answer(rules.OPEN, f"a ratio of {ratio:.2f} with these ranges settles nothing")


# --- DOM2-9 ---


def costs_least(system: str, others: Mapping[str, str]) -> Callable[[Evidence], list[Part]]:
    """DOM2-9: an update and an action of a system cost a third of the others' or less.

    `others` says of each system what it is. Yes: both are three times cheaper. No: one is not 1.5
    times cheaper.
    """

    def judge(evidence: Evidence) -> list[Part]:
        return [_against(evidence, system, other, words) for other, words in others.items()]

    return judge


def _against(evidence: Evidence, system: str, other: str, words: str) -> Part:
    sized = {name: size_of(evidence, name) for name in (system, other)}
    updates = {name: update_cost(evidence, name, sized[name]) for name in sized}
    acts = {name: acting_cost(evidence, name, sized[name]) for name in sized}
    calls = {name: acts[name][1] for name in sized}
    acting = {name: acts[name][0] for name in sized}

    answers = [cheaper(costs[system], costs[other], MUCH, LITTLE) for costs in (updates, acting)]
    at_width = all(size == PAPER_SIZE for size in sized.values())
    gates = [
        rules.gate("not timed at the papers' widths", at_width),
        quiet(evidence, [*updates.values(), *acting.values()]),
    ]
    per_call = {name: acting[name].middle / calls[name] for name in sized}
    numbers = (
        f"an update: {system} {updates[system].shown()}, {other} {updates[other].shown()}: "
        f"{ratio(updates[system], updates[other])}",
        f"a joint action: {system} {acting[system].shown()}, {other} {acting[other].shown()}: "
        f"{ratio(acting[system], acting[other])}",
        f"of that, calls of the network {calls[system]} and {calls[other]}: "
        f"{calls[other] / calls[system]:.2f} times; a call "
        f"{per_call[other] / per_call[system]:.2f} times",
    )
    return Part(f"against {words}", rules.gated(gates, rules.every(answers)), numbers)


def size_of(evidence: Evidence, system: str) -> str:
    """The size at which a system was timed: the papers' where it is on record."""
    sizes = [fields["size"] for fields in lines_of(evidence, "updates", system).values()]
    return PAPER_SIZE if PAPER_SIZE in sizes else sizes[0]


def update_cost(evidence: Evidence, system: str, size: str) -> Cost:
    """An update of every stage of a system, one run alone."""
    settings = lines_of(evidence, "updates", system, size=size, runs="1")
    metric = "seconds_per_update"
    return total([cost(evidence, "updates", system, s, metric) for s in settings])


def acting_cost(evidence: Evidence, system: str, size: str) -> tuple[Cost, int]:
    """(A joint action of a system, its calls of the network)."""
    settings = lines_of(evidence, "acting", system, size=size)
    setting, fields = next(iter(settings.items()))
    return cost(evidence, "acting", system, setting, "seconds"), int(fields["calls"])


def ratio(one: Cost, other: Cost) -> str:
    """How many times as much the other costs, with the ends of its range."""
    ends = rules.ends(other.low / one.high, other.high / one.low)
    return f"{rules.number(other.middle / one.middle)} {ends} times"


# --- DOF-9 ---

ORDER = ("ddpm", "ddim", "consistency")
"""Samplers from the dearest to the cheapest, as printed."""
PLAN = "ddim"
"""The sampler by which plans are compared."""
CHAIN, PLANS = "reverse_process", "planning"
FASTEST = "concat"
PRINTED_SAVING = 9.0 / 48.0
"""Share of the training time that DoF's autoencoder saves, as printed."""


def dof_costs(game: str) -> Callable[[Evidence], list[Part]]:
    """DOF-9: the printed orders of costs by the number of agents, and the autoencoder's saving."""

    def judge(evidence: Evidence) -> list[Part]:
        return [
            sampler_part(evidence),
            mixer_part(evidence),
            plan_part(evidence, "madiff-c", "seconds"),
            plan_part(evidence, "madiff-d", "seconds"),
            plan_part(evidence, "madiff-c", "program_mib"),
            code_part(evidence, game),
        ]

    return judge


def by_agents(
    evidence: Evidence, benchmark: str, system: str, sampler: str, metric: str = "seconds"
) -> dict[int, Cost]:
    """Number of agents -> a cost, in rising order; at the largest width that was timed."""
    lines = lines_of(evidence, benchmark, system, sampler=sampler)
    widest = max(int(fields["width"]) for fields in lines.values())
    lines = lines_of(evidence, benchmark, system, sampler=sampler, width=str(widest))
    costs = {
        int(fields["agents"]): cost(evidence, benchmark, system, setting, metric)
        for setting, fields in lines.items()
    }
    return dict(sorted(costs.items()))


def dearer(dear: Mapping[int, Cost], cheap: Mapping[int, Cost], level: float = 1.0) -> Answer:
    """Whether one costs more at every number of agents (yes), or not at the largest one (no).

    Up to the ratio `level` two are as dear.
    """
    if dear.keys() != cheap.keys():
        expected = f"the numbers of agents {sorted(dear)}"
        raise refuse("the evidence", expected, sorted(cheap), "Time the same ones.")
    answers = {n: cheaper(cheap[n], dear[n], level, level) for n in dear}
    if all(answer.word == rules.YES for answer in answers.values()):
        return Answer(rules.YES)
    largest = max(answers)
    if answers[largest].word == rules.NO:
        return answers[largest]
    n = next(n for n, answer in answers.items() if answer.word != rules.YES)
    return Answer(rules.OPEN, f"not dearer with {n} agents")


def sampler_part(evidence: Evidence) -> Part:
    """DDPM costs more than DDIM, and DDIM more than consistency, however noise is mixed."""
    answers = []
    numbers = []
    costs: list[Cost] = []
    for mixer in systems_of(evidence, CHAIN):
        chains = {name: by_agents(evidence, CHAIN, mixer, name) for name in ORDER}
        for slow, fast in itertools.pairwise(ORDER):
            answers.append(dearer(chains[slow], chains[fast]))
        for n in ends_of(chains[ORDER[0]]):
            cells = [f"{name} {chains[name][n].shown()}" for name in ORDER]
            numbers.append(f"{mixer}, {n} agents: {', '.join(cells)}")
        costs += [c for chain in chains.values() for c in chain.values()]
    answer = rules.gated([quiet(evidence, costs)], rules.every(answers))
    return Part("fewer steps and consistency cut a reverse process", answer, tuple(numbers))


def mixer_part(evidence: Evidence) -> Part:
    """Concatenated noise costs least."""
    own = by_agents(evidence, CHAIN, FASTEST, ORDER[0])
    answers = []
    cells = []
    costs = list(own.values())
    largest = max(own)
    for mixer in systems_of(evidence, CHAIN):
        if mixer == FASTEST:
            continue
        other = by_agents(evidence, CHAIN, mixer, ORDER[0])
        answers.append(dearer(other, own))
        costs += other.values()
        cells.append(f"{mixer} {ratio(own[largest], other[largest])}")
    if not answers:
        expected = f"other mixers than {FASTEST}"
        raise refuse(f"the evidence {evidence.name}", expected, "none", "Time them.")
    answer = rules.gated([quiet(evidence, costs)], rules.every(answers))
    line = f"{ORDER[0]}, {largest} agents, against {FASTEST}: {', '.join(cells)}"
    return Part(f"{FASTEST} is the fastest f", answer, (line,))


WORDS = {"seconds": "time", "program_mib": "memory"}
"""Metric of a plan -> what it is."""


def plan_part(evidence: Evidence, other: str, metric: str) -> Part:
    """The other's plan takes a quarter more than DoF-T's, or still more, with any team."""
    own = by_agents(evidence, PLANS, "dof-t", PLAN, metric)
    theirs = by_agents(evidence, PLANS, other, PLAN, metric)
    answer = dearer(theirs, own, LEVEL)
    gates = []
    if metric == "seconds":
        gates = [quiet(evidence, [*own.values(), *theirs.values()])]
    numbers = []
    for n in ends_of(own):
        amounts = f"dof-t {amount(own[n], metric)}, {other} {amount(theirs[n], metric)}"
        numbers.append(f"a plan of {n} agents: {amounts}: {ratio(own[n], theirs[n])}")
    return Part(f"less {WORDS[metric]} than {other}", rules.gated(gates, answer), tuple(numbers))


def amount(found: Cost, metric: str) -> str:
    """A cost in its units."""
    if metric == "seconds":
        return found.shown()
    return f"{rules.number(found.middle)} MiB"


def code_part(evidence: Evidence, game: str) -> Part:
    """The autoencoder saves training time: half of what is printed or more (yes), or none (no).

    Open where the game is not on record: benchmarks alone can be kept.
    """
    condition = "the autoencoder saves training time"
    if not settings_of(evidence, game, "dof-t"):
        return Part(condition, Answer(rules.OPEN, "not run"), ())
    plain = trained.best(evidence, game, "dof-t code_width=0")
    coded = trained.best(evidence, game, "dof-t code_width>0")
    taken = [
        np.array(list(values_by_seed(evidence, game, e.system, e.setting, SECONDS).values()))
        for e in (plain, coded)
    ]
    # seeds that train side by side share their seconds: their range is no interval
    saved = 1.0 - taken[1].max() / taken[0].min()
    saved_at_most = 1.0 - taken[1].min() / taken[0].max()
    if saved >= PRINTED_SAVING / 2:
        answer = Answer(rules.YES)
    elif saved_at_most <= 0:
        answer = Answer(rules.NO)
    else:
        answer = Answer(
            rules.OPEN, f"a saving of {saved:.0%} to {saved_at_most:.0%} settles nothing"
        )
    answer, stages = trained.behind_gates(evidence, game, [plain, coded], answer)
    change, _ = trained.difference(coded, plain)
    seconds = " and ".join(f"{of_runs.mean():.0f}" for of_runs in taken)
    numbers = (
        f"seconds of training: {seconds} without and with it, "
        f"{saved:.0%} to {saved_at_most:.0%} saved; printed {PRINTED_SAVING:.0%}",
        f"{RETURN}: {plain.shown()}, {coded.shown()}; with it {rules.estimate_shown(change)} more",
        stages,
    )
    return Part(condition, answer, numbers)


def systems_of(evidence: Evidence, benchmark: str) -> list[str]:
    """What a benchmark timed, in the order of its lines."""
    return list(dict.fromkeys(m.system for m in evidence.measures if m.game == benchmark))


def ends_of(costs: Mapping[int, Cost]) -> list[int]:
    """The smallest and the largest number of agents."""
    return list(dict.fromkeys((min(costs), max(costs))))

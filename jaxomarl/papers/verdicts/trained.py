"""Judges of claims on trained systems: one return for each run, compared seed by seed.

A system of a claim is written as its name and, where one was swept, conditions: "dom2 eta=0.5" are
the runs of dom2 at that value, "dom2 eta>0" those at any above 0. Where several settings are left,
the one of the highest mean speaks, for every system alike; the page says how many it was chosen
from.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.base import refuse
from jaxomarl.papers.keep import DATA, ERROR, RETURN
from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.evidence import (
    Evidence,
    exact,
    settings_of,
    stages_passed,
    stages_shown,
    values_by_seed,
)
from jaxomarl.papers.verdicts.rules import Answer, Part
from jaxomarl.results import intervals
from jaxomarl.results.intervals import Estimate

LEVEL = 0.05
"""Share of the data's mean return below which a difference is none."""
MANY = 1e6
"""Degrees of freedom of a mean over so many episodes that t is normal."""

Judge = Callable[[Evidence], list[Part]]
Decide = Callable[[Mapping[str, Estimate], int, float], Answer]
"""(other -> difference to it, seeds, the data's mean) -> the answer."""


class Entry(NamedTuple):
    """The runs of one system under one setting."""

    system: str
    setting: str
    returns: dict[int, float]
    """Seed -> mean return of the final evaluation; nan where the run diverged."""
    chosen_from: int
    """Settings from which this one was chosen by its mean."""

    @property
    def name(self) -> str:
        """System and setting, as the page shows them."""
        name = f"{self.system} {self.setting}".strip()
        if self.chosen_from > 1:
            name += f" (best of {self.chosen_from} settings)"
        return name

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self._array()))

    def shown(self) -> str:
        """The name, and the mean with its interval."""
        return f"{self.name} {rules.shown(self._array())}"

    def estimate(self) -> Estimate:
        """The mean over seeds with its variance."""
        return intervals.of_samples(self._array())

    def _array(self) -> Float[np.ndarray, " R"]:
        return np.array(list(self.returns.values()))


# --- what is compared ---


def entries(evidence: Evidence, game: str, wanted: str) -> list[Entry]:
    """Every setting of a system that has the wanted values; JaxomarlError where there is none."""
    system, *conditions = wanted.split()
    measured_settings = settings_of(evidence, game, system)
    kept = [s for s in measured_settings if all(meets(s, c) for c in conditions)]
    if not kept:
        way_out = "Measure it again."
        raise refuse(f"the evidence {evidence.name}", f"a row of {game} {wanted}", "none", way_out)
    return [Entry(system, s, values_by_seed(evidence, game, system, s, RETURN), 1) for s in kept]


def meets(setting: str, condition: str) -> bool:
    """Whether the swept values of a setting have "field=value", or a number with "field>number"."""
    field, above, bound = condition.partition(">")
    if not above:
        return condition in setting.split()
    given = dict(word.split("=", 1) for word in setting.split())
    return field in given and float(given[field]) > float(bound)


def best(evidence: Evidence, game: str, wanted: str) -> Entry:
    """The setting of the highest mean; a diverged one is taken only where all are."""
    found = entries(evidence, game, wanted)
    highest = max(found, key=lambda entry: np.nan_to_num(entry.mean, nan=-np.inf))
    return highest._replace(chosen_from=len(found))


def difference(one: Entry, other: Entry) -> tuple[Estimate, int]:
    """(the difference of two entries, paired by seed; the number of seeds that both have)."""
    both = [seed for seed in one.returns if seed in other.returns]
    if not both:
        expected = f"a seed that {one.name} and {other.name} have in common"
        raise refuse("the evidence", expected, "none", "Measure them with the same seeds.")
    mine = np.array([one.returns[seed] for seed in both])
    theirs = np.array([other.returns[seed] for seed in both])
    return rules.paired(mine, theirs), len(both)


def over_data(evidence: Evidence, game: str, one: Entry) -> Estimate:
    """The difference of an entry and its data's mean return."""
    error = exact(evidence, game, DATA, "", ERROR)
    mean = np.asarray(data_mean(evidence, game))
    of_data = Estimate(mean, np.asarray(error**2), np.asarray(MANY))
    return intervals.difference(one.estimate(), of_data)


def data_mean(evidence: Evidence, game: str) -> float:
    """The data's mean return."""
    return exact(evidence, game, DATA, "", RETURN)


def finite(entry: Entry) -> Answer:
    """Open where a run of the entry diverged."""
    bad = [seed for seed, value in entry.returns.items() if not np.isfinite(value)]
    return rules.gate(f"{entry.name}: seed {', '.join(map(str, bad))} diverged", not bad)


def learned(evidence: Evidence, game: str, entry: Entry) -> Answer:
    """Open where a stage has not learned."""
    gate = stages_passed(evidence, entry.setting, game, entry.system)
    if gate.word == rules.YES:
        return gate
    return gate._replace(reason=f"{entry.system}: {gate.reason} has not learned")


def measured(evidence: Evidence, game: str, entry: Entry) -> Answer:
    """Open where nobody measured whether the stages have learned."""
    known = bool(stages_shown(evidence, entry.setting, game, entry.system))
    return rules.gate(f"{entry.system}: the health of its stages is not on record", known)


def part(evidence: Evidence, game: str, wanted: str, others: Sequence[str], decide: Decide) -> Part:
    """One system compared with others in one game.

    `DATA` among the others is the data's own mean. What has not learned leaves the part open, on
    either side. Runs whose health is not on record can say yes, but not no.
    """
    one = best(evidence, game, wanted)
    rivals = [best(evidence, game, other) for other in others if other != DATA]
    compared = [one, *rivals]
    differences = {}
    seeds = len(one.returns)
    for rival in rivals:
        differences[rival.system], common = difference(one, rival)
        seeds = min(seeds, common)
    if DATA in others:
        differences["the data"] = over_data(evidence, game, one)

    mean = data_mean(evidence, game)
    decided = decide(differences, seeds, mean)
    answer, stages = behind_gates(evidence, game, compared, decided)
    ahead = [f"over {name} {rules.estimate_shown(d)}" for name, d in differences.items()]
    numbers = (
        f"return over {seeds} seeds: {', '.join(entry.shown() for entry in compared)}; the data "
        f"{rules.number(mean)}",
        f"{one.name}, paired by seed: {', '.join(ahead)}",
        stages,
    )
    return Part(game, answer, numbers)


def behind_gates(
    evidence: Evidence, game: str, compared: Sequence[Entry], answer: Answer
) -> tuple[Answer, str]:
    """(The answer behind the gates of all entries, a line on their stages).

    A diverged or short run leaves it open. Runs whose health is not on record can say yes, not no.
    """
    gates = [finite(entry) for entry in compared]
    gates += [learned(evidence, game, entry) for entry in compared]
    answer = rules.gated(gates, answer)
    if answer.word == rules.NO:
        answer = rules.gated([measured(evidence, game, entry) for entry in compared], answer)
    return answer, f"stages: {health_shown(evidence, game, compared)}"


def health_shown(evidence: Evidence, game: str, compared: Sequence[Entry]) -> str:
    """What is known of the stages of every entry."""
    lines = []
    for entry in compared:
        words = stages_shown(evidence, entry.setting, game, entry.system)
        lines.append(f"{entry.system}: {words or 'not on record'}")
    return "; ".join(lines)


# --- decisions ---


def lead(margin: float = 0.0, lost_to: Sequence[str] = ()) -> Decide:
    """Yes: ahead of all by more than the margin. No: behind all of `lost_to`, or of all."""

    def decide(differences: Mapping[str, Estimate], seeds: int, data: float) -> Answer:
        ends = {name: tuple(map(float, intervals.interval(d))) for name, d in differences.items()}
        if not np.isfinite(list(ends.values())).all():
            return Answer(rules.OPEN, "too few seeds for an interval")
        if all(low > margin for low, _ in ends.values()):
            return Answer(rules.YES)
        if all(ends[name][1] < 0 for name in lost_to or ends):
            return rules.refuting(seeds, Answer(rules.NO))
        name, (low, high) = min(ends.items(), key=lambda item: item[1][0])
        found = rules.ends(low, high)
        if high < 0:
            level = ", ".join(other for other in lost_to or ends if ends[other][1] >= 0)
            return Answer(rules.OPEN, f"it is behind {name}, {found}, and not behind {level}")
        return Answer(
            rules.OPEN, f"the interval {found} of the difference to {name} settles nothing"
        )

    return decide


def gain(differences: Mapping[str, Estimate], seeds: int, data: float) -> Answer:
    """Yes: ahead of the one other. No: not ahead by 5 % of the data's mean."""
    (only,) = differences.values()
    return rules.better(only, seeds, LEVEL * abs(data))


def no_gain(differences: Mapping[str, Estimate], seeds: int, data: float) -> Answer:
    """Yes: not ahead by 5 % of the data's mean. No: ahead."""
    (only,) = differences.values()
    low, high = map(float, intervals.interval(only))
    if low > 0:
        return rules.refuting(seeds, Answer(rules.NO))
    if high < LEVEL * abs(data):
        return Answer(rules.YES)
    return Answer(rules.OPEN, f"the interval {rules.ends(low, high)} settles nothing")


def half_of(printed: float) -> Decide:
    """Yes: ahead of the one other. No: by less than half of the printed difference."""

    def decide(differences: Mapping[str, Estimate], seeds: int, data: float) -> Answer:
        (only,) = differences.values()
        return rules.ahead(only, seeds, printed=printed)

    return decide


# --- judges ---


def compare(games: Sequence[str], wanted: str, others: Sequence[str], decide: Decide) -> Judge:
    """A part for each game that is on record; none may be missing from the first command's."""

    def judge(evidence: Evidence) -> list[Part]:
        return [part(evidence, game, wanted, others, decide) for game in games]

    return judge


def together(*judges: Judge) -> Judge:
    """The parts of several judges."""
    return lambda evidence: [part for judge in judges for part in judge(evidence)]


def named(condition: str, judge: Judge) -> Judge:
    """A judge whose one part is of this condition."""

    def renamed(evidence: Evidence) -> list[Part]:
        return [part._replace(condition=condition) for part in judge(evidence)]

    return renamed


def alike(game: str, system: str) -> Judge:
    """OMSD-9: every two settings of a system are within 5 % of the data's mean.

    Yes: all intervals lie within it. No: one difference is farther, with an interval off 0.
    """

    def judge(evidence: Evidence) -> list[Part]:
        found = entries(evidence, game, system)
        if len(found) < 2:
            raise refuse(f"the evidence {evidence.name}", "two settings", len(found), "Sweep them.")
        allowed = LEVEL * abs(data_mean(evidence, game))
        answers, lines = [], []
        for i, one in enumerate(found):
            for other in found[i + 1 :]:
                d, seeds = difference(one, other)
                answers.append(equal(d, seeds, allowed))
                lines.append(f"{one.setting} over {other.setting} {rules.estimate_shown(d)}")
        gates = [gate(evidence, game, e) for gate in (learned, measured) for e in found]
        gates = [*map(finite, found), *gates]
        answer = rules.gated(gates, rules.every(answers))
        shown = f"return: {', '.join(entry.shown() for entry in found)}"
        numbers = (shown, *lines, f"5 % of the data's mean: {rules.number(allowed)}")
        return [Part(game, answer, numbers)]

    return judge


def equal(d: Estimate, seeds: int, allowed: float) -> Answer:
    """Whether a difference lies within what is allowed (yes), or apart and farther (no)."""
    low, high = map(float, intervals.interval(d))
    if -allowed < low and high < allowed:
        return Answer(rules.YES)
    if abs(float(d.mean)) > allowed and (low > 0 or high < 0):
        return rules.refuting(seeds, Answer(rules.NO))
    return Answer(rules.OPEN, f"the interval {rules.ends(low, high)} is wider than what is allowed")


def rising(games: Sequence[str], system: str, field: str) -> Judge:
    """OMSD-8: the best value of a field rises from the first data set to the last.

    Yes: it does, and is apart from the second best in two sets. No: the same value is best in all,
    or none is above the field's 0.
    """

    def judge(evidence: Evidence) -> list[Part]:
        tops: list[float] = []
        apart = gains = 0
        lines = []
        gates = []
        for game in games:
            found = sorted(entries(evidence, game, system), key=lambda e: -e.mean)
            gates += [finite(entry) for entry in found]
            gates += [learned(evidence, game, found[0]), measured(evidence, game, found[0])]
            tops.append(swept_value(found[0], field))
            apart += lower_end(found[0], found[1]) > 0
            zero = next((e for e in found if swept_value(e, field) == 0.0), None)
            gains += zero is not None and zero != found[0] and lower_end(found[0], zero) > 0
            lines.append(f"{game}: {', '.join(entry.shown() for entry in found)}")
        seeds = min(len(e.returns) for game in games for e in entries(evidence, game, system))
        if tops == sorted(tops) and tops[0] < tops[-1] and apart >= 2:
            answer = Answer(rules.YES)
        elif len(set(tops)) == 1 or not gains:
            answer = rules.refuting(seeds, Answer(rules.NO))
        else:
            answer = Answer(rules.OPEN, f"the best values {tops} do not settle it")
        return [Part("", rules.gated(gates, answer), tuple(lines))]

    return judge


def swept_value(entry: Entry, field: str) -> float:
    """The number that a setting has in a field."""
    found = dict(word.split("=", 1) for word in entry.setting.split())
    if field not in found:
        raise refuse("the evidence", f"a sweep of {field}", entry.setting, "Sweep it.")
    return float(found[field])


def lower_end(one: Entry, other: Entry) -> float:
    """The lower end of the interval of a difference."""
    return float(intervals.interval(difference(one, other)[0])[0])


def on_every_base(game: str, augmentation: str) -> Judge:
    """CODA-8: an augmentation is above the base, for each base on record."""

    def judge(evidence: Evidence) -> list[Part]:
        ending = f"+{augmentation}"
        systems = dict.fromkeys(m.system for m in evidence.measures if m.game == game)
        bases = [s.removesuffix(ending) for s in systems if s.endswith(ending)]
        judges = [named(b, compare((game,), f"{b}{ending}", (b,), gain)) for b in bases]
        return together(*judges)(evidence)

    return judge


def first_of_all(games: Sequence[str], system: str, others: Sequence[str]) -> Judge:
    """DOM2-6: ahead of all others (yes), or behind three of them (no)."""

    def decide(differences: Mapping[str, Estimate], seeds: int, data: float) -> Answer:
        above = [name for name, d in differences.items() if float(intervals.interval(d)[1]) < 0]
        if len(above) >= 3:
            return rules.refuting(seeds, Answer(rules.NO))
        answer = lead()(differences, seeds, data)
        if answer.word == rules.NO:
            return Answer(rules.OPEN, f"only {', '.join(above)} are above it")
        return answer

    return compare(games, system, others, decide)


def no_harm(base: str) -> Decide:
    """CODA-6: ahead of all (yes), or below the base by 5 % of the data's mean (no)."""

    def decide(differences: Mapping[str, Estimate], seeds: int, data: float) -> Answer:
        if float(intervals.interval(differences[base])[1]) < -LEVEL * abs(data):
            return rules.refuting(seeds, Answer(rules.NO))
        answer = lead()(differences, seeds, data)
        if answer.word == rules.NO:
            return Answer(rules.OPEN, f"below the others, and less than 5 % below {base}")
        return answer

    return decide

"""Judges of what finished policies do: elsewhere, with less data, in several ways, by settings.

They read what `keep` takes along of a table's own measured.csv, next to the runs' final scores.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxomarl.base import refuse
from jaxomarl.papers.dom2 import six_landmarks
from jaxomarl.papers.keep import EPISODES, RETURN, SECONDS
from jaxomarl.papers.verdicts import rules, trained
from jaxomarl.papers.verdicts.evidence import Evidence, settings_of, values_by_seed
from jaxomarl.papers.verdicts.rules import Answer, Part
from jaxomarl.papers.verdicts.trained import Entry, Judge
from jaxomarl.results import intervals
from jaxomarl.results.intervals import Estimate

GOOD_SHARE = 0.8
"""Share of the data's mean that a system must have before its losses elsewhere are compared."""
POINTS = 0.05
"""Difference of two kept shares that counts."""


def common(*by_seed: Mapping[int, float]) -> list[Float[np.ndarray, " R"]]:
    """The numbers of the seeds that all have; JaxomarlError where there is none."""
    first, *others = by_seed
    seeds = [seed for seed in first if all(seed in other for other in others)]
    if not seeds:
        expected = "seeds that all compared systems have"
        raise refuse("the evidence", expected, "none", "Measure them with the same seeds.")
    return [np.array([of_system[seed] for seed in seeds]) for of_system in by_seed]


# --- DOM2-3: in other environments than the data's ---


def kept_share(
    shifts: Mapping[str, Sequence[str]], system: str, others: Sequence[str], data: str
) -> Judge:
    """DOM2-3: a system keeps a larger share of its own return than others do.

    `shifts` maps a task to those that it is shifted to. A part for each of these: yes where the
    system's share is 5 points above every other's, no where it is not above one's.
    """

    def judge(evidence: Evidence) -> list[Part]:
        parts = []
        for task, shifted_tasks in shifts.items():
            for shifted in shifted_tasks:
                games = (f"{task} {data}", f"{shifted} {data}")
                parts.append(_kept_part(evidence, *games, system, others))
        return parts

    return judge


def _kept_part(
    evidence: Evidence, game: str, shifted: str, system: str, others: Sequence[str]
) -> Part:
    compared = [trained.best(evidence, game, name) for name in (system, *others)]
    shares = {e.system: _share(evidence, shifted, e) for e in compared}
    mean = trained.data_mean(evidence, game)

    # --- answers ---
    answers = []
    leads = []
    for other in others:
        mine, theirs = common(shares[system], shares[other])
        lead = rules.paired(mine, theirs)
        answers.append(_lead_of_points(lead, len(mine)))
        leads.append(f"over {other} {rules.estimate_shown(lead)}")
    gates = [_good_enough(entry, mean) for entry in compared]
    answer, stages = trained.behind_gates(evidence, game, compared, rules.every(answers))

    # --- numbers ---
    own = [f"{e.shown()} ({e.mean / mean:.0%} of the data)" for e in compared]
    numbers = (
        f"share of its own return that is kept: {_means(compared, shares)}",
        f"{system}, paired by seed: {', '.join(leads)}",
        f"return in the data's environment: {', '.join(own)}; the data {rules.number(mean)}",
        stages,
    )
    return Part(shifted, rules.gated(gates, answer), numbers)


def _means(compared: Sequence[Entry], values: Mapping[str, Mapping[int, float]]) -> str:
    """Each entry's name and mean; `values` are system -> seed -> number."""
    own = {e.name: np.array(list(values[e.system].values())) for e in compared}
    return ", ".join(f"{name} {rules.shown(x)}" for name, x in own.items())


def _share(evidence: Evidence, shifted: str, entry: Entry) -> dict[int, float]:
    """Seed -> return elsewhere over that in the data's environment."""
    setting = _acting(evidence, shifted, entry)
    elsewhere = values_by_seed(evidence, shifted, entry.system, setting, RETURN)
    there = {seed: value for seed, value in elsewhere.items() if seed in entry.returns}
    return {seed: value / entry.returns[seed] for seed, value in there.items()}


def _acting(evidence: Evidence, game: str, entry: Entry) -> str:
    """The setting under which a trained entry acts in another game: its words are the entry's."""
    own = set(entry.setting.split())
    for setting in settings_of(evidence, game, entry.system):
        if set(setting.split()) <= own:
            return setting
    return entry.setting


def _good_enough(entry: Entry, data: float) -> Answer:
    share = entry.mean / data
    asked = f"{GOOD_SHARE:.0%} is asked"
    return rules.gate(
        f"{entry.name} returns {share:.0%} of the data's mean, {asked}", share >= GOOD_SHARE
    )


def _lead_of_points(lead: Estimate, seeds: int) -> Answer:
    """Whether a lead is above 5 points (yes) or below (no)."""
    low, high = map(float, intervals.interval(lead))
    if low > POINTS:
        return Answer(rules.YES)
    if high < POINTS:
        return rules.refuting(seeds, Answer(rules.NO))
    return Answer(
        rules.OPEN, f"the interval {rules.ends(low, high)} of the shares' difference holds {POINTS}"
    )


# --- DOM2-5: less data ---

SMALL_SHARES = (0.04, 0.06)
"""Shares of the data's episodes that count as a twentieth."""


def less_data(games: Sequence[str], system: str, others: Sequence[str]) -> Judge:
    """DOM2-5: a system with 5 % of the episodes returns what the best other does with all.

    A part for each game. Yes: no other is ahead by 5 % of the data's mean or more. No: one is
    ahead.
    """

    def judge(evidence: Evidence) -> list[Part]:
        return [_less_part(evidence, game, system, others) for game in games]

    return judge


def _less_part(evidence: Evidence, game: str, system: str, others: Sequence[str]) -> Part:
    few, all_episodes = _sizes(evidence, game, system)
    one = trained.best(evidence, game, f"{system} {EPISODES}={few}")
    rivals = [trained.best(evidence, game, f"{o} {EPISODES}={all_episodes}") for o in others]
    mean = trained.data_mean(evidence, game)
    allowed = trained.LEVEL * abs(mean)

    answers = []
    leads = []
    for rival in rivals:
        lead, seeds = trained.difference(one, rival)
        answers.append(_reaches(lead, seeds, allowed))
        leads.append(f"over {rival.system} {rules.estimate_shown(lead)}")
    answer, stages = trained.behind_gates(evidence, game, [one, *rivals], rules.every(answers))
    numbers = (
        f"return with {few} episodes: {one.shown()}; with {all_episodes}: "
        f"{', '.join(rival.shown() for rival in rivals)}; the data {rules.number(mean)}",
        f"{system} with {few / all_episodes:.0%}, paired by seed: {', '.join(leads)}; level within "
        f"{rules.number(allowed)}",
        stages,
    )
    return Part(game, answer, numbers)


def _sizes(evidence: Evidence, game: str, system: str) -> tuple[int, int]:
    """(A twentieth of the data's episodes, all of them) with which a system was trained."""
    words = [word for s in settings_of(evidence, game, system) for word in s.split()]
    pairs = [word.split("=", 1) for word in words if word.startswith(f"{EPISODES}=")]
    sizes = sorted({int(value) for _, value in pairs})
    low, high = SMALL_SHARES
    small = [size for size in sizes if low <= size / sizes[-1] <= high]
    if not small:
        expected = f"runs of {system} with 5 % and with all of the episodes"
        raise refuse(f"the evidence {evidence.name}", expected, sizes, "Measure them.")
    return small[0], sizes[-1]


def _reaches(lead: Estimate, seeds: int, allowed: float) -> Answer:
    """Whether a difference is above a small loss (yes) or below 0 (no)."""
    low, high = map(float, intervals.interval(lead))
    if low > -allowed:
        return Answer(rules.YES)
    if high < 0:
        return rules.refuting(seeds, Answer(rules.NO))
    return Answer(rules.OPEN, f"the interval {rules.ends(low, high)} of the difference is too wide")


# --- DOM2-8: good episodes and ways ---

STARTS, _, WAYS = six_landmarks.METRICS
TWO_WAYS = 2.0


def more_ways(games: Sequence[str], system: str, others: Sequence[str], least: str) -> Judge:
    """DOM2-8: a system has more good episodes than others, and two ways or more from one start.

    Yes: both. No: fewer good episodes than `least`, or fewer than two ways.
    """

    def judge(evidence: Evidence) -> list[Part]:
        return [_ways_part(evidence, game, system, others, least) for game in games]

    return judge


def _ways_part(
    evidence: Evidence, game: str, system: str, others: Sequence[str], least: str
) -> Part:
    compared = [trained.best(evidence, game, name) for name in (system, *others)]
    counts = {e.system: _counts(evidence, game, e, STARTS) for e in compared}
    ways = _counts(evidence, game, compared[0], WAYS)
    found = np.array(list(ways.values()))

    # --- answers ---
    answers = []
    leads = []
    for other in others:
        mine, theirs = common(counts[system], counts[other])
        lead = rules.paired(mine, theirs)
        word = rules.ahead(lead, len(mine))
        if word.word == rules.NO and other != least:
            word = Answer(rules.OPEN, f"fewer good episodes than {other}")
        answers.append(word)
        leads.append(f"over {other} {rules.estimate_shown(lead)}")
    answers.append(_two_ways(found))
    answer, stages = trained.behind_gates(evidence, game, compared, rules.every(answers))

    # --- numbers ---
    numbers = (
        f"good episodes of 20 starts: {_means(compared, counts)}",
        f"{system}, paired by seed: {', '.join(leads)}",
        f"{system}, joint solutions among 20 tries from one start: {rules.shown(found)}",
        stages,
    )
    return Part(game, answer, numbers)


def _counts(evidence: Evidence, game: str, entry: Entry, metric: str) -> dict[int, float]:
    """Seed -> a count, of the setting under which an entry was counted."""
    own = set(entry.setting.split())
    for row in evidence.measures:
        named = (row.game, row.system, row.metric) == (game, entry.system, metric)
        if named and set(row.setting.split()) <= own:
            return values_by_seed(evidence, game, entry.system, row.setting, metric)
    expected = f"a row of {game} {entry.name} {metric}"
    raise refuse(f"the evidence {evidence.name}", expected, "none", "Measure it again.")


def _two_ways(ways: Float[np.ndarray, " R"]) -> Answer:
    """Whether the mean of ways is two or more (yes); an interval below two is no."""
    if float(ways.mean()) >= TWO_WAYS:
        return Answer(rules.YES)
    answer = rules.above(ways, TWO_WAYS)
    if answer.word == rules.NO:
        return answer
    found = rules.number(float(ways.mean()))
    return Answer(rules.OPEN, f"{found} ways from one start, {TWO_WAYS:g} are asked")


# --- DOF-7: without history ---

LOST, LITTLE = 0.3, 0.05


def needs_history(games: Sequence[str], system: str) -> Judge:
    """DOF-7: a planner without history loses 30 % of its return (yes), or less than 5 % (no)."""

    def judge(evidence: Evidence) -> list[Part]:
        return [_history_part(evidence, game, system) for game in games]

    return judge


def _history_part(evidence: Evidence, game: str, system: str) -> Part:
    without = trained.best(evidence, game, f"{system} history=0")
    with_history = trained.best(evidence, game, f"{system} history>0")
    has, lacks = common(with_history.returns, without.returns)
    # differences, not ratios: the return with history has an error too
    much = rules.interval_of((1.0 - LOST) * has - lacks)
    little = rules.interval_of((1.0 - LITTLE) * has - lacks)
    lost = rules.interval_of(has - lacks)

    if not has.mean() > 0:
        answer = Answer(rules.OPEN, "with history the return is not above 0, so no share is lost")
    elif not np.isfinite(lost).all():
        answer = Answer(rules.OPEN, "too few seeds for an interval")
    elif much[0] > 0:
        answer = Answer(rules.YES)
    elif little[1] < 0:
        answer = rules.refuting(len(has), Answer(rules.NO))
    else:
        share = f"{1.0 - lacks.mean() / has.mean():.0%}"
        answer = Answer(rules.OPEN, f"{share} of the return is lost, which settles nothing")
    answer, stages = trained.behind_gates(evidence, game, [with_history, without], answer)
    numbers = (
        f"return: {with_history.shown()}, {without.shown()}",
        f"lost without history, paired by seed: {rules.shown(has - lacks)}, "
        f"{1.0 - lacks.mean() / has.mean():.0%} of the return with it",
        stages,
    )
    return Part(game, answer, numbers)


# --- DOF-8: how planners act ---

GUIDED = (1.0, 1.8)
"""The weights of guidance among which the paper sees little difference."""


def settings_matter_little(game: str, system: str) -> Judge:
    """DOF-8: steps of the sampler and weights of guidance are level, a longer horizon no better."""

    def judge(evidence: Evidence) -> list[Part]:
        acting = trained.entries(evidence, game, system)
        parts = []
        for sampler in ("ddpm", "ddim"):
            words = f"sampler={sampler}"
            steps = [e for e in acting if _has(e, "calls") and words in e.setting.split()]
            parts.append(_level_part(evidence, game, f"steps of {sampler}", steps, "calls"))
        weights = [e for e in acting if _has(e, "guidance") and _within(e, "guidance", GUIDED)]
        name = f"guidance of {GUIDED[0]:g} to {GUIDED[1]:g}"
        parts.append(_level_part(evidence, game, name, weights, "guidance"))
        parts.append(_horizon_part(evidence, game, system))
        return parts

    return judge


def _has(entry: Entry, field: str) -> bool:
    return any(word.startswith(f"{field}=") for word in entry.setting.split())


def _within(entry: Entry, field: str, ends: tuple[float, float]) -> bool:
    return ends[0] <= trained.swept_value(entry, field) <= ends[1]


def _planner(evidence: Evidence, game: str, acting: Entry) -> Entry:
    """The trained planner that acts, under the setting of its stages' verdicts."""
    words = set(acting.setting.split())
    of_system = [s for s in evidence.stages if (s.game, s.system) == (game, acting.system)]
    settings = [s.setting for s in of_system if set(s.setting.split()) <= words]
    # none on record: under its own, which has no stages either
    return acting._replace(setting=max(settings, key=len, default=acting.setting))


def _level_part(
    evidence: Evidence, game: str, condition: str, found: Sequence[Entry], field: str
) -> Part:
    """Whether every two values of a field are within 5 % of the data's mean."""
    if len(found) < 2:
        expected = f"two values of {field} for {condition} in {game}"
        raise refuse(f"the evidence {evidence.name}", expected, len(found), "Measure it again.")
    found = sorted(found, key=lambda e: trained.swept_value(e, field))
    allowed = trained.LEVEL * abs(trained.data_mean(evidence, game))
    answers = []
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            d, seeds = trained.difference(one, other)
            answers.append(trained.equal(d, seeds, allowed))
    planner = _planner(evidence, game, found[0])
    answer, stages = trained.behind_gates(evidence, game, [planner], rules.every(answers))
    cells = [
        f"{trained.swept_value(e, field):g}: {rules.shown(np.array(list(e.returns.values())))}"
        for e in found
    ]
    gates = [trained.finite(entry) for entry in found]
    numbers = (
        f"return by {field}: {', '.join(cells)}",
        f"5 % of the data's mean: {rules.number(allowed)}",
        stages,
    )
    return Part(condition, rules.gated(gates, answer), numbers)


def _horizon_part(evidence: Evidence, game: str, system: str) -> Part:
    """Whether the longest horizon is no better than the best of the shorter ones."""
    found = [e for e in trained.entries(evidence, game, system) if _is_run(evidence, e, game)]
    by_rest: dict[frozenset[str], list[Entry]] = {}
    for entry in found:
        rest = frozenset(w for w in entry.setting.split() if not w.startswith("horizon="))
        by_rest.setdefault(rest, []).append(entry)
    swept = max(by_rest.values(), key=len, default=[])
    if len(swept) < 2:
        expected = f"two horizons of {system} in {game}"
        raise refuse(f"the evidence {evidence.name}", expected, len(swept), "Measure it again.")
    *shorter, longest = sorted(swept, key=lambda e: trained.swept_value(e, "horizon"))
    best = max(shorter, key=lambda e: e.mean)
    gain, seeds = trained.difference(longest, best)
    decided = _no_better(gain, seeds, trained.LEVEL * abs(trained.data_mean(evidence, game)))
    answer, stages = trained.behind_gates(evidence, game, [longest, best], decided)
    numbers = (
        f"return: {', '.join(e.shown() for e in (*shorter, longest))}",
        f"the longest over the best of the others {rules.estimate_shown(gain)}",
        stages,
    )
    return Part("a longer horizon", answer, numbers)


def _no_better(gain: Estimate, seeds: int, allowed: float) -> Answer:
    """Whether a gain is below what is allowed (yes), or above 0 and larger than that (no)."""
    low, high = map(float, intervals.interval(gain))
    if high < allowed:
        return Answer(rules.YES)
    if low > 0 and float(gain.mean) > allowed:
        return rules.refuting(seeds, Answer(rules.NO))
    return Answer(rules.OPEN, f"the interval {rules.ends(low, high)} of the gain settles nothing")


def _is_run(evidence: Evidence, entry: Entry, game: str) -> bool:
    """Whether an entry was trained so, with a horizon of its own: acting alone has no training."""
    name = (game, entry.system, entry.setting, SECONDS)
    rows = [(m.game, m.system, m.setting, m.metric) for m in evidence.measures]
    return name in rows and _has(entry, "horizon")

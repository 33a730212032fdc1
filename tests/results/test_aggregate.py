"""Statistics over tasks: against scipy and brute force, seeded, and intervals that cover."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxomarl.results import aggregate

RNG = np.random.default_rng(3)
RAGGED = [RNG.normal(size=n) + n for n in (5, 4, 7)]


def test_numbers_are_their_definitions():
    pooled = np.concatenate(RAGGED)
    assert aggregate.iqm(RAGGED) == pytest.approx(stats.trim_mean(pooled, 0.25), rel=1e-12)
    means = sorted(x.mean() for x in RAGGED)
    assert aggregate.median(RAGGED) == pytest.approx(means[1], rel=1e-12)
    assert aggregate.mean(RAGGED) == pytest.approx(np.mean(means), rel=1e-12)
    short = [[max(5.0 - v, 0.0) for v in x] for x in RAGGED]
    gap = np.mean([np.mean(x) for x in short])
    assert aggregate.optimality_gap(RAGGED, 5.0) == pytest.approx(gap, rel=1e-12)


def test_an_interval_is_scipys_bootstrap_widened():
    """One task: scipy's percentile interval of the same statistic, but for the draws and the factor."""
    scores = RNG.exponential(size=12)
    own = aggregate.interval(aggregate.mean, [scores], replicates=20_000)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    low, high = theirs.confidence_interval
    factor = aggregate.widening([scores])
    assert factor == pytest.approx(stats.t.ppf(0.975, 11) / 1.959964 * (12 / 11) ** 0.5, rel=1e-6)
    assert (own.value - own.low) / factor == pytest.approx(own.value - low, rel=0.04)
    assert (own.high - own.value) / factor == pytest.approx(high - own.value, rel=0.04)


def test_replicates_stay_within_their_task():
    """Tasks without spread have none in the bootstrap, however far apart they lie."""
    apart = [np.full(4, 1.0), np.full(6, 100.0)]
    number = aggregate.interval(aggregate.mean, apart)
    assert number == (50.5, 50.5, 50.5)


def test_improvement_is_every_pair_counted():
    x, y = (
        [np.array([1.0, 2.0, 2.0]), np.array([0.0, 5.0])],
        [np.array([2.0, 0.0]), np.array([5.0])],
    )
    brute = []
    for a, b in zip(x, y, strict=True):
        wins = [(p > q) + 0.5 * (p == q) for p, q in itertools.product(a, b)]
        brute.append(sum(wins) / len(wins))
    assert aggregate.probability_of_improvement(x, y).value == np.mean(brute)
    a, b = RNG.normal(0.4, 1.0, 14), RNG.normal(size=11)
    number = aggregate.probability_of_improvement([a], [b])
    assert number.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (14 * 11), rel=1e-12)
    other = aggregate.probability_of_improvement([b], [a])
    assert number.value + other.value == pytest.approx(1.0)
    assert 0.0 <= number.low < number.value < number.high <= 1.0
    with pytest.raises(ValueError, match="1 and 2 tasks"):
        aggregate.probability_of_improvement([a], [a, b])


def test_improvements_bootstrap_is_brute_force():
    """The exact distribution over all samples of three runs from three, and two from two."""
    x, y = np.array([0.0, 2.0, 4.0]), np.array([1.0, 3.0])
    exact = [
        np.mean([a > b for a, b in itertools.product(xs, ys)])
        for xs in itertools.product(x, repeat=3)
        for ys in itertools.product(y, repeat=2)
    ]
    low, high = np.quantile(exact, [0.025, 0.975])
    number = aggregate.probability_of_improvement([x], [y], replicates=20_000)
    factor = max(aggregate.widening([x]), aggregate.widening([y]))
    expected = [number.value + factor * (end - number.value) for end in (low, high)]
    assert (number.low, number.high) == pytest.approx(np.clip(expected, 0.0, 1.0), abs=1e-9)


def test_a_profile_is_the_share_above_and_a_diverged_run_is_a_failure():
    runs = [np.array([0.0, 1.0, 2.0, np.nan]), np.array([1.0, 1.0])]
    at = np.array([-1.0, 0.0, 0.5, 1.0, 3.0])
    brute = [np.mean([np.mean([v > t for v in x]) for x in runs]) for t in at]
    curve = aggregate.performance_profile(runs, at)
    assert curve.value.tolist() == brute
    assert np.isnan(curve.low).all(), "an interval of runs that are not finite is not known"
    fine = [np.where(np.isnan(x), -np.inf, x) for x in runs]
    assert aggregate.performance_profile(fine, at).value.tolist() == brute
    curve = aggregate.performance_profile([RNG.normal(size=16)] * 2, np.linspace(-2, 2, 9))
    assert (curve.low <= curve.value).all() and (curve.value <= curve.high).all()
    assert (np.diff(curve.low) <= 0).all()


def test_a_second_call_gives_the_same_numbers():
    for once, twice in (
        (aggregate.interval(aggregate.iqm, RAGGED), aggregate.interval(aggregate.iqm, RAGGED)),
        (
            aggregate.probability_of_improvement(RAGGED, RAGGED[::-1]),
            aggregate.probability_of_improvement(RAGGED, RAGGED[::-1]),
        ),
    ):
        assert once == twice
    other = aggregate.interval(aggregate.iqm, RAGGED, seed=1)
    assert other.value == aggregate.interval(aggregate.iqm, RAGGED).value
    assert other.low != aggregate.interval(aggregate.iqm, RAGGED).low


def test_one_run_of_a_task_has_no_interval():
    number = aggregate.interval(aggregate.mean, [np.array([1.0, 2.0]), np.array([3.0])])
    assert number.value == 2.25 and np.isnan([number.low, number.high]).all()


def test_intervals_cover_as_often_as_they_say():
    """Four tasks of 16 normal runs: 95 % of 400 studies, within 93 to 97 %."""
    levels = np.array([0.0, 0.3, 0.6, 1.0])
    rng = np.random.default_rng(0)
    # what the statistic estimates at this size
    large = [level + 0.3 * rng.normal(size=(20_000, 16)) for level in levels]
    truth = float(aggregate.iqm(large).mean())
    held = 0
    for study in range(400):
        runs = [level + 0.3 * rng.normal(size=16) for level in levels]
        number = aggregate.interval(aggregate.iqm, runs, seed=study, replicates=200)
        held += number.low <= truth <= number.high
    assert 0.93 <= held / 400 <= 0.97

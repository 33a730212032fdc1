"""The statistics against scipy, brute force and simulated studies."""

import numpy as np
import pytest
from scipy import stats

from jaxomarl.results import statistics

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 16, 17, 144])
def test_iqm_is_scipys_trimmed_mean(n):
    x = RNG.standard_cauchy((6, n))
    np.testing.assert_allclose(statistics.iqm(x), stats.trim_mean(x, 0.25, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(statistics.iqm(x.ravel()), stats.trim_mean(x, 0.25, axis=None), rtol=1e-12)


def test_std_is_the_sample_standard_deviation():
    x = RNG.normal(size=(3, 16))
    np.testing.assert_allclose(statistics.std(x), stats.tstd(x, axis=-1), rtol=1e-12)
    assert np.isnan(statistics.std(np.array([1.0])))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_trimmed_away(bad):
    x = np.stack([np.arange(8.0), np.r_[np.arange(7.0), bad]])
    for statistic in (statistics.mean, statistics.std, statistics.iqm):
        out = statistic(x)
        assert np.isfinite(out[0])
        assert np.isnan(out[1])
    assert np.isnan(statistics.stratified_bootstrap(x[1])).all()
    assert np.isnan(statistics.probability_of_improvement(x[0], x[1]))


@pytest.mark.parametrize("shape", [(16,), (16, 9)])
def test_the_seed_decides_the_interval(shape):
    x = RNG.normal(size=shape)
    assert statistics.stratified_bootstrap(x, seed=3) == statistics.stratified_bootstrap(x, seed=3)
    assert statistics.stratified_bootstrap(x, seed=3) != statistics.stratified_bootstrap(x, seed=4)


def test_the_interval_of_the_mean_agrees_with_scipys():
    x = RNG.exponential(size=30)
    expected = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    found = statistics.stratified_bootstrap(x, statistics.mean, reps=20_000)
    # two quantiles of 20 000 replicates: their own noise is about 0.02 standard errors of the mean
    np.testing.assert_allclose(found, expected.confidence_interval, atol=0.08 * x.std() / 30**0.5)


def test_runs_are_drawn_within_their_task():
    x = np.array([[0.0, 1000.0], [0.0, 1000.0], [0.0, 1000.0]])  # no spread within a task, a large one between them
    assert statistics.stratified_bootstrap(x, statistics.mean) == (500.0, 500.0)


def test_the_interval_widens_with_its_level():
    x = RNG.normal(size=(10, 4))
    (a, b), (c, d) = (statistics.stratified_bootstrap(x, level=level) for level in (0.8, 0.99))
    assert c < a < b < d


def test_one_run_has_no_interval():
    assert np.isnan(statistics.stratified_bootstrap(np.array([3.0]))).all()
    assert np.isnan(statistics.stratified_bootstrap(np.ones((1, 5)))).all()


def coverage(studies, n, reps):
    """Share of simulated normal studies whose nominal 95 % interval of the mean holds the true mean, 0."""
    x = np.random.default_rng(n).normal(size=(studies, n))
    intervals = [statistics.stratified_bootstrap(row, statistics.mean, reps, seed=s) for s, row in enumerate(x)]
    return np.mean([low < 0 < high for low, high in intervals])


def test_coverage_of_the_interval_of_the_mean():
    # The percentile interval of a mean is about mean ± 1.96 s sqrt((n - 1) / n) / sqrt(n): normal quantiles and the
    # biased standard deviation. So at n = 16 it covers P(|t_15| < 1.96 sqrt(15 / 16)) = 0.923 and not 0.95. We assert
    # that number within three standard errors of 600 studies; the interval's docstring tells it to the reader.
    found, expected = coverage(600, 16, 500), 1 - 2 * stats.t.sf(1.96 * (15 / 16) ** 0.5, 15)
    assert abs(found - expected) < 3 * (expected * (1 - expected) / 600) ** 0.5
    assert 0.88 < found < 0.99


def test_coverage_approaches_the_level_as_runs_grow():
    assert 0.92 < coverage(400, 120, 400) < 0.98


@pytest.mark.parametrize("shape", [((7,), (5,)), ((7, 3), (5, 3))])
def test_probability_of_improvement_is_the_count_over_all_pairs(shape):
    x, y = (RNG.integers(0, 6, size=s).astype(float) for s in shape)  # ties are common
    tasks = [(x, y)] if x.ndim == 1 else list(zip(x.T, y.T, strict=True))
    brute = np.mean([np.mean([(a > b) + 0.5 * (a == b) for a in p for b in q]) for p, q in tasks])
    assert statistics.probability_of_improvement(x, y) == pytest.approx(brute, abs=1e-12)
    assert statistics.probability_of_improvement(y, x) == pytest.approx(1 - brute, abs=1e-12)
    if x.ndim == 1:
        assert brute == pytest.approx(stats.mannwhitneyu(x, y).statistic / (7 * 5))


def test_probability_of_improvement_compares_the_same_tasks():
    with pytest.raises((ValueError, TypeError)):  # TypeError: the runtime type check of the axis names comes first
        statistics.probability_of_improvement(np.ones((4, 2)), np.ones((4, 3)))


def test_performance_profile_counts_runs_and_keeps_the_diverged_in_the_denominator():
    x, thresholds = RNG.normal(size=(9, 4)), np.linspace(-2, 2, 11)
    brute = [sum(v > t for row in x for v in row) / 36 for t in thresholds]
    np.testing.assert_allclose(statistics.performance_profile(x, thresholds), brute, atol=1e-12)
    x = np.array([1.0, 1.0, 1.0, np.nan])
    assert statistics.performance_profile(x, np.array([0.0, 1.0])).tolist() == [0.75, 0.0]

"""The statistics against scipy and brute force."""

import numpy as np
import pytest
from scipy import stats

from jaxomarl.results import statistics

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 16, 17, 144])
def test_iqm_is_scipys_trimmed_mean(n):
    x = RNG.standard_cauchy((6, n))
    np.testing.assert_allclose(statistics.iqm(x), stats.trim_mean(x, 0.25, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(
        statistics.iqm(x.ravel()), stats.trim_mean(x, 0.25, axis=None), rtol=1e-12
    )


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
    assert np.isnan(statistics.probability_of_improvement(x[0], x[1]))


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
    with pytest.raises(
        (ValueError, TypeError)
    ):  # TypeError: the runtime type check of the axis names comes first
        statistics.probability_of_improvement(np.ones((4, 2)), np.ones((4, 3)))


def test_performance_profile_counts_runs_and_keeps_the_diverged_in_the_denominator():
    x, thresholds = RNG.normal(size=(9, 4)), np.linspace(-2, 2, 11)
    brute = [sum(v > t for row in x for v in row) / 36 for t in thresholds]
    np.testing.assert_allclose(statistics.performance_profile(x, thresholds), brute, atol=1e-12)
    x = np.array([1.0, 1.0, 1.0, np.nan])
    assert statistics.performance_profile(x, np.array([0.0, 1.0])).tolist() == [0.75, 0.0]

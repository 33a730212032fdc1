"""Figures against SciPy, NumPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxomarl.health.behaviour import energy_score
from jaxomarl.health.figures import (
    correlation,
    linear_prediction,
    rank_correlation,
    returns_to_go,
    rmse,
)


def test_rank_correlation_is_scipys_ties_included():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 200).astype(np.float32)
    y = (x + rng.normal(size=200)).astype(np.float32)
    y[::7] = 1.0
    expected = stats.spearmanr(x, y).statistic
    assert float(rank_correlation(jnp.asarray(x), jnp.asarray(y))) == pytest.approx(
        expected, abs=1e-5
    )


def test_a_constant_correlates_with_nothing():
    assert float(correlation(jnp.ones(5), jnp.arange(5.0))) == 0.0


def test_linear_regression_recovers_a_linear_map_and_ignores_constant_columns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    x[:, 2] = 7.0
    y = x @ rng.normal(size=(4, 2)) + 3.0
    predicted = linear_prediction(jnp.asarray(x[:400]), jnp.asarray(y[:400]), jnp.asarray(x[400:]))
    assert np.allclose(predicted, y[400:], atol=0.02)


def test_returns_to_go_stop_at_the_end_of_each_episode():
    reward = jnp.asarray([1.0, 2.0, 0.0, 4.0, 8.0, 16.0, 0.0])
    left = jnp.asarray([2, 1, 0, 3, 2, 1, 0])
    expected = [1 + 0.5 * 2, 2.0, 0.0, 4 + 0.5 * 8 + 0.25 * 16, 8 + 0.5 * 16, 16.0, 0.0]
    assert np.allclose(returns_to_go(reward, left, 0.5), expected)


def test_errors_count_real_columns_alone():
    true = jnp.zeros((2, 2, 2))
    predicted = jnp.asarray([[[3.0, 99.0], [1.0, 1.0]]] * 2)
    mask = jnp.asarray([[1.0, 0.0], [1.0, 1.0]])
    assert float(rmse(predicted, true, mask)) == pytest.approx(np.sqrt((9 + 1 + 1) / 3), rel=1e-6)


def test_the_energy_score_is_best_for_the_true_distribution():
    """Data at -1 or 1: drawing both beats always playing one, the mean, and a draw of another scale."""
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key: jnp.sign(jax.random.normal(key, (20_000, 1, 1)))
    true, first, second = map(draw, keys)
    mask = jnp.ones((1, 1))
    score = lambda a, b: float(energy_score(a, b, true, mask))
    best = score(first, second)
    assert best == pytest.approx(0.5, abs=0.02)  # E|X - Y| = 1, less half of 1
    for other in (jnp.zeros_like(true), jnp.ones_like(true)):
        assert score(other, other) > best + 0.3
    assert score(0.3 * first, 0.3 * second) > best + 0.05

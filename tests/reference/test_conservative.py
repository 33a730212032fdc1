"""CQL's term against numbers by hand, and its estimate of the integral against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxomarl.losses import conservative as losses
from jaxomarl.losses.conservative import joined_proposals

DRAWS = 40_000
ONE = jnp.ones(1)
conservative, uniform_proposals = map(jax.jit, (losses.conservative, losses.uniform_proposals))
normal_proposals = jax.jit(losses.normal_proposals, static_argnums=2)  # by deviation


def spread(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def test_a_constant_q_gives_the_volume_of_the_box():
    """The term is d log 2, and a padded column adds nothing.

    OMAR's form has log M more: 3.6889 for M = 10 and d = 2 (B.8 (5)).
    """
    sampled = uniform_proposals(spread(10, 3, 3), jnp.array([1.0, 1.0, 0.0]))
    found = conservative(jnp.full((2, 10, 3), 7.0), sampled.log_p, jnp.full((2, 3), 7.0))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found + np.log(10), 3.6889, atol=1e-4)
    assert np.all(np.asarray(sampled.action)[..., 2] == 0) and np.abs(sampled.action).max() <= 1


def test_value_and_gradient_by_hand():
    """The gradient pushes samples down by their share of exp(Q) / p, and the data up by one."""
    q = np.array([1.0, -0.5, 2.0, 0.3])
    p = np.array([0.25, 0.5, 2.0, 0.1])
    data = 0.7
    column = lambda x: jnp.asarray(x, jnp.float32)[:, None]
    term = lambda q, d: conservative(q, column(np.log(p)), d)[0]
    value, (down, up) = jax.value_and_grad(term, argnums=(0, 1))(column(q), jnp.array([data]))
    weights = np.exp(q) / p
    np.testing.assert_allclose(value, np.log(weights.mean()) - data, rtol=1e-6)
    np.testing.assert_allclose(down[:, 0], weights / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(up, [-1.0])


def test_densities_are_held_constant():
    """Proposals around the policy's actions send it no gradient."""
    slope = jax.grad(lambda log_p: conservative(jnp.ones((4, 1)), log_p, jnp.ones(1)).sum())(
        jnp.zeros((4, 1))
    )
    np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("centre", [0.0, 0.7, -1.0, 1.0])
def test_noise_cut_off_at_the_box_has_its_density(centre):
    law = stats.truncnorm((-1 - centre) / 0.2, (1 - centre) / 0.2, centre, 0.2)
    mask = jnp.array([1.0, 0.0])
    found = normal_proposals(jnp.array([centre, 0.0]), spread(DRAWS, 2), 0.2, mask)
    action = np.asarray(found.action, np.float64)
    assert stats.kstest(action[:, 0], law.cdf).pvalue > 1e-4
    np.testing.assert_allclose(found.log_p, law.logpdf(action[:, 0]), atol=2e-3)
    np.testing.assert_array_equal(action[:, 1], 0.0)


def mean_and_error(weights):
    weights = np.asarray(weights, np.float64).ravel()
    return weights.mean(), weights.std() / np.sqrt(weights.size)


@pytest.mark.parametrize("which", ["uniform", "around", "edge", "all"])
def test_the_sum_estimates_the_integral(which):
    """The integral of exp(k a) over [-1, 1] is 2 sinh(k) / k, whatever the proposals.

    The tolerance is five standard errors.
    """
    k = 1.5
    half = spread(DRAWS, 1, 1, seed=1)
    groups = {
        "uniform": uniform_proposals(half, ONE),
        "around": normal_proposals(jnp.array([[0.3]]), half, 0.6, ONE),
        "edge": normal_proposals(jnp.array([[1.0]]), half, 0.8, ONE),
    }
    sampled = joined_proposals(*groups.values()) if which == "all" else groups[which]
    mean, error = mean_and_error(jnp.exp(k * sampled.action[..., 0] - sampled.log_p))
    want = 2 * np.sinh(k) / k
    assert error < 0.02 * want
    assert abs(mean - want) < 5 * error
    term = conservative(k * sampled.action[..., 0], sampled.log_p, jnp.zeros(1))
    np.testing.assert_allclose(term, np.log(mean), rtol=1e-4)


def test_clipped_noise_counts_what_lies_outside():
    """Released codes estimate more than twice the integral of 1 over the box, which is 2."""
    noise = 0.6 * np.random.default_rng(3).standard_normal(DRAWS)
    as_released = 1 / stats.norm.pdf(noise, scale=0.6)  # the action is clip(1 + noise), and Q = 0
    assert as_released.mean() > 2 * 2.0
    ours = normal_proposals(jnp.array([[1.0]]), spread(DRAWS, 1, 1, seed=2), 0.6, ONE)
    mean, error = mean_and_error(jnp.exp(-ours.log_p))
    assert abs(mean - 2.0) < 5 * error < 0.5

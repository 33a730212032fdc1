"""EDM: levels, churn, preconditioning and its weight; the sampler on Gaussian data, on a point, and without noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion import edm
from jaxomarl.diffusion.losses import denoising_loss

K = edm.KARRAS
MEAN, STD = 0.5, 0.7
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=QUICK)


def gaussian(x, t, mean=MEAN, std=STD):
    """The exact denoiser of N(mean, std^2)."""
    sigma = K.schedule.sigma(t)
    return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)


def spread(steps, order=2, churn=None, count=40_000):
    """Mean and std of samples of the Gaussian, their first noise brought to mean 0 and std 1 by pairs and quantiles."""
    chain = edm.heun(steps, churn=churn, order=order)
    x = np.asarray(jit(lambda key: chain(key, gaussian, (count, 1)))(jax.random.key(4)))
    return x.mean(), x.std()


def test_karras_levels():
    """Row 2: 80, 57.59, 40.79, .., 0.0075, 0.002, and clean."""
    found = np.asarray(K.levels(18))
    np.testing.assert_allclose(
        found[[0, 1, 2, 16, 17, 18]], [80, 57.586, 40.786, 0.0075, 0.002, 0], rtol=6e-3
    )
    assert len(found) == 19 and np.all(np.diff(found) < 0)
    np.testing.assert_allclose(K.time(found[:-1]), 1 - np.arange(18) / 17, atol=1e-5)
    assert np.asarray(K.levels(1)).tolist() == [pytest.approx(80.0), 0.0]


def test_churn():
    """Row 3: sqrt 2 - 1 on 96 of 128 steps; at 256 it is 80 / 256 = 0.3125, on 191."""
    of = lambda n: np.asarray(edm.Churn().gamma(K.levels(n)[:-1], n))
    assert (of(128) > 0).sum() == 96 and of(128).max() == pytest.approx(2**0.5 - 1)
    assert (of(256) > 0).sum() == 191 and of(256).max() == pytest.approx(0.3125)


def test_preconditioning_is_that_of_the_paper():
    """At two levels by hand, for a time of each sample and for one of all; a silent network says c_skip x."""
    sigma, s = np.array([0.5, 3.0]), 1.3
    x = np.array([[1.0, -2.0], [4.0, 0.5]], np.float32)
    heard = []

    def net(x, noise):
        heard.append(noise)
        return x**2

    t = K.time(jnp.asarray(sigma))
    found = edm.preconditioned(net, s)(jnp.asarray(x), t)
    wide, size = sigma[:, None], np.sqrt(sigma**2 + s**2)[:, None]
    want = (s / size) ** 2 * x + wide * s / size * (x / size) ** 2
    np.testing.assert_allclose(found, want, rtol=1e-4)
    np.testing.assert_allclose(heard[0], np.log(sigma) / 4, rtol=1e-4)
    np.testing.assert_allclose(
        edm.preconditioned(net, s)(jnp.asarray(x[:1]), t[0]), want[:1], rtol=1e-4
    )


def test_the_weight_makes_all_levels_count_alike():
    """With it, the loss of a network that says nothing is E |x|^2 / s^2-like at every level; without, the highest lead.

    D = c_skip x errs by c_out^2 per dimension where the data are N(0, s^2), and lambda = 1 / c_out^2.
    """
    silent = edm.preconditioned(lambda x, noise: 0.0 * x)
    x0, z = jax.random.normal(jax.random.key(0), (2, 20_000, 1))

    def loss(sigma, weighted):
        t = jnp.full(20_000, K.time(sigma))
        return float(
            denoising_loss(
                silent,
                K.schedule,
                x0,
                t,
                z,
                edm.edm_loss_weight(K.schedule.sigma(t)) if weighted else None,
            )
        )

    np.testing.assert_allclose([loss(s, True) for s in (0.05, 1.0, 20.0)], 1.0, rtol=0.03)
    assert loss(20.0, False) > 100 * loss(0.05, False)


def test_training_times_are_those_of_the_log_normal():
    sigma = np.asarray(K.schedule.sigma(K.draw(jax.random.key(1), (20_000,))))
    np.testing.assert_allclose([np.log(sigma).mean(), np.log(sigma).std()], [-1.2, 1.2], atol=0.03)
    assert sigma.min() >= 0.00199 and sigma.max() <= 80.1


@pytest.mark.parametrize(
    ("steps", "order", "want"), [(18, 2, 0.735), (40, 2, 0.706), (18, 1, 0.598), (40, 1, 0.653)]
)
def test_samples_of_a_gaussian(steps, order, want):
    """D.8 (3) and row 7: too wide by Heun, too narrow by Euler, and nearer with more steps."""
    found = spread(steps, order)
    np.testing.assert_allclose(found, (MEAN, want), atol=0.012)


@pytest.mark.parametrize(("steps", "want"), [(18, 0.784), (40, 0.727)])
def test_samples_of_a_gaussian_with_churn(steps, want):
    """Both steps set out from the churned x: from x itself, Heun's std would be 1.37 at 18 steps."""
    np.testing.assert_allclose(spread(steps, churn=edm.Churn()), (MEAN, want), atol=0.015)


def test_a_point_is_hit_to_the_last_bit():
    """D.8 (2) and row 8, for both orders, with churn and with a pull that stops before the last step."""
    point = jnp.array([0.3, -1.7, 0.05])
    at_point = lambda x, t: jnp.broadcast_to(point, x.shape)
    for order in (1, 2):
        shift = lambda k, x, x0: x + jnp.where(k < 5, 0.7, 0.0)
        chain = edm.heun(6, shift, edm.Churn(), order)
        x = jit(lambda key, chain=chain: chain(key, at_point, (9, 3)))(jax.random.key(2))
        assert np.array_equal(np.asarray(x), np.broadcast_to(point, (9, 3)))


def test_the_last_step_asks_for_one_level_only():
    """D.8 (6): what the denoiser says at the lowest level for Heun's second slope does not reach a clean sample."""
    asked = lambda x, t: jnp.where(t <= 1e-6, jnp.nan, 0.25) * jnp.ones_like(x)
    chain = edm.heun(1)
    assert np.all(np.asarray(jit(lambda key: chain(key, asked, (4, 2)))(jax.random.key(0))) == 0.25)


def test_masked_noise_is_zero():
    chain = edm.heun(3, churn=edm.Churn(), mask=jnp.array([1.0, 0.0]))
    x = np.asarray(jit(lambda key: chain(key, lambda x, t: 0.5 * x, (5, 2)))(jax.random.key(0)))
    assert np.all(x[:, 1] == 0) and np.all(x[:, 0] != 0)


@pytest.mark.parametrize("changed", [{"steps": 0}, {"order": 3}, {"placement": "after"}])
def test_bad_samplers_are_refused(changed):
    with pytest.raises(JaxomarlError, match="heun"):
        edm.heun(**{"steps": 4, **changed})

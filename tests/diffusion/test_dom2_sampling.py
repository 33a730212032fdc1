"""DOM2's chain of actions: with an exact noise its law is known, and written apart it is the same, gradients too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import dom2
from jaxomarl.networks.mlp import Network

M, S = 0.5, 0.2  # the data: N(M, S^2)
DRAWS = 20_000
ONE = jnp.ones(1)


def grid(steps, form):
    """alpha and sigma at tau_0..tau_N from equation 13, in double precision; clean at tau_0."""
    i = np.arange(steps + 1)
    beta = 1 - np.exp(-0.1 / (steps + 1) - 19.9 * (2 * i + 1) / (2 * (steps + 1) ** 2))
    alpha = 1 - beta if form == "printed" else np.sqrt(np.cumprod(1 - beta))
    alpha[0] = 1.0
    return alpha, np.sqrt(1 - alpha**2)


def config(steps, form, **changed):
    return dom2.Config(levels=steps, schedule=form, **changed)


def told(t, steps, values):
    """The value of the level that the network is told."""
    return jnp.asarray(values, jnp.float32)[jnp.round(t * steps).astype(int)]


def of(eps):
    """A noise prediction (params, x, t) that sees no observation, as a network."""
    return Network(lambda key: (), lambda params, x, t, obs, dropout=None: eps(params, x, t))


def drawn(cfg, net, params=(), draws=DRAWS, mask=ONE, seed=0):
    run = lambda params: dom2.sample_action(
        cfg, net, jax.random.key(seed), params, jnp.zeros((draws, 1)), mask
    )
    return np.asarray(jax.jit(run)(params), np.float64)


@pytest.mark.parametrize(
    ("form", "steps", "mean", "std"),
    [
        ("printed", 5, 0.500, 0.019),
        # ten steps lie between five and a hundred: the same code
        pytest.param("printed", 10, 0.496, 0.048, marks=pytest.mark.long),
        ("printed", 100, 0.376, 0.304),
        ("cumulative", 5, 0.500, 0.027),
        pytest.param("cumulative", 10, 0.500, 0.059, marks=pytest.mark.long),
        ("cumulative", 100, 0.500, 0.180),
    ],
)
def test_exact_noise_gives_known_means_and_narrow_deviations(form, steps, mean, std):
    """B.3's law: each step is linear, so the deviation is a product; median and quartiles, which no clip moves."""
    alpha, sigma = grid(steps, form)
    a, b, c, d = alpha[1:], alpha[:-1], sigma[1:], sigma[:-1]
    factor = np.prod((b * a * S**2 + d * c) / (a**2 * S**2 + c**2))
    exact_mean, exact_std = M - alpha[-1] * M * factor, factor
    assert (exact_mean, exact_std) == (
        pytest.approx(mean, abs=1.1e-3),
        pytest.approx(std, abs=1.1e-3),
    )

    def eps(params, x, t):
        al, si = told(t, steps, alpha), told(t, steps, sigma)
        return si * (x - al * M) / (al**2 * S**2 + si**2)

    low, middle, high = np.quantile(drawn(config(steps, form), of(eps)), [0.25, 0.5, 0.75])
    error = exact_std / np.sqrt(DRAWS)
    assert abs(middle - exact_mean) < 5 * 1.26 * error + 1e-5
    assert abs((high - low) / 1.34898 - exact_std) < 5 * 1.17 * error + 1e-5


@pytest.mark.parametrize(("form", "clip"), [("printed", False), ("cumulative", True)])
def test_the_chain_and_its_gradient_are_those_written_apart(form, clip):
    """Step by step in eps, a <- (alpha'/alpha) a - (alpha' sigma/alpha - sigma') e, and every level gets a gradient.

    The noise has a part of its own at each level, `p`; where estimates are clipped, e is what agrees with them.
    """
    steps, draws = 4, 6
    alpha, sigma = grid(steps, form)
    p = 0.05 * np.random.default_rng(0).standard_normal(steps + 1)
    target = np.linspace(-0.9, 0.9, draws)[:, None] * (
        1.6 if clip else 1.0
    )  # beyond the box, where it is clipped

    def eps(p, x, t):
        return (x - told(t, steps, alpha) * (target + 0.3 * x)) / told(t, steps, sigma) + told(
            t, steps, p
        )

    def by_hand(p, z):
        x = z
        for k in range(steps, 0, -1):
            e = (x - alpha[k] * (target + 0.3 * x)) / sigma[k] + p[k]
            if clip:
                e = (x - alpha[k] * np.clip((x - sigma[k] * e) / alpha[k], -1, 1)) / sigma[k]
            x = (
                alpha[k - 1] / alpha[k] * x
                - (alpha[k - 1] * sigma[k] / alpha[k] - sigma[k - 1]) * e
            )
        return np.clip(x, -1, 1)

    cfg = config(steps, form, clip_denoised=clip)
    (_, al), (_, si) = grid(1, form)
    z = drawn(config(1, form), of(lambda _, x, t: (x - al * 0.1 * x) / si), (), draws)
    z = (
        z / 0.1
    )  # with one step a_0 = (z - sigma e) / alpha, here z / 10: the first noise of this key
    assert np.ptp(z) > 1
    found = drawn(cfg, of(eps), jnp.asarray(p, jnp.float32), draws)
    np.testing.assert_allclose(found, by_hand(p, z), atol=2e-3)
    run = lambda p: dom2.sample_action(
        cfg, of(eps), jax.random.key(0), p, jnp.zeros((draws, 1)), ONE
    ).sum()
    slope = np.asarray(jax.grad(run)(jnp.asarray(p, jnp.float32)))
    nudge = 1e-6 * np.eye(steps + 1)
    want = [(by_hand(p + e, z).sum() - by_hand(p - e, z).sum()) / 2e-6 for e in nudge]
    np.testing.assert_allclose(slope, want, rtol=0.01, atol=5e-3)
    reached = (
        slope[1:-1] if clip else slope[1:]
    )  # a clip may hold all estimates of the noisiest level at an edge
    assert slope[0] == 0 and np.all(np.abs(reached) > 0.02), "a level without gradient"


def of_two_modes(x, alpha, sigma, mode=0.6, spread=0.05):
    """The exact noise of half N(mode, spread^2) and half N(-mode, spread^2)."""
    variance = alpha**2 * spread**2 + sigma**2
    tilt = (
        np.tanh(alpha * mode * x / variance)
        if isinstance(x, np.ndarray)
        else jnp.tanh(alpha * mode * x / variance)
    )
    return sigma * (x - alpha * mode * tilt) / variance


@pytest.mark.parametrize(("steps", "near"), [(5, 0.205), (16, 0.861)])
def test_five_levels_blur_two_modes_that_sixteen_keep(steps, near):
    """Share of samples within 0.3 of modes at +-0.6, by the chain in double precision: a fact of N and no network's."""
    alpha, sigma = grid(steps, "cumulative")
    x = np.random.default_rng(0).standard_normal(400_000)
    for k in range(steps, 0, -1):
        e = of_two_modes(x, alpha[k], sigma[k])
        x = alpha[k - 1] / alpha[k] * x - (alpha[k - 1] * sigma[k] / alpha[k] - sigma[k - 1]) * e
    share = lambda x: np.mean(np.abs(np.abs(x) - 0.6) < 0.3)
    assert share(x) == pytest.approx(near, abs=3e-3)
    eps = lambda _, x, t: of_two_modes(x, told(t, steps, alpha), told(t, steps, sigma))
    found = drawn(config(steps, "cumulative"), of(eps))
    assert share(found) == pytest.approx(near, abs=5 * np.sqrt(near * (1 - near) / DRAWS) + 3e-3)


def test_one_step_is_the_first_estimate():
    """N = 1: a_0 = (z - sigma e) / alpha."""
    alpha, sigma = grid(1, "cumulative")
    found = drawn(config(1, "cumulative"), of(lambda _, x, t: (x - alpha[1] * 0.1 * x) / sigma[1]))
    error = 0.1 / np.sqrt(DRAWS)
    assert abs(found.mean()) < 5 * error and abs(found.std() - 0.1) < 5 * error


def test_the_printed_step_is_another_one():
    """Equation 4 as printed at the test point of B.3: 1.575, where the solver's step is 2.644202."""
    alpha, after, x, e = 0.3, 0.8, 0.7, -0.4
    sigma, sigma_after = np.sqrt(1 - alpha**2), np.sqrt(1 - after**2)
    printed = after / alpha * x - sigma * (alpha * sigma_after / (after * sigma) - 1) * e
    right = after / alpha * x - (after * sigma / alpha - sigma_after) * e
    assert (printed, right) == (pytest.approx(1.575, abs=5e-4), pytest.approx(2.644202, abs=1e-6))


def test_padded_columns_are_zero_and_the_rest_does_not_see_them():
    """Of a noise that speaks in every column and listens to all of them."""
    eps = lambda _, x, t: 0.3 * x + 0.1 * x.sum(axis=-1, keepdims=True) + 0.2
    cfg = config(3, "cumulative")
    both = drawn(cfg, of(eps), (), 50, jnp.array([1.0, 0.0]))
    assert np.all(both[:, 1] == 0) and np.all(both[:, 0] != 0)
    deaf = of(lambda _, x, t: jnp.concatenate([0.4 * x[:, :1] + 0.2, x[:, 1:]], axis=-1))
    np.testing.assert_allclose(
        both[:, 0], drawn(cfg, deaf, (), 50, jnp.array([1.0, 0.0]))[:, 0], atol=1e-5
    )


def test_both_schedules_are_a_field():
    assert dataclasses.replace(dom2.Config(), schedule="printed").schedule != dom2.Config().schedule
    eps = lambda _, x, t: 0.9 * x
    one, other = (drawn(config(5, form), of(eps), (), 50) for form in ("printed", "cumulative"))
    assert np.abs(one - other).max() > 0.05

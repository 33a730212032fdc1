"""Gaussian data and a quadratic critic, for which stage 3's resting place is known in closed form."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import repeated_batch

from jaxomarl.algorithms import omsd
from jaxomarl.base import Observation, Spec
from jaxomarl.optim import create
from jaxomarl.stages import score_regularised
from jaxomarl.stages.clone import Policies, policy_optimiser

SPEC = Spec((1, 1), (1, 1), state_dim=1, horizon=1)
STD, K = 0.3, 0.8
Q = np.array([-0.6, 0.1])  # where the critic -k/2 |a - q|^2 is best
FIRST, SLOPE, OFFSET = (
    0.5,
    0.6,
    -0.2,
)  # agent 1's data have mean FIRST, agent 2's have SLOPE a_1 + OFFSET
KAPPA = {"vds": 0.2076, "stable": 0.5198, "score": 1.1112, "delta": 10.417}  # A.9(5), std 0.3
E_W = {"vds": 0.73329, "stable": 1.0, "score": 0.94466, "delta": 12.912}  # A.2
BATCH, STEPS, SEEDS = 64, 600, 24
CFG = omsd.Config(
    policy_batch=BATCH,
    policy_steps=STEPS,
    policy_width=0,
    policy_optimiser="sgd",
    start="-0.7,0.8",
    control_variate=True,
)
RATE = {"vds": 1.0, "stable": 0.5, "score": 0.3, "delta": 0.05}
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def vp(t):
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def eps(past, i, x, t, obs, state, action):
    """sigma (x - alpha m) / (alpha^2 s^2 + sigma^2), m the data's mean given the clean prefix."""
    alpha, sigma = (s[:, None] for s in vp(t))
    mean = jnp.where(i == 0, FIRST, SLOPE * action[:, 0] + OFFSET)
    return sigma * (x - alpha * mean) / (alpha**2 * STD**2 + sigma**2)


def q(past, obs, state, action):
    return -0.5 * K * jnp.sum((action[..., 0] - jnp.asarray(Q, jnp.float32)) ** 2, axis=-1)


@functools.cache
def batch():
    obs, state, line, wide = (jnp.ones((BATCH, *s)) for s in ((2, 1), (1,), (), (2, 1)))
    return repeated_batch(obs, state, wide, line, wide)


@jit
def ends(cfg, keys, batch):
    """Actions [SEEDS, 2] after STEPS updates, started at the cfg's start."""

    def train(key):
        algorithm = omsd.policy(SPEC, cfg, eps, q)
        bias = jnp.arctanh(jnp.array([[-0.7], [0.8]]))
        params = {"out": {"kernel": jnp.zeros((2, 1, 1)), "bias": bias}}
        first = Policies(jax.vmap(partial(create, policy_optimiser(cfg)))(params))
        step = lambda state, key: (algorithm.update(key, state, {}, batch)[0], None)
        state, _ = jax.lax.scan(step, first, jax.random.split(key, STEPS))
        seen = Observation(jnp.ones((2, 1)), jnp.ones((2, 1), bool))
        return algorithm.act(key, state, {}, (), seen)[0][:, 0]

    return jax.vmap(train)(keys)


@functools.cache
def where(weighting, beta, **options):
    """Mean end and its standard error [2]."""
    cfg = dataclasses.replace(
        CFG, weighting=weighting, policy_lr=RATE[weighting], beta=beta, **options
    )
    a = np.asarray(ends(cfg, jax.random.split(jax.random.key(0), SEEDS), batch()))
    return a.mean(axis=0), a.std(axis=0, ddof=1) / SEEDS**0.5


def rest(weighting, beta):
    """(beta k q + kappa m) / (beta k + kappa), agent after agent."""
    kappa, pull = KAPPA[weighting], beta * K
    first = (pull * Q[0] + kappa * FIRST) / (pull + kappa)
    return np.array([first, (pull * Q[1] + kappa * (SLOPE * first + OFFSET)) / (pull + kappa)])


# "stable" is long: its weight is 1 at every t, as test_scores says to 1 %.
WEIGHTINGS = [
    "vds",
    "score",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("stable", "delta")),
]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_fixed_points(weighting):
    """Beta 0 ends at the data's means (0.5, 0.1); other betas at the mix of these and of the critic's best.

    Beta is in units of kappa / k, so that both sides pull alike; kappa's printed digits put at most 4e-4 on the mix.
    """
    for share in (0.0, 0.5, 2.0):
        beta = share * KAPPA[weighting] / K
        mean, error = where(weighting, beta)
        want = rest(weighting, beta)
        np.testing.assert_array_less(
            np.abs(mean - want), 4 * error + 4e-4, err_msg=f"{weighting}, {share}"
        )
        np.testing.assert_array_less(error, 0.01)  # so that the line above says something
    np.testing.assert_allclose(rest(weighting, 0.0), [0.5, 0.1])


@pytest.mark.parametrize("weighting", ["vds", pytest.param("delta", marks=pytest.mark.long)])
def test_normalised_beta_is_the_codes_over_the_mean_weight(weighting):
    beta = 0.5 * KAPPA[weighting] / K
    code, error = where(weighting, beta)
    normalised, _ = where(weighting, beta / E_W[weighting], beta_convention="normalised")
    np.testing.assert_allclose(normalised, code, atol=1e-4)
    np.testing.assert_array_less(np.abs(normalised - rest(weighting, beta)), 4 * error + 4e-4)
    wrong, _ = where(weighting, beta / E_W[weighting])
    assert np.abs(wrong - code).max() > 0.05, "the comparison would not notice a missing E[w]"


@pytest.mark.parametrize(("weighting", "printed"), E_W.items())
def test_mean_weights(weighting, printed):
    """E[w] over U(0.02, 0.98), and alpha/sigma at t = 0.02, to four digits (a midpoint rule loses the fifth)."""
    cfg = dataclasses.replace(CFG, weighting=weighting, beta=1.0, beta_convention="normalised")
    assert abs(float(score_regularised.internal_beta(cfg)) - printed) < 5.1e-5 * max(1, printed)
    for convention in ("code", "paper"):
        assert (
            score_regularised.internal_beta(
                dataclasses.replace(cfg, beta=0.7, beta_convention=convention)
            )
            == 0.7
        )


def test_the_papers_objective_rests_where_the_codes_does():
    """(A1), ascent on grad Q - (1/beta) E[w (eps - z)], is (A2)'s step over beta: the same beta, the same end."""
    beta, t = 0.2, np.linspace(0.02, 0.98, 4001)
    alpha, sigma = (np.asarray(s, float) for s in vp(t))
    kappa = np.trapezoid(sigma**2 * sigma * alpha / (alpha**2 * STD**2 + sigma**2), t) / 0.96
    a = np.array([-0.7, 0.8])
    for _ in range(2000):
        a = a - 0.05 * (K * (a - Q) + kappa * (a - np.array([FIRST, SLOPE * a[0] + OFFSET])) / beta)
    np.testing.assert_allclose(a, rest("vds", beta), atol=4e-4)
    paper, error = where("vds", beta, beta_convention="paper")
    np.testing.assert_array_less(np.abs(paper - a), 4 * error + 4e-4)
    np.testing.assert_array_equal(paper, where("vds", beta)[0])

"""MA-EDP: the one-step action and the sampler's under an exact score, its loss by hand, and the better mode."""

import dataclasses

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import PAST, SPEC, batch_of, filled, jit, refused
from judges import DIFFUSERS, difference, largest, learned, modes, near_x

from jaxomarl.algorithms import edp
from jaxomarl.diffusion.samplers import dpm_solver
from jaxomarl.diffusion.schedules import alpha_sigma_at, vp
from jaxomarl.networks.mlp import Network
from jaxomarl.policies.diffusion import Diffuser, sample

LEARN = edp.Config(**DIFFUSERS, candidates=1)
STEP = dataclasses.replace(LEARN, policy_width=8, levels=2, clip=1e6)
MASK = jnp.ones(1)


def exact(mean, std, levels):
    """The diffusion policy whose noise is exactly that of data N(mean, std^2)."""

    def eps(params, x, t, obs):
        alpha, sigma = alpha_sigma_at(vp(), t, x)
        return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    return Diffuser(Network(lambda key: (), eps), vp(), dpm_solver, levels)


def one_step(policy, t, key, size=4000, std=0.0, mean=0.4):
    k_a, k_z = jax.random.split(key)
    a = mean + std * jax.random.normal(k_a, (size, 1))
    alpha, sigma = alpha_sigma_at(vp(), t, a)
    x = alpha * a + sigma * jax.random.normal(k_z, a.shape)
    t = jnp.full(size, t)
    e = policy.net.apply((), x, t, jnp.zeros((size, 1)))
    return a, edp.one_step(policy.schedule, x, t, e, MASK)


def test_the_one_step_action_is_the_samplers_where_the_data_are_one_point():
    """An exact score of a point mass leads to the point from every x and t, by one call or by the chain."""
    policy = exact(0.4, 0.0, 15)
    chain = sample(policy, jax.random.key(0), (), jnp.zeros((200, 1)), MASK)
    np.testing.assert_allclose(chain, 0.4, atol=2e-3)
    for t in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(one_step(policy, t, jax.random.key(1), 200)[1], 0.4, atol=2e-3)


def test_as_t_goes_to_zero_the_one_step_action_has_the_samplers_law():
    """For N(0.4, 0.2^2): the chain of many steps draws it, and line 5 returns the data's own action.

    At late times line 5 narrows to the mean, with standard deviation alpha s^2 / sqrt(alpha^2 s^2 + sigma^2).
    """
    policy, s = exact(0.4, 0.2, 200), 0.2
    drawn = sample(policy, jax.random.key(0), (), jnp.zeros((4000, 1)), MASK)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0.4, 0.2], atol=0.02)
    a, near = one_step(policy, 1e-3, jax.random.key(1), std=s)
    np.testing.assert_allclose([near.mean(), near.std()], [drawn.mean(), drawn.std()], atol=0.02)
    np.testing.assert_allclose(near, np.clip(a, -1, 1), atol=0.05)
    for t in (0.2, 0.6):
        alpha, sigma = alpha_sigma_at(vp(), t, a)
        found = one_step(policy, t, jax.random.key(1), std=s)[1]
        np.testing.assert_allclose(
            found.std(), alpha * s**2 / np.sqrt(alpha**2 * s**2 + sigma**2), atol=0.01
        )


def test_a_late_one_step_action_stays_in_the_box():
    """Without the clip a wrong noise at t = 1 would be thrown 1 / alpha = 152 times as far."""
    policy = Diffuser(
        Network(lambda key: (), lambda params, x, t, obs: 0.0 * x), vp(), dpm_solver, 2
    )
    assert np.abs(one_step(policy, 1.0, jax.random.key(0))[1]).max() == 1.0


@pytest.fixture(scope="module")
def update():
    def stepped(cfg, state):
        with near_x(edp):
            return edp.policy(SPEC, cfg).update(jax.random.key(1), state, PAST, batch_of())

    step = jit(stepped)
    return lambda state, **changed: step(dataclasses.replace(STEP, **changed), state)


@pytest.fixture(scope="module")
def state():
    return filled(edp.policy(SPEC, STEP))


def push(update, state, eta=2.0, **changed):
    return difference(*(update(state, eta=e, critic_lr=0.0, **changed)[0] for e in (eta, 0.0)))


def test_the_gradient_of_q_reaches_the_policy_by_one_call(update, state):
    one = push(update, state)
    assert largest(one) > 1e-3
    assert alone.far(
        push(update, state, eta=4.0), jax.tree.map(lambda g: 2 * g, one)
    ) < 1e-3 * largest(one)
    tripled = push(update, alone.judged(state, scale=3.0))
    assert alone.far(tripled, one) < 1e-3 * largest(one)


def test_times_beyond_t_max_are_not_valued(update, state):
    """At t_max below every drawn time there is no push left, and between some of it."""
    assert largest(push(update, state, t_max=1e-4)) == 0.0
    half, whole = push(update, state, t_max=0.5), push(update, state)
    assert largest(half) > 1e-4 and alone.far(half, whole) > 1e-4


@pytest.mark.long
def test_without_value_it_clones_and_with_value_it_takes_the_better_mode():
    actions = learned(edp, LEARN, 500, eta=(0.0, 30.0))
    good, bad = modes(actions[0, :, :, 0])
    assert np.all(good > 0.25) and np.all(bad > 0.1), (good, bad)
    good, bad = modes(actions[1, :, :, 0])
    assert np.all(good > 0.75) and np.all(bad < 0.05), (good, bad)
    assert np.all(actions[..., 1, 1] == 0) and np.all(np.abs(actions) <= 1)


@pytest.mark.parametrize(
    "changed", [{"levels": 0}, {"sampler": "euler"}, {"t_max": 0.0}, {"t_max": 1.5}]
)
def test_bad_settings_are_refused(changed):
    refused(edp.check, LEARN, changed)

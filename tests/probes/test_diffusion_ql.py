"""MA-Diffusion-QL: Q's gradient reaches the policy, the divisor is the other head, and the better mode is taken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import ONE_STEP, PAST, SPEC, batch_of, far, filled, jit, judged, refused
from judges import DIFFUSERS, difference, follows_targets, largest, learned, modes, near_x

from jaxomarl.algorithms import diffusion_ql
from jaxomarl.losses.candidates import pick_by_value, soft_value

LEARN = diffusion_ql.Config(**DIFFUSERS, candidates=1)
STEP = dataclasses.replace(LEARN, **ONE_STEP, levels=2)


@pytest.mark.long
def test_without_value_it_clones_and_with_value_it_takes_the_better_mode():
    actions = learned(diffusion_ql, LEARN, 900, eta=(0.0, 10.0))
    good, bad = modes(actions[0, :, :, 0])
    assert np.all(good + bad > 0.7) and np.all(good > 0.25) and np.all(bad > 0.25), (good, bad)
    good, bad = modes(actions[1, :, :, 0])
    assert np.all(good > 0.9) and np.all(bad < 0.02), (good, bad)
    assert np.all(actions[..., 1, 1] == 0) and np.all(np.abs(actions) <= 1)


@pytest.fixture(scope="module")
def update():
    """(state, changed traced fields) -> state, on one batch with one key."""

    def stepped(cfg, state):
        with near_x(diffusion_ql):
            return diffusion_ql.policy(SPEC, cfg).update(
                jax.random.key(1), state, PAST, batch_of()
            )[0]

    step = jit(stepped)
    return lambda state, **changed: step(dataclasses.replace(STEP, **changed), state)


@pytest.fixture(scope="module")
def state():
    return filled(diffusion_ql.policy(SPEC, STEP))


def push(update, state, eta=2.0):
    """The policy's gradient of the value alone."""
    return difference(update(state, eta=eta, critic_lr=0.0), update(state, eta=0.0, critic_lr=0.0))


def test_the_gradient_of_q_reaches_the_policy(update, state):
    one = push(update, state)
    assert largest(one) > 1e-3
    assert far(push(update, state, eta=4.0), jax.tree.map(lambda g: 2 * g, one)) < 1e-3 * largest(
        one
    )
    assert far(push(update, judged(state, scale=3.0)), one) < 1e-3 * largest(one)
    assert largest(push(update, judged(state, shift=50.0))) > 1e-6, "values of one sign"


def test_one_head_drives_and_the_other_divides(update, state):
    """Three times head l divides an agent's push by three, three times head k triples it; each agent has its coin."""

    def scaled(head):
        out = state.critic.params["out"]
        factor = jnp.where(jnp.arange(2) == head, 3.0, 1.0)
        out = jax.tree.map(lambda x: x * factor.reshape(1, 2, *(1,) * (x.ndim - 2)), out)
        return state._replace(
            critic=state.critic._replace(params={**state.critic.params, "out": out})
        )

    one = push(update, state)
    ratio = lambda tree, i: (
        np.vdot(tree["out"]["kernel"][i], one["out"]["kernel"][i])
        / np.sum(one["out"]["kernel"][i] ** 2)
    )
    first, second = push(update, scaled(0)), push(update, scaled(1))
    for i in range(2):
        np.testing.assert_allclose(
            sorted([ratio(first, i), ratio(second, i)]), [1 / 3, 3], rtol=1e-2
        )


def test_next_actions_are_the_target_policys_and_targets_follow(update, state):
    follows_targets(update, state, polyak=0.2)


def test_picking_is_a_draw_from_the_softmax():
    q = jnp.array([0.0, 1.0, 2.0])
    action = jnp.arange(3.0)[:, None]
    assert pick_by_value(action, q) == 2
    drawn = jax.vmap(lambda g: pick_by_value(action, q, g)[0])(
        jax.random.gumbel(jax.random.key(0), (20_000, 3))
    )
    np.testing.assert_allclose(
        np.bincount(np.asarray(drawn).astype(int)) / 20_000, jax.nn.softmax(q), atol=0.01
    )
    np.testing.assert_allclose([soft_value(q, 0.0), soft_value(q, 100.0)], [1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(
        soft_value(q, 1.0), np.sum(np.exp([0, 1, 2]) * [0, 1, 2]) / np.sum(np.exp([0, 1, 2]))
    )


@pytest.mark.parametrize(
    "changed", [{"levels": 0}, {"candidates": 0}, {"policy_batch": 401}, {"reward": "shared"}]
)
def test_bad_settings_are_refused(changed):
    refused(diffusion_ql.check, LEARN, changed)

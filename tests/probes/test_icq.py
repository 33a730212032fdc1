"""MA-ICQ: weights that sum to one and vanish off the data, limits of both temperatures, and the better of two modes."""

import dataclasses
from unittest import mock

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import MODE, PAST, SPEC, jit

from jaxomarl.algorithms import icq
from jaxomarl.base import Episodes, JaxomarlError
from jaxomarl.data.dataset import pack
from jaxomarl.losses.weighting import importance
from jaxomarl.networks.mlp import Network

CFG = icq.Config(
    policy_batch=64, critic_batch=64, policy_width=16, critic_width=16, policy_lr=0.01, critic_lr=0.01, polyak=0.05,
    temperature=0.3, clip=10.0,
)  # fmt: skip
STEP = dataclasses.replace(
    CFG, critic_width=8, clip=1e6, polyak=0.2, gamma=0.9, target_temperature=0.7
)


def learned(cfg, data, steps=250):
    """Actions [N, A] after values and policies; to be called within a compiled function."""
    past = {**PAST, "values": alone.trained(icq.in_sample_values(SPEC, cfg), data, steps)}
    algorithm = icq.policy(SPEC, cfg)
    return alone.played(algorithm, alone.trained(algorithm, data, steps, past=past), 1, past)[0]


# --- the weights ---


def test_weights_sum_to_one_by_hand():
    """w / n is the softmax of u / (temperature std u); a constant or a positive factor changes nothing."""
    u = np.random.default_rng(0).standard_normal((9, 2)) * [3.0, 0.01]
    power = u / (0.5 * u.std(axis=0))
    want = np.exp(power) / np.exp(power).sum(axis=0)
    np.testing.assert_allclose(want.sum(axis=0), 1.0)
    for other in (u, 7.0 * u - 40.0):
        np.testing.assert_allclose(importance(jnp.asarray(other), 0.5) / 9, want, rtol=1e-3)


def test_what_does_not_count_has_no_weight_and_is_not_looked_at():
    u, counts = jnp.array([1.0, jnp.nan, 3.0, jnp.inf]), jnp.array([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(
        importance(u, 1.0, counts), 2 * jax.nn.softmax(jnp.array([-1.0, -jnp.inf, 1.0, -jnp.inf]))
    )
    np.testing.assert_array_equal(importance(u, 1.0, 0 * counts), np.zeros(4))


def test_of_a_small_temperature_only_the_best_is_left_and_of_a_large_one_all():
    u = jnp.array([0.0, 1.0, 4.0, 3.0])
    np.testing.assert_allclose(importance(u, 1e-3), [0, 0, 4, 0], atol=1e-6)
    np.testing.assert_allclose(importance(u, 1e6), np.ones(4), atol=1e-5)
    np.testing.assert_array_equal(importance(jnp.full(3, 2.0), 0.1), np.ones(3))


def test_no_action_off_the_data_is_ever_valued():
    """Critics that say a million of every action but the data's, where they know the mode: the better one is copied."""
    base = alone.two_modes(spread=0.0)
    held = jnp.asarray([-MODE, MODE])

    def value(action):
        seen = jnp.abs(action[..., :1] - held).min(axis=-1) < 1e-6
        return jnp.where(seen, action[..., 0], 1e6)

    fixed = Network(
        lambda key: jnp.zeros(1),
        lambda params, obs, a: jnp.broadcast_to(value(a), (2, *a.shape[:-1])),
    )
    original = icq.agent_networks
    with mock.patch.object(icq, "agent_networks", lambda *args: original(*args)._replace(q=fixed)):
        actions = np.asarray(jit(lambda data: learned(CFG, data))(base))
    np.testing.assert_allclose(actions[SPEC.act_mask > 0], MODE, atol=0.15)


# --- one step of the values, written apart ---


@pytest.fixture(scope="module")
def state():
    return alone.filled(icq.in_sample_values(SPEC, STEP))


@pytest.fixture(scope="module")
def update():
    """(state, batch, changed traced fields) -> (state, metrics)."""
    step = jit(
        lambda cfg, state, b: icq.in_sample_values(SPEC, cfg).update(
            jax.random.key(1), state, PAST, b
        )
    )
    return lambda state, b, **changed: step(dataclasses.replace(STEP, **changed), state, b)


def by_hand(state, b, sarsa=False):
    """Lines 2 to 4 in NumPy, agent by agent: the losses of Q and V."""
    losses = []
    for i in range(2):
        one = lambda tree, i=i: jax.tree.map(lambda x: np.asarray(x)[i], tree)

        def twins(params, obs, action):
            given = np.concatenate([obs, action], axis=-1)
            return np.stack(
                [
                    alone.layers(jax.tree.map(lambda x, k=k: x[k], params), given)[:, 0]
                    for k in (0, 1)
                ]
            )

        obs, action = np.asarray(b.obs[:, i]), np.asarray(b.action[:, i])
        ahead = twins(one(state.critic.target), b.next_obs[:, i], b.next_action[:, i]).min(axis=0)
        on = np.asarray(b.done) == 0
        power = ahead[on] / (STEP.target_temperature * ahead[on].std())
        rho = np.zeros(len(on))
        rho[on] = 1.0 if sarsa else on.sum() * np.exp(power) / np.exp(power).sum()
        y = np.asarray(b.reward[:, i]) + STEP.gamma * rho * ahead
        v = alone.layers(one(state.v.params), obs)[:, 0]
        q_bar = twins(one(state.critic.target), obs, action).min(axis=0)
        q = twins(one(state.critic.params), obs, action)
        losses.append((np.sum(np.mean((q - y) ** 2, axis=1)), np.mean((v - q_bar) ** 2)))
    return np.mean(losses, axis=0)


def test_the_losses_are_those_written_apart(update, state):
    b = alone.batch_of()
    assert 0 < b.done.mean() < 1
    metrics = update(state, b)[1]
    np.testing.assert_allclose([metrics["q_loss"], metrics["v_loss"]], by_hand(state, b), rtol=1e-4)


def test_at_a_large_temperature_the_target_is_sarsas(update, state):
    b = alone.batch_of()
    metrics = update(state, b, target_temperature=1e6)[1]
    np.testing.assert_allclose(metrics["q_loss"], by_hand(state, b, sarsa=True)[0], rtol=1e-4)


def test_padded_columns_of_the_next_action_do_not_count(update, state):
    b = alone.batch_of()
    wide = b._replace(next_action=b.next_action + 5.0 * (1 - SPEC.act_mask))
    assert update(state, wide)[1]["q_loss"] == update(state, b)[1]["q_loss"]


def test_targets_follow(update, state):
    after = update(state, alone.batch_of())[0]
    want = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, after.critic.params, state.critic.target)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), after.critic.target, want
    )
    assert max(np.abs(g).max() for g in jax.tree.leaves(alone.gradient(after.v))) > 1e-3


# --- what is learned ---


@pytest.mark.long
def test_small_temperatures_take_the_better_mode_and_large_ones_clone():
    """The clone's mode is the mean of arctanh of the two, zero; padding stays zero."""
    data = alone.two_modes()
    each = jit(jax.vmap(lambda t: learned(dataclasses.replace(CFG, temperature=t), data)))
    best, clone = np.asarray(each(jnp.array([0.3, 1e6])))
    real = SPEC.act_mask > 0
    np.testing.assert_allclose(best[real], MODE, atol=0.15)
    np.testing.assert_allclose(clone[real], 0.0, atol=0.25)
    assert best[1, 1] == clone[1, 1] == 0


# --- where there is no next action ---


def cut(length, episodes=4, terminal=()):
    """Episodes of so many steps that a time limit cuts, but for those named, which terminate."""
    rows = episodes * (length + 1)
    step = np.tile(np.arange(length + 1), episodes)
    done = np.zeros(rows, np.float32)
    done[[e * (length + 1) + length - 1 for e in terminal]] = 1.0
    wide = np.ones((rows, 2, 2), np.float32)
    blocks = (
        wide * SPEC.obs_mask,
        wide[:, 0, :1],
        wide * SPEC.act_mask,
        wide[..., 0],
        done,
        step,
        length - step,
        0 * step,
    )
    return pack(Episodes(*map(jnp.asarray, blocks)), SPEC)


def test_transitions_without_a_next_action_are_left_out():
    data = cut(3, terminal=(1,))
    found = icq.prepare(SPEC, CFG, data).starts
    np.testing.assert_array_equal(found, [0, 1, 4, 5, 6, 8, 9, 12, 13])
    assert icq.prepare(SPEC, dataclasses.replace(CFG, time_limit="terminal"), data) is data


def test_data_without_any_next_action_are_refused():
    small = dataclasses.replace(CFG, policy_batch=4)
    with pytest.raises(JaxomarlError, match=r"next action.*--cfg.time-limit terminal"):
        icq.check(SPEC, small, cut(1))
    icq.check(SPEC, dataclasses.replace(small, time_limit="terminal"), cut(1))
    icq.check(SPEC, small, alone.bandit(np.ones((4, 2, 2)), np.ones((4, 2))))


@pytest.mark.parametrize(
    "changed", [{"reward": "shared"}, {"policy_batch": 401}, {"critic_steps": 150}]
)
def test_bad_settings_are_refused(changed):
    alone.refused(icq.check, CFG, changed)

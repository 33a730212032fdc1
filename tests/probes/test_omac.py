"""OMAC: one step by hand; the expectile's two ends on an additive game; what its policies copy."""

import dataclasses

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import PAST, SPEC, jit
from coupled_by_hand import ACTIONS, each_agents, first_member, independent, mixing
from scipy.stats import expectile

from jaxomarl.algorithms import omac

CFG = omac.Config(
    policy_batch=128, critic_batch=512, policy_width=16, critic_width=16, mixer_width=8, policy_lr=0.01, critic_lr=5e-3,
    polyak=0.05, clip=10.0, expectile=0.9,
)  # fmt: skip
STEP = dataclasses.replace(CFG, critic_width=8, clip=1e6, polyak=0.2, gamma=0.9, expectile=0.8)


def gap_by_hand(state, b):
    """(u, w) [B, N] of a batch."""
    w = mixing(state.critic.target.mixer, b.state)[0]
    q = each_agents(first_member(state.critic.target.q), b.obs, b.action)
    return q - each_agents(state.v.params, b.obs), w


@pytest.fixture(scope="module")
def state():
    return alone.filled(omac.values(SPEC, STEP))


def test_one_step_of_the_values_is_the_one_written_apart(state):
    b = alone.batch_of()
    stepped, metrics = jit(
        lambda b: omac.values(SPEC, STEP).update(jax.random.key(1), state, PAST, b)
    )(b)
    u, _ = gap_by_hand(state, b)
    assert (u < 0).any() and (u > 0).any()
    slope = np.where(u > 0, 0.8, 0.2)
    np.testing.assert_allclose(metrics["v_loss"], np.mean(slope * u**2), rtol=1e-4)
    # d/dV of |tau - 1[u < 0]| u^2 is -2 |tau - 1[u < 0]| u, a mean over batch and agents
    want = np.mean(-2 * slope * u, axis=0) / 2
    np.testing.assert_allclose(alone.gradient(stepped.v)["out"]["bias"][:, 0], want, rtol=1e-3)

    w, offset = mixing(state.critic.target.mixer, b.next_state)
    ahead = np.sum(w * each_agents(state.v.target, b.next_obs), axis=1) + offset
    y = np.asarray(b.reward).mean(axis=1) + STEP.gamma * (1 - np.asarray(b.done)) * ahead
    w, offset = mixing(state.critic.params.mixer, b.state)
    q = each_agents(first_member(state.critic.params.q), b.obs, b.action)
    error = np.sum(w * q, axis=1) + offset - y
    np.testing.assert_allclose(metrics["q_loss"], np.mean(error**2), rtol=1e-4)


@pytest.mark.parametrize("credit", [True, False])
def test_policies_weigh_by_their_share_of_the_advantage(credit, state):
    cfg = dataclasses.replace(STEP, credit=credit, temperature=40.0)
    past, b = {**PAST, "values": state}, alone.batch_of()
    algorithm = omac.policy(SPEC, cfg)
    first = alone.filled(algorithm, past=past)
    metrics = jit(lambda b: algorithm.update(jax.random.key(1), first, past, b)[1])(b)
    u, w = gap_by_hand(state, b)
    advantage = w * u if credit else u
    weights = np.exp(np.minimum(40.0 * advantage, 20.0))
    assert weights.max() > 100, "the largest weight is not reached"
    np.testing.assert_allclose(metrics["weight"], np.minimum(weights, 100).mean(), rtol=1e-4)


PAID = np.array([[0.0, 0.4, 1.0], [1.0, 0.3, 0.0]])


@pytest.fixture(scope="module")
def learned():
    """(actions' numbers, {tau: values}, the policies' actions at tau 0.9) on an additive game."""

    @jit
    def learn(data, tau):
        cfg = dataclasses.replace(CFG, expectile=tau)
        state = alone.trained(omac.values(SPEC, cfg), data, 800)
        past = {**PAST, "values": state}
        algorithm = omac.policy(SPEC, cfg)
        policy = alone.trained(algorithm, data, 200, past=past)
        return state, alone.played(algorithm, policy, 1, past)[0]

    at, data = independent()
    made = {tau: jax.tree.map(np.asarray, learn(data, jnp.float32(tau))) for tau in (0.5, 0.99)}
    return at, made


def parts(state):
    """(Q_i [3, N] of each action, V_i [N], w [N], b) of the only state, by the targets: they average the noise of the last steps."""
    seen = np.broadcast_to(SPEC.obs_mask, (3, 2, 2))
    q = each_agents(
        first_member(state.critic.target.q), seen, ACTIONS[:, None, None] * SPEC.act_mask
    )
    w, b = (x[0] for x in mixing(state.critic.target.mixer, np.ones((1, 1))))
    return q, each_agents(state.v.target, seen)[0], w, b


@pytest.mark.long
@pytest.mark.parametrize("tau", [0.5, 0.99])
def test_learned_values_are_expectiles_of_the_datas(tau, learned):
    """At 0.5 that is the mean over the data's actions, and at 0.99 nearly the largest."""
    at, made = learned
    q, v, _, _ = parts(made[tau][0])
    chance = [np.bincount(at[:, i], minlength=3) for i in range(2)]
    want = [expectile(q[:, i], tau, weights=chance[i]) for i in range(2)]
    np.testing.assert_allclose(v, want, atol=0.02 * np.ptp(q))
    if tau == 0.99:
        np.testing.assert_array_less(0.9 * q.max(axis=0), v)


@pytest.mark.long
def test_the_team_is_credited_with_what_it_was_paid(learned):
    """Both values share w and b: at tau = 0.99 the team's value is that of its best joint action."""
    state = learned[1][0.99][0]
    q, v, w, b = parts(state)
    total = (w * q)[:, None, 0] + (w * q)[None, :, 1] + b
    np.testing.assert_allclose(total, PAID[0][:, None] + PAID[1][None], atol=0.1)
    np.testing.assert_allclose(w @ v + b, 2.0, atol=0.1)


@pytest.mark.long
def test_each_agent_copies_the_part_that_paid(learned):
    """Agent 0 is paid at its positive mode, agent 1 at its negative one, which are the rarer ones."""
    actions = learned[1][0.5][1]
    assert actions[0, 0] > 0.3 and actions[1, 0] < -0.3 and actions[1, 1] == 0, actions


@pytest.mark.parametrize("changed", [{"reward": "own"}, {"expectile": 1.0}])
def test_bad_settings_are_refused(changed):
    alone.refused(omac.OMAC.check, CFG, changed)

"""OMIGA: local and global values agree on the closed form; one step by hand, the loss beyond its cut, copies."""

import dataclasses
import itertools

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import PAST, SPEC, jit
from coupled_by_hand import ACTIONS, each_agents, first_member, independent, mixing
from scipy.special import logsumexp

from jaxomarl.algorithms import omiga
from jaxomarl.losses.gumbel import CAP, gumbel
from jaxomarl.networks.mixers import linear_mixer, mixed

CFG = omiga.Config(
    policy_batch=128, critic_batch=512, policy_width=16, critic_width=16, mixer_width=8, policy_lr=0.01, critic_lr=5e-3,
    polyak=0.05, clip=10.0, alpha=0.3,
)  # fmt: skip
STEP = dataclasses.replace(CFG, critic_width=8, clip=1e6, polyak=0.2, gamma=0.9, alpha=0.7)


# --- the values' loss ---


def test_the_slope_is_the_policies_weight():
    """exp(z) cut at -10 and 10 as in OMIGA's code: within, at and beyond the cuts, where the loss is two lines."""
    z = jnp.array([-20.0, -CAP, -1.0, 0.0, 3.0, CAP, 12.0, 40.0])
    np.testing.assert_allclose(
        jax.vmap(jax.grad(gumbel))(z), np.exp(np.clip(z, -10, 10)), rtol=1e-5
    )
    np.testing.assert_allclose(gumbel(z[1:6]), np.exp(z[1:6]), rtol=1e-5)
    np.testing.assert_allclose(gumbel(z[6]), np.exp(CAP) * 3, rtol=1e-5)
    np.testing.assert_allclose(gumbel(z[0]), np.exp(-CAP) * -9, rtol=1e-5)


def test_a_value_that_fell_far_behind_is_pulled_up():
    """z = (Q - V) / alpha = 40: where z is cut off within the exponential, V / alpha alone is left and pushes down."""
    loss = lambda v: gumbel(8.0 / 0.2 - v / 0.2) + v / 0.2
    cut = lambda v: jnp.exp(jnp.minimum(8.0 / 0.2 - v / 0.2, CAP)) + v / 0.2
    assert jax.grad(loss)(0.0) < 0 < jax.grad(cut)(0.0)


def test_local_optima_sum_to_the_teams():
    """Two agents that act independently, with three and two actions: the slope is zero at V_i, and the V_i add up."""
    chance, q = (
        [np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.4])],
        [np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.5])],
    )
    w, b, alpha = np.array([0.7, 1.9]), -0.4, 0.5
    v = [alpha / w[i] * logsumexp(w[i] * q[i] / alpha, b=chance[i]) for i in range(2)]
    for i in range(2):
        loss = lambda x, i=i: jnp.sum(
            chance[i] * (gumbel(w[i] * (q[i] - x) / alpha) + w[i] * x / alpha)
        )
        assert abs(jax.grad(loss)(v[i])) < 1e-5 and jax.grad(loss)(v[i] - 0.1) < 0 < jax.grad(loss)(
            v[i] + 0.1
        )
    pairs = list(itertools.product(range(3), range(2)))
    total = [w[0] * q[0][j] + w[1] * q[1][k] + b for j, k in pairs]
    team = alpha * logsumexp(
        np.array(total) / alpha, b=[chance[0][j] * chance[1][k] for j, k in pairs]
    )
    np.testing.assert_allclose(w @ v + b, team, rtol=1e-6)
    np.testing.assert_allclose(mixed(jnp.array([*w, b]), jnp.array(v)), team, rtol=1e-5)


def test_no_weight_is_below_zero():
    mixer = linear_mixer(3, 8, 4)
    s = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    out = np.asarray(mixer.apply(mixer.init(jax.random.key(0)), jnp.asarray(s)))
    assert (
        out.shape == (50, 5)
        and (out[:, :-1] >= 0).all()
        and out[:, :-1].max() > 0 > out[:, -1].min()
    )


# --- one step, written apart ---


@pytest.fixture(scope="module")
def state():
    return alone.filled(omiga.values(SPEC, STEP))


@pytest.fixture(scope="module")
def stepped(state):
    return jit(lambda b: omiga.values(SPEC, STEP).update(jax.random.key(1), state, PAST, b))(
        alone.batch_of()
    )


def z_by_hand(state, b):
    w = mixing(state.critic.target.mixer, b.state)[0]
    q = each_agents(first_member(state.critic.target.q), b.obs, b.action)
    return w * (q - each_agents(state.v.params, b.obs)) / STEP.alpha, w


def test_the_losses_are_those_written_apart(stepped, state):
    b = alone.batch_of()
    w, offset = mixing(state.critic.target.mixer, b.next_state)
    ahead = np.sum(w * each_agents(state.v.target, b.next_obs), axis=1) + offset
    y = np.asarray(b.reward).mean(axis=1) + STEP.gamma * (1 - np.asarray(b.done)) * ahead
    w, offset = mixing(state.critic.params.mixer, b.state)
    q = (
        np.sum(w * each_agents(first_member(state.critic.params.q), b.obs, b.action), axis=1)
        + offset
    )
    np.testing.assert_allclose(stepped[1]["q_loss"], np.mean((q - y) ** 2), rtol=1e-4)
    z, w = z_by_hand(state, b)
    assert z.max() < CAP
    want = np.mean(np.exp(z) + w * each_agents(state.v.params, b.obs) / STEP.alpha)
    np.testing.assert_allclose(stepped[1]["v_loss"], want, rtol=1e-4)


def test_the_values_take_the_weights_as_they_are(stepped, state):
    """V's output bias by hand: mean over batch and agents of w (1 - exp(z)) / alpha; targets follow."""
    z, w = z_by_hand(state, alone.batch_of())
    want = np.mean(w * (1 - np.exp(z)), axis=0) / 2 / STEP.alpha
    np.testing.assert_allclose(alone.gradient(stepped[0].v)["out"]["bias"][:, 0], want, rtol=1e-3)
    for before, after in zip(state, stepped[0], strict=True):
        follow = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, after.params, before.target)
        assert (
            alone.far(after.target, follow) < 1e-6 and alone.far(after.params, before.params) > 1e-3
        )


def test_policies_weigh_by_the_same_z(state):
    past, b = {**PAST, "values": state}, alone.batch_of()
    algorithm = omiga.policy(SPEC, STEP)
    first = alone.filled(algorithm, past=past)
    metrics = jit(lambda b: algorithm.update(jax.random.key(1), first, past, b)[1])(b)
    np.testing.assert_allclose(metrics["weight"], np.exp(z_by_hand(state, b)[0]).mean(), rtol=1e-4)


# --- what is learned ---


@pytest.fixture(scope="module")
def learned():
    """(values, actions) after training on independent agents."""

    @jit
    def learn(data):
        state = alone.trained(omiga.values(SPEC, CFG), data, 800)
        past = {**PAST, "values": state}
        algorithm = omiga.policy(SPEC, CFG)
        return state, alone.played(
            algorithm, alone.trained(algorithm, data, 200, past=past), 1, past
        )[0]

    at, data = independent()
    return at, *jax.tree.map(np.asarray, learn(data))


def test_learned_values_agree_with_their_closed_form_and_with_the_teams(learned):
    """w_i V_i = alpha log E exp(w_i Q_i / alpha); sum_i w_i V_i + b = alpha log E exp(Q_tot / alpha), of nine pairs."""
    at, state, _ = learned
    chance = np.stack([np.bincount(at[:, i], minlength=3) / len(at) for i in range(2)])
    seen = np.broadcast_to(SPEC.obs_mask, (3, 2, 2))
    action = ACTIONS[:, None, None] * SPEC.act_mask
    q = each_agents(first_member(state.critic.target.q), seen, action)  # [3, N]
    v = each_agents(state.v.params, seen)[0]
    w, b = (x[0] for x in mixing(state.critic.target.mixer, np.ones((1, 1))))
    local = [
        CFG.alpha / w[i] * logsumexp(w[i] * q[:, i] / CFG.alpha, b=chance[i]) for i in range(2)
    ]
    np.testing.assert_allclose(w * v, w * local, atol=0.03)
    total = (w * q)[:, None, 0] + (w * q)[None, :, 1] + b
    team = CFG.alpha * logsumexp(total / CFG.alpha, b=np.outer(*chance))
    np.testing.assert_allclose(w @ v + b, team, atol=0.05)
    paid = np.array([0.0, 0.4, 1.0])[:, None] + np.array([1.0, 0.3, 0.0])
    np.testing.assert_allclose(total, paid, atol=0.1)
    greedy, plain = paid.max(), np.sum(np.outer(*chance) * paid)
    assert plain + 0.2 < team < greedy - 0.05, "neither the mean nor the maximum"


def test_each_agent_copies_the_part_that_paid(learned):
    """Agent 0 is paid at its positive mode, agent 1 at its negative one, which are the rarer ones."""
    actions = learned[2]
    assert (actions[0] > 0.3).all() and actions[1, 0] < -0.3 and actions[1, 1] == 0, actions


@pytest.mark.parametrize(
    "changed", [{"reward": "own"}, {"policy_batch": 401}, {"critic_steps": 150}]
)
def test_bad_settings_are_refused(changed):
    alone.refused(omiga.OMIGA.check, CFG, changed)

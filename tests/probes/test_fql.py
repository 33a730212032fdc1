"""MA-FQL and OM2P: fixed points of the student's loss, one step by hand, and which mode is played."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import (
    ONE_STEP,
    PAST,
    SPEC,
    batch_of,
    far,
    filled,
    gradient,
    jit,
    played,
    refused,
    trained,
    two_modes,
)
from judges import given, likes_the_good_mode, modes

from jaxomarl.algorithms import fql, om2p
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import first_moments
from jaxomarl.policies import flows as policies
from jaxomarl.stages import flow

SMALL = dict(policy_batch=64, policy_width=16, policy_lr=1e-2, critic_width=8, clip=10.0)
TAUGHT = dict(flow_batch=64, flow_width=24, flow_lr=1e-2, flow_steps=600, levels=8)
MASK = jnp.array([1.0, 1.0, 0.0])
G = jnp.array([[0.2, -0.3, 0.0], [0.6, 0.1, 0.0]])


def gradient_of(net):
    """Ten times Adam's first moment after one step from zero, within a program."""
    return jax.tree.map(lambda m: 10 * m, first_moments(net))


# --- fixed points ---


def slope(cfg, value, at):
    """The gradient of the loss in the student's outputs."""

    def loss(out):
        q = value(policies.in_box(out, MASK))[None]
        return cfg.alpha * flow.distillation(out, G, MASK) + flow.value_term(cfg, q)[0]

    return np.abs(jax.grad(loss)(at)).max()


@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_a_quadratic_value_pulls_each_action_to_a_mean(alpha):
    """Q = -|a - c|^2 / D rests at (alpha g + c) / (alpha + 1), a spread alpha / (alpha + 1) of g's."""
    cfg = fql.Config(alpha=alpha, normalise_value=False)
    c = jnp.array([0.1, 0.4, 0.0])
    value = lambda a: -(MASK * (a - c) ** 2).sum(-1) / 2
    assert slope(cfg, value, (alpha * G + c) / (alpha + 1)) < 1e-6
    assert slope(cfg, value, G) > 0.05


def test_a_linear_value_shifts_all_actions_alike():
    """Q = c . a / D rests at g + c / (2 alpha), with alpha 0 at a corner; outside it does not pull."""
    cfg = fql.Config(alpha=2.0, normalise_value=False)
    c = jnp.array([0.4, -0.2, 0.0])
    value = lambda a: (c * a).sum(-1) / 2
    assert slope(cfg, value, G + c / 4) < 1e-6
    free = dataclasses.replace(cfg, alpha=0.0)
    np.testing.assert_allclose([slope(free, value, at) for at in (G, 0.99 - 0 * G)], 0.1, rtol=1e-5)
    outside = lambda a: 100.0 * a.sum(-1)
    alone = slope(cfg, lambda a: 0.0 * a.sum(-1), 3.0 + 0 * G)
    assert slope(cfg, outside, 3.0 + 0 * G) == pytest.approx(alone)


def test_a_normalised_value_has_no_scale():
    cfg = fql.Config(eta=2.0)
    q = jnp.array([[1.0, -3.0], [2.0, 4.0]])
    one, mean = flow.value_term(cfg, q)
    assert float(one) == pytest.approx(float(flow.value_term(cfg, 7 * q)[0]))
    assert (float(one), float(mean)) == (pytest.approx(-2.0 * 1.0 / 1.0), 1.0)


# --- one step ---

STEP = fql.Config(**ONE_STEP, flow_width=8, levels=2, policy_batch=16, flow_batch=16)


@pytest.fixture(scope="module")
def past():
    net = policies.team_velocity(SPEC, 8, "separate")
    learner = flow.behaviour_learner(SPEC, STEP, net, 0.1, 16, policies.flow_loss)
    return {**PAST, "flow-own": filled(learner, seed=4)}


@pytest.fixture(scope="module")
def update(past):
    step = jit(
        lambda cfg, state: fql.policy(SPEC, cfg).update(jax.random.key(1), state, past, batch_of())[
            0
        ]
    )
    return lambda state, **changed: step(dataclasses.replace(STEP, **changed), state)


@pytest.fixture(scope="module")
def state(past):
    return filled(fql.policy(SPEC, STEP), past=past)


def test_critics_bootstrap_from_the_student_and_its_loss_does_not_reach_them(update, state):
    """Other students give other targets; other weights of the student's loss give the same critics."""
    first = update(state)
    assert far(update(state, eta=0.0, alpha=0.5).critic, first.critic) == 0
    moved = state._replace(
        actor=state.actor._replace(params=jax.tree.map(lambda x: 3 * x, state.actor.params))
    )
    assert far(gradient(update(moved).critic), gradient(first.critic)) > 1e-3
    assert state.actor.target == () and first.actor.target == ()
    want = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, first.critic.params, state.critic.target)
    assert far(first.critic.target, want) < 1e-6


def test_the_students_gradient_is_a_weighted_sum(update, state):
    """alpha times the distillation's, eta times the value's, and nothing else."""
    at = lambda **weights: gradient(update(state, **weights).actor)
    fit, value = at(alpha=1.0, eta=0.0), at(alpha=0.0, eta=1.0)
    both = at(alpha=2.0, eta=3.0)
    want = jax.tree.map(lambda f, v: 2 * f + 3 * v, fit, value)
    assert far(both, want) < 1e-4 * max(np.abs(x).max() for x in jax.tree.leaves(want))
    assert min(np.abs(x).max() for x in jax.tree.leaves(fit)) > 0


# --- training ---


@pytest.mark.long
def test_it_clones_both_modes_and_a_strong_value_moves_all_actions():
    cfg = fql.Config(**SMALL, **TAUGHT, alpha=0.3)

    data = two_modes()

    @jit
    def learn(etas):
        flow_net = policies.team_velocity(SPEC, cfg.flow_width, "separate")
        teacher = flow.behaviour_learner(SPEC, cfg, flow_net, 1e-2, 64, policies.flow_loss)
        past = {**PAST, "flow-own": trained(teacher, data, 600)}

        def of_eta(eta):
            with given(fql, likes_the_good_mode):
                algorithm = fql.policy(SPEC, dataclasses.replace(cfg, eta=eta))
            return played(algorithm, trained(algorithm, data, 500, past=past), 200, past)

        return jax.lax.map(of_eta, etas)

    actions = np.asarray(learn(jnp.array([0.0, 10.0])))
    good, bad = modes(actions[0, :, :, 0])
    assert np.all(good + bad > 0.8) and np.all(good > 0.25) and np.all(bad > 0.25), (good, bad)
    good, bad = modes(actions[1, :, :, 0])
    assert np.all(good > 0.9) and np.all(bad < 0.02), (good, bad)
    assert np.all(actions[..., 1, 1] == 0)


def test_a_mean_flow_follows_its_critic_through_one_call():
    """The gradient is that of the mean flow's loss, and eta times that of the value."""
    cfg = om2p.Config(**ONE_STEP, policy_batch=16)
    state = filled(om2p.policy(SPEC, cfg))
    batch, key = batch_of(), jax.random.key(1)

    @jit
    def gradients(etas):
        def of_eta(eta):
            algorithm = om2p.policy(SPEC, dataclasses.replace(cfg, eta=eta))
            return gradient_of(algorithm.update(key, state, PAST, batch)[0].actor)

        return jax.lax.map(of_eta, etas)

    def fit(params, i):
        k_fit = jax.random.split(jax.random.split(key, 2)[i], 3)[1]
        net = policies.agent_mean_velocity(SPEC, cfg.policy_width)
        mask = jnp.asarray(SPEC.act_mask[i])
        return policies.mean_flow_loss(
            k_fit, net, params, batch.action[:, i], batch.obs[:, i], mask
        )

    none, one, three = (
        jax.tree.map(lambda x, k=k: x[k], gradients(jnp.array([0.0, 1.0, 3.0]))) for k in range(3)
    )
    value = jax.tree.map(lambda x, y: x - y, one, none)
    size = max(np.abs(x).max() for x in jax.tree.leaves(value))
    assert size > 1e-3
    assert far(jax.tree.map(lambda x, v: x + 3 * v, none, value), three) < 1e-3 * size
    of_agent = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    slope = jit(jax.grad(fit), static_argnums=1)
    for i in range(2):
        assert far(of_agent(none, i), slope(of_agent(state.actor.params, i), i)) < 1e-4


def test_times_are_ordered_and_a_tenth_are_where_policies_act():
    r, t = map(np.asarray, policies.ordered_times(jax.random.key(0), 20_000))
    acting = (r == 0) & (t == 1)
    others = (r < t) & ~acting
    shares = [np.mean(rows) for rows in (r == t, acting, others)]
    np.testing.assert_allclose(shares, [0.5, 0.1, 0.4], atol=0.015)
    assert np.all(r <= t) and t[others].mean() == pytest.approx(2 / 3, abs=0.01)


def test_a_value_weighs_as_in_fql_with_alpha_a_tenth():
    """Data at one point, an exact mean velocity + c at (0, 1), Q = k a: c rests at -eta k / (2 / 10)."""

    def shifted(c, x, r, t, obs):
        r, t = (jnp.broadcast_to(time, x.shape[:-1])[..., None] for time in (r, t))
        return (x - 0.1) / t + c * ((r == 0) & (t == 1))

    net = Network(lambda key: jnp.zeros(()), shifted)
    cfg = om2p.Config(eta=0.5, normalise_value=False)
    action, mask = jnp.full((20_000, 1), 0.1), jnp.ones(1)
    z = jax.random.normal(jax.random.key(1), action.shape)

    def loss(c):
        fit = policies.mean_flow_loss(jax.random.key(0), net, c, action, action, mask)
        played = policies.jump_end(net, c, z, action, mask)
        return fit + flow.value_term(cfg, 0.08 * played.sum(axis=-1)[None])[0]

    rest, still = jax.vmap(jax.grad(loss))(jnp.array([-0.2, 0.0]))
    assert abs(rest) < 0.002 and still == pytest.approx(0.04, rel=0.01)


@pytest.mark.parametrize(
    "module, changed",
    [
        (fql, {"aggregate": "max"}),
        (fql, {"alpha": -1.0}),
        (om2p, {"reward": "shared"}),
        (om2p, {"eta": -1.0}),
    ],
)
def test_bad_settings_are_refused(module, changed):
    more = TAUGHT if module is fql else {}
    refused(module.check, module.Config(**SMALL, **more), changed)


def test_a_flow_s_batch_is_checked_by_its_own_name():
    words = ("--cfg.flow-batch", "400")
    refused(fql.check, fql.Config(**SMALL, **TAUGHT), {"flow_batch": 401}, words)

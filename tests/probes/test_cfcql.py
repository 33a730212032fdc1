"""CFCQL: CQL's term for one agent, separate terms for a sum of values, delays, and a joint bandit."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import (
    MODE,
    ONE_STEP,
    PAST,
    SPEC,
    bandit,
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
from judges import largest
from scipy.special import logsumexp

from jaxomarl.algorithms import cfcql
from jaxomarl.losses.conservative import Proposals, conservative

CFG = cfcql.Config(
    policy_batch=64, policy_width=16, critic_width=16, policy_lr=5e-3, critic_lr=5e-3, polyak=0.05, clip=10.0,
    samples=4, policy_delay=1,
)  # fmt: skip
STEP = dataclasses.replace(CFG, **ONE_STEP)
SAMPLES, BATCH, WIDTH = 5, 7, 2
penalty = partial(jit, static_argnums=(0, 3))(cfcql.penalty)


def drawn(agents, seed=0):
    """(data's actions [B, N, A], proposals [N, M, B, A] of differing densities)."""
    rng = np.random.default_rng(seed)
    action = jnp.asarray(rng.uniform(-1, 1, (BATCH, agents, WIDTH)))
    samples = jnp.asarray(rng.uniform(-1, 1, (agents, SAMPLES, BATCH, WIDTH)))
    return action, Proposals(samples, jnp.asarray(rng.standard_normal((agents, SAMPLES, BATCH))))


# --- the conservative term ---


@pytest.mark.parametrize("resample", ["each", "all"])
def test_for_one_agent_it_is_cqls_term(resample):
    action, sampled = drawn(1)
    q = lambda a: jnp.stack([jnp.sin(3 * a).sum(axis=(-1, -2)), jnp.sum(a**2, axis=(-1, -2))])
    found = penalty(q, action, sampled, resample)
    want = jit(conservative)(q(sampled.action[0][..., None, :]), sampled.log_p[0], q(action))
    np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize("agents", [2, 3])
def test_for_a_sum_of_values_it_is_the_mean_of_each_agents_own_term(agents):
    """Q = sum_j q_j(a_j): the others' values cancel against the data's, which leaves CQL's term of each q_i."""
    action, sampled = drawn(agents)
    own = lambda a: jnp.arange(1, agents + 1) * jnp.sin(2 * a).sum(axis=-1)  # [..., N]
    found = penalty(lambda a: own(a).sum(axis=-1)[None], action, sampled, "each")[0]
    terms = []
    for i in range(agents):
        q = (i + 1) * np.sin(2 * np.asarray(sampled.action[i])).sum(axis=-1) - np.asarray(
            sampled.log_p[i]
        )
        data = (i + 1) * np.sin(2 * np.asarray(action[:, i])).sum(axis=-1)
        terms.append(logsumexp(q, axis=0) - np.log(SAMPLES) - data)
    np.testing.assert_allclose(found, np.mean(terms, axis=0), rtol=1e-4)


def test_a_constant_value_is_told_of_one_agents_box_and_jointly_of_all():
    """Row 11 by counting: (1/N) sum_i log 2^d_i = d log 2 each, and N d log 2 jointly: it grows with the agents."""
    constant = lambda a: jnp.zeros((1, *a.shape[:-2]))
    for agents in (1, 2, 4):
        action, sampled = drawn(agents)
        uniform = sampled._replace(log_p=jnp.full_like(sampled.log_p, -WIDTH * np.log(2)))
        each, whole = (penalty(constant, action, uniform, kind) for kind in ("each", "all"))
        np.testing.assert_allclose(each, WIDTH * np.log(2), rtol=1e-5)
        np.testing.assert_allclose(whole, agents * WIDTH * np.log(2), rtol=1e-5)


# --- one step ---


@pytest.fixture(scope="module")
def update():
    """(state, batch, changed traced fields) -> (state, metrics)."""
    step = jit(
        lambda cfg, state, batch: cfcql.policy(SPEC, cfg).update(
            jax.random.key(1), state, PAST, batch
        )
    )
    return lambda state, b, **changed: step(dataclasses.replace(STEP, **changed), state, b)


@pytest.fixture(scope="module")
def state():
    return filled(cfcql.policy(SPEC, STEP))


def test_the_targets_noise_is_as_wide_as_it_is_asked_for(update, state):
    """The targets' actions are noisy by the config's width, so the critic's step is another one."""
    steps = [update(state, batch_of(), target_noise=x)[0].critic.params for x in (0.0, 0.5, 0.5)]
    still, wide, again = (jax.tree.leaves(step) for step in steps)
    assert any((x != y).any() for x, y in zip(still, wide, strict=True))
    assert all((x == y).all() for x, y in zip(wide, again, strict=True))


def test_a_policy_climbs_beside_the_others_actions_of_the_data(update, state):
    """Other actions of agent 1 in the data change the gradient of agent 0's policy; its own do not."""
    b = batch_of()

    def push(changed):
        action = b.action.at[:, changed, 0].multiply(-1.0) if changed is not None else b.action
        moved = update(state, b._replace(action=action), critic_lr=0.0)[0]
        return jax.tree.map(lambda g: g[0], gradient(moved.actor))

    assert far(push(0), push(None)) < 1e-6 * largest(push(None)) < far(push(1), push(None))


def test_beside_current_policies_the_datas_actions_do_not_count(state):
    cfg = dataclasses.replace(STEP, others="current", critic_lr=0.0)
    step = jit(lambda b: cfcql.policy(SPEC, cfg).update(jax.random.key(1), state, PAST, b)[0].actor)
    b = batch_of()
    assert (
        far(gradient(step(b._replace(action=-b.action))), gradient(step(b)))
        == 0
        < largest(gradient(step(b)))
    )


def test_the_target_is_the_target_policies(update, state):
    b = batch_of()
    step = lambda actor: gradient(update(state._replace(actor=actor), b, penalty=0.0)[0].critic)
    first, moved = step(state.actor), jax.tree.map(lambda x: 30.0 * x, state.actor)
    assert far(step(state.actor._replace(params=moved.params)), first) == 0
    assert far(step(state.actor._replace(target=moved.target)), first) > 1e-4


def test_policies_and_targets_wait(state):
    cfg = dataclasses.replace(STEP, policy_delay=2)
    step = jit(
        lambda state: cfcql.policy(SPEC, cfg).update(jax.random.key(1), state, PAST, batch_of())[0]
    )
    one = step(state)
    assert far(one.actor, state.actor) == 0 and far(one.critic.target, state.critic.target) == 0
    assert far(one.critic.params, state.critic.params) > 1e-4
    two = step(one)
    assert far(two.actor.params, one.actor.params) > 1e-4
    want = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, two.critic.params, one.critic.target)
    assert far(two.critic.target, want) < 1e-6


# --- what is learned ---


@pytest.mark.long
def test_the_team_finds_the_pair_of_modes_that_pays():
    """Two modes each, paid where both are positive: each policy ends on the positive side, with its padding zero."""
    base = two_modes()
    action = np.asarray(base.action)[np.asarray(base.starts)]
    paid = (action[:, :, 0] > 0).all(axis=1).astype(np.float32)
    data = bandit(action, np.stack([paid, paid], axis=1))
    algorithm = cfcql.policy(SPEC, CFG)
    actions = np.asarray(
        jit(lambda data: played(algorithm, trained(algorithm, data, 400), 1)[0])(data)
    )
    assert np.all(actions[SPEC.act_mask > 0] > MODE / 3), actions
    assert actions[1, 1] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"resample": "some"},
        {"others": "past"},
        {"reward": "own"},
        {"policy_delay": 0},
        {"samples": 0},
    ],
)
def test_bad_settings_are_refused(changed):
    refused(cfcql.check, CFG, changed)

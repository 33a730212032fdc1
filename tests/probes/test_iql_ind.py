"""MA-IQL: each agent's action is weighed by its own critic, so it is not copied for what the others did."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import MODE, PAST, SPEC, bandit, batch_of, gradient, jit, layers, refused, two_modes

from jaxomarl.algorithms import iql_ind
from jaxomarl.base import Observation
from jaxomarl.stages import critic

CFG = iql_ind.Config(
    policy_batch=64, policy_width=16, policy_lr=0.01, critic_width=8, critic_batch=64, critic_lr=0.01, clip=1e6
)  # fmt: skip
SEEN = Observation(jnp.asarray(SPEC.obs_mask), jnp.asarray(SPEC.act_mask > 0))


def drawn(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), x.dtype), tree)


@pytest.fixture(scope="module")
def past():
    own = critic.iql(SPEC, CFG, own=True).algorithm
    held = drawn(jax.eval_shape(own.init, jax.random.key(0), PAST, two_modes(2)))
    out = held.v.params["out"]
    lower = {
        **held.v.params,
        "out": {**out, "bias": out["bias"] - 1.0},
    }  # else no advantage is positive
    return {**PAST, "critic-own": held._replace(v=held.v._replace(params=lower))}


def weights_by_hand(past, b, temperature):
    held, out = past["critic-own"], []
    for i in range(2):
        one = lambda tree, i=i: jax.tree.map(lambda x: np.asarray(x)[i], tree)
        given = np.concatenate([b.obs[:, i], b.action[:, i]], axis=-1)
        q = [
            layers(jax.tree.map(lambda p, k=k: p[k], one(held.q.target)), given)[:, 0]
            for k in range(2)
        ]
        v = layers(one(held.v.params), np.asarray(b.obs[:, i]))[:, 0]
        out.append(np.minimum(np.exp(temperature * (np.minimum(*q) - v)), 100.0))
    return np.stack(out, axis=1)


@pytest.mark.parametrize("temperature", [1.0, 30.0])
def test_each_agent_is_weighed_by_its_own_advantage_up_to_100(past, temperature):
    """The mean weight and the gradient of the last layer's bias, by numpy."""
    cfg, b = dataclasses.replace(CFG, temperature=temperature), batch_of()
    algorithm = iql_ind.policy(SPEC, cfg, critic.iql(SPEC, cfg, own=True))
    state = drawn(jax.eval_shape(algorithm.init, jax.random.key(0), past, two_modes(2)))
    state = state._replace(opt=jax.tree.map(jnp.zeros_like, state.opt))
    after, metrics = jit(algorithm.update)(jax.random.key(1), state, past, b)
    w = weights_by_hand(past, b, temperature)
    assert (w >= 100.0).any() == (temperature == 30.0) and w.min() < 1
    np.testing.assert_allclose(metrics["weight"], w.mean(), rtol=1e-4)
    for i in range(2):
        params = jax.tree.map(lambda x, i=i: np.asarray(x)[i], state.params)
        a = np.tanh(layers(params, np.asarray(b.obs[:, i])))
        slope = w[:, i, None] * 2 * SPEC.act_mask[i] * (a - b.action[:, i]) * (1 - a**2)
        np.testing.assert_allclose(
            gradient(after)["out"]["bias"][i], slope.mean(axis=0), rtol=2e-3, atol=1e-5
        )


@pytest.mark.long
def test_an_agent_is_not_copied_for_the_others_luck():
    """Agent 0 alone is paid, 1 for its positive mode: it goes there, and agent 1, paid 0 always, stays at its mean."""
    base = two_modes()
    action = np.asarray(base.action)[np.asarray(base.starts)]
    paid = (action[:, 0, 0] > 0).astype(np.float32)
    action[:, 1, 0] = np.where(np.arange(len(action)) % 4 == 0, MODE, -MODE)
    data = bandit(action, np.stack([paid, 0 * paid], axis=1))
    cfg = dataclasses.replace(CFG, temperature=10.0, clip=10.0, critic_polyak=0.05)
    own = critic.iql(SPEC, cfg, own=True)

    def run(algorithm, past, steps, data):
        def step(state, key):
            return algorithm.update(key, state, past, algorithm.batch(key, state, data))[0], ()

        first = algorithm.init(jax.random.key(1), past, data)
        return jax.lax.scan(step, first, jax.random.split(jax.random.key(2), steps))[0]

    @jit
    def learn(data):
        past = {**PAST, "critic-own": run(own.algorithm, PAST, 300, data)}
        algorithm = iql_ind.policy(SPEC, cfg, own)
        return algorithm.act(jax.random.key(3), run(algorithm, past, 300, data), past, (), SEEN)[0]

    actions = np.asarray(learn(data))
    assert np.all(actions[0] > 0.8 * MODE), actions
    np.testing.assert_allclose(actions[1], [-MODE / 2, 0.0], atol=0.1)


@pytest.mark.parametrize(
    "changed", [{"reward": "team"}, {"policy_batch": 401}, {"critic_steps": 1500}]
)
def test_bad_settings_are_refused(changed):
    refused(iql_ind.check, CFG, changed)

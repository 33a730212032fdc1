"""MAPPO: advantages, one gradient step written apart, cuts and terminations, dead agents; it learns a matrix game."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit

from jaxomarl.algorithms import ppo
from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.data import on_policy
from jaxomarl.envs import catalog

CFG = ppo.Config(envs=8, collect=8, capacity=64, width=8, policy_steps=32, reward_scale=1.0)


def test_advantages_at_both_ends_of_lambda():
    """lambda = 0 has one step; lambda = 1 the discounted return to go, less the value; ends cut the sum."""
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(6, 2, 3)).astype(np.float32)
    last = np.zeros((6, 2), np.float32)
    last[2, 0] = last[5] = 1.0
    of = lambda decay: on_policy.advantages(jnp.asarray(delta), jnp.asarray(last), decay)
    np.testing.assert_allclose(of(0.0), delta, rtol=1e-6)
    found = np.asarray(of(0.9))
    expected = np.zeros_like(delta)
    for e in range(2):
        for t in range(6):
            weight = 1.0
            for k in range(t, 6):
                expected[t, e] += weight * delta[k, e]
                if last[k, e]:
                    break
                weight *= 0.9
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def collected(seed=0, m=12, n=2, width=3, obs=4):
    rng = np.random.default_rng(seed)
    f = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    action = jnp.asarray(np.eye(width, dtype=np.float32)[rng.integers(0, 2, (m, n))])
    legal = jnp.asarray(rng.integers(0, 2, (m, n, width)), jnp.float32).at[..., :2].set(1.0)
    alive = jnp.asarray(rng.integers(0, 2, (m, n)), jnp.float32)
    return on_policy.Collected(
        f(m, n, obs), action, legal, alive, -1.0 + 0.3 * f(m, n), f(m, n), f(m, n), f(m, n)
    )


SPEC = Spec((4, 4), (3, 3), 1, 1, discrete=True)


def drawn():
    """Networks, and parameters of both."""
    nets, _ = ppo.networks(SPEC, CFG)

    @jit
    def init(key):
        k1, k2 = jax.random.split(key)
        return {"actor": nets.actor.init(k1), "value": nets.value.init(k2)}

    return nets, init(jax.random.key(1))


def test_a_step_is_the_papers():
    """The loss of a minibatch against NumPy, term by term, with clipping at work on both sides."""
    nets, params = drawn()
    b = collected()
    loss, metrics = jit(partial(ppo.losses, CFG, nets))(params, b)
    x = jax.tree.map(np.asarray, b)
    logits = np.asarray(jit(nets.actor.apply)(params["actor"], b.obs))
    p = np.where(x.legal > 0, np.exp(logits - logits.max(axis=-1, keepdims=True)), 0.0)
    p /= p.sum(axis=-1, keepdims=True)
    w = x.alive / x.alive.sum()
    centred = x.advantage - (w * x.advantage).sum()
    a = centred / np.sqrt((w * centred**2).sum())
    rho = (p * x.action).sum(axis=-1) / np.exp(x.log_pi)
    assert (rho > 1.2).any() and (rho < 0.8).any()
    gain = (w * np.minimum(rho * a, np.clip(rho, 0.8, 1.2) * a)).sum()
    entropy = -(w * np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=-1)).sum()
    v = np.asarray(jit(nets.value.apply)(params["value"], b.obs))
    near = x.value + np.clip(v - x.value, -0.2, 0.2)
    v_loss = 0.5 * np.maximum((v - x.returns) ** 2, (near - x.returns) ** 2).mean()
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-4)
    assert metrics["v_loss"] == pytest.approx(v_loss, rel=1e-4)
    assert loss == pytest.approx(-gain - 0.01 * entropy + 0.5 * v_loss, rel=1e-4)


def test_dead_agents_move_the_value_and_no_policy():
    nets, params = drawn()
    b = collected()
    dead = b._replace(alive=0 * b.alive)
    grads = jit(jax.grad(lambda p: ppo.losses(CFG, nets, p, dead)[0]))(params)
    assert not any(np.any(x) for x in jax.tree.leaves(grads["actor"]))
    assert all(np.any(x) for x in jax.tree.leaves(grads["value"]))


def test_a_cut_continues_and_a_termination_does_not():
    """The chain of two steps: at its end the value of the successor counts in cut episodes alone."""
    task = catalog.make("games/consensus:n=2,discrete=true")
    spec = task.env.spec
    for done, expected in ((1.0, 1.0), (0.0, 1.0 + 0.99 * 5.0)):
        step = lambda key, state, action, done=done: (
            lambda s, t: (s, t._replace(done=jnp.asarray(done), reward=jnp.ones(2)))
        )(*task.env.step(key, state, action))
        env = task.env._replace(step=step)
        refresh = ppo.collecting(spec, CFG, env)
        algorithm = ppo.policy(spec, CFG, env)
        state = jit(lambda key, init=algorithm.init: init(key, {}, None))(jax.random.key(0))
        flat = jax.tree.map(jnp.zeros_like, state.net.params["value"])
        flat["out"]["bias"] = flat["out"]["bias"] + 5.0
        state = state._replace(net=state.net._replace(params={**state.net.params, "value": flat}))
        after = jax.jit(refresh)(jax.random.key(1), state, {}, None)
        np.testing.assert_allclose(after.collected.returns, expected, rtol=1e-5)
        np.testing.assert_allclose(after.collected.value, 5.0, rtol=1e-6)


def test_minibatches_are_a_partition_of_the_collection():
    """Four updates see every row once, the next four in another order."""
    spec = catalog.make("games/xor").env.spec
    algorithm = ppo.policy(spec, CFG, catalog.make("games/xor").env)
    state = jit(lambda key: algorithm.init(key, {}, None))(jax.random.key(0))
    numbered = state.collected._replace(value=jnp.arange(64.0)[:, None].repeat(2, axis=1))
    state = state._replace(collected=numbered)
    take = jax.jit(lambda state: algorithm.batch(jax.random.key(0), state, None).value[:, 0])
    seen = []
    for _ in range(8):
        seen.append(np.asarray(take(state)))
        opt = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.int32 else x, state.net.opt)
        state = state._replace(net=state.net._replace(opt=opt))
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    np.testing.assert_array_equal(np.sort(first), np.arange(64))
    np.testing.assert_array_equal(np.sort(second), np.arange(64))
    assert (first != second).any()


@pytest.mark.parametrize("critic", ["joint", pytest.param("own", marks=pytest.mark.long)])
def test_it_finds_the_best_of_an_additive_payoff(critic):
    task = catalog.make("games/additive")
    spec = task.env.spec
    cfg = dataclasses.replace(CFG, policy_steps=1600, lr=0.01, critic=critic, entropy=0.0)
    algorithm = ppo.policy(spec, cfg, task.env)
    refresh = ppo.collecting(spec, cfg, task.env)

    @jax.jit
    def train(key):
        def scan(state, key):
            k_refresh, key = jax.random.split(key)
            state = refresh(k_refresh, state, {}, None)

            def step(state, key):
                rows = algorithm.batch(key, state, None)
                return algorithm.update(key, state, {}, rows)[0], None

            return jax.lax.scan(step, state, jax.random.split(key, cfg.chunk))[0], None

        state = algorithm.init(key, {}, None)
        state, _ = jax.lax.scan(scan, state, jax.random.split(key, 60))
        return state.collected

    rows = train(jax.random.key(0))
    assert float((rows.action[:, :, 1]).mean()) > 0.9, "both agents play their second action"


def test_what_is_refused():
    with pytest.raises(JaxomarlError, match="matd3"):
        ppo.check(Spec((1,), (1,), 1, 1), CFG, None)
    with pytest.raises(JaxomarlError, match="minibatches"):
        ppo.check(SPEC, dataclasses.replace(CFG, minibatches=3), None)

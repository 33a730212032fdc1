"""MA-CQL's critics fear the unseen; OMAR's search against ones written apart, and out of a local optimum."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import PAST, SPEC, bandit, batch_of, far, filled, jit, layers, played, refused, trained

from jaxomarl.algorithms import cql, omar
from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.networks.actors import start_at
from jaxomarl.networks.mlp import Network
from jaxomarl.stages import decentralised

SEARCHES = {
    "softmax": omar.Config(search="softmax", iterations=3, candidates=10),
    "elites": omar.Config(search="elites", iterations=2, candidates=20, elites=5),
}
SMALL = {
    "policy_width": 8,
    "critic_width": 8,
    "samples": 4,
    "candidates": 6,
    "iterations": 2,
    "elites": 3,
}
KEY = jax.random.key(1)

# --- MA-CQL ---


def test_unseen_actions_fall_below_seen_ones():
    """All rows play 0.5 and are paid 1: with the penalty, Q on the rest of the box is lower, without it is not."""
    rng = np.random.default_rng(0)
    data = bandit(0.5 + 0.05 * rng.standard_normal((200, 2, 2)), np.ones((200, 2)))
    cfg = cql.Config(policy_width=8, critic_width=16, policy_batch=32, samples=10, clip=10.0)

    @jit
    @jax.vmap
    def learn(penalty):
        algorithm = cql.policy(SPEC, dataclasses.replace(cfg, penalty=penalty))
        return trained(algorithm, data, 200).critic.params

    held = jax.tree.map(np.asarray, learn(jnp.array([0.0, 1.0])))
    gaps = np.zeros((2, 2, 2))
    for p, i, k in np.ndindex(2, 2, 2):
        one = jax.tree.map(lambda x, p=p, i=i, k=k: x[p, i, k], held)
        q = lambda a, one=one, i=i: layers(one, np.append(SPEC.obs_mask[i], a * SPEC.act_mask[i]))[
            0
        ]
        unseen = [q(np.full(2, a)) for a in (-0.9, -0.5, 0.0)]
        gaps[p, i, k] = q(np.full(2, 0.5)) - max(unseen)
    assert np.all(gaps[1] > 0.3), gaps
    assert np.all(gaps[0] < 0.5 * gaps[1]), gaps


def test_proposals_stand_where_they_should():
    """A third all over the box, a third around pi(o) and one around pi(o'); each with its own log-density."""
    cfg = cql.Config(samples=200, penalty_from="policy", penalty_std=0.1)
    b = batch_of(2)
    case = decentralised.AgentBatch(
        b.obs[:, 1], b.action[:, 1], b.reward[:, 1], b.next_obs[:, 1], b.done, SPEC.act_mask[1]
    )
    case = jax.tree.map(jnp.asarray, case)
    nets = decentralised.agent_networks(
        SPEC, dataclasses.replace(cfg, policy_width=8, critic_width=8)
    )
    small = cql.policy(SPEC, cql.Config(policy_width=8, critic_width=8))
    state = jax.tree.map(lambda x: jnp.asarray(x[1]), filled(small))

    @jit
    def proposed(key, state, case):
        caught = []
        keep = lambda *args: (caught.append(args[-1]), (state, {}))[1]
        with mock.patch.object(decentralised, "critic_step", keep):
            decentralised.cql_step(key, cfg, nets, state, case)
        return caught[0].action, caught[0].log_p

    action, log_p = map(np.asarray, proposed(KEY, state, case))
    assert action.shape == (600, 2, 2) and np.all(action[..., 1] == 0)
    for k, obs in ((1, case.obs), (2, case.next_obs)):
        mine = np.tanh(layers(state.actor.params, np.asarray(obs)))[:, 0]
        group = action[200 * k : 200 * (k + 1), :, 0]
        assert np.all(np.abs(group.mean(axis=0) - mine) < 0.1) and np.all(
            np.abs(group - mine) < 0.6
        )
        z = (group - mine) / 0.1
        unbounded = -0.5 * z**2 - np.log(0.1 * np.sqrt(2 * np.pi))
        extra = (
            log_p[200 * k : 200 * (k + 1)] - unbounded
        )  # what lies beyond the box is shared out within
        assert np.all(extra > -1e-3) and np.all(np.ptp(extra, axis=0) < 1e-2)
    np.testing.assert_allclose(log_p[:200], -np.log(2), rtol=1e-6)
    assert np.ptp(action[:200, :, 0]) > 1.8


# --- OMAR's search ---


def quadratic(peak):
    return lambda a: (
        -np.sum((a - peak) ** 2, axis=-1)
        if isinstance(a, np.ndarray)
        else -jnp.sum((a - peak) ** 2, -1)
    )


def by_hand(cfg, value, a, z):
    """Lines 3-5 for each state by itself, in plain Python."""
    found = np.zeros_like(a)
    for b in range(len(a)):
        mu, sigma, kept = np.zeros(a.shape[1]), np.full(a.shape[1], 2.0), np.zeros((0, a.shape[1]))
        for drawn in z[:, :, b]:
            pool = np.concatenate([np.clip(mu + sigma * drawn, -1, 1), kept])
            q = value(pool)
            if cfg.search == "softmax":
                w = np.exp(q - q.max())
                mu = (w[:, None] * pool).sum(axis=0) / w.sum()
                sigma = np.sqrt(((pool - mu) ** 2).mean(axis=0))
            else:
                kept = pool[np.argsort(-q, kind="stable")[: cfg.elites]]
                mu, sigma = kept.mean(axis=0), kept.std(axis=0, ddof=1)
        pool = np.concatenate([a[b : b + 1], pool])
        found[b] = pool[np.argmax(value(pool))]
    return found


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_search_is_that_written_apart(kind):
    """It nears the top of a concave hill and is never below pi(o)."""
    cfg, rng, peak = SEARCHES[kind], np.random.default_rng(0), np.array([0.4, -0.3])
    a = rng.uniform(-1, 1, (30, 2))
    a[0] = peak  # nothing is better
    z = rng.standard_normal((cfg.iterations, cfg.candidates, 30, 2))
    run = jit(lambda a, z: omar.search(cfg, quadratic(peak), a, z, jnp.ones(2)))
    found = np.asarray(run(jnp.asarray(a, jnp.float32), jnp.asarray(z, jnp.float32)), np.float64)
    np.testing.assert_allclose(found, by_hand(cfg, quadratic(peak), a, z), atol=1e-5)
    before, after = -quadratic(peak)(a), -quadratic(peak)(found)
    assert np.all(after <= before + 1e-6)
    assert after.mean() < 0.2 * before.mean()
    np.testing.assert_allclose(found[0], peak, atol=1e-6)


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_search_leaves_padded_columns_alone(kind):
    cfg, rng = SEARCHES[kind], np.random.default_rng(1)
    z = jnp.asarray(rng.standard_normal((cfg.iterations, cfg.candidates, 4, 2)), jnp.float32)
    hill, mask = quadratic(np.array([0.2, 0.9])), jnp.array([1.0, 0.0])
    found = jit(lambda z: omar.search(cfg, hill, jnp.zeros((4, 2)), z, mask))(z)
    assert np.all(np.asarray(found)[:, 1] == 0) and np.all(np.asarray(found)[:, 0] != 0)


# --- OMAR's policies ---


def two_hills(obs, action):
    """A low hill at -0.6 where the policy starts, a high one at 0.6, and a flat valley between: [E, ...]."""
    hill = lambda centre, height: (
        height * jnp.exp(-jnp.sum((action[..., :1] - centre) ** 2, axis=-1) / 0.02)
    )
    q = hill(-0.6, 1.0) + hill(0.6, 2.0)
    return jnp.stack([q, q])


@pytest.mark.parametrize("kind", SEARCHES)
def test_it_escapes_the_local_optimum_where_the_gradient_does_not(kind):
    """The critic is fixed. At c = 0 the policy stays on the hill it starts on; with the search it takes the higher."""
    cfg = dataclasses.replace(
        SEARCHES[kind], policy_width=8, policy_batch=16, samples=2, policy_lr=0.03
    )
    original = decentralised.agent_networks

    def fixed(*args, **kwargs):
        nets = original(*args, **kwargs)
        start = lambda key: start_at(nets.actor.init(key), jnp.full(2, -0.55))
        q = Network(lambda key: jnp.zeros(1), lambda params, obs, action: two_hills(obs, action))
        return nets._replace(actor=Network(start, nets.actor.apply), q=q)

    data = bandit(np.zeros((16, 2, 2)), np.zeros((16, 2)))

    @jit
    @jax.vmap
    def learn(coefficient):
        with mock.patch.object(decentralised, "agent_networks", fixed):
            algorithm = omar.policy(SPEC, dataclasses.replace(cfg, coefficient=coefficient))
        return played(algorithm, trained(algorithm, data, 150), 1)[0, :, 0]

    still, escaped, pulled = np.asarray(learn(jnp.array([0.0, 0.9, 1.0])))
    np.testing.assert_allclose(still, -0.6, atol=0.05)
    np.testing.assert_allclose(escaped, 0.6, atol=0.15)
    np.testing.assert_allclose(pulled, 0.6, atol=0.15)


def test_without_the_search_it_is_cql_step_for_step():
    pick = {k: v for k, v in SMALL.items() if k in ("policy_width", "critic_width", "samples")}
    ours = omar.policy(SPEC, omar.Config(**SMALL, coefficient=0.0, penalty_from="policy"))
    theirs = cql.policy(SPEC, cql.Config(**pick, penalty_from="policy"))
    start = filled(ours)

    def two_steps(algorithm):
        step, state = jit(lambda key, state, b: algorithm.update(key, state, PAST, b)[0]), start
        for k in range(2):
            state = step(jax.random.key(k), state, batch_of(seed=k))
        return state

    one, other = two_steps(ours), two_steps(theirs)
    assert (
        far((one.actor.params, one.critic.params), (other.actor.params, other.critic.params)) < 1e-5
    )
    assert far(one.actor.params, start.actor.params) > 1e-3


@pytest.mark.parametrize(
    ("system", "changed", "words"),
    [
        (omar, {"search": "greedy"}, ["--cfg.search", "softmax, elites"]),
        (omar, {"search": "elites", "elites": 11}, ["--cfg.elites", "candidates = 10", "found 11"]),
        (omar, {"search": "elites", "elites": 1}, ["--cfg.elites", "found 1"]),
        (omar, {"policy_batch": 401}, ["--cfg.policy-batch", "16 transitions"]),
        (cql, {"penalty_from": "data"}, ["--cfg.penalty-from", "uniform, policy"]),
        (cql, {"samples": 0}, ["--cfg.samples"]),
        (cql, {"policy_batch": 401}, ["--cfg.policy-batch", "16 transitions"]),
    ],
)
def test_bad_settings_are_refused(system, changed, words):
    data = bandit(np.zeros((16, 2, 2)), np.zeros((16, 2)))
    refused(system.check, system.Config(policy_batch=16), changed, words, data)


def test_omar_takes_continuous_actions_alone():
    with pytest.raises(JaxomarlError, match="continuous actions"):
        omar.check(Spec((2,), (2,), 1, 1, discrete=True), omar.Config(), None)

"""MA-BRAC: the penalty is the KL, on normals and on their actions; targets by hand; alpha from clone to critic."""

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
    QUICK,
    SPEC,
    batch_of,
    far,
    filled,
    jit,
    layers,
    played,
    refused,
    trained,
    two_modes,
)
from judges import given, likes_the_good_mode

from jaxomarl.algorithms import brac
from jaxomarl.losses.gaussian import EDGE, Normal, divergence, log_density, squashed
from jaxomarl.networks.actors import LOG_STD

CFG = brac.Config(
    policy_batch=64, clone_batch=64, policy_width=16, critic_width=16, policy_lr=0.01, clone_lr=0.01, critic_lr=0.01,
    polyak=0.05, clip=10.0,
)  # fmt: skip
STEP = dataclasses.replace(CFG, **ONE_STEP, gamma=0.9, alpha=0.7)
KEY, ONE = jax.random.key(1), jnp.ones(1)


def normal(mean, std):
    return Normal(jnp.array([mean]), jnp.log(jnp.array([std])))


# --- the penalty ---


def test_the_divergence_by_hand():
    """KL(N(1, 1) || N(0, 4)) = log 2 + (1 + 1) / 8 - 1/2, and the other way round -log 2 + (4 + 1) / 2 - 1/2."""
    p, q = normal(1.0, 1.0), normal(0.0, 2.0)
    np.testing.assert_allclose(divergence(p, q, ONE), np.log(2) + 0.25 - 0.5, rtol=1e-5)
    np.testing.assert_allclose(divergence(q, p, ONE), -np.log(2) + 2.5 - 0.5, rtol=1e-5)
    assert divergence(p, p, ONE) == 0


@pytest.mark.parametrize(
    ("p", "q"), [((0.3, 0.4), (-0.2, 0.5)), ((-0.9, 0.3), (0.1, 0.6)), ((0.0, 0.2), (0.0, 0.7))]
)
def test_it_is_that_of_the_actions_themselves(p, q):
    """By the integral of p log p/q over the box, of the densities of tanh(u), each of which holds a mass of one."""
    p, q = normal(*p), normal(*q)
    a = jnp.linspace(-EDGE, EDGE, 40_001)[:, None]
    log_p, log_q = (np.asarray(log_density(x, a, ONE), float) for x in (p, q))
    grid = np.asarray(a[:, 0], float)
    np.testing.assert_allclose(
        [np.trapezoid(np.exp(x), grid) for x in (log_p, log_q)], 1.0, atol=2e-3
    )
    found = np.trapezoid(np.exp(log_p) * (log_p - log_q), grid)
    np.testing.assert_allclose(divergence(p, q, ONE), found, rtol=5e-3)


def test_padded_columns_cost_nothing():
    mask = jnp.array([1.0, 0.0])
    p, q = Normal(jnp.array([1.0, 5.0]), jnp.zeros(2)), Normal(jnp.zeros(2), jnp.ones(2))
    first = [Normal(x.mean[:1], x.log_std[:1]) for x in (p, q)]
    np.testing.assert_allclose(divergence(p, q, mask), divergence(*first, ONE), rtol=1e-6)
    np.testing.assert_allclose(
        log_density(p, jnp.array([0.3, 0.9]), mask), log_density(first[0], jnp.array([0.3]), ONE)
    )
    assert squashed(p, 1.0, mask)[1] == 0


# --- one step, written apart ---


@pytest.fixture(scope="module")
def past():
    return {**PAST, "behaviour": filled(brac.behaviour_clone(SPEC, STEP), seed=5)}


@pytest.fixture(scope="module")
def state(past):
    return filled(brac.policy(SPEC, STEP), past=past)


@pytest.fixture(scope="module")
def update(state, past):
    """(value_penalty, changed traced fields) -> (state, metrics), on one batch with one key."""

    def step(cfg, free):
        alike = {c.value_penalty: brac.policy(SPEC, c) for c in (cfg, free)}
        return {k: algorithm.update(KEY, state, past, batch_of()) for k, algorithm in alike.items()}

    both = jit(step)
    free = dataclasses.replace(STEP, value_penalty=False)
    return lambda penalty, **changed: both(
        *(dataclasses.replace(c, **changed) for c in (STEP, free))
    )[penalty]


def by_hand(state, past, b, penalty):
    """Lines 4 to 7 in NumPy, agent by agent: the losses, and the divergence at o."""
    out = []
    for i, width in enumerate(SPEC.act_dims):
        one = lambda tree, i=i: jax.tree.map(lambda x: np.asarray(x)[i], tree)
        k_after, k_play = jax.random.split(jax.random.split(KEY, 2)[i])

        def heads(params, obs, width=width):
            mean, raw = np.split(layers(params, np.asarray(obs)), 2, axis=-1)
            log_std = LOG_STD[0] + (LOG_STD[1] - LOG_STD[0]) * (np.tanh(raw) + 1) / 2
            return mean[:, :width], np.exp(log_std[:, :width])

        def kl(params, obs, heads=heads, one=one):
            (m, s), (n, t) = heads(params, obs), heads(one(past["behaviour"].params), obs)
            return np.sum(np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5, axis=-1)

        def drawn(key, params, obs, heads=heads, width=width):
            m, s = heads(params, obs)
            z = np.asarray(jax.random.normal(key, (len(m), SPEC.act_width)))[:, :width]
            return np.pad(np.tanh(m + s * z), ((0, 0), (0, SPEC.act_width - width)))

        def twins(params, obs, action):
            taken = np.concatenate([obs, action], axis=-1)
            return np.stack(
                [layers(jax.tree.map(lambda x, k=k: x[k], params), taken)[:, 0] for k in (0, 1)]
            )

        obs, then = np.asarray(b.obs[:, i]), np.asarray(b.next_obs[:, i])
        actor, critic = one(state.actor), one(state.critic)
        ahead = twins(critic.target, then, drawn(k_after, actor.target, then)).min(axis=0)
        ahead = ahead - (STEP.alpha * kl(actor.target, then) if penalty else 0.0)
        y = np.asarray(b.reward[:, i]) + STEP.gamma * (1 - np.asarray(b.done)) * ahead
        q_loss = np.sum(
            np.mean((twins(critic.params, obs, np.asarray(b.action[:, i])) - y) ** 2, axis=1)
        )
        q = twins(critic.params, obs, drawn(k_play, actor.params, obs)).min(axis=0)
        held = kl(actor.params, obs)
        out.append((q_loss, np.mean(STEP.alpha * held - q), held.mean()))
    return np.mean(out, axis=0)


@pytest.mark.parametrize("penalty", [True, False])
def test_the_losses_are_those_written_apart(update, state, past, penalty):
    b, metrics = batch_of(), update(penalty, critic_lr=0.0)[1]
    assert 0 < b.done.mean() < 1
    found = [metrics[k] for k in ("q_loss", "policy_loss", "divergence")]
    np.testing.assert_allclose(found, by_hand(state, past, b, penalty), rtol=1e-3)


def test_both_targets_follow(update, state):
    after = update(True)[0]
    for before, now in zip(state, after, strict=True):
        want = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, now.params, before.target)
        assert far(now.target, want) < 1e-6 and far(now.params, before.params) > 1e-3


def test_policies_start_as_their_clones(past):
    """Line 2; the long test below sees it in what is played."""
    first = jit(brac.policy(SPEC, STEP).init)(jax.random.key(0), past, two_modes(2))
    for params in (first.actor.params, first.actor.target):
        assert far(params, past["behaviour"].params) == 0.0


# --- what is learned ---


@pytest.fixture(scope="module")
def learned():
    """Actions [alpha, N, A] of the clone, and of policies under critics that like the good mode, at small and large."""
    data = two_modes()

    # XLA's older fusions without optimisations make the first step at the large alpha nan; training has the newer ones.
    older = jax.__version__.startswith(
        "0.10."
    )  # newer jaxlib has the newer fusions alone, and no option

    @partial(
        jax.jit,
        compiler_options={**QUICK, **({"xla_cpu_use_fusion_emitters": True} if older else {})},
    )
    def learn(alphas):
        clone = trained(brac.behaviour_clone(SPEC, CFG), data, 250)
        past = {**PAST, "behaviour": clone}

        def one(alpha):
            with given(brac, likes_the_good_mode):
                algorithm = brac.policy(SPEC, dataclasses.replace(CFG, alpha=alpha))
            first = algorithm.init(jax.random.key(0), past, data)
            ends = [first, trained(algorithm, data, 250, past=past)]
            return jnp.stack([played(algorithm, state, 1, past)[0] for state in ends])

        return jax.vmap(one)(alphas)

    return np.asarray(learn(jnp.array([1e-3, 1e3])))


@pytest.mark.long
def test_it_starts_as_the_clone_and_alpha_holds_it_there(learned):
    """Of two even modes the clone's middle is zero; at a high price the policy stays, at a low one it climbs."""
    real = SPEC.act_mask > 0
    (start, free), (same, held) = learned
    np.testing.assert_array_equal(start, same)
    np.testing.assert_allclose(start[real], 0.0, atol=0.25)
    np.testing.assert_allclose(held, start, atol=0.05)
    np.testing.assert_allclose(free[:, 0], MODE, atol=0.1)


@pytest.mark.long
def test_padding_is_zero(learned):
    assert not learned[..., 1, 1].any()


@pytest.mark.parametrize(
    "changed", [{"reward": "shared"}, {"policy_batch": 401}, {"clone_steps": 150}]
)
def test_bad_settings_are_refused(changed):
    refused(brac.check, CFG, changed)

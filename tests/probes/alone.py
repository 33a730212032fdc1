"""What the probes of agents that learn apart share: a padded pair of agents, bandits of two modes, and training."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from starts import numpy_start

from jaxomarl.base import Batch, Dataset, Episodes, JaxomarlError, Observation, Spec
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import identity
from jaxomarl.optim import first_moments

SPEC = Spec(
    (2, 1), (2, 1), state_dim=1, horizon=1
)  # the second agent is padded in what it sees and does
PAST = {"stats": identity(SPEC)}
MODE = 0.6
ONE_STEP = dict(policy_width=8, critic_width=8, clip=1e6, polyak=0.2)
"""Settings of one step that is written apart: small networks, no gradient cut, targets that move."""
# Programs of a few hundred numbers run for milliseconds: compiling them is all they cost.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=QUICK)
jit_loop = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
"""For hundreds of updates, which run longer than they compile."""


def bandit(action, reward, team="mean") -> Dataset:
    """One-step episodes of `action` [L, N, A] and `reward` [L, N], each with its successor row."""
    rows = len(action)
    pair = lambda x: (
        np.stack([x, np.zeros_like(x)], axis=1).reshape(2 * rows, *x.shape[1:]).astype(np.float32)
    )
    obs = np.ones((rows, 2, 2)) * SPEC.obs_mask
    step = np.tile(np.array([0, 1], np.int32), rows)
    blocks = (
        pair(obs),
        pair(np.ones((rows, 1))),
        pair(action * SPEC.act_mask),
        pair(reward),
        pair(np.ones(rows)),
    )
    return pack(Episodes(*map(jnp.asarray, (*blocks, step, 1 - step, 0 * step))), SPEC)


def two_modes(rows=400, spread=0.05, seed=0) -> Dataset:
    """Each agent plays +-MODE in all its columns at random, and is paid 1 for the positive mode, 0 for the other."""
    rng = np.random.default_rng(seed)
    good = rng.integers(0, 2, (rows, 2))
    action = MODE * (2 * good - 1)[..., None] + spread * rng.standard_normal((rows, 2, 2))
    return bandit(action, good)


def batch_of(size=16, seed=0) -> Batch:
    """Transitions that differ in everything; padded columns are zero."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    coins = lambda: rng.integers(0, 2, size).astype(np.float32)
    reward, ones = draw(size, 2), np.ones((size, 2, 2), np.float32)
    found = Batch(
        obs=draw(size, 2, 2) * SPEC.obs_mask,
        state=draw(size, 1),
        action=np.tanh(draw(size, 2, 2)) * SPEC.act_mask,
        reward=reward,
        team_reward=reward.mean(axis=1),
        next_obs=draw(size, 2, 2) * SPEC.obs_mask,
        next_state=draw(size, 1),
        next_action=np.tanh(np.random.default_rng(seed + 99).standard_normal((size, 2, 2)))
        * SPEC.act_mask,
        done=coins(),
        last=coins(),
        known=ones[:, 0, 0],
        alive=ones[..., 0],
        available=ones,
        next_available=ones,
    )
    return jax.tree.map(jnp.asarray, found)


def trained(algorithm, data, steps, seed=3, past=PAST):
    """The state after so many updates, each on its own draw; to be called within a compiled function."""

    def step(state, key):
        k_batch, k_update = jax.random.split(key)
        return algorithm.update(k_update, state, past, algorithm.batch(k_batch, state, data))[0], ()

    k_init, k_steps = jax.random.split(jax.random.key(seed))
    return jax.lax.scan(step, algorithm.init(k_init, past, data), jax.random.split(k_steps, steps))[
        0
    ]


def played(algorithm, state, draws, past=PAST):
    """Actions [draws, N, A] under the data's one observation, each with a key of its own."""
    seen = Observation(jnp.asarray(SPEC.obs_mask), jnp.asarray(SPEC.act_mask > 0))
    one = lambda key: algorithm.act(key, state, past, (), seen)[0]
    return jax.vmap(one)(jax.random.split(jax.random.key(9), draws))


def filled(algorithm, seed=11, past=PAST):
    """The state that `init` makes, its parameters and targets drawn by numpy, each differently."""
    return numpy_start(algorithm.init, past, two_modes(2), seed)


def refused(check, good, changed, words=(), data=None):
    """`check` takes the settings `good`; `changed`, its error has all `words`, or else the flag of what is changed."""
    data = two_modes() if data is None else data
    check(SPEC, good, data)
    with pytest.raises(JaxomarlError) as error:
        check(SPEC, dataclasses.replace(good, **changed), data)
    flags = [f"--cfg.{name.replace('_', '-')}" for name in changed]
    assert [w for w in words or flags if w not in str(error.value)] == [], str(error.value)


def far(one, other):
    """The largest difference between two trees."""
    return max(
        float(np.abs(np.asarray(x) - y).max())
        for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def layers(params, x, activation=lambda x: np.maximum(x, 0)):
    """Two hidden layers and a linear one."""
    for name in ("Dense_0", "Dense_1"):
        x = activation(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["out"]["kernel"] + params["out"]["bias"]


def gradient(net):
    """Ten times Adam's first moment after one step from zero."""
    return jax.tree.map(lambda m: 10 * np.asarray(m), first_moments(net))


def judged(state, scale=1.0, shift=0.0):
    """The state with critics that say scale Q + shift."""
    out = state.critic.params["out"]
    out = {"kernel": scale * out["kernel"], "bias": scale * out["bias"] + np.float32(shift)}
    return state._replace(critic=state.critic._replace(params={**state.critic.params, "out": out}))

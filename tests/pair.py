"""Two systems that are traced in a second, for tests of what is around a training: kills, torn files, devices.

`weighted` is a critic and, behind it, a clone that follows the rows by what the critic says of them; `clone` is the
policy alone. Updates read the random key, and the state holds moments of an optimiser, so that what is restored wrongly
gives other numbers. `--import` of registers_pair.py makes both known to a command.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxomarl.base import Algorithm, Stage, System
from jaxomarl.config import config, static
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.optim import Net, create, descend


@config
class Config:
    chunk: int = static(default=5)
    every: int = static(default=2)
    critic_steps: int = static(default=20)
    critic_batch: int = static(default=8)
    critic_width: int = static(default=8)
    critic_lr: float = 0.01
    policy_steps: int = static(default=20)
    policy_batch: int = static(default=8)
    policy_width: int = static(default=8)
    policy_lr: float = 0.01


class Learner(NamedTuple):
    net: Net


def two_layers(key, agents, inputs, width, outputs):
    """A network for each agent, whose parameters lead with it."""
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (agents, inputs, width)) / inputs**0.5,
        "second": jax.random.normal(second, (agents, width, outputs)) / width**0.5,
    }


def apply(params, x):
    """[B, N, I] -> [B, N, O]."""
    hidden = jnp.tanh(jnp.einsum("bni,niw->bnw", x, params["first"]))
    return jnp.einsum("bnw,nwo->bno", hidden, params["second"])


def judge(params, batch):
    """The reward of each agent's row, [B, N]."""
    return apply(params, jnp.concatenate([batch.obs, batch.action], axis=-1))[..., 0]


def learner(spec, size, rate, rows, loss, act=None):
    """An algorithm that steps a network of `size` (inputs, width, outputs) down `loss(params, batch, key, past)`."""
    tx = optax.adam(rate)

    def init(key, past, data):
        return Learner(create(tx, two_layers(key, spec.agents, *size)))

    def batch(key, state, data):
        return sample_transitions(key, data, rows)

    def update(key, state, past, batch):
        value, grads = jax.value_and_grad(loss)(state.net.params, batch, key, past)
        return Learner(descend(tx, state.net, grads)), {"loss": value}

    return Algorithm(init, batch, update, act)


def noisy(key, batch):
    """The batch with noise on what agents see."""
    return batch._replace(obs=batch.obs + 0.1 * jax.random.normal(key, batch.obs.shape))


def critic(spec, cfg):
    def loss(params, batch, key, past):
        return jnp.mean((judge(params, noisy(key, batch)) - batch.reward) ** 2)

    size = spec.obs_width + spec.act_width, cfg.critic_width, 1
    return learner(spec, size, cfg.critic_lr, cfg.critic_batch, loss)


def policy(spec, cfg):
    mask = jnp.asarray(spec.act_mask)

    def play(params, obs):
        return mask * jnp.tanh(apply(params, obs))

    def loss(params, batch, key, past):
        weight = jnp.exp(judge(past["critic"].net.params, batch)) if "critic" in past else 1.0
        error = (play(params, noisy(key, batch).obs) - batch.action) ** 2
        return jnp.mean(weight * error.sum(axis=-1))

    def act(key, state, past, memory, observation):
        return play(state.net.params, observation.obs[None])[0], memory

    size = spec.obs_width, cfg.policy_width, spec.act_width
    return learner(spec, size, cfg.policy_lr, cfg.policy_batch, loss, act)


OF_CRITIC = ("chunk", "critic_steps", "critic_batch", "critic_width", "critic_lr")
OF_POLICY = ("chunk", "policy_steps", "policy_batch", "policy_width", "policy_lr")


def last(spec, cfg, owner, fields):
    algorithm = policy(spec, cfg)
    return Stage("policy", algorithm, cfg.policy_steps, cfg.chunk, cfg.every, fields, owner)


def clone(spec, cfg, env=None):
    return (last(spec, cfg, "clone", OF_POLICY),)


def weighted(spec, cfg, env=None):
    first = Stage("critic", critic(spec, cfg), cfg.critic_steps, cfg.chunk, cfg.every, OF_CRITIC)
    return first, last(spec, cfg, "weighted", (*OF_CRITIC, *OF_POLICY))


def any_task(spec, cfg, data):
    """They take every task."""


def as_it_is(spec, cfg, data):
    return data


WEIGHTED = System(Config, any_task, as_it_is, weighted)
CLONE = System(Config, any_task, as_it_is, clone)

"""Behaviour cloning by mean squared error: a whole system in one file, as small as it can be."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxomarl.base import Algorithm, Stage, System, refuse
from jaxomarl.config import config, static
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.networks.actors import actor
from jaxomarl.networks.agents import separate
from jaxomarl.optim import Net, create, descend


@config
class Config:
    chunk: int = static(default=100)
    every: int = static(default=1)
    steps: int = static(default=200)
    batch: int = static(default=32)
    width: int = static(default=16)
    lr: float = 3e-3


class Cloned(NamedTuple):
    actor: Net


def cloning(spec, cfg):
    net = separate(actor(spec.obs_width, (cfg.width,), spec.act_width), spec.agents)
    tx, mask = optax.adam(cfg.lr), jnp.asarray(spec.act_mask)

    def play(params, obs):
        return mask * net.apply(params, obs * spec.obs_mask)

    def init(key, past, data):
        return Cloned(create(tx, net.init(key)))

    def batch(key, state, data):
        return sample_transitions(key, data, cfg.batch)

    def update(key, state, past, batch):
        def loss(params):
            return jnp.mean(mask * (play(params, batch.obs) - batch.action) ** 2)

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        return Cloned(descend(tx, state.actor, grads)), {"loss": value}

    def act(key, state, past, memory, observation):
        return play(state.actor.params, observation.obs), memory

    return Algorithm(init, batch, update, act)


def check(spec, cfg, data):
    if cfg.steps % cfg.chunk:
        raise refuse("--cfg.steps", "whole chunks", cfg.steps, "")


def pipeline(spec, cfg, env=None):
    fields = ("chunk", "steps", "batch", "width", "lr")
    return (
        Stage(
            "cloning", cloning(spec, cfg), cfg.steps, cfg.chunk, cfg.every, fields, owner="cloning"
        ),
    )


CLONING = System(Config, check, lambda spec, cfg, data: data, pipeline)

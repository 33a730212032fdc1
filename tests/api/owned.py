"""A system and a task from outside the package, as small as they can be; importing this registers neither."""

import jax.numpy as jnp

from jaxomarl.base import Algorithm, Stage, System
from jaxomarl.config import config, static
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.envs.games import bandit

TINY = {"rows": 40, "episodes": 2, "final_episodes": 3, "steps": 4, "chunk": 2}


@config
class Config:
    rate: float = 0.1
    drawn_rows: int = static(default=32)
    steps: int = static(default=200, scaled="steps")
    chunk: int = static(default=50)


def mean_action(spec, cfg):
    """A policy that plays the data's mean action."""

    def init(key, past, data):
        return jnp.zeros((spec.agents, spec.act_width))

    def batch(key, state, data):
        return sample_transitions(key, data, cfg.drawn_rows)

    def update(key, state, past, batch):
        gap = batch.action.mean(axis=0) - state
        return state + cfg.rate * gap, {"gap": jnp.abs(gap).mean()}

    def act(key, state, past, memory, observation):
        return state, memory

    return Algorithm(init, batch, update, act)


def check(spec, cfg, data):
    """It takes every task."""


def prepare(spec, cfg, data):
    return data


def pipeline(spec, cfg, env=None):
    return (Stage("mean", mean_action(spec, cfg), cfg.steps, cfg.chunk, owner="mean-action"),)


MEAN = System(Config, check, prepare, pipeline)


def quiet_bandit(scale: float = 1.0):
    """The bandit, under a name of its own."""
    return bandit()._replace(rows=60)

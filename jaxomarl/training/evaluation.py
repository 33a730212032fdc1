"""Evaluation rollouts of R runs at once, on the same episodes for every system."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Past, Stage, State
from jaxomarl.envs.rollout import episodes

RESETS = 20_240  # the evaluation's own stream, apart from every training seed's
Pipeline = Callable[[Any], tuple[Stage, ...]]


def reset_keys(count: int) -> Key[Array, " E"]:
    """The E episodes that every system, seed and evaluation meets."""
    return jax.random.split(
        jax.random.fold_in(jax.random.key(RESETS), zlib.crc32(b"evaluation")), count
    )


def act_keys(seed: int, step: int, count: int) -> Key[Array, " E"]:
    """A run's own randomness while it is evaluated at a training step."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"evaluation"))
    return jax.random.split(jax.random.fold_in(key, step), count)


def evaluate_one(
    env: Environment,
    make: Pipeline,
    index: int,
    cfg: Any,
    state: State,
    past: Past,
    act_keys: Array,
    reset_keys: Array,
) -> dict[str, Float[Array, " E"]]:
    """Play one run's E episodes: `return`, `length` and the environment's infos. A NaN is passed on, never hidden."""
    algorithm = make(cfg)[index].algorithm
    policy = algorithm.act
    assert policy is not None

    def act(key, memory, observation):
        return policy(key, state, past, memory, observation)

    with jax.default_matmul_precision("highest"):
        return episodes(env, act, algorithm.memory, reset_keys, act_keys)

"""Evaluation episodes of R runs at once: every system meets the same episodes."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Past, Stage, State
from jaxomarl.envs.rollout import episodes

RESETS = 20_240
"""Seed of the evaluations' own random stream, apart from every training seed's."""

Config = Any
"""One system's settings, a frozen dataclass; inside a program its traced fields are tracers."""
MakeStages = Callable[[Config], tuple[Stage, ...]]
"""config -> the stages of a system."""


def reset_keys(count: int) -> Key[Array, " E"]:
    """Keys of the E episodes that every system, seed and evaluation meets."""
    key = jax.random.fold_in(jax.random.key(RESETS), zlib.crc32(b"evaluation"))
    return jax.random.split(key, count)


def act_keys(seed: int, step: int, count: int) -> Key[Array, " E"]:
    """Keys of a run's own randomness while it is evaluated at a training step."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"evaluation"))
    return jax.random.split(jax.random.fold_in(key, step), count)


def evaluate_one(
    env: Environment,
    make: MakeStages,
    index: int,
    cfg: Config,
    state: State,
    past: Past,
    act_keys: Array,
    reset_keys: Array,
) -> dict[str, Float[Array, " E"]]:
    """Roll out E episodes of one run: `return`, `length` and the environment's infos.

    A NaN is passed on, never hidden.
    """
    algorithm = make(cfg)[index].algorithm
    policy = algorithm.act
    assert policy is not None

    def act(key, memory, observation):
        return policy(key, state, past, memory, observation)

    with jax.default_matmul_precision("highest"):
        return episodes(env, act, algorithm.memory, reset_keys, act_keys)

"""The final evaluation: finished policies rolled out from fresh starts, many of them, different for every seed.

While a system trains, all seeds meet the same few starts, which ranks them well and says little of others. The final
evaluation has a stream of its own that neither training nor its evaluations use. Start e of seed s is the same for
every system, so that systems can be compared seed by seed, and the same however many episodes are asked for.
"""

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Past, Spec, Stage, State
from jaxomarl.config import stack
from jaxomarl.training import evaluation, sharding

STREAM = zlib.crc32(b"final evaluation")
WIDTH = 128
"""Episodes of one policy that a processor rolls out side by side: more are no faster, and memory is bounded."""
ROOM = 1 << 30
"""Numbers that an accelerator holds of the episodes it rolls out side by side: 4 GiB of float32."""
MOST = 10_000_000
"""Episodes of an evaluation at most: their keys and returns lie in memory together."""
FEWER = 4
"""Final episodes of a stage whose evaluations are dear, for each of its evaluations in training."""

Pipeline = Callable[[Spec, Any, Environment | None], tuple[Stage, ...]]
Returns = dict[str, Float[np.ndarray, "R E"]]
"""Metric -> value of each run and episode."""


# --- how many, and from where ---


def default_episodes(usual: int, dear: int) -> int:
    """Episodes of a final evaluation where none are asked for.

    `usual` is the task's number. `dear` is `Stage.episodes` of the stage: 0, or how few it plays in training, and then
    the final evaluation takes FEWER times as many at most.
    """
    return min(usual, FEWER * dear) if dear else usual


def reset_keys(seed: int, count: int) -> Key[Array, " E"]:
    """The first `count` fresh starts of a seed, the same for all systems."""
    key = jax.random.fold_in(jax.random.key(evaluation.RESETS), STREAM)
    return _each(jax.random.fold_in(key, seed), count)


def act_keys(seed: int, count: int) -> Key[Array, " E"]:
    """A policy's own randomness in each of these episodes."""
    return _each(jax.random.fold_in(jax.random.key(seed), STREAM), count)


@functools.partial(jax.jit, static_argnames="count")
def _each(key: Key[Array, ""], count: int) -> Key[Array, " E"]:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))


# --- how much at once ---


def piece(platform: str, episodes: int, runs: int, largest: int) -> int:
    """Episodes of each run that are rolled out at once: a pure rule of sizes and device.

    A processor takes runs one after another, WIDTH episodes of each side by side: what a run gets does not depend on
    how many stand next to it, nor, from WIDTH on, on how many episodes are asked for. An accelerator takes all runs
    at once, and as many episodes of each as it has ROOM for; `largest` counts the numbers of the largest array that
    acting makes in one episode, of which a few are held at a time.
    """
    if platform == "cpu":
        return min(episodes, WIDTH)
    return max(1, min(episodes, ROOM // (8 * runs * largest)))


def largest_array(act: Callable, *args: Any) -> int:
    """Numbers in the largest array that a function makes, by tracing alone."""

    def of(jaxpr: Any) -> int:
        most = 1
        for equation in jaxpr.eqns:
            shapes = (getattr(out.aval, "shape", ()) for out in equation.outvars)
            inner = jaxprs_in_params(equation.params)
            most = max([most, *map(math.prod, shapes), *map(of, inner)])
        return most

    return of(jax.make_jaxpr(act)(*args).jaxpr)


# --- rolling out ---


def roll_out(
    env: Environment,
    pipeline: Pipeline,
    spec: Spec,
    cfgs: Sequence[Any],
    seeds: Sequence[int],
    state: State,
    past: Past,
    episodes: int,
    attempts: int = 1,
    pause: Callable[[], None] = lambda: None,
) -> Returns:
    """Roll out R finished policies for E fresh starts each: metric -> [R, E * attempts].

    `state` (of the last stage) and `past` lead with R, and `cfgs` agree in their static fields. With `attempts` an
    episode is played so often from each start, by other draws of the policy. `pause` is called between pieces, and may
    raise. A NaN is passed on, never hidden.
    """
    count = episodes * attempts
    resets = jnp.stack([jnp.repeat(reset_keys(seed, episodes), attempts) for seed in seeds])
    acts = jnp.stack([act_keys(seed, count) for seed in seeds])
    platform = jax.default_backend()
    devices = sharding.mesh(len(seeds))
    size = sharding.padded(len(seeds), devices)
    here = size // devices.size
    largest = 1
    if platform != "cpu":
        largest = _largest(env, pipeline, spec, cfgs[0], state, past)
    width = piece(platform, count, here, largest)
    how = "map" if platform == "cpu" else "vmap"
    fixed = sharding.place((stack(list(cfgs)), state, past), devices, size)

    found = []
    for first in range(0, count, width):
        pause()
        rows = np.minimum(np.arange(first, first + width), count - 1)  # the last piece is filled up
        keys = sharding.place((resets[:, rows], acts[:, rows]), devices, size)
        shown = _piece(
            *fixed, *keys, env=env, pipeline=pipeline, spec=spec, how=how, devices=devices
        )
        found.append(jax.tree.map(np.asarray, shown))
    return {
        k: np.concatenate([x[k] for x in found], axis=1)[: len(seeds), :count] for k in found[0]
    }


@functools.partial(jax.jit, static_argnames=("env", "pipeline", "spec", "how", "devices"))
def _piece(
    cfgs: Any,
    state: State,
    past: Past,
    resets: Key[Array, "R P"],
    acts: Key[Array, "R P"],
    *,
    env: Environment,
    pipeline: Pipeline,
    spec: Spec,
    how: str,
    devices: Mesh,
) -> dict[str, Float[Array, "R P"]]:
    """P episodes of each run; compiled once for a system, its static fields, a task and P."""

    def one(cfg, state, past, resets, acts):
        make = lambda cfg: pipeline(spec, cfg, None)
        return evaluation.evaluate_one(env, make, -1, cfg, state, past, acts, resets)

    lifted = sharding.sharded(sharding.over_runs(one, how, 0), devices, 0)
    return lifted(cfgs, state, past, resets, acts)


def _largest(
    env: Environment, pipeline: Pipeline, spec: Spec, cfg: Any, state: State, past: Past
) -> int:
    """Numbers in the largest array of one step of one episode, the policy's and the environment's."""
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (state, past))
    key = evaluation.act_keys(0, 0, 1)

    def one(state, past):
        make = lambda cfg: pipeline(spec, cfg, None)
        return evaluation.evaluate_one(env, make, -1, cfg, state, past, key, key)

    return largest_array(one, *first)

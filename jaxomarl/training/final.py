"""The final evaluation: finished policies are rolled out from fresh starts, many for each seed.

While a system trains, all seeds meet the same few starts. That ranks them well and says little of
other starts. So the final evaluation has a random stream of its own, which neither training nor its
evaluations use. Start e of seed s is the same for every system, so that systems can be compared
seed by seed. It is also the same however many episodes are asked for.
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
from jaxomarl.training.evaluation import Config

STREAM = zlib.crc32(b"final evaluation")
WIDTH = 128
"""Episodes of one policy that a CPU rolls out side by side.

More are no faster, and the limit bounds the memory."""
ROOM = 1 << 30
"""Numbers of all episodes that an accelerator rolls out side by side: 4 GiB of float32."""
MOST = 10_000_000
"""Largest number of episodes: their keys and returns lie in memory together."""
FEWER = 4
"""Final episodes for each training episode, in stages whose evaluations are expensive."""

Pipeline = Callable[[Spec, Config, Environment | None], tuple[Stage, ...]]
Returns = dict[str, Float[np.ndarray, "R E"]]
"""Metric -> value of each run and episode."""


# --- how many, and from where ---


def default_episodes(usual: int, dear: int) -> int:
    """Episodes of a final evaluation where none are asked for.

    `usual` is the task's number. `dear` is the stage's `Stage.episodes`: how few episodes it rolls
    out in training, or 0. Where it is few, the final evaluation takes at most FEWER times as many.
    """
    if not dear:
        return usual
    return min(usual, FEWER * dear)


def reset_keys(seed: int, count: int) -> Key[Array, " E"]:
    """Keys of the first `count` fresh starts of a seed, the same for all systems."""
    key = jax.random.fold_in(jax.random.key(evaluation.RESETS), STREAM)
    return _numbered_keys(jax.random.fold_in(key, seed), count)


def act_keys(seed: int, count: int) -> Key[Array, " E"]:
    """Keys of a policy's own randomness in each of these episodes."""
    return _numbered_keys(jax.random.fold_in(jax.random.key(seed), STREAM), count)


@functools.partial(jax.jit, static_argnames="count")
def _numbered_keys(key: Key[Array, ""], count: int) -> Key[Array, " E"]:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))


# --- how much at once ---


def piece(platform: str, episodes: int, runs: int, largest: int) -> int:
    """Episodes of each run that are rolled out at once: a pure rule of sizes and device.

    A CPU takes runs one after another, and WIDTH episodes of each side by side. So what a run gets
    does not depend on how many runs stand next to it. From WIDTH on, it does not depend on how many
    episodes are asked for.

    An accelerator takes all runs at once, and as many episodes of each as it has ROOM for.
    `largest` counts the numbers of the largest array that acting builds in one episode; a few such
    arrays are alive at a time.
    """
    if platform == "cpu":
        return min(episodes, WIDTH)
    return max(1, min(episodes, ROOM // (8 * runs * largest)))


def largest_array(act: Callable, *args: Any) -> int:
    """Numbers in the largest array that a function builds, by tracing alone."""

    def largest_in(jaxpr: Any) -> int:
        most = 1
        for equation in jaxpr.eqns:
            shapes = [getattr(out.aval, "shape", ()) for out in equation.outvars]
            sizes = [math.prod(shape) for shape in shapes]
            inner = [largest_in(inside) for inside in jaxprs_in_params(equation.params)]
            most = max([most, *sizes, *inner])
        return most

    return largest_in(jax.make_jaxpr(act)(*args).jaxpr)


# --- rolling out ---


def roll_out(
    env: Environment,
    pipeline: Pipeline,
    spec: Spec,
    cfgs: Sequence[Config],
    seeds: Sequence[int],
    state: State,
    past: Past,
    episodes: int,
    attempts: int = 1,
    pause: Callable[[], None] = lambda: None,
) -> Returns:
    """Roll out R finished policies for E fresh starts each: metric -> [R, E * attempts].

    `state` (of the last stage) and `past` lead with R, and `cfgs` agree in their static fields.
    With `attempts`, each start is rolled out so many times, by other draws of the policy. `pause`
    is called between pieces, and may raise. A NaN is passed on, never hidden.
    """
    count = episodes * attempts
    resets = jnp.stack([jnp.repeat(reset_keys(seed, episodes), attempts) for seed in seeds])
    acts = jnp.stack([act_keys(seed, count) for seed in seeds])

    # --- devices, and episodes at once ---
    platform = jax.default_backend()
    devices = sharding.mesh(len(seeds))
    size = sharding.padded(len(seeds), devices)
    if platform == "cpu":
        how = "map"
        largest = 1
    else:
        how = "vmap"
        largest = _largest(env, pipeline, spec, cfgs[0], state, past)
    width = piece(platform, count, size // devices.size, largest)
    fixed = sharding.place((stack(list(cfgs)), state, past), devices, size)

    # --- piece by piece ---
    pieces = []
    for first in range(0, count, width):
        pause()
        # the last piece is filled up with its last episode
        columns = np.minimum(np.arange(first, first + width), count - 1)
        keys = sharding.place((resets[:, columns], acts[:, columns]), devices, size)
        returns = _piece(
            *fixed, *keys, env=env, pipeline=pipeline, spec=spec, how=how, devices=devices
        )
        pieces.append(jax.tree.map(np.asarray, returns))

    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)
    return {name: value[: len(seeds), :count] for name, value in joined.items()}


@functools.partial(jax.jit, static_argnames=("env", "pipeline", "spec", "how", "devices"))
def _piece(
    cfgs: Config,
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
    env: Environment,
    pipeline: Pipeline,
    spec: Spec,
    cfg: Config,
    state: State,
    past: Past,
) -> int:
    """Numbers in the largest array of one step of one episode, policy and environment."""
    one_run = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    shapes = jax.tree.map(one_run, (state, past))
    key = evaluation.act_keys(0, 0, 1)

    def one(state, past):
        make = lambda cfg: pipeline(spec, cfg, None)
        return evaluation.evaluate_one(env, make, -1, cfg, state, past, key, key)

    return largest_array(one, *shapes)

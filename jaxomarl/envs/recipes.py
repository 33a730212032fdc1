"""Data sets from behaviours.

Policies are rolled out on the device, and their episodes are laid back to back.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Environment, Episodes, Observation, Recipe
from jaxomarl.envs.stateless import check_rows

BATCH = 1000
"""Most episodes that are rolled out at once; more do not fit a processor's cache."""
BYTES = 2**28
"""Most memory of the episodes that are rolled out at once."""


class Behaviour(NamedTuple):
    """A policy that collects data: `act(params, key, observation) -> [N, A]`.

    A policy with a memory is called as `act(params, key, observation, memory)`, and returns
    (action, next memory).
    """

    act: Callable[..., Any]
    params: Any = ()
    memory: Any = None
    """The memory of one environment at the start of an episode; None for a policy without one."""


class Part(NamedTuple):
    """A behaviour's share of a data set, and the number that its rows carry."""

    behaviour: Behaviour
    number: int
    share: float


class Rollouts(NamedTuple):
    """Episodes of the full horizon, side by side; steps after the one that terminates do not count.

    Arrays lead with [E, T] or [E, T + 1].
    """

    obs: Float[Array, "E T1 N O"]
    state: Float[Array, "E T1 S"]
    action: Float[Array, "E T N A"]
    reward: Float[Array, "E T N"]
    done: Float[Array, "E T"]
    available: Bool[Array, "E T1 N A"] | None = None
    """Legal actions; None where actions are continuous."""
    alive: Float[Array, "E T1 N"] | None = None
    """1.0 where an agent still acts; None where actions are continuous."""


# cached, so that programs compiled for the function are found again
@functools.cache
def uniform_behaviour(env: Environment) -> Behaviour:
    """Actions uniform in the box, or over the available actions."""
    mask = jnp.asarray(env.spec.act_mask)

    def act(params: Any, key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
        if env.spec.discrete:
            logits = jnp.where(seen.available, 0.0, -jnp.inf)
            drawn = jax.random.categorical(key, logits)
            return jax.nn.one_hot(drawn, env.spec.act_width)
        return mask * jax.random.uniform(key, mask.shape, minval=-1.0, maxval=1.0)

    return Behaviour(act)


def mixture(env: Environment, parts: Sequence[Part]) -> Recipe:
    """The data set that these behaviours collect, with its episodes in a random order.

    Shares are of transitions and sum to 1. The recipe raises JaxomarlError where it is asked for
    fewer than one row.
    """

    def recipe(key: Key[Array, ""], rows: int) -> Episodes:
        check_rows(rows)

        # --- each behaviour's episodes ---
        blocks = []
        steps = []
        for part in parts:
            own_key = jax.random.fold_in(key, part.number)
            own_rows = max(1, round(rows * part.share))
            for episodes, count in _roll_out(env, part.behaviour, own_key, own_rows):
                numbers = np.full(len(count), part.number, np.int32)
                blocks.append(back_to_back(episodes, count, numbers))
                steps.append(count)
        lengths = np.concatenate(steps)

        # --- a random order, cut to `rows` transitions, as every part was rounded up ---
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        order = generator.permutation(len(lengths))
        most = 1 + int(np.searchsorted(np.cumsum(lengths[order]), rows))
        order = order[:most]

        # --- the rows of the chosen episodes ---
        begins = np.cumsum(lengths + 1) - (lengths + 1)
        e, t = _places(lengths[order])
        at = begins[order][e] + t
        return Episodes(*(_gathered(arrays, at) for arrays in zip(*blocks, strict=True)))

    return recipe


def random_play(env: Environment) -> Recipe:
    """The data set of uniform actions."""
    return mixture(env, [Part(uniform_behaviour(env), 0, 1.0)])


def roll_out_rows(
    env: Environment, behaviour: Behaviour, key: Key[Array, ""], rows: int
) -> list[tuple[Rollouts, Any]]:
    """The fewest episodes that hold `rows` transitions, in batches: (episodes, their steps)."""
    return list(_roll_out(env, behaviour, key, rows))


def _roll_out(
    env: Environment, behaviour: Behaviour, key: Key[Array, ""], rows: int
) -> Iterator[tuple[Rollouts, Any]]:
    spec = env.spec
    roll_out = _compiled(env, behaviour.act, behaviour.memory is not None)

    # --- how many episodes at once ---
    columns = spec.agents * (spec.obs_width + spec.act_width + 1) + spec.state_dim + 1
    fitting = max(1, BYTES // (4 * columns * spec.horizon))
    many = min(BATCH, -(-rows // spec.horizon), fitting)

    # --- batches of episodes until there are `rows` transitions ---
    have = 0
    batch = 0
    while have < rows:
        keys = jax.random.split(jax.random.fold_in(key, batch), many)
        out = roll_out(behaviour.params, behaviour.memory, keys)
        rollouts: Rollouts = jax.tree.map(np.asarray, out)
        ended = rollouts.done > 0
        steps = np.where(ended.any(axis=1), 1 + ended.argmax(axis=1), spec.horizon)
        keep = min(many, 1 + int(np.searchsorted(np.cumsum(steps), rows - have)))
        yield _first(rollouts, keep), steps[:keep]
        have += int(steps[:keep].sum())
        batch += 1


def _first(rollouts: Rollouts, count: int) -> Rollouts:
    """The first `count` episodes."""
    return jax.tree.map(lambda x: x[:count], rollouts)


@functools.lru_cache(maxsize=32)
def _compiled(
    env: Environment, act: Callable, remembers: bool
) -> Callable[[Any, Any, Key[Array, " E"]], Rollouts]:
    """The compiled roll-out of a behaviour: (params, memory, keys) -> episodes of full horizon."""

    def acting(params: Any, key: Key[Array, ""], seen: Observation, memory: Any) -> tuple:
        if remembers:
            return act(params, key, seen, memory)
        return act(params, key, seen), memory

    def episode(params: Any, memory: Any, key: Key[Array, ""]) -> Rollouts:
        k_reset, k_act, k_step = jax.random.split(key, 3)
        state, first = env.reset(k_reset)

        def step(carry: tuple, t: Int[Array, ""]) -> tuple:
            state, now, memory = carry
            observation = Observation(now.obs, now.available)
            action, memory = acting(params, jax.random.fold_in(k_act, t), observation, memory)
            state, then = env.step(jax.random.fold_in(k_step, t), state, action)
            return (state, then, memory), (then._replace(info={}), action)

        times = jnp.arange(env.spec.horizon)
        _, (then, action) = jax.lax.scan(step, (state, first, memory), times)

        def with_first(name: str) -> Array:
            return jnp.concatenate([getattr(first, name)[None], getattr(then, name)])

        rollouts = Rollouts(
            obs=with_first("obs"),
            state=with_first("state"),
            action=action,
            reward=then.reward,
            done=then.done,
        )
        if not env.spec.discrete:
            return rollouts
        return rollouts._replace(available=with_first("available"), alive=with_first("alive"))

    return jax.jit(jax.vmap(episode, in_axes=(None, None, 0)))


def back_to_back(
    rollouts: Rollouts, steps: Int[np.ndarray, " E"], numbers: Int[np.ndarray, " E"]
) -> Episodes:
    """Rows of the first `steps[e]` transitions of each episode and its successor row."""
    count = len(steps)
    full = bool((steps == rollouts.done.shape[1]).all())
    e, t = _places(steps)

    def lay(x: Any) -> Any:
        if full:
            # the same rows as below, without a copy
            return x.reshape(-1, *x.shape[2:])
        return x[e, t]

    def lay_transitions(x: Any) -> Any:
        # an episode's last row has no transition
        x = np.concatenate([x, np.zeros_like(x[:, :1])], axis=1)
        x[np.arange(count), steps] = 0
        return lay(x)

    extra = {}
    for name in ("available", "alive"):
        if getattr(rollouts, name) is not None:
            extra[name] = lay(getattr(rollouts, name))

    position: Any = t.astype(np.int32)
    left: Any = (steps[e] - t).astype(np.int32)
    behaviour: Any = numbers[e]
    return Episodes(
        obs=lay(rollouts.obs),
        state=lay(rollouts.state),
        action=lay_transitions(rollouts.action),
        reward=lay_transitions(rollouts.reward),
        done=lay_transitions(rollouts.done),
        step=position,
        left=left,
        behaviour=behaviour,
        **extra,
    )


def _places(steps: Int[np.ndarray, " E"]) -> tuple[Any, Any]:
    """Episode and position of each row, where episodes lie back to back with successor rows."""
    rows = steps + 1
    begins = np.cumsum(rows) - rows
    e = np.repeat(np.arange(len(steps)), rows)
    t = np.arange(len(e)) - np.repeat(begins, rows)
    return e, t


def _gathered(blocks: Sequence[Any], at: Int[np.ndarray, " M"]) -> Any:
    """Rows of blocks that are joined first; None where the behaviours have no such block."""
    if blocks[0] is None:
        return None
    if len(blocks) == 1:
        return blocks[0][at]
    return np.concatenate(blocks)[at]

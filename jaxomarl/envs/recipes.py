"""Data sets from behaviours: policies are played on the device, and their episodes laid back to back."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Environment, Episodes, Observation, Recipe
from jaxomarl.envs.stateless import check_rows

BATCH = 1000  # episodes played at once: what a processor's cache likes
BYTES = 2**28  # and at most as many as take this much memory


class Behaviour(NamedTuple):
    """A policy that makes data: `act(params, key, observation) -> [N, A]`."""

    act: Callable[[Any, Key[Array, ""], Observation], Float[Array, "N A"]]
    params: Any = ()


class Part(NamedTuple):
    """A behaviour's share of a data set, and the number that its rows carry."""

    behaviour: Behaviour
    number: int
    share: float


class Played(NamedTuple):
    """Whole episodes side by side, cut after the step that terminates: arrays lead with [E, T] or [E, T + 1]."""

    obs: Float[Array, "E T1 N O"]
    state: Float[Array, "E T1 S"]
    action: Float[Array, "E T N A"]
    reward: Float[Array, "E T N"]
    done: Float[Array, "E T"]


@functools.cache  # the same function each time, so that what was compiled for it is found again
def uniform(env: Environment) -> Behaviour:
    """Actions uniform in the box, or over what is available."""
    mask, discrete = jnp.asarray(env.spec.act_mask), env.spec.discrete

    def act(params: Any, key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
        if discrete:
            drawn = jax.random.categorical(key, jnp.where(seen.available, 0.0, -jnp.inf))
            return jax.nn.one_hot(drawn, env.spec.act_width)
        return mask * jax.random.uniform(key, mask.shape, minval=-1.0, maxval=1.0)

    return Behaviour(act)


def mixture(env: Environment, parts: Sequence[Part]) -> Recipe:
    """The data set that these behaviours make, episodes in a drawn order; shares are of transitions and sum to 1.

    The recipe raises JaxomarlError where it is asked for fewer than one row.
    """

    def recipe(key: Key[Array, ""], rows: int) -> Episodes:
        check_rows(rows)
        laid, steps = [], []
        for part in parts:
            mine = jax.random.fold_in(key, part.number)
            for episodes, count in _play(
                env, part.behaviour, mine, max(1, round(rows * part.share))
            ):
                laid.append(
                    back_to_back(episodes, count, np.full(len(count), part.number, np.int32))
                )
                steps.append(count)
        lengths = np.concatenate(steps)
        order = np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(
            len(lengths)
        )
        order = order[
            : 1 + int(np.searchsorted(np.cumsum(lengths[order]), rows))
        ]  # every part was rounded up
        begins = np.cumsum(lengths + 1) - (lengths + 1)
        e, t = _places(lengths[order])
        at = begins[order][e] + t
        return Episodes(*(_gathered(blocks, at) for blocks in zip(*laid, strict=True)))

    return recipe


def random_play(env: Environment) -> Recipe:
    """The data set of uniform actions."""
    return mixture(env, [Part(uniform(env), 0, 1.0)])


def play_rows(
    env: Environment, behaviour: Behaviour, key: Key[Array, ""], rows: int
) -> list[tuple[Played, Any]]:
    """The fewest episodes that hold `rows` transitions, in batches: (episodes, their steps)."""
    return list(_play(env, behaviour, key, rows))


def _play(
    env: Environment, behaviour: Behaviour, key: Key[Array, ""], rows: int
) -> Iterator[tuple[Played, Any]]:
    spec, have, batch = env.spec, 0, 0
    row = 4 * (spec.agents * (spec.obs_width + spec.act_width + 1) + spec.state_dim + 1)
    many = min(BATCH, -(-rows // spec.horizon), max(1, BYTES // (row * spec.horizon)))
    while have < rows:
        keys = jax.random.split(jax.random.fold_in(key, batch), many)
        played: Played = jax.tree.map(
            np.asarray, _player(env, behaviour.act)(behaviour.params, keys)
        )
        ended = played.done > 0
        steps = np.where(ended.any(axis=1), 1 + ended.argmax(axis=1), env.spec.horizon)
        keep = min(many, 1 + int(np.searchsorted(np.cumsum(steps), rows - have)))
        yield Played(*(x[:keep] for x in played)), steps[:keep]
        have, batch = have + int(steps[:keep].sum()), batch + 1


@functools.lru_cache(maxsize=32)
def _player(env: Environment, act: Callable) -> Callable[[Any, Key[Array, " E"]], Played]:
    """The compiled player of a behaviour: (params, keys) -> episodes of the full horizon."""

    def episode(params: Any, key: Key[Array, ""]) -> Played:
        k_reset, k_act, k_step = jax.random.split(key, 3)
        state, first = env.reset(k_reset)

        def step(carry: tuple, t: Int[Array, ""]) -> tuple:
            state, now = carry
            action = act(params, jax.random.fold_in(k_act, t), Observation(now.obs, now.available))
            state, then = env.step(jax.random.fold_in(k_step, t), state, action)
            return (state, then), (then.obs, then.state, action, then.reward, then.done)

        _, (obs, state, action, reward, done) = jax.lax.scan(
            step, (state, first), jnp.arange(env.spec.horizon)
        )
        return Played(
            jnp.concatenate([first.obs[None], obs]),
            jnp.concatenate([first.state[None], state]),
            action,
            reward,
            done,
        )

    return jax.jit(jax.vmap(episode, in_axes=(None, 0)))


def back_to_back(
    played: Played, steps: Int[np.ndarray, " E"], numbers: Int[np.ndarray, " E"]
) -> Episodes:
    """Rows of the first `steps[e]` transitions of each episode and its successor row."""
    count, full = len(steps), played.done.shape[1]
    e, t = _places(steps)
    lay = lambda x: x.reshape(-1, *x.shape[2:]) if (steps == full).all() else x[e, t]

    def moves(x: Any) -> Any:  # of transitions: an episode's last row holds none
        x = np.concatenate([x, np.zeros_like(x[:, :1])], axis=1)
        x[np.arange(count), steps] = 0
        return lay(x)

    left: Any = (steps[e] - t).astype(np.int32)
    position: Any = t.astype(np.int32)
    who: Any = numbers[e]
    return Episodes(
        lay(played.obs), lay(played.state), moves(played.action), moves(played.reward), moves(played.done),
        position, left, who,
    )  # fmt: skip


def _places(steps: Int[np.ndarray, " E"]) -> tuple[Any, Any]:
    """Episode and position of each row, where these lie back to back with their successor rows."""
    e = np.repeat(np.arange(len(steps)), steps + 1)
    return e, np.arange(len(e)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)


def _gathered(blocks: Sequence[Any], at: Int[np.ndarray, " M"]) -> Any:
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks))[at]

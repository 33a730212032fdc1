"""A ring of transitions that an online system fills while it learns, and the stepping that fills it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Batch, Environment, Observation, Spec, TimeStep, team_reward

Act = Callable[[Key[Array, ""], Observation], Float[Array, "N A"]]


class Rows(NamedTuple):
    """Transitions side by side; lead axis C (capacity) or the number that came in."""

    obs: Float[Array, "C N O"]
    state: Float[Array, "C S"]
    action: Float[Array, "C N A"]
    reward: Float[Array, "C N"]
    next_obs: Float[Array, "C N O"]
    next_state: Float[Array, "C S"]
    done: Float[Array, " C"]
    last: Float[Array, " C"]  # final transition of its episode, by time-out too


class Replay(NamedTuple):
    """The ring and how many transitions it has ever been given."""

    rows: Rows
    count: Int[Array, ""]


class Walk(NamedTuple):
    """Environments in the middle of their episodes; lead axis: environments."""

    state: Any
    now: TimeStep
    step: Int[Array, " W"]


def empty(spec: Spec, capacity: int) -> Replay:
    """A ring without rows."""
    n, o, a, s = spec.agents, spec.obs_width, spec.act_width, spec.state_dim
    zeros = lambda *shape: jnp.zeros((capacity, *shape))
    rows = Rows(
        zeros(n, o), zeros(s), zeros(n, a), zeros(n), zeros(n, o), zeros(s), zeros(), zeros()
    )
    return Replay(rows, jnp.zeros((), jnp.int32))


def extend(replay: Replay, rows: Rows) -> Replay:
    """Write rows over the oldest; there must be no more of them than the ring holds."""
    new, capacity = len(rows.done), len(replay.rows.done)
    where = (replay.count + jnp.arange(new)) % capacity
    return Replay(
        jax.tree.map(lambda ring, x: ring.at[where].set(x), replay.rows, rows), replay.count + new
    )


def sample(key: Key[Array, ""], replay: Replay, spec: Spec, size: int) -> Batch:
    """`size` transitions, uniformly with replacement; a ring does not hold next actions, which are zeros."""
    held = jnp.clip(replay.count, 1, len(replay.rows.done))
    rows: Rows = jax.tree.map(lambda x: x[jax.random.randint(key, (size,), 0, held)], replay.rows)
    team = team_reward(spec.team, rows.reward)
    ones, every = jnp.ones((size, spec.agents)), jnp.ones((size, spec.agents, spec.act_width))
    return Batch(
        **rows._asdict(),
        team_reward=team,
        next_action=jnp.zeros_like(rows.action),
        known=jnp.ones(size),
        alive=ones,
        available=every,
        next_available=every,
    )


def begin(env: Environment, key: Key[Array, ""], envs: int) -> Walk:
    """`envs` environments at their starts."""
    state, now = jax.vmap(env.reset)(jax.random.split(key, envs))
    return Walk(state, now, jnp.zeros(envs, jnp.int32))


def walk(
    env: Environment, act: Act, walk: Walk, key: Key[Array, ""], steps: int
) -> tuple[Walk, Rows]:
    """Step every environment `steps` times; one that ends starts again, and its rows keep the true successor."""

    def one(state: Any, now: TimeStep, step: Array, key: Key[Array, ""]) -> tuple[Walk, Rows]:
        k_act, k_step, k_reset = jax.random.split(key, 3)
        action = act(k_act, Observation(now.obs, now.available))
        after, then = env.step(k_step, state, action)
        last = (then.done > 0) | (step + 1 >= env.spec.horizon)
        row = Rows(
            now.obs,
            now.state,
            action,
            then.reward,
            then.obs,
            then.state,
            then.done,
            last.astype(jnp.float32),
        )
        fresh = env.reset(k_reset)
        after, then = jax.tree.map(lambda new, old: jnp.where(last, new, old), fresh, (after, then))
        return Walk(after, then, jnp.where(last, 0, step + 1)), row

    def every(carry: Walk, key: Key[Array, ""]) -> tuple[Walk, Rows]:
        return jax.vmap(one)(*carry, jax.random.split(key, len(carry.step)))

    walk, rows = jax.lax.scan(every, walk, jax.random.split(key, steps))
    return walk, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

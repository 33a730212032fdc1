"""A ring of transitions that an online system fills while it learns, and the steps that fill it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import (
    Batch,
    Environment,
    Observation,
    Spec,
    State,
    TimeStep,
    refuse,
    team_reward,
)
from jaxomarl.config import Pacing, config, static

Act = Callable[[Key[Array, ""], Observation], Float[Array, "N A"]]


class Rows(NamedTuple):
    """Transitions; the leading axis is the ring's capacity C, or the number that was collected."""

    obs: Float[Array, "C N O"]
    state: Float[Array, "C S"]
    action: Float[Array, "C N A"]
    reward: Float[Array, "C N"]
    next_obs: Float[Array, "C N O"]
    next_state: Float[Array, "C S"]
    done: Float[Array, " C"]
    last: Float[Array, " C"]
    """1.0 on the final transition of an episode, by time-out too."""
    available: Float[Array, "C N A"] | None = None
    """Legal actions; None where actions are continuous."""
    next_available: Float[Array, "C N A"] | None = None
    """Legal actions after the transition."""
    alive: Float[Array, "C N"] | None = None
    """1.0 where an agent still acts."""


class Replay(NamedTuple):
    """The ring, and how many transitions were ever written to it."""

    rows: Rows
    count: Int[Array, ""]


class Walk(NamedTuple):
    """Environments in the middle of their episodes; the leading axis is that of environments."""

    state: State
    now: TimeStep
    step: Int[Array, " W"]


# --- the settings ---


@config
class Collecting(Pacing):
    """Settings of systems that collect their own experience."""

    chunk: int = static(default=100)
    """Updates between two collections of experience."""
    envs: int = static(default=32)
    """Environments that run side by side."""
    collect: int = static(default=25)
    """Steps that each environment takes in a collection."""
    capacity: int = static(default=200_000)
    """Transitions that the replay stores."""
    warmup: int = static(default=2_000, within="[0, inf)")
    """Transitions that uniform actions collect before training."""


def check(cfg: Collecting) -> None:
    """Raise JaxomarlError for a ring that does not hold one collection."""
    rows = cfg.envs * cfg.collect
    if rows > cfg.capacity:
        way = "Raise --cfg.capacity, or collect less at a time."
        raise refuse("--cfg.capacity", f"at least envs x collect = {rows}", cfg.capacity, way)


# --- the ring ---


def empty_ring(spec: Spec, capacity: int) -> Replay:
    """A ring without rows."""
    n = spec.agents
    zeros = lambda *shape: jnp.zeros((capacity, *shape))
    rows = Rows(
        obs=zeros(n, spec.obs_width),
        state=zeros(spec.state_dim),
        action=zeros(n, spec.act_width),
        reward=zeros(n),
        next_obs=zeros(n, spec.obs_width),
        next_state=zeros(spec.state_dim),
        done=zeros(),
        last=zeros(),
    )
    if spec.discrete:
        masks = zeros(n, spec.act_width)
        rows = rows._replace(available=masks, next_available=masks, alive=zeros(n))
    return Replay(rows, jnp.zeros((), jnp.int32))


def extend(replay: Replay, rows: Rows) -> Replay:
    """Write rows over the oldest ones. There must not be more of them than the capacity."""
    added = len(rows.done)
    capacity = len(replay.rows.done)
    where = (replay.count + jnp.arange(added)) % capacity
    written = jax.tree.map(lambda ring, x: ring.at[where].set(x), replay.rows, rows)
    return Replay(written, replay.count + added)


def sample_ring(key: Key[Array, ""], replay: Replay, spec: Spec, size: int) -> Batch:
    """`size` transitions, drawn uniformly with replacement.

    A ring does not store next actions: these are zeros.
    """
    stored = jnp.clip(replay.count, 1, len(replay.rows.done))

    def draw(x: Float[Array, "C ..."]) -> Float[Array, "B ..."]:
        # the same key draws the same rows of every block
        return x[jax.random.randint(key, (size,), 0, stored)]

    rows: Rows = jax.tree.map(draw, replay.rows)
    if not spec.discrete:
        ones = jnp.ones((size, spec.agents, spec.act_width))
        rows = rows._replace(available=ones, next_available=ones, alive=ones[..., 0])
    return Batch(
        **rows._asdict(),
        team_reward=team_reward(spec.team, rows.reward),
        next_action=jnp.zeros_like(rows.action),
        known=jnp.ones(size),
    )


# --- the environments ---


def begin(env: Environment, key: Key[Array, ""], envs: int) -> Walk:
    """`envs` environments at the start of an episode."""
    state, now = jax.vmap(env.reset)(jax.random.split(key, envs))
    return Walk(state, now, jnp.zeros(envs, jnp.int32))


def step_environments(
    env: Environment, act: Act, start: Walk, key: Key[Array, ""], steps: int
) -> tuple[Walk, Rows]:
    """Step every environment `steps` times.

    An environment whose episode ends is reset, and its rows keep the true successor.
    """

    def step_one(
        state: State, now: TimeStep, step: Array, key: Key[Array, ""]
    ) -> tuple[Walk, Rows]:
        k_act, k_step, k_reset = jax.random.split(key, 3)
        action = act(k_act, Observation(now.obs, now.available))
        next_state, then = env.step(k_step, state, action)
        last = (then.done > 0) | (step + 1 >= env.spec.horizon)
        row = Rows(
            obs=now.obs,
            state=now.state,
            action=action,
            reward=then.reward,
            next_obs=then.obs,
            next_state=then.state,
            done=then.done,
            last=last.astype(jnp.float32),
        )
        if env.spec.discrete:
            row = row._replace(
                available=now.available.astype(jnp.float32),
                next_available=then.available.astype(jnp.float32),
                alive=now.alive,
            )

        # --- reset where the episode ended ---
        fresh = env.reset(k_reset)
        next_state, then = jax.tree.map(
            lambda new, old: jnp.where(last, new, old), fresh, (next_state, then)
        )
        return Walk(next_state, then, jnp.where(last, 0, step + 1)), row

    def step_all(carry: Walk, key: Key[Array, ""]) -> tuple[Walk, Rows]:
        return jax.vmap(step_one)(*carry, jax.random.split(key, len(carry.step)))

    end, rows = jax.lax.scan(step_all, start, jax.random.split(key, steps))
    return end, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

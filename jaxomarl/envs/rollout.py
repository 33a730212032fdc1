"""The loops over an environment: an episode's score, and an episode with all that was seen.

They scan the horizon with an alive mask and never reset.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Memory, Observation, Spec, State, team_reward

Act = Callable[[Key[Array, ""], Memory, Observation], tuple[Array, Memory]]


def team_score(spec: Spec, reward: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """The team's reward from the agents' rewards, by `spec.team`."""
    return team_reward(spec.team, reward)


def episode(
    env: Environment, act: Act, memory: Memory, reset_key: Key[Array, ""], act_key: Key[Array, ""]
) -> dict:
    """Roll out one episode: its undiscounted team `return`, its `length`, and its last infos.

    The environment's randomness comes from `reset_key` alone, so all systems are evaluated on the
    same episodes. An info that counts, such as collisions, is accumulated by the environment. An
    action that is not finite makes the return nan, whatever the environment does with it: a
    diverged policy has no score.
    """
    k_reset, k_step = jax.random.split(reset_key)
    state, first = env.reset(k_reset)

    def step(carry, t):
        state, now, memory, alive, out = carry
        observation = Observation(now.obs, now.available, now.reward)
        action, memory = act(jax.random.fold_in(act_key, t), memory, observation)
        state, then = env.step(jax.random.fold_in(k_step, t), state, action)
        finite = jnp.isfinite(action).all()
        score = jnp.where(finite, team_score(env.spec, then.reward), jnp.nan)

        gained = {"return": score, "length": jnp.ones(())}
        sums = {name: out[name] + jnp.where(alive > 0, x, 0.0) for name, x in gained.items()}
        last = {name: jnp.where(alive > 0, x, out[name]) for name, x in then.info.items()}
        return (state, then, memory, alive * (1.0 - then.done), sums | last), None

    start = {"return": jnp.zeros(()), "length": jnp.zeros(())} | first.info
    carry = (state, first, memory, jnp.ones(()), start)
    (*_, out), _ = jax.lax.scan(step, carry, jnp.arange(env.spec.horizon))
    return out


def episodes(
    env: Environment,
    act: Act,
    memory: Memory,
    reset_keys: Key[Array, " E"],
    act_keys: Key[Array, " E"],
) -> dict[str, Float[Array, " E"]]:
    """Roll out E episodes, each from its own keys."""
    return jax.vmap(lambda r, a: episode(env, act, memory, r, a))(reset_keys, act_keys)


class Recorded(NamedTuple):
    """An episode of T steps. What lies after its end has no meaning."""

    states: State
    """The environment's states, each leaf [T + 1, ...]."""
    obs: Float[Array, "T N O"]
    action: Float[Array, "T N A"]
    alive: Float[Array, " T"]
    """1 where the episode had not ended before the step."""
    score: Float[Array, " T1"]
    """The team's return until each state, 0 at first."""


def recorded(env: Environment, act: Act, memory: Memory, key: Key[Array, ""]) -> Recorded:
    """Roll out one episode, and keep what was seen and done."""
    k_reset, k_act, k_step = jax.random.split(key, 3)
    start, first = env.reset(k_reset)

    def step(carry, t):
        state, now, memory, alive, score = carry
        observation = Observation(now.obs, now.available, now.reward)
        action, memory = act(jax.random.fold_in(k_act, t), memory, observation)
        state, then = env.step(jax.random.fold_in(k_step, t), state, action)
        score += jnp.where(alive > 0, team_score(env.spec, then.reward), 0.0)
        after = (state, then, memory, alive * (1.0 - then.done), score)
        return after, (state, now.obs, action, alive, score)

    carry = (start, first, memory, jnp.ones(()), jnp.zeros(()))
    _, (later, obs, action, alive, scores) = jax.lax.scan(step, carry, jnp.arange(env.spec.horizon))
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, later)
    return Recorded(states, obs, action, alive, jnp.concatenate([jnp.zeros(1), scores]))

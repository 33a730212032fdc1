"""A chain of states with known values: two agents walk it by agreeing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Environment, Episodes, Recipe, Spec, Task, TimeStep, refuse
from jaxomarl.envs.stateless import DIALECT, check_rows


def chain(length: int = 5, agree: float = 0.5, horizon: int = 20) -> Task:
    """The team moves to the next state where a_1 a_2 > 0, and else stays.

    Leaving the last state pays 1 and ends the episode. Observations of both agents and the state
    are the one-hot position, all zeros once the chain is left. `horizon` is a time-out, never a
    termination. The actions of the recipe "random" are +-1, such that the agents agree with
    probability `agree`; `chain_values` has its values. Raises JaxomarlError where length < 1,
    horizon < length or agree is no probability.
    """
    if length < 1:
        raise refuse("games/chain, length", "at least 1", length, "The chain needs a state.")
    if horizon < length:
        expected = f"at least length = {length}"
        raise refuse("games/chain, horizon", expected, horizon, "Else the end is out of reach.")
    if not 0 <= agree <= 1:
        way = "It is how often the data's agents agree."
        raise refuse("games/chain, agree", "a probability", agree, way)

    env = _environment(length, horizon)
    recipes = {"random": _recipe(env, agree)}
    about = (
        f"{length} states, on where a_1 a_2 > 0, reward 1 for leaving the last; "
        "optimum 1 by always agreeing"
    )
    return Task("games/chain", env, recipes, "random", optimum=1.0, about=about)


def _environment(length: int, horizon: int) -> Environment:
    spec = Spec(
        obs_dims=(length,) * 2,
        act_dims=(1, 1),
        state_dim=length,
        horizon=horizon,
        dialect=DIALECT,
        terminates="may",
        earliest=length,
    )

    def timestep(position: Int[Array, ""], reward: Array, moved: Array) -> TimeStep:
        state = jax.nn.one_hot(position, length, dtype=jnp.float32)
        return TimeStep(
            obs=jnp.stack([state, state]),
            state=state,
            reward=jnp.full((2,), reward, jnp.float32),
            done=(position == length).astype(jnp.float32),
            alive=jnp.ones((2,), jnp.float32),
            available=jnp.ones((2, 1), bool),
            info={
                "coordinated": moved.astype(jnp.float32),
                "solved": (position == length).astype(jnp.float32),
            },
        )

    def reset(key: Key[Array, ""]) -> tuple[Int[Array, ""], TimeStep]:
        position = jnp.zeros((), jnp.int32)
        return position, timestep(position, jnp.zeros(()), jnp.zeros(()))

    def step(
        key: Key[Array, ""], state: Int[Array, ""], action: Float[Array, "2 1"]
    ) -> tuple[Array, TimeStep]:
        moved = action[0, 0] * action[1, 0] > 0
        position = jnp.minimum(state + moved, length)
        return position, timestep(position, (position == length) & (state < length), moved)

    return Environment(spec, reset, step)


def _recipe(env: Environment, agree: float) -> Recipe:
    length = env.spec.state_dim
    horizon = env.spec.horizon

    def episode(key: Key[Array, ""]) -> tuple[Array, Array, Array, Array]:
        """Positions [T + 1], actions [T, 2, 1], rewards [T, 2] and done [T] of `horizon` steps."""
        k_reset, k_sign, k_agree = jax.random.split(key, 3)
        sign = jax.random.rademacher(k_sign, (horizon,), jnp.float32)
        same = jnp.where(jax.random.bernoulli(k_agree, agree, (horizon,)), 1.0, -1.0)
        action = jnp.stack([sign, sign * same], axis=1)[..., None]

        def body(position: Array, a: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            # the rules are deterministic, so any key will do
            position, t = env.step(k_reset, position, a)
            return position, (position, t.reward, t.done)

        first, _ = env.reset(k_reset)
        _, (position, reward, done) = jax.lax.scan(body, first, action)
        return jnp.concatenate([first[None], position]), action, reward, done

    roll_out = jax.jit(jax.vmap(episode))

    def recipe(key: Key[Array, ""], rows: int) -> Episodes:
        check_rows(rows)

        # --- roll out enough episodes, as each has at least `length` transitions ---
        keys = jax.random.split(key, -(-rows // length))
        position, action, reward, done = map(np.asarray, roll_out(keys))

        # --- keep the first episodes that have `rows` transitions ---
        steps = np.where(done.any(axis=1), 1 + done.argmax(axis=1), horizon)
        count = 1 + int(np.searchsorted(np.cumsum(steps), rows))
        steps = steps[:count]

        # --- lay them back to back, each with its successor row ---
        e = np.repeat(np.arange(count), steps + 1)
        t = np.concatenate([np.arange(n + 1) for n in steps])
        left = steps[e] - t
        now = (e, np.minimum(t, horizon - 1))
        # 0 in successor rows, which have no transition of their own
        live = (left > 0).astype(np.float32)
        state = (position[e, t][:, None] == np.arange(length)).astype(np.float32)
        return Episodes(
            obs=jnp.asarray(np.repeat(state[:, None], 2, axis=1)),
            state=jnp.asarray(state),
            action=jnp.asarray(action[now] * live[:, None, None]),
            reward=jnp.asarray(reward[now] * live[:, None]),
            done=jnp.asarray(done[now] * live),
            step=jnp.asarray(t, jnp.int32),
            left=jnp.asarray(left, jnp.int32),
            behaviour=jnp.zeros(len(t), jnp.int32),
        )

    return recipe


class ChainValues(NamedTuple):
    """Values of the chain's behaviour, by state."""

    v: Float[np.ndarray, " L"]
    q_agree: Float[np.ndarray, " L"]
    q_disagree: Float[np.ndarray, " L"]


def chain_values(length: int, agree: float, gamma: float) -> ChainValues:
    """Values of the behaviour that agrees with probability p, where time-outs bootstrap.

        V(last) = p / (1 - (1 - p) gamma)
        V(k) = p gamma V(k + 1) / (1 - (1 - p) gamma)
        Q(last, agree) = 1,  Q(k, agree) = gamma V(k + 1),  Q(k, disagree) = gamma V(k)

    The best policy's values are those of p = 1. Raises JaxomarlError where p = 0 and gamma = 1, as
    no value is defined.
    """
    stay = 1 - (1 - agree) * gamma
    if stay <= 0:
        expected = "less than 1 where agree is 0"
        raise refuse("chain_values.gamma", expected, gamma, "Discount, or agree sometimes.")
    steps_to_last = np.arange(length - 1, -1, -1, dtype=float)
    v = agree / stay * (agree * gamma / stay) ** steps_to_last
    return ChainValues(v, np.append(gamma * v[1:], 1.0), gamma * v)

"""Games of one joint action.

A game is the environment of a payoff rule. Its data sets are drawn from a distribution of actions.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Environment, Episodes, Recipe, Spec, TimeStep, refuse

DIALECT = "games-v1"
EPISODES = 4
"""Number of episodes of an evaluation.

The rules are deterministic, so only a stochastic policy needs more than one.
"""

Payoff = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
"""(the reward that every agent receives, info)."""
Rule = Callable[[Float[Array, "N A"]], Payoff]
"""Joint action -> payoff."""
Actions = tuple[Float[Array, "M N A"], Int[Array, " M"]]
"""(joint actions, number of the behaviour that sampled each)."""
Draw = Callable[[Key[Array, ""], int], Actions]
"""(key, rows) -> joint actions."""


def stateless(act_dims: tuple[int, ...], rule: Rule, discrete: bool = False) -> Environment:
    """The game that ends after one joint action and pays `rule(action)` to every agent.

    Observations and state are a constant one. Continuous actions are clipped to [-1, 1] before the
    rule; discrete actions are one-hot rows. All agents have equal widths, so nothing is padded.
    """
    n = len(act_dims)
    spec = Spec((1,) * n, act_dims, 1, 1, discrete=discrete, dialect=DIALECT, terminates="always")

    def timestep(reward: Array, done: float, info: dict[str, Array]) -> TimeStep:
        return TimeStep(
            obs=jnp.ones((n, 1), jnp.float32),
            state=jnp.ones((1,), jnp.float32),
            reward=jnp.full((n,), reward, jnp.float32),
            done=jnp.full((), done, jnp.float32),
            alive=jnp.ones((n,), jnp.float32),
            available=jnp.ones((n, spec.act_width), bool),
            info={name: jnp.asarray(x, jnp.float32) for name, x in info.items()},
        )

    def reset(key: Key[Array, ""]) -> tuple[tuple[()], TimeStep]:
        _, info = rule(jnp.zeros((n, spec.act_width), jnp.float32))
        zeros = {name: jnp.zeros(()) for name in info}
        return (), timestep(jnp.zeros(()), 0.0, zeros)

    def step(
        key: Key[Array, ""], state: tuple[()], action: Float[Array, "N A"]
    ) -> tuple[tuple[()], TimeStep]:
        if not discrete:
            action = jnp.clip(action, -1.0, 1.0)
        reward, info = rule(action)
        return (), timestep(reward, 1.0, info)

    return Environment(spec, reset, step)


def one_step_recipe(env: Environment, draw: Draw) -> Recipe:
    """The data set of joint actions from `draw`.

    Each episode is one transition and its successor row. Rewards come from `env.step` itself.
    Raises JaxomarlError where fewer than one row is asked for.
    """

    @functools.partial(jax.jit, static_argnums=1)
    def recipe(key: Key[Array, ""], rows: int) -> Episodes:
        check_rows(rows)
        action, behaviour = draw(key, rows)
        keys = jax.random.split(key, rows)
        state, first = jax.vmap(env.reset)(keys)
        _, after = jax.vmap(env.step)(keys, state, action)
        return Episodes(
            obs=_interleave(first.obs, after.obs),
            state=_interleave(first.state, after.state),
            action=_interleave(action, jnp.zeros_like(action)),
            reward=_interleave(after.reward, jnp.zeros_like(after.reward)),
            done=_interleave(after.done, jnp.zeros_like(after.done)),
            step=jnp.tile(jnp.array([0, 1], jnp.int32), rows),
            left=jnp.tile(jnp.array([1, 0], jnp.int32), rows),
            behaviour=jnp.repeat(behaviour.astype(jnp.int32), 2),
        )

    return recipe


def check_rows(rows: int) -> None:
    """Raise JaxomarlError where a recipe is asked for fewer than one row."""
    if rows < 1:
        way = "Ask for the number of transitions that the data set shall have."
        raise refuse("rows", "at least 1", rows, way)


def _interleave(x: Float[Array, "M *D"], after: Float[Array, "M *D"]) -> Float[Array, "M2 *D"]:
    """Rows of `x`, each followed by its row of `after`."""
    pairs = jnp.stack([x, after], axis=1)
    return pairs.reshape(-1, *x.shape[1:])

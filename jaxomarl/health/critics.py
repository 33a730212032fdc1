"""What critics know: their values of held-out transitions, compared with the returns that followed.

    value_correlation    rank correlation of Q(s, a) with the discounted return to go, both without
                         what the step of the episode explains
    state_correlation    the same of a linear regression on the state: without a critic
    value_bias           mean of Q minus the return, in deviations of the return
    action_gap           Q of the data's actions minus Q of other rows', in the same deviations
    returns_differ       1 where returns have a spread that the step does not explain; else NaN:
                         then there is nothing to rank, and the critic is not judged

The time that is left explains most of a return, so a regression on the step alone ranks returns
well. A cubic of the step is taken out of both sides. The returns of noisy behaviours cannot be
known well: on the spread task's medium data IQL's critic has 0.47 after 4,000 updates, 0.41 after
20,000 and 0.00 after 500, the regression 0.19:

    train iql --task mpe/spread --data medium --seeds 1 --cfg.critic-width 128
        --cfg.critic-batch 256 --cfg.critic-lr 1e-3 --cfg.critic-steps 500 4000 20000

An episode that a time limit cuts has a return to go that ends there, while a critic that bootstraps
past the limit counts on more. Its bias is then positive by right; its ranking is judged all the
same.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Dataset, Gate, Health, Past, State
from jaxomarl.health.figures import linear_prediction, rank_correlation
from jaxomarl.health.held import Transitions, own_returns, team_returns, transitions

TINY = 1e-6
LEAST = 0.01
"""Smallest share of returns that a critic is asked to rank; less is rounding."""
GATES = (
    Gate("value_correlation", at_least=0.3, where="returns_differ"),
    Gate("value_correlation", at_least=1.0, times="state_correlation", where="returns_differ"),
)
"""A critic has learned when it ranks returns, and no worse than a linear regression on the state
does. 0.3 is about three standard errors of chance on 80 episodes, whose rows resemble each other.
"""

Values = Callable[[State, Past, Array, Array, Array], Float[Array, "K *N"]]
"""(state, past, obs, env_state, action) -> Q of the joint action [K], or of each agent's own [K,
N].
"""


def critic(values: Values, gamma: Any, reward: str, raise_fields: tuple[str, ...]) -> Health:
    """Health of a stage with a critic.

    `reward` is "own" for each agent's own reward, "team", or "first" for agent 1's. `raise_fields`
    names the settings to raise where the critic has not learned.
    """

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held)
        # without the barrier XLA computes the values anew for each figure: 60 ms in place of 24
        q = values(state, past, rows.obs, rows.state, rows.action)
        q = jax.lax.optimization_barrier(q)
        returned = returns(held, gamma, reward, rows, q)

        other = jax.random.permutation(key, rows.action)
        q_other = values(state, past, rows.obs, rows.state, other)
        spread = jnp.maximum(returned.std(), TINY)

        half = len(returned) // 2
        timeless = without_time(returned, rows.step)
        regressed = linear_prediction(rows.state[:half], timeless[:half], rows.state[half:])
        by_column = jax.vmap(rank_correlation, in_axes=1)
        size = jnp.abs(returned).mean() + returned.std()
        differ = jnp.where(timeless.std(axis=0).max() > LEAST * size, 1.0, jnp.nan)
        return {
            "value_correlation": by_column(without_time(as_columns(q), rows.step), timeless).mean(),
            "state_correlation": by_column(regressed, timeless[half:]).mean(),
            "returns_differ": differ,
            "value_bias": (as_columns(q) - returned).mean() / spread,
            "action_gap": (q - q_other).mean() / spread,
        }

    return Health(measure, GATES, raise_fields)


def without_time(x: Float[Array, "K D"], step: Int[Array, " K"]) -> Float[Array, "K D"]:
    """What a cubic of the step leaves unexplained in each column."""
    share = step / jnp.maximum(step.max(), 1)
    powers = jnp.stack([share, share**2, share**3], axis=-1)
    return x - linear_prediction(powers, x, powers)


def as_columns(x: Float[Array, "K *N"]) -> Float[Array, "K D"]:
    """One column for each critic."""
    return x.reshape(len(x), -1)


def returns(
    held: Dataset, gamma: Any, reward: str, rows: Transitions, q: Float[Array, "K *N"]
) -> Float[Array, "K D"]:
    """The return to go that each column of `q` stands for."""
    own = own_returns(held, gamma)[rows.row]
    team = team_returns(held, gamma)[rows.row]
    joint = {"team": team, "first": own[:, 0], "own": own.sum(axis=-1)}[reward]
    if q.ndim == 1:
        return joint[:, None]
    if reward == "own":
        return own
    return jnp.broadcast_to(joint[:, None], q.shape)

"""Returns along stored trajectories, improved where a state is worth more than what followed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def planned_returns(
    reward: Float[Array, "M N"],
    factor: Float[Array, " M"],
    ends: Bool[Array, " M"],
    value: Float[Array, "M N"],
    plain: Bool[Array, ""],
) -> Float[Array, "M N"]:
    """R_t = r_t + factor_t max(R_{t+1}, V(s_{t+1})), from each trajectory's end backwards.

    Rows of trajectories lie back to back. `ends` marks their successor rows, where only V is
    known. `factor` is gamma where the episode continues. With `plain`, V is ignored, and R is the
    discounted return of the data. R has no meaning in successor rows.
    Source: Chen et al. 2023 (SfBC).
    """
    no_value = jnp.where(ends[:, None], 0.0, -jnp.inf)
    value = jnp.where(plain, no_value, value)

    def step_back(ahead, row):
        r, gamma, end, v = row
        here = r + gamma * ahead
        best = jnp.where(end, v, jnp.maximum(here, v))
        return best, here

    start = jnp.zeros(reward.shape[1])
    _, returns = jax.lax.scan(step_back, start, (reward, factor, ends, value), reverse=True)
    return returns

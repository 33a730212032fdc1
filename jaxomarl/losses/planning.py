"""Returns along stored trajectories, improved where a state is worth more than what followed it."""

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

    Rows of trajectories lie back to back, `ends` marks their successor rows, where nothing is known but V; `factor` is
    gamma where an episode goes on. `plain`: V counts as nothing, and R is the discounted return of the data.
    Values in successor rows mean nothing. Source: Chen et al. 2023 (SfBC).
    """
    nothing = jnp.where(ends[:, None], 0.0, -jnp.inf)
    value = jnp.where(plain, nothing, value)

    def back(ahead, row):
        r, g, end, v = row
        here = r + g * ahead
        return jnp.where(end, v, jnp.maximum(here, v)), here

    return jax.lax.scan(
        back, jnp.zeros(reward.shape[1]), (reward, factor, ends, value), reverse=True
    )[1]

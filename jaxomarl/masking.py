"""Means of what counts: padded columns, rows past an episode's end and agents that are gone never do."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def weighted_mean(x: Float[Array, "*B"], weight: Float[Array, "*b"]) -> Float[Array, ""]:
    """Sum weight x / sum weight over all axes, for weights in [0, 1]; 0 where nothing counts."""
    return jnp.sum(weight * x) / jnp.maximum(weight.sum(), 1.0)


def column_mean(x: Float[Array, "*B N A"], mask: Float[Array, "N A"]) -> Float[Array, "*B N"]:
    """Mean over each agent's real columns, so that a mean over agents counts none more for being wide."""
    return jnp.sum(mask * x, axis=-1) / mask.sum(axis=-1)

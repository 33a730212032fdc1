"""Means over what counts: never over padded columns, rows past an episode's end, or dead agents."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def weighted_mean(x: Float[Array, "*B"], weight: Float[Array, "*b"]) -> Float[Array, ""]:
    """Sum of weight x over sum of weight, over all axes; 0 where nothing counts.

    Weights lie in [0, 1].
    """
    return jnp.sum(weight * x) / jnp.maximum(weight.sum(), 1.0)


def column_mean(x: Float[Array, "*B N A"], mask: Float[Array, "N A"]) -> Float[Array, "*B N"]:
    """The mean over each agent's real columns.

    A mean over agents after it counts a wide agent no more than a narrow one.
    """
    return jnp.sum(mask * x, axis=-1) / mask.sum(axis=-1)


def mean_over_last(
    x: Float[Array, "*E B T N"], weight: Float[Array, "B T N"]
) -> Float[Array, "*E"]:
    """The weighted mean over the last three axes; 0 where nothing counts."""
    return jnp.sum(x * weight, axis=(-3, -2, -1)) / jnp.maximum(weight.sum(), 1.0)

"""Choosing among K sampled actions by their values: what is left of a policy when it only samples the behaviour."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def pick(
    action: Float[Array, "K *B A"],
    q: Float[Array, "K *B"],
    gumbel: Float[Array, "K *B"] | None = None,
) -> Float[Array, "*B A"]:
    """One of K actions: that of the largest q; with standard Gumbel noise, action k with chance softmax(q)_k.

    The largest of q + Gumbel is a draw from the softmax, and needs no normaliser; the tests feed it the noise.
    """
    best = jnp.argmax(q if gumbel is None else q + gumbel, axis=0)
    return jnp.take_along_axis(action, best[None, ..., None], axis=0)[0]


def soft_value(
    q: Float[Array, "K *B"], strength: float | Float[Array, "..."]
) -> Float[Array, "*B"]:
    """sum_k softmax_k(strength q) q: the mean of q at strength 0, its maximum at infinity (Chen et al. 2023)."""
    return jnp.sum(jax.nn.softmax(strength * q, axis=0) * q, axis=0)

"""Choices among K sampled actions by their values.

They make a policy of a model that only samples the behaviour.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def pick_by_value(
    action: Float[Array, "K *B A"],
    q: Float[Array, "K *B"],
    gumbel: Float[Array, "K *B"] | None = None,
) -> Float[Array, "*B A"]:
    """One of K actions: the action with the largest q.

    With standard Gumbel noise it is action k with probability softmax(q)_k: the largest of
    q + Gumbel is a sample from the softmax, and needs no normaliser.
    """
    if gumbel is not None:
        q = q + gumbel
    best = jnp.argmax(q, axis=0)
    return jnp.take_along_axis(action, best[None, ..., None], axis=0)[0]


def soft_value(
    q: Float[Array, "K *B"], strength: float | Float[Array, "..."]
) -> Float[Array, "*B"]:
    """sum_k softmax_k(strength q) q (Chen et al. 2023).

    It is the mean of q at strength 0 and its maximum at infinity.
    """
    return jnp.sum(jax.nn.softmax(strength * q, axis=0) * q, axis=0)

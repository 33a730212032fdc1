"""Normals under a tanh: policies that have a density on the box and yet a closed-form divergence.

    u ~ N(m, diag(s^2)),   a = tanh(u),   log pi(a) = log N(u; m, s^2) - sum_dims log(1 - a^2)

Data's actions that lie at the very edge of the box have u at infinity: they count as if at +-EDGE.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

EDGE = 1.0 - 1e-3
HALF_LOG_TWO_PI = 0.9189385332046727


class Normal(NamedTuple):
    """The normal of u; its axes broadcast."""

    mean: Float[Array, "*B A"]
    log_std: Float[Array, "*B A"]


def squashed(
    p: Normal, z: float | Float[Array, "..."], mask: Float[Array, " A"]
) -> Float[Array, "..."]:
    """A = tanh(m + s z) in the real columns: a draw for standard normal z, the deterministic policy for z = 0."""
    return mask * jnp.tanh(p.mean + jnp.exp(p.log_std) * z)


def log_density(
    p: Normal, action: Float[Array, "*B A"], mask: Float[Array, " A"]
) -> Float[Array, "*B"]:
    """Log pi(a) over the real columns."""
    a = jnp.clip(action, -EDGE, EDGE)
    u = jnp.arctanh(a)
    each = (
        -0.5 * jnp.square((u - p.mean) * jnp.exp(-p.log_std))
        - p.log_std
        - HALF_LOG_TWO_PI
        - jnp.log1p(-(a**2))
    )
    return jnp.sum(mask * each, axis=-1)


def divergence(p: Normal, q: Normal, mask: Float[Array, " A"]) -> Float[Array, "*B"]:
    """KL(p || q) over the real columns, in closed form.

    A tanh maps both alike and can be undone, so it is that of the actions too: no sampling, and exactly zero at p = q.
    """
    ratio = p.log_std - q.log_std
    moved = (p.mean - q.mean) * jnp.exp(-q.log_std)
    return jnp.sum(mask * (0.5 * (jnp.exp(2.0 * ratio) + moved**2 - 1.0) - ratio), axis=-1)

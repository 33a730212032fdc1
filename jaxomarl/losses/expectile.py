"""Expectile regression (Kostrikov et al. 2022, eq. 5)."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def expectile(u: Float[Array, "..."], tau: float | Float[Array, ""]) -> Float[Array, "..."]:
    """|tau - 1[u < 0]| u^2; with u = x - v, its minimiser in v is the tau-expectile of x."""
    return jnp.abs(tau - (u < 0)) * u**2

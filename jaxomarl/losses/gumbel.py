"""Gumbel regression: it learns the soft maximum over the data's actions without a maximum."""

import jax.numpy as jnp
from jaxtyping import Array, Float

CAP = 10.0
"""Where the exponential continues as a straight line."""


def gumbel(z: Float[Array, "..."], cap: float = CAP) -> Float[Array, "..."]:
    """exp(z), continued by straight lines beyond -cap and cap.

    The slope is exp(clip(z, -cap, cap)).

    With z = (x - v) / alpha, the minimiser in v of the mean of gumbel(z) + v / alpha has mean
    exp(z) = 1, so v = alpha log mean exp(x / alpha). The upper line keeps the gradient of the
    largest z, which a clipped z would lose.
    Source: Garg et al. 2023 (XQL), up to a constant; Wang et al. 2023 (OMIGA), whose code clips z
    to [-10, 10].
    """
    inside = jnp.clip(z, -cap, cap)
    return jnp.exp(inside) * (1.0 + z - inside)

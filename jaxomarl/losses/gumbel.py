"""Gumbel regression: a value that is the soft maximum of what the data did, learned without a maximum."""

import jax.numpy as jnp
from jaxtyping import Array, Float

CAP = 10.0


def gumbel(z: Float[Array, "..."], cap: float = CAP) -> Float[Array, "..."]:
    """exp(z), and beyond -cap and cap the straight lines that continue it: the slope is exp(clip(z, -cap, cap)).

    With z = (x - v) / alpha, the minimiser in v of the mean of gumbel(z) + v / alpha has mean exp(z) = 1, which says
    v = alpha log mean exp(x / alpha). The upper line keeps the pull of the largest z, which a cut-off z would lose.
    Source: Garg et al. 2023 (XQL), up to a constant; Wang et al. 2023 (OMIGA), whose code cuts z at -10 and at 10.
    """
    held = jnp.clip(z, -cap, cap)
    return jnp.exp(held) * (1.0 + z - held)

"""How much the critic counts in a policy's loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def normalised_value(
    q: Float[Array, " B"], strength: float | Float[Array, ""], scale: Float[Array, " B"]
) -> Float[Array, ""]:
    """-strength mean(q) / sg[mean |scale|]: what c Q says for any c > 0, Q itself says.

    Without the stop-gradient, or with a signed mean, all values of one sign would cancel or turn the objective over.
    Source: Fujimoto and Gu 2021 (TD3+BC), eq. 5, where `scale` is q; 1e-8 is added to the divisor.
    """
    return -strength * jnp.mean(q) / (jax.lax.stop_gradient(jnp.mean(jnp.abs(scale))) + 1e-8)


def importance(
    u: Float[Array, "B *N"],
    temperature: float | Float[Array, ""],
    counts: Float[Array, "B *N"] | None = None,
) -> Float[Array, "B *N"]:
    """Weights w = n softmax(u / (temperature std u)) over a batch: their mean is one, and n of them count.

    Where `counts` is zero, a weight is zero and u is not looked at. The deviation in the exponent makes u and c u, for
    c > 0, the same. Source: Yang et al. 2021 (ICQ), whose normaliser of each state the batch stands in for.
    """
    counts = jnp.ones_like(u) if counts is None else counts
    n = jnp.maximum(counts.sum(axis=0), 1.0)
    u = jnp.where(counts > 0, u, 0.0)
    apart = counts * (u - jnp.sum(counts * u, axis=0) / n)
    spread = jnp.sqrt(jnp.sum(apart**2, axis=0) / n)
    power = jnp.where(counts > 0, apart / (temperature * (spread + 1e-8)), -1e9)
    e = counts * jnp.exp(power - power.max(axis=0))
    return counts.sum(axis=0) * e / jnp.maximum(e.sum(axis=0), 1.0)

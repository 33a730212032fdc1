"""Weights of the critic in a policy's loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def normalised_value(
    q: Float[Array, " B"], strength: float | Float[Array, ""], scale: Float[Array, " B"]
) -> Float[Array, ""]:
    """-strength mean(q) / sg[mean |scale|]: c Q and Q give the same loss for every c > 0.

    The stop-gradient and the absolute values are needed. Without the former, values of one sign
    would cancel; with a signed mean, they could reverse the objective.
    Source: Fujimoto and Gu 2021 (TD3+BC), eq. 5, where `scale` is q. We add 1e-8 to the divisor.
    """
    q_term = -strength * jnp.mean(q)
    size = jax.lax.stop_gradient(jnp.mean(jnp.abs(scale)))
    return q_term / (size + 1e-8)


def importance(
    u: Float[Array, "B *N"],
    temperature: float | Float[Array, ""],
    counts: Float[Array, "B *N"] | None = None,
) -> Float[Array, "B *N"]:
    """Weights w = n softmax(u / (temperature std u)) over the n entries of a batch that count.

    Their mean over these entries is one. Where `counts` is zero, the weight is zero and u is
    ignored. The division by std makes the weights of u and c u equal for c > 0.
    Source: Yang et al. 2021 (ICQ), which normalises for each state; we normalise over the batch.
    """
    if counts is None:
        counts = jnp.ones_like(u)
    n = jnp.maximum(counts.sum(axis=0), 1.0)

    # --- standardise ---
    u = jnp.where(counts > 0, u, 0.0)
    centred = counts * (u - jnp.sum(counts * u, axis=0) / n)
    std = jnp.sqrt(jnp.sum(centred**2, axis=0) / n)
    exponent = jnp.where(counts > 0, centred / (temperature * (std + 1e-8)), -1e9)

    # --- softmax ---
    e = counts * jnp.exp(exponent - exponent.max(axis=0))
    return counts.sum(axis=0) * e / jnp.maximum(e.sum(axis=0), 1.0)

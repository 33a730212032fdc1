"""The distance of a network's output from the action in the data."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Batch, Spec
from jaxomarl.losses.categorical import cross_entropy
from jaxomarl.masking import column_mean, weighted_mean


def action_error(
    spec: Spec,
    out: Float[Array, "*B N A"],
    action: Float[Array, "*B N A"],
    available: Float[Array, "*B N A"],
) -> Float[Array, "*B N"]:
    """The mean square over real columns; for discrete actions, the cross-entropy of logits `out`.

    Logits of unavailable actions are left out, as in MADiff's code. An action in the data counts
    as available.
    """
    mask = jnp.asarray(spec.act_mask)
    if not spec.discrete:
        return column_mean((out - action) ** 2, mask)

    return cross_entropy(out, action * mask, available * mask)


def imitation_loss(
    spec: Spec,
    out: Float[Array, "B N A"],
    batch: Batch,
    weight: float | Float[Array, " B"] = 1.0,
) -> Float[Array, ""]:
    """Mean over the batch of weight times the sum over agents of the distance from the data.

    The distance is the squared error summed over real columns, or for discrete actions the
    cross-entropy. There the rows of dead agents, who can only stop, do not count.
    """
    if spec.discrete:
        error = action_error(spec, out, batch.action, batch.available)
        counted = jnp.broadcast_to(jnp.asarray(weight)[..., None], error.shape) * error
        return spec.agents * weighted_mean(counted, batch.alive)
    error = jnp.asarray(spec.act_mask) * (out - batch.action)
    return jnp.mean(weight * jnp.sum(error**2, axis=(1, 2)))

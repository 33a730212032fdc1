"""How far a network's output is from the action that the data have."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Spec
from jaxomarl.masking import column_mean


def action_error(
    spec: Spec,
    out: Float[Array, "*B N A"],
    action: Float[Array, "*B N A"],
    available: Float[Array, "*B N A"],
) -> Float[Array, "*B N"]:
    """Mean square over real columns; where actions are discrete, the cross-entropy of logits `out`.

    Logits of actions that were not available have no share in it, as in MADiff's code. What was done counts as
    available.
    """
    mask = jnp.asarray(spec.act_mask)
    if spec.discrete:
        possible = (mask > 0) & ((available > 0) | (action > 0))
        return -jnp.sum(action * mask * jax.nn.log_softmax(jnp.where(possible, out, -1e9)), axis=-1)
    return column_mean((out - action) ** 2, mask)

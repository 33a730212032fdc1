"""The distance of a network's output from the action in the data."""

from typing import Any

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
    """The mean square over real columns; for discrete actions, the cross-entropy of logits `out`.

    Logits of unavailable actions are left out, as in MADiff's code. An action in the data counts
    as available.
    """
    mask = jnp.asarray(spec.act_mask)
    if not spec.discrete:
        return column_mean((out - action) ** 2, mask)

    # imported here: it takes two seconds, and only discrete tasks need it
    import distrax

    possible = (mask > 0) & ((available > 0) | (action > 0))
    policy = distrax.OneHotCategorical(logits=jnp.where(possible, out, -1e9))
    log_p: Any = policy.log_prob(action * mask)
    return -log_p

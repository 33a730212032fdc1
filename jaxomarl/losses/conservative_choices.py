"""Conservative terms over legal actions, in closed form or from drawn joint actions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from jaxomarl.losses.categorical import masked, soft_maximum, taken

Total = Callable[[Float[Array, "*K B N"]], Float[Array, "*K B"]]
"""The team's value of the agents' utilities."""


def own_gap(
    utilities: Float[Array, "*B A"], chosen: Float[Array, "*B"], legal: Float[Array, "*B A"]
) -> Float[Array, "*B"]:
    """log sum exp Q_i over the legal actions, less Q_i of the data's action."""
    return soft_maximum(utilities, legal) - chosen


def counterfactual_gap(
    total: Total,
    utilities: Float[Array, "B N A"],
    chosen: Float[Array, "B N"],
    legal: Float[Array, "B N A"],
) -> Float[Array, "B N"]:
    """log sum exp Q_tot over agent i's legal actions, the others' from the data; less Q_tot.

    It takes N A values of the mixer, as only entry i changes. Source: Shao et al. 2023 (CFCQL).
    """
    n = chosen.shape[-1]
    is_agent = jnp.eye(n, dtype=bool)[:, None, None, :]
    # [N, A, B, N]: agent i's utility in place of the chosen one
    own = jnp.moveaxis(utilities, 0, -1)[..., None]
    values = total(jnp.where(is_agent, own, chosen))
    by_agent = jnp.moveaxis(values, -1, 0)
    return soft_maximum(by_agent, legal) - total(chosen)[:, None]


def joint_gap(
    key: Key[Array, ""],
    total: Total,
    utilities: Float[Array, "B N A"],
    chosen: Float[Array, "B N"],
    legal: Float[Array, "B N A"],
    draws: int,
) -> Float[Array, " B"]:
    """log sum exp Q_tot over joint actions drawn uniformly from the legal ones and the data's.

    Less Q_tot of the data's. Source: OG-MARL's QMIX+CQL, which draws with normalised masks for
    logits, and so illegal actions too; ours are legal.
    """
    logits = masked(jnp.zeros_like(utilities), legal)
    drawn = jax.random.categorical(key, logits, shape=(draws, *chosen.shape))
    one_hot = jax.nn.one_hot(drawn, utilities.shape[-1])
    sampled = total(taken(utilities, one_hot))
    data = total(chosen)
    return logsumexp(jnp.concatenate([sampled, data[None]]), axis=0) - data

"""What an on-policy learner collects before it learns: rows with advantages, in minibatches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from jaxomarl.base import Spec


class Collected(NamedTuple):
    """A collection, flat over steps and environments."""

    obs: Float[Array, "M N O"]
    action: Float[Array, "M N A"]
    legal: Float[Array, "M N A"]
    alive: Float[Array, "M N"]
    log_pi: Float[Array, "M N"]
    """Log-probability of the action when it was taken."""
    value: Float[Array, "M N"]
    """The value before the updates."""
    advantage: Float[Array, "M N"]
    returns: Float[Array, "M N"]


def empty_collection(spec: Spec, rows: int) -> Collected:
    """A collection before the first one: zeros."""
    obs = jnp.zeros((rows, *spec.obs_mask.shape))
    action = jnp.zeros((rows, *spec.act_mask.shape))
    each = action[..., 0]
    return Collected(obs, action, action, each, each, each, each, each)


def advantages(
    delta: Float[Array, "T E N"], last: Float[Array, "T E"], decay: float | Array
) -> Float[Array, "T E N"]:
    """A_t = delta_t + decay (1 - end_t) A_{t+1}, where decay = gamma lambda.

    Source: Schulman et al. 2016, generalised advantage estimation.
    """

    def back(after: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        change, end = now
        before = change + decay * (1.0 - end)[:, None] * after
        return before, before

    _, out = jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, last), reverse=True)
    return out


def minibatch(
    collected: Collected, shuffle: UInt[Array, "..."], done: Int[Array, ""], minibatches: int
) -> Collected:
    """The next minibatch after `done` updates on a collection.

    Every `minibatches` updates see each row once, in an order that the key data `shuffle` gives.
    """
    rows = len(collected.obs)
    size = rows // minibatches
    epoch = jax.random.fold_in(jax.random.wrap_key_data(shuffle), done // minibatches)
    order = jax.random.permutation(epoch, rows)
    chosen = jax.lax.dynamic_slice_in_dim(order, (done % minibatches) * size, size)
    return jax.tree.map(lambda x: x[chosen], collected)

"""Deterministic policies with tanh outputs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.networks.mlp import Network, Params, mlp

EDGE = 1.0 - 1e-3  # a start at the very edge of tanh would have no gradient


def actor(inputs: int, hidden: Sequence[int], outputs: int) -> Network:
    """[..., O] -> [..., A] in (-1, 1): an MLP and a final tanh."""
    net = mlp(inputs, hidden, outputs)
    return Network(net.init, lambda params, obs: jnp.tanh(net.apply(params, obs)))


def start_at(params: Params, action: Float[Array, "*N A"]) -> Params:
    """The same network with its last layer set so that it plays `action` everywhere (the bandit's starts)."""
    bias = jnp.arctanh(jnp.clip(action, -EDGE, EDGE))
    return {**params, "out": {"kernel": jnp.zeros_like(params["out"]["kernel"]), "bias": bias}}


def uniform_start(key: Key[Array, ""], reach: float, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Actions drawn uniformly in +-reach."""
    return jax.random.uniform(key, shape, minval=-reach, maxval=reach)


def small(params: Params) -> Params:
    """The same network with its last layer a hundredth as large: it starts near the middle of the action box."""
    return {**params, "out": jax.tree.map(lambda x: 0.01 * x, params["out"])}

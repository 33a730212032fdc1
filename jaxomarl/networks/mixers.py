"""Mixers: they combine the values of the agents to the value of the team."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.networks.mlp import Network, mlp


def linear_mixer(state: int, width: int, agents: int) -> Network:
    """[..., S] -> [..., N + 1]: a weight of at least zero for each agent, then an offset.

    It has one hidden layer.
    """
    net = mlp(state, (width,), agents + 1)

    def apply(params, s):
        out = net.apply(params, s)
        return jnp.concatenate([jnp.abs(out[..., :-1]), out[..., -1:]], axis=-1)

    return Network(net.init, apply)


def mixed(weights: Float[Array, "*B M"], value: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """sum_i w_i value_i + b, with w and b from `linear_mixer`."""
    return jnp.sum(weights[..., :-1] * value, axis=-1) + weights[..., -1]

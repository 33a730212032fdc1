"""Policies with memory: a gated recurrent unit between two layers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.networks.mlp import Params, dense, parameters


class Cell(nn.Module):
    """dense -> ReLU -> GRU -> ReLU -> dense -> tanh; all but the last are `width` wide."""

    width: int
    out: int

    @nn.compact
    def __call__(self, hidden, x):
        """hidden [..., H], x [..., I] -> (hidden [..., H], action [..., A] in (-1, 1))."""
        inputs = nn.relu(dense(x, self.width))
        hidden, h = nn.GRUCell(self.width, name="gru")(hidden, inputs)
        action = jnp.tanh(dense(nn.relu(h), self.out, name="out"))
        return hidden, action


class Recurrent(NamedTuple):
    """A policy with memory, as a pair of functions."""

    init: Callable[[Key[Array, ""]], Params]
    step: Callable[..., tuple[Array, Array]]
    """(params, hidden [..., H], x [..., I]) -> (hidden, action [..., A])."""
    width: int
    """Width of the memory."""

    def unrolled(self, params: Params, x: Float[Array, "*B T I"]) -> Float[Array, "*B T A"]:
        """The actions along sequences, each of which starts with an empty memory."""
        start = jnp.zeros((*x.shape[:-2], self.width))

        def step(hidden, now):
            return self.step(params, hidden, now)

        _, action = jax.lax.scan(step, start, jnp.moveaxis(x, -2, 0))
        return jnp.moveaxis(action, 0, -2)


def recurrent(inputs: int, width: int, outputs: int) -> Recurrent:
    """A policy [..., I] -> [..., A] in (-1, 1) with memory [..., width].

    The memory is zeros at the start of an episode.
    """
    cell = Cell(width, outputs)

    def init(key):
        return parameters(key, cell, jnp.zeros(width), jnp.zeros(inputs))

    def step(params: Params, hidden: Array, x: Array) -> tuple[Array, Array]:
        out: Any = cell.apply({"params": params}, hidden, x)
        return out

    return Recurrent(init, step, width)

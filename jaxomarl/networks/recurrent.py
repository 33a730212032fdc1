"""Policies that remember: a gated recurrent unit between two layers, stepped or unrolled over a sequence."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.networks.mlp import Params, dense, parameters


class Cell(nn.Module):
    """dense -> ReLU -> GRU -> ReLU -> dense -> tanh, all `width` wide but the last."""

    width: int
    out: int

    @nn.compact
    def __call__(self, hidden, x):
        """Hidden [..., H], x [..., I] -> (hidden [..., H], action [..., A] in (-1, 1))."""
        hidden, h = nn.GRUCell(self.width, name="gru")(hidden, nn.relu(dense(x, self.width)))
        return hidden, jnp.tanh(dense(nn.relu(h), self.out, name="out"))


class Recurrent(NamedTuple):
    """A policy that is stepped; `width` is its memory's."""

    init: Callable[[Key[Array, ""]], Params]
    step: Callable[
        ..., tuple[Array, Array]
    ]  # (params, hidden [..., H], x [..., I]) -> (hidden, action [..., A])
    width: int

    def unrolled(self, params: Params, x: Float[Array, "*B T I"]) -> Float[Array, "*B T A"]:
        """Actions along sequences, each from an empty memory."""
        start = jnp.zeros((*x.shape[:-2], self.width))
        step = lambda hidden, now: self.step(params, hidden, now)
        return jnp.moveaxis(jax.lax.scan(step, start, jnp.moveaxis(x, -2, 0))[1], 0, -2)


def recurrent(inputs: int, width: int, outputs: int) -> Recurrent:
    """A policy [..., I] -> [..., A] in (-1, 1) with memory [..., width], zeros at the start of an episode."""
    cell = Cell(width, outputs)

    def step(params: Params, hidden: Array, x: Array) -> tuple[Array, Array]:
        told: Any = cell.apply({"params": params}, hidden, x)
        return told

    return Recurrent(
        lambda key: parameters(key, cell, jnp.zeros(width), jnp.zeros(inputs)), step, width
    )

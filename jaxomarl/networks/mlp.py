"""Multi-layer perceptrons, with flax hidden behind a pair of pure functions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

Params = Any


class Network(NamedTuple):
    """`init(key) -> params` and `apply(params, ...) -> array`; leading axes of the inputs are batch axes."""

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[..., Array]


def network(module: nn.Module, *widths: int) -> Network:
    """Bind a flax module to the widths of its inputs' last axes (width 0: a scalar per sample)."""

    def init(key):
        return module.init(key, *(jnp.zeros((w,) if w else ()) for w in widths))["params"]

    def apply(params, *inputs, **options) -> Any:
        return module.apply({"params": params}, *inputs, **options)

    return Network(init, apply)


def dense(x: Array, width: int, name: str | None = None) -> Array:
    """A linear layer that starts as PyTorch's does, weight and bias U(+-1/sqrt(fan in)), as in the papers' codes."""
    bound = x.shape[-1] ** -0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(width, kernel_init=uniform, bias_init=uniform, name=name)(x)


class MLP(nn.Module):
    """[..., in] -> [..., out]: hidden layers with `activation`, then a linear layer named `out`."""

    hidden: Sequence[int]
    out: int
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x):
        """Apply the layers to the last axis."""
        for width in self.hidden:
            x = self.activation(dense(x, width))
        return dense(x, self.out, name="out")


def mlp(inputs: int, hidden: Sequence[int], out: int, activation: Callable[[Array], Array] = nn.relu) -> Network:
    """A perceptron as a pair of functions; ReLU unless told otherwise."""
    return network(MLP(tuple(hidden), out, activation), inputs)


def mish(x: Array) -> Array:
    """X tanh(softplus(x)) (Misra 2019)."""
    return x * jnp.tanh(nn.softplus(x))


def ensemble(net: Network, members: int) -> Network:
    """E independent copies of `net` on the same inputs: params and outputs lead with E."""
    return Network(
        lambda key: jax.vmap(net.init)(jax.random.split(key, members)),
        lambda params, *inputs: jax.vmap(lambda p: net.apply(p, *inputs))(params),
    )

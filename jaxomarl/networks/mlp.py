"""Multi-layer perceptrons, with flax hidden behind a pair of pure functions."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.meta import AxisMetadata
from flax.struct import PyTreeNode, field
from jaxtyping import Array, Key

from jaxomarl.numerics import precision

Params = Any


class Network(NamedTuple):
    """`init(key) -> params` and `apply(params, ...) -> array`; leading axes of the inputs are batch axes."""

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[..., Array]


class Undrawn(PyTreeNode, AxisMetadata):
    """Stands where U(+-bound) is to be drawn, until `parameters` does it for a whole network at once.

    Its value is NaN, so that a module whose `init` is called without `parameters` cannot go unnoticed.
    """

    value: Array
    bound: float = field(pytree_node=False)

    def unbox(self) -> Array:
        """What the layer computes with while its parameters are being made."""
        return self.value

    def replace_boxed(self, val: Any) -> "Undrawn":
        """The same with another array."""
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict) -> "Undrawn":
        """Itself: the box names no axes."""
        return self

    def remove_axis(self, index: int, params: dict) -> "Undrawn":
        """Itself."""
        return self


def parameters(key: Key[Array, ""], module: nn.Module, *inputs: Array) -> Params:
    """A module's first parameters; all that `dense` makes are drawn from one stream.

    A stream for each layer, as flax has it, is most of what a small network's first state takes to compile.
    """
    k_flax, key = jax.random.split(key)
    made = module.init(k_flax, *inputs)["params"]
    leaves, tree = jax.tree.flatten(made, is_leaf=lambda x: isinstance(x, Undrawn))
    boxes = [x for x in leaves if isinstance(x, Undrawn)]
    ends = list(itertools.accumulate(x.value.size for x in boxes))
    u = jax.random.uniform(key, (ends[-1] if ends else 0,), minval=-1.0, maxval=1.0)
    parts = iter(
        x.bound * u[end - x.value.size : end].reshape(x.value.shape)
        for x, end in zip(boxes, ends, strict=True)
    )
    return jax.tree.unflatten(tree, [next(parts) if isinstance(x, Undrawn) else x for x in leaves])


def network(module: nn.Module, *widths: int) -> Network:
    """Bind a flax module to the widths of its inputs' last axes (width 0: a scalar per sample)."""

    def init(key):
        return parameters(key, module, *(jnp.zeros((w,) if w else ()) for w in widths))

    def apply(params, *inputs, **options) -> Any:
        return module.apply({"params": params}, *inputs, **options)

    return Network(init, apply)


def hidden(x: Array) -> Array:
    """X as hidden layers pass it on: itself, or in bfloat16 inside `jax.default_matmul_precision("bfloat16")`."""
    return x.astype(jnp.bfloat16) if precision() == "bfloat16" else x


def dense(x: Array, width: int, name: str | None = None) -> Array:
    """A linear layer that starts as PyTorch's does, weight and bias U(+-1/sqrt(fan in)), as in the papers' codes.

    Modules that are made of it get their first numbers from `parameters`. What hidden layers pass on in bfloat16 (see
    `hidden`) is multiplied in it. Parameters stay float32, and so do the layers that read a network's inputs and the
    last one, `out`: eight bits are too few for a noisy action near its end, or for a value.
    """

    def uniform(key, shape, dtype=jnp.float32) -> Any:
        return Undrawn(jnp.full(shape, jnp.nan, dtype), x.shape[-1] ** -0.5)

    within = name != "out"
    dtype = jnp.bfloat16 if within and x.dtype == jnp.bfloat16 else None
    y = nn.Dense(width, kernel_init=uniform, bias_init=uniform, name=name, dtype=dtype)(x)
    return hidden(y) if within else y


def layer_norm(dtype: Any = None) -> nn.LayerNorm:
    """A layer normalisation with PyTorch's epsilon, 1e-5; flax's own is 1e-6.

    Both networks that normalise so follow PyTorch code: SRPO's and OMSD's score model, and Decision Transformer.
    """
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype)


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


def mlp(
    inputs: int, hidden: Sequence[int], out: int, activation: Callable[[Array], Array] = nn.relu
) -> Network:
    """A perceptron as a pair of functions; ReLU unless told otherwise."""
    return network(MLP(tuple(hidden), out, activation), inputs)


def mish(x: Array) -> Array:
    """X tanh(softplus(x)) (Misra 2019), as x n / (n + 2) with n = e^x (e^x + 2): one exponential in place of three."""
    e = jnp.exp(jnp.minimum(x, 20.0))  # above it the factor is 1 in float32
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def ensemble(net: Network, members: int) -> Network:
    """E independent copies of `net` on the same inputs: params and outputs lead with E."""
    return Network(
        lambda key: jax.vmap(net.init)(jax.random.split(key, members)),
        lambda params, *inputs: jax.vmap(lambda p: net.apply(p, *inputs))(params),
    )

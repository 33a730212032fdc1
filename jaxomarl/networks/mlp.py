"""Multi-layer perceptrons, with flax hidden behind a pair of pure functions."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.meta import AxisMetadata
from flax.struct import PyTreeNode, field
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from jaxomarl.numerics import precision

Params = Any
"""The parameters of a network: a pytree of arrays."""


class Network(NamedTuple):
    """`init(key) -> params` and `apply(params, ...) -> array`.

    Leading axes of the inputs are batch axes.
    """

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[..., Array]


# --- first parameters ---


class Undrawn(PyTreeNode, AxisMetadata):
    """A placeholder for U(+-bound), until `parameters` samples for all layers at once.

    Its value is NaN, so a call of a module's `init` without `parameters` is noticed.
    """

    value: Array
    bound: float = field(pytree_node=False)

    def unbox(self) -> Array:
        """The value that the layer computes with while its parameters are created."""
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
    """A module's first parameters; those of all `dense` layers are sampled from one stream.

    flax has a stream for each layer, which takes most of the time that a small network's first
    state needs to compile.
    """
    k_flax, key = jax.random.split(key)
    created = module.init(k_flax, *inputs)["params"]
    leaves, tree = jax.tree.flatten(created, is_leaf=_is_undrawn)
    undrawn = [leaf for leaf in leaves if _is_undrawn(leaf)]
    ends = list(itertools.accumulate(leaf.value.size for leaf in undrawn))
    total = ends[-1] if ends else 0
    u = jax.random.uniform(key, (total,), minval=-1.0, maxval=1.0)

    drawn = iter(
        leaf.bound * u[end - leaf.value.size : end].reshape(leaf.value.shape)
        for leaf, end in zip(undrawn, ends, strict=True)
    )
    filled = [next(drawn) if _is_undrawn(leaf) else leaf for leaf in leaves]
    return jax.tree.unflatten(tree, filled)


def _is_undrawn(leaf: Any) -> bool:
    return isinstance(leaf, Undrawn)


def network(module: nn.Module, *widths: int) -> Network:
    """Bind a flax module to the widths of its inputs' last axes (width 0: a scalar per sample)."""

    def init(key):
        shapes = [(width,) if width else () for width in widths]
        return parameters(key, module, *(jnp.zeros(shape) for shape in shapes))

    def apply(params, *inputs, **options) -> Any:
        return module.apply({"params": params}, *inputs, **options)

    return Network(init, apply)


# --- layers ---


def hidden(x: Array) -> Array:
    """The values that a hidden layer passes on.

    They are bfloat16 inside `jax.default_matmul_precision("bfloat16")`, else x itself.
    """
    return x.astype(jnp.bfloat16) if precision() == "bfloat16" else x


def dense(x: Array | tuple[Array, ...], width: int, name: str | None = None) -> Array:
    """A linear layer that starts as PyTorch's: weight and bias are U(+-1/sqrt(fan in)).

    The papers' codes have it so. Modules of such layers get their first parameters from
    `parameters`. Inputs in bfloat16 (see `hidden`) are multiplied in bfloat16. Parameters stay
    float32. So do the layers that read a network's inputs, and the last one, `out`: eight bits are
    too few for a noisy action near its end, or for a value.

    Several inputs are read side by side, and their leading axes meet as in arithmetic (`Dense`).
    """
    if isinstance(x, tuple):
        if len({part.shape[:-1] for part in x}) > 1:
            y = Dense(width, name=name)(*x)
            return y if name == "out" else hidden(y)
        x = x[0] if len(x) == 1 else jnp.concatenate(x, axis=-1)
    start = uniform(x.shape[-1])
    last = name == "out"
    dtype = jnp.bfloat16 if x.dtype == jnp.bfloat16 and not last else None
    y = nn.Dense(width, kernel_init=start, bias_init=start, name=name, dtype=dtype)(x)
    if last:
        return y
    return hidden(y)


def uniform(fan_in: int) -> Callable[..., Any]:
    """The initialiser of a layer's numbers, whose sampling is left to `parameters`."""
    return lambda key, shape, dtype=jnp.float32: Undrawn(
        jnp.full(shape, jnp.nan, dtype), fan_in**-0.5
    )


class Dense(nn.Module):
    """A linear layer of inputs that have not all the same leading axes.

    The product with an input of fewer rows is taken once for all that share it: a state's under
    many actions, or a team's observations for each agent.
    """

    width: int

    @nn.compact
    def __call__(self, *inputs):
        """Apply the layer to the last axes."""
        columns = [x.shape[-1] for x in inputs]
        start = uniform(sum(columns))
        kernel = self.param("kernel", start, (sum(columns), self.width))
        y = self.param("bias", start, (self.width,))
        ends = list(itertools.accumulate(columns))
        for x, rows in zip(inputs, jnp.split(kernel, ends[:-1]), strict=True):
            y = y + x @ rows
        return y


def layer_norm(dtype: DTypeLike | None = None) -> nn.LayerNorm:
    """A layer normalisation with PyTorch's epsilon, 1e-5; flax's own is 1e-6.

    The networks that use it follow PyTorch code: the score model of SRPO and OMSD, and Decision
    Transformer.
    """
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype)


# --- perceptrons ---


class MLP(nn.Module):
    """[..., in] -> [..., out]: hidden layers with `activation`, then a linear layer named `out`.

    Several inputs are read side by side.
    """

    hidden: Sequence[int]
    out: int
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, *inputs):
        """Apply the layers to the last axes."""
        x = inputs
        for width in self.hidden:
            x = self.activation(dense(x, width))
        return dense(x, self.out, name="out")


def mlp(
    inputs: int | Sequence[int],
    hidden: Sequence[int],
    out: int,
    activation: Callable[[Array], Array] = nn.relu,
) -> Network:
    """A perceptron as a pair of functions; ReLU unless told otherwise."""
    widths = (inputs,) if isinstance(inputs, int) else inputs
    return network(MLP(tuple(hidden), out, activation), *widths)


def mish(x: Array) -> Array:
    """x tanh(softplus(x)) (Misra 2019).

    It is computed as x n / (n + 2) with n = e^x (e^x + 2), which takes one exponential in place of
    three.
    """
    # above 20 the factor is 1 in float32
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def ensemble(net: Network, members: int) -> Network:
    """E independent copies of `net` on the same inputs: params and outputs lead with E."""

    def init(key):
        return jax.vmap(net.init)(jax.random.split(key, members))

    def apply(params, *inputs):
        return jax.vmap(lambda member: net.apply(member, *inputs))(params)

    return Network(init, apply)

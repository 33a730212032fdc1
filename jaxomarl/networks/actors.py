"""Policies with tanh outputs: deterministic ones, and mean and deviation of a normal under tanh."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxomarl.base import Spec
from jaxomarl.networks.mlp import Network, Params, mlp

EDGE = 1.0 - 1e-3
"""Largest action that `start_at` takes: the very edge of tanh has no gradient."""
LOG_STD = (-5.0, 1.5)
"""Range of log std before the tanh, where actions at the box's edge count as +-3.8."""


def actor(inputs: int, hidden: Sequence[int], outputs: int) -> Network:
    """[..., O] -> [..., A] in (-1, 1): an MLP and a final tanh."""
    net = mlp(inputs, hidden, outputs)
    return Network(net.init, lambda params, obs: jnp.tanh(net.apply(params, obs)))


def acting_network(spec: Spec, inputs: int, hidden: Sequence[int], outputs: int) -> Network:
    """[..., O] -> [..., A]: actions in (-1, 1), or logits where actions are discrete."""
    if spec.discrete:
        return mlp(inputs, hidden, outputs)
    return actor(inputs, hidden, outputs)


def gaussian(inputs: int, hidden: Sequence[int], outputs: int) -> Network:
    """[..., O] -> [2, ..., A]: mean and log std of a normal, the latter in LOG_STD."""
    net = mlp(inputs, hidden, 2 * outputs)
    low, high = LOG_STD

    def apply(params, obs):
        mean, raw = jnp.split(net.apply(params, obs), 2, axis=-1)
        log_std = low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0)
        return jnp.stack([mean, log_std])

    return Network(net.init, apply)


def start_at(params: Params, action: Float[Array, "*N A"]) -> Params:
    """The same network with a last layer that outputs `action` for every input.

    The bandit's policies start so.
    """
    bias = jnp.arctanh(jnp.clip(action, -EDGE, EDGE))
    kernel = jnp.zeros_like(params["out"]["kernel"])
    return {**params, "out": {"kernel": kernel, "bias": bias}}


def uniform_start(key: Key[Array, ""], reach: float, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Actions sampled uniformly in [-reach, reach]."""
    return jax.random.uniform(key, shape, minval=-reach, maxval=reach)


def small(params: Params) -> Params:
    """The same network with its last layer scaled to a hundredth.

    Its actions start near the middle of the action box.
    """
    return {**params, "out": jax.tree.map(lambda x: 0.01 * x, params["out"])}


def action_of_output(
    spec: Spec, out: Float[Array, "N A"], available: Bool[Array, "N A"]
) -> Float[Array, "N A"]:
    """The action of a network's output.

    Continuous: the output, clipped to the box. Discrete: the likeliest available action, one-hot.
    """
    mask = jnp.asarray(spec.act_mask)
    if not spec.discrete:
        return mask * jnp.clip(out, -1.0, 1.0)
    logits = jnp.where((mask > 0) & available, out, -jnp.inf)
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), spec.act_width)

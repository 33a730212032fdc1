"""A trained network as arrays, and what is done to it: create, descend, polyak."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

Params = Any
"""The parameters of a network: a pytree of arrays."""
SMALL = 1_000_000
"""Largest number of parameters for which the optimiser steps one long vector.

In a larger network, joining and cutting the vector cost more than they save (benchmarks/NOTES.md).
"""


class Net(NamedTuple):
    """A network's parameters, its target and its optimiser's state."""

    params: Params
    target: Params
    """A slowly following copy of the parameters; `()` where there is none."""
    opt: Any


# --- updates ---


def packed(tx: optax.GradientTransformation, params: Params) -> optax.GradientTransformation:
    """`tx`, made to step a small network's parameters as one vector.

    A step then takes a few operations in all, in place of a few for each layer. The numbers are
    the same where `tx` works element by element, or on the norm of all elements.
    """
    size = sum(x.size for x in jax.tree.leaves(params))
    if size > SMALL:
        return tx
    return optax.flatten(tx)


def create(tx: optax.GradientTransformation, params: Params, target: bool = False) -> Net:
    """A network before its first step; with `target`, its target starts equal to it."""
    opt = packed(tx, params).init(params)
    return Net(params, params if target else (), opt)


def descend(tx: optax.GradientTransformation, net: Net, grads: Params) -> Net:
    """One optimiser step down `grads`."""
    updates, opt = packed(tx, net.params).update(grads, net.opt, net.params)
    return net._replace(params=optax.apply_updates(net.params, updates), opt=opt)


def polyak(net: Net, tau: float | Float[Array, ""]) -> Net:
    """One step of the target: target <- tau params + (1 - tau) target."""
    return net._replace(target=optax.incremental_update(net.params, net.target, tau))


def first_moments(net: Net) -> Params:
    """Adam's running means of the gradients, in the shape of the parameters.

    None where the optimiser keeps no such means. Leading axes that several networks share stay.
    """
    found = optax.tree_utils.tree_get_all_with_path(net.opt, "mu")
    if not found:
        return None

    _, moments = found[0]
    leaves, tree = jax.tree.flatten(net.params)
    if jax.tree.structure(moments) == tree:
        return moments

    # a packed network: its moments are one vector, [*lead, D]
    networks = math.prod(moments.shape[:-1])
    ends = list(itertools.accumulate(x.size // networks for x in leaves))
    starts = [0, *ends[:-1]]
    parts = [
        moments[..., start:end].reshape(x.shape)
        for x, start, end in zip(leaves, starts, ends, strict=True)
    ]
    return jax.tree.unflatten(tree, parts)


# --- optimisers ---

OPTIMISERS = ("adam", "sgd")
"""Names that `adam_or_sgd` takes."""


def clipped_adam(
    lr: optax.ScalarOrSchedule, clip: float | Float[Array, ""]
) -> optax.GradientTransformation:
    """Adam on gradients whose joint norm is at most `clip`."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(lr))


def adam_or_sgd(
    name: str, lr: float | Float[Array, ""], steps: int, anneal: bool
) -> optax.GradientTransformation:
    """Adam or plain gradient descent; with `anneal`, the rate falls to zero over `steps`."""
    rate = annealed(lr, steps) if anneal else lr
    if name == "adam":
        return optax.adam(rate)
    return optax.sgd(rate)


def annealed(lr: float | Float[Array, ""], steps: int, end: float = 0.0) -> optax.Schedule:
    """A cosine from `lr` down to `end` over `steps` gradient steps, constant after them.

    `lr` may be traced.
    """
    cosine = optax.cosine_decay_schedule(lr - end, max(steps, 1))  # pyright: ignore

    def rate(count):
        return end + cosine(count)

    return rate

"""A trained network as arrays, and the three things that are done to it."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

Params = Any
SMALL = 1_000_000
"""Numbers in a network, up to which its optimiser steps one vector: above it, joining and cutting cost more than they
save (benchmarks/NOTES.md)."""


class Net(NamedTuple):
    """Parameters, their slowly following copy (`()` where there is none), and the optimiser's state."""

    params: Params
    target: Params
    opt: Any


def packed(tx: optax.GradientTransformation, params: Params) -> optax.GradientTransformation:
    """`tx` over a small network's parameters as one vector: a few operations in place of a few for each layer.

    The numbers are the same where `tx` works element by element, or on the norm of all.
    """
    return optax.flatten(tx) if sum(x.size for x in jax.tree.leaves(params)) <= SMALL else tx


def create(tx: optax.GradientTransformation, params: Params, target: bool = False) -> Net:
    """A network before its first step; with `target`, the copy starts equal."""
    return Net(params, params if target else (), packed(tx, params).init(params))


def descend(tx: optax.GradientTransformation, net: Net, grads: Params) -> Net:
    """One optimiser step down `grads`."""
    updates, opt = packed(tx, net.params).update(grads, net.opt, net.params)
    return net._replace(params=optax.apply_updates(net.params, updates), opt=opt)


def first_moments(net: Net) -> Params:
    """Adam's running means of the gradients in the shape of the parameters; None where the optimiser keeps none."""
    found = optax.tree_utils.tree_get_all_with_path(net.opt, "mu")
    leaves, tree = jax.tree.flatten(net.params)
    if not found or jax.tree.structure(found[0][1]) == tree:
        return found[0][1] if found else None
    flat = found[0][
        1
    ]  # [*lead, D]: of a packed network, or of several that lead with the same axes
    ends = list(itertools.accumulate(x.size // math.prod(flat.shape[:-1]) for x in leaves))
    parts = [
        flat[..., a:b].reshape(x.shape) for x, a, b in zip(leaves, [0, *ends], ends, strict=False)
    ]
    return jax.tree.unflatten(tree, parts)


def polyak(net: Net, tau: float | Float[Array, ""]) -> Net:
    """Target <- tau params + (1 - tau) target."""
    return net._replace(
        target=jax.tree.map(lambda p, t: tau * p + (1.0 - tau) * t, net.params, net.target)
    )


def clipped_adam(
    lr: optax.ScalarOrSchedule, clip: float | Float[Array, ""]
) -> optax.GradientTransformation:
    """Adam on gradients of a norm of at most `clip`."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(lr))


OPTIMISERS = ("adam", "sgd")
"""What `adam_or_sgd` may be told."""


def adam_or_sgd(
    name: str, lr: float | Float[Array, ""], steps: int, anneal: bool
) -> optax.GradientTransformation:
    """Adam or plain descent; with `anneal`, the rate falls to zero over `steps`."""
    rule = optax.adam if name == "adam" else optax.sgd
    return rule(annealed(lr, steps) if anneal else lr)


def annealed(lr: float | Float[Array, ""], steps: int, end: float = 0.0) -> optax.Schedule:
    """Cosine from `lr` to `end` over `steps` gradient steps, then constant; `lr` may be traced."""

    def rate(count):
        share = jax.numpy.minimum(count, steps) / max(steps, 1)
        return end + (lr - end) * 0.5 * (1.0 + jax.numpy.cos(jax.numpy.pi * share))

    return rate

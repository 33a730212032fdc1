"""A trained network as arrays, and the three things that are done to it."""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

Params = Any


class Net(NamedTuple):
    """Parameters, their slowly following copy (`()` where there is none), and the optimiser's state."""

    params: Params
    target: Params
    opt: Any


def create(tx: optax.GradientTransformation, params: Params, target: bool = False) -> Net:
    """A network before its first step; with `target`, the copy starts equal."""
    return Net(params, params if target else (), tx.init(params))


def descend(tx: optax.GradientTransformation, net: Net, grads: Params) -> Net:
    """One optimiser step down `grads`."""
    updates, opt = tx.update(grads, net.opt, net.params)
    return net._replace(params=optax.apply_updates(net.params, updates), opt=opt)


def polyak(net: Net, tau: float | Float[Array, ""]) -> Net:
    """Target <- tau params + (1 - tau) target."""
    return net._replace(target=jax.tree.map(lambda p, t: tau * p + (1.0 - tau) * t, net.params, net.target))


def annealed(lr: float | Float[Array, ""], steps: int, end: float = 0.0) -> optax.Schedule:
    """Cosine from `lr` to `end` over `steps` gradient steps, then constant; `lr` may be traced."""

    def rate(count):
        share = jax.numpy.minimum(count, steps) / max(steps, 1)
        return end + (lr - end) * 0.5 * (1.0 + jax.numpy.cos(jax.numpy.pi * share))

    return rate

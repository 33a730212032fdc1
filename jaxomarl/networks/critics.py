"""State values and ensembles of action values."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jaxomarl.networks.mlp import Network, ensemble, mlp


def value(
    inputs: int, hidden: Sequence[int], activation: Callable[[Array], Array] = nn.relu
) -> Network:
    """V: [..., C] -> [...]."""
    net = mlp(inputs, hidden, 1, activation)
    return Network(net.init, lambda params, cond: net.apply(params, cond)[..., 0])


def twin(
    inputs: int,
    actions: int,
    hidden: Sequence[int],
    members: int = 2,
    activation: Callable[[Array], Array] = nn.relu,
) -> Network:
    """Q^1, Q^2: ([..., C], [..., D]) -> [E, ...]."""
    net = ensemble(value(inputs + actions, hidden, activation), members)
    return Network(
        net.init, lambda params, cond, act: net.apply(params, jnp.concatenate([cond, act], axis=-1))
    )

"""State values and ensembles of action values."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jaxomarl.base import Spec
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, ensemble, mlp


def value(
    inputs: int, hidden: Sequence[int], activation: Callable[[Array], Array] = nn.relu
) -> Network:
    """V: [..., C] -> [...]."""
    net = mlp(inputs, hidden, 1, activation)

    def apply(params, cond):
        return net.apply(params, cond)[..., 0]

    return Network(net.init, apply)


def twin(
    inputs: int,
    actions: int,
    hidden: Sequence[int],
    members: int = 2,
    activation: Callable[[Array], Array] = nn.relu,
) -> Network:
    """Q^1, Q^2: ([..., C], [..., D]) -> [E, ...]."""
    net = ensemble(value(inputs + actions, hidden, activation), members)

    def apply(params, cond, action):
        return net.apply(params, jnp.concatenate([cond, action], axis=-1))

    return Network(net.init, apply)


def joint_twin(
    spec: Spec, hidden: Sequence[int], activation: Callable[[Array], Array] = nn.relu
) -> Network:
    """Q^1, Q^2 of the joint action: (state [B, S], action [*M, B, N, A]) -> [E, *M, B]."""
    actions = spec.agents * spec.act_width
    net = twin(spec.state_dim, actions, hidden, activation=activation)

    def apply(params, state, action):
        repeated = jnp.broadcast_to(state, (*action.shape[:-2], state.shape[-1]))
        return net.apply(params, repeated, flat(action))

    return Network(net.init, apply)

"""State values and ensembles of action values."""

from collections.abc import Callable, Sequence

import flax.linen as nn
from jaxtyping import Array

from jaxomarl.base import Spec
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, ensemble, mlp


def value(
    inputs: int | Sequence[int],
    hidden: Sequence[int],
    activation: Callable[[Array], Array] = nn.relu,
) -> Network:
    """V: [..., C] -> [...], or the value of several inputs side by side."""
    net = mlp(inputs, hidden, 1, activation)

    def apply(params, *inputs):
        return net.apply(params, *inputs)[..., 0]

    return Network(net.init, apply)


def twin(
    inputs: int,
    actions: int,
    hidden: Sequence[int],
    members: int = 2,
    activation: Callable[[Array], Array] = nn.relu,
) -> Network:
    """Q^1, Q^2: (condition [..., C], action [..., D]) -> [E, ...].

    Actions may have leading axes before the condition's. Many actions of one condition cost its
    product once. Raises ValueError for other axes.
    """
    net = ensemble(value((inputs, actions), hidden, activation), members)

    def apply(params, cond, action):
        own = cond.shape[:-1]
        if action.shape[:-1][len(action.shape) - 1 - len(own) :] != own:
            shapes = f"{cond.shape} and {action.shape}"
            raise ValueError(f"a condition's leading axes are not an action's last: {shapes}")
        return net.apply(params, cond, action)

    return Network(net.init, apply)


def joint_twin(
    spec: Spec, hidden: Sequence[int], activation: Callable[[Array], Array] = nn.relu
) -> Network:
    """Q^1, Q^2 of the joint action: (state [B, S], action [*M, B, N, A]) -> [E, *M, B]."""
    actions = spec.agents * spec.act_width
    net = twin(spec.state_dim, actions, hidden, activation=activation)

    def apply(params, state, action):
        return net.apply(params, state, flat(action))

    return Network(net.init, apply)

"""Inverse dynamics: the action that leads from one observation to the next.

Planners of observations act by it.
"""

import jax.numpy as jnp

from jaxomarl.base import Spec
from jaxomarl.networks import agents
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, mlp


def inverse(spec: Spec, kind: str, width: int, columns: int = 0) -> Network:
    """`apply(params, obs [..., N, O], then [..., N, O]) -> [..., N, A]` with two hidden layers.

    `kind` "shared": one network that gets the agent's one-hot. "separate": each agent's own
    network. "joint": one network of all agents. `columns` is O where plans are not of observations.
    """
    n = spec.agents
    pair_width = 2 * (columns or spec.obs_width)
    hidden = (width, width)
    if kind == "joint":
        net = _joint(mlp(n * pair_width, hidden, n * spec.act_width), spec.act_width)
    elif kind == "shared":
        net = agents.shared(lambda wide: mlp(wide, hidden, spec.act_width), pair_width, n)
    else:
        net = agents.separate(mlp(pair_width, hidden, spec.act_width), n)

    def apply(params, obs, then):
        return net.apply(params, jnp.concatenate([obs, then], axis=-1))

    return Network(net.init, apply)


def _joint(net: Network, act_width: int) -> Network:
    def apply(params, pair):
        return net.apply(params, flat(pair)).reshape(*pair.shape[:-1], act_width)

    return Network(net.init, apply)

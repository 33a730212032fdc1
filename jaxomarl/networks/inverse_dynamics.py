"""Which action led from one observation to the next: how planners of observations act."""

import jax.numpy as jnp

from jaxomarl.base import Spec
from jaxomarl.networks import agents
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, mlp


def inverse(spec: Spec, kind: str, width: int, columns: int = 0) -> Network:
    """`apply(params, obs [..., N, O], then [..., N, O]) -> [..., N, A]` of two hidden layers.

    `columns` O are the observations' unless plans are made of something else.
    `kind` shared: one network that is told whose action it is; separate: each agent's own; joint: one of all agents.
    """
    n, o, a, hidden = spec.agents, columns or spec.obs_width, spec.act_width, (width, width)
    if kind == "joint":
        joint = mlp(2 * n * o, hidden, n * a)
        net = Network(
            joint.init,
            lambda params, pair: joint.apply(params, flat(pair)).reshape(*pair.shape[:-1], a),
        )
    elif kind == "shared":
        net = agents.shared(lambda wide: mlp(wide, hidden, a), 2 * o, n)
    else:
        net = agents.separate(mlp(2 * o, hidden, a), n)
    return Network(
        net.init, lambda params, obs, then: net.apply(params, jnp.concatenate([obs, then], axis=-1))
    )

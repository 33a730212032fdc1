"""One actor and one value for all agents, which know the agent by its one-hot."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Spec
from jaxomarl.networks.agents import with_agent_number
from jaxomarl.networks.critics import value
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, Params, mlp


class ActorAndValue(NamedTuple):
    """The two networks of a team."""

    actor: Network
    """(params, obs [..., N, O]) -> logits [..., N, A]."""
    value: Network
    """(params, obs [..., N, O]) -> [..., N]."""


def shared_actor_and_value(spec: Spec, hidden: tuple[int, ...], joint: bool) -> ActorAndValue:
    """Build both; the value sees all observations where it is `joint`, else the agent's own."""
    n = spec.agents
    one = mlp(spec.obs_width + n, hidden, spec.act_width)
    seen = spec.obs_width
    if joint:
        seen = spec.obs_width * n
    v = value(seen + n, hidden)

    def logits(params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N A"]:
        return one.apply(params, with_agent_number(obs, n))

    def values(params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N"]:
        known = obs
        if joint:
            every = flat(obs)[..., None, :]
            known = jnp.broadcast_to(every, (*obs.shape[:-1], every.shape[-1]))
        return v.apply(params, with_agent_number(known, n))

    return ActorAndValue(Network(one.init, logits), Network(v.init, values))

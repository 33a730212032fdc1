"""One actor and one value for all agents, which know the agent by its one-hot."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Spec
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
    one = mlp((spec.obs_width, n), hidden, spec.act_width)

    def logits(params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N A"]:
        return one.apply(params, obs, jnp.eye(n))

    columns = spec.obs_width
    if joint:
        columns = spec.obs_width * n
    value = mlp((columns, n), hidden, 1)

    def values(params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N"]:
        seen = flat(obs)[..., None, :] if joint else obs
        return value.apply(params, seen, jnp.eye(n))[..., 0]

    return ActorAndValue(Network(one.init, logits), Network(value.init, values))

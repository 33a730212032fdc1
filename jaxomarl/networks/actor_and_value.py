"""One actor and one value for all agents, which know the agent by its one-hot."""

from typing import NamedTuple

from jaxtyping import Array, Float

from jaxomarl.base import Spec
from jaxomarl.networks.agents import with_agent_number
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, Params, TeamMLP, mlp, network


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

    def logits(params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N A"]:
        return one.apply(params, with_agent_number(obs, n))

    if joint:
        team = network(TeamMLP(hidden, 1, n), spec.obs_width * n)
        see = flat
    else:
        team = mlp(spec.obs_width + n, hidden, 1)
        see = lambda obs: with_agent_number(obs, n)

    def values(params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N"]:
        return team.apply(params, see(obs))[..., 0]

    return ActorAndValue(Network(one.init, logits), Network(team.init, values))

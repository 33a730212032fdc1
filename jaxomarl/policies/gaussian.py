"""Gaussian policies of agents that act apart, under MA-BRAC, MA-ICQ and OMIGA.

One agent's network outputs mean and deviation of a normal, whose tanh is the action
(losses/gaussian.py). The acting policy plays the tanh of the mean.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from jaxomarl.base import Spec
from jaxomarl.losses.gaussian import Normal, squashed
from jaxomarl.networks.actors import gaussian
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params


@runtime_checkable
class Width(Protocol):
    """The field that says how wide the network is."""

    @property
    def policy_width(self) -> int:
        """Width of the two hidden layers."""
        ...


def gaussian_network(spec: Spec, cfg: Width) -> Network:
    """(params, obs [..., O]) -> [2, ..., A]: mean and log std of one agent's normal."""
    return gaussian(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)


def policy_normal(net: Network, params: Params, obs: Float[Array, "*B O"]) -> Normal:
    """The normal under the tanh."""
    return Normal(*net.apply(params, obs))


def deterministic_action(
    net: Network, params: Params, obs: Float[Array, "*B O"], mask: Float[Array, " A"]
) -> Float[Array, "*B A"]:
    """The deterministic policy: the tanh of the mean."""
    return squashed(policy_normal(net, params, obs), 0.0, mask)

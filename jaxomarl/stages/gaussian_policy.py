"""Gaussian policies of agents that act apart, under MA-BRAC, MA-ICQ and OMIGA.

One agent's network gives mean and deviation of a normal, whose tanh is the action (losses/gaussian.py). A policy is
fitted to the data's actions by their likelihood, each with a weight or none, and plays the tanh of its mean:

    theta <- step down -mean w log pi(a | o)
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Algorithm, Batch, Past, Spec
from jaxomarl.config import config, static, traced
from jaxomarl.losses.gaussian import Normal, log_density, squashed
from jaxomarl.networks.actors import gaussian
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params
from jaxomarl.stages import clone, decentralised


@config
class Config(decentralised.Base):
    """Settings of agents with Gaussian policies."""

    policy_width: int = static(default=256)
    """Of two hidden layers."""
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    critic_width: int = static(default=256)
    """Of two hidden layers."""
    critic_lr: float = traced(default=3e-4, within="(0, inf)")
    clip: float = traced(default=1.0, within="(0, inf)")
    """Largest norm of a gradient."""


@config
class InSample(Config):
    """Settings of those that learn the values of what the data did, and then copy what was worth most."""

    policy_steps: int = static(default=10_000)
    """Steps of the policies, which follow the values'."""
    critic_steps: int = static(default=10_000)
    """Steps of the values."""
    critic_batch: int = static(default=1024)
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which targets follow."""


def network(spec: Spec, cfg: Any) -> Network:
    """(params, obs [..., O]) -> [2, ..., A]: one agent's mean and log deviation."""
    return gaussian(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)


def normal(net: Network, params: Params, obs: Float[Array, "*B O"]) -> Normal:
    """The normal under the tanh."""
    return Normal(*net.apply(params, obs))


def mode(net: Network, params: Params, obs: Float[Array, "*B O"], mask: Float[Array, " A"]) -> Float[Array, "*B A"]:
    """The deterministic policy: the tanh of the mean."""
    return squashed(normal(net, params, obs), 0.0, mask)


def fitted(
    spec: Spec, cfg: Any, weigh: Callable[[Past, Batch], Float[Array, "B N"]] | None = None, acts: bool = True
) -> Algorithm:
    """Policies of all agents, fitted to the data's actions; `weigh` as in `clone.behaviour`."""
    net = network(spec, cfg)

    def loss(key, params, seen, w):
        fit = log_density(normal(net, params, seen.obs), seen.action, seen.mask)
        return -jnp.mean(fit if w is None else w * fit)

    play = lambda key, params, obs, mask: mode(net, params, obs, mask)
    return clone.behaviour(spec, cfg, net, loss, weigh, play if acts else None)

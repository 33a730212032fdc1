"""Inputs of networks: raw units come in, and are normalised here where a system asks for it."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Past, Spec

Normaliser = Callable[[Past, Float[Array, "..."]], Float[Array, "..."]]
"""(finished stages, raw values) -> a network's inputs."""


@runtime_checkable
class Normalising(Protocol):
    """The field that says whether inputs are normalised."""

    @property
    def normalise(self) -> bool:
        """Whether networks get z-scores in place of raw units."""
        ...


@runtime_checkable
class Conditioned(Normalising, Protocol):
    """The fields that say what each agent's network is conditioned on."""

    @property
    def condition(self) -> str:
        """What it is conditioned on: "obs", its own observation, or the state for all agents."""
        ...


def observation_normaliser(spec: Spec, cfg: Normalising) -> Normaliser:
    """[..., N, O] -> [..., N, O]: z-scores where `cfg.normalise`, padded columns zero."""

    def see(past, obs):
        if cfg.normalise:
            obs = (obs - past["stats"].obs_mean) / past["stats"].obs_std
        return obs * spec.obs_mask

    return see


def state_normaliser(cfg: Normalising) -> Normaliser:
    """[..., S] -> [..., S]: z-scores where `cfg.normalise`."""

    def see(past, state):
        if cfg.normalise:
            state = (state - past["stats"].state_mean) / past["stats"].state_std
        return state

    return see


def flat(x: Float[Array, "*B N A"]) -> Float[Array, "*B NA"]:
    """The joint action or observation: all agents' columns side by side."""
    return x.reshape(*x.shape[:-2], -1)


def conditions(
    spec: Spec, cfg: Conditioned, past: Past, obs: Array, state: Array
) -> Float[Array, "*B N C"]:
    """The condition c_i of each agent: its observation, or the state for all (`cfg.condition`)."""
    if cfg.condition == "obs":
        return observation_normaliser(spec, cfg)(past, obs)
    seen = state_normaliser(cfg)(past, state)[..., None, :]
    return jnp.broadcast_to(seen, (*seen.shape[:-2], spec.agents, spec.state_dim))

"""What a network sees: raw units in, statistics applied here when a system asks for them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Past, Spec

Seen = Callable[[Past, Float[Array, "..."]], Float[Array, "..."]]


def observed(spec: Spec, cfg: Any) -> Seen:
    """[..., N, O] -> [..., N, O]: z-scores where `cfg.normalise`, padded columns zero."""

    def see(past, obs):
        if cfg.normalise:
            obs = (obs - past["stats"].obs_mean) / past["stats"].obs_std
        return obs * spec.obs_mask

    return see


def stated(cfg: Any) -> Seen:
    """[..., S] -> [..., S]: z-scores where `cfg.normalise`."""

    def see(past, state):
        return (
            (state - past["stats"].state_mean) / past["stats"].state_std if cfg.normalise else state
        )

    return see


def flat(x: Float[Array, "*B N A"]) -> Float[Array, "*B NA"]:
    """Agents side by side: the joint action or observation."""
    return x.reshape(*x.shape[:-2], -1)


def conditions(
    spec: Spec, cfg: Any, past: Past, obs: Array, state: Array
) -> Float[Array, "*B N C"]:
    """c_i of each agent: its observation, or the state for all (`cfg.condition`)."""
    if cfg.condition == "obs":
        return observed(spec, cfg)(past, obs)
    seen = stated(cfg)(past, state)[..., None, :]
    return jnp.broadcast_to(seen, (*seen.shape[:-2], spec.agents, spec.state_dim))

"""A team's diffusion policy of joint samples: one noise prediction for all agents, sampled in one chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Spec
from jaxomarl.diffusion.factorise import composed, factorisation
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.diffusion.schedules import BY_LEVELS
from jaxomarl.networks.agents import (
    DENOISER,
    joint_denoiser,
    pooled_denoiser,
    separate,
    shared_denoiser,
)
from jaxomarl.networks.denoisers import plain_mlp
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params
from jaxomarl.policies.diffusion import Diffuser, sample


class Team(NamedTuple):
    """All agents' diffusion policies as one; x [..., N, A], obs [..., N, O]. Its params are `init`'s."""

    init: Callable[[Key[Array, ""]], Params]
    trained: Diffuser  # the noise that is fitted, and sampled in losses
    played: Diffuser  # the noise as the agents act
    mix: (
        Callable[[Params, Array, Array], Array] | None
    )  # h: (params, x, obs) -> action; None leaves x as it is
    centralised: bool  # acting takes other agents' observations


def factorised(spec: Spec, cfg: Any) -> Team:
    """DoF's team. Only f, h, `networks`, width, levels and schedule are read: a density needs no more."""
    n, width, mask = spec.agents, spec.act_width, jnp.asarray(spec.act_mask)
    net = lambda told: plain_mlp(width, told, (cfg.policy_width,) * 3)
    one_for_all = cfg.networks == "shared"
    parts = (
        shared_denoiser(net, spec.obs_width, n)
        if one_for_all
        else separate(net(spec.obs_width), n, DENOISER)
    )
    f = factorisation(cfg.noise_mixer, n, width, width + 1 + spec.obs_width)
    h = factorisation(cfg.data_mixer, n, width, spec.obs_width)

    def init(key):
        k_parts, k_noise, k_data = jax.random.split(key, 3)
        return {"parts": parts.init(k_parts), "noise": f.init(k_noise), "data": h.init(k_data)}

    def diffuser(executed: bool) -> Diffuser:
        noise = Network(init, composed(parts.apply, f, mask, executed))
        return Diffuser(noise, BY_LEVELS[cfg.schedule](cfg.levels), ddpm, cfg.levels)

    mix = (
        None
        if cfg.data_mixer == "concat"
        else lambda params, x, obs: h.train(params["data"], x, obs)
    )
    return Team(
        init, diffuser(False), diffuser(True), mix, not (f.decentralised and h.decentralised)
    )


def independent(spec: Spec, cfg: Any) -> Team:
    """Independent Diffusion's team. Only `model`, width, levels and schedule are read: a density needs no more."""
    n, hidden = spec.agents, (cfg.policy_width,) * 3
    own = plain_mlp(spec.act_width, spec.obs_width, hidden)
    if cfg.model == "joint":
        net = joint_denoiser(plain_mlp(n * spec.act_width, n * spec.obs_width, hidden))
    elif cfg.model == "separate":
        net = separate(own, n, DENOISER)
    else:
        net = pooled_denoiser(own)
    diffuser = Diffuser(net, BY_LEVELS[cfg.schedule](cfg.levels), ddpm, cfg.levels)
    return Team(net.init, diffuser, diffuser, None, centralised=cfg.model == "joint")


# --- its samples ---


def sample_team(
    team: Team,
    key: Key[Array, ""],
    params: Params,
    obs: Float[Array, "*B N O"],
    mask: Float[Array, "N A"],
) -> Float[Array, "*B N A"]:
    """Joint actions in the box by the noise as it is trained; differentiable through every step."""
    return finished(team, params, sample(team.trained, key, params, obs, mask), obs, mask)


def finished(
    team: Team,
    params: Params,
    x: Float[Array, "*B N A"],
    obs: Float[Array, "*B N O"],
    mask: Float[Array, "N A"],
) -> Float[Array, "*B N A"]:
    """The actions h(x), held in the box."""
    return x if team.mix is None else mask * jnp.clip(team.mix(params, x, obs), -1.0, 1.0)


def times_and_noise(
    key: Key[Array, ""], levels: int, mask: Float[Array, "N A"], batch: int
) -> tuple[Float[Array, " B"], Float[Array, "B N A"]]:
    """A time from {1/K .. 1} for each row, one for all agents, and masked noise."""
    k_t, k_z = jax.random.split(key)
    t = jax.random.randint(k_t, (batch,), 1, levels + 1) / levels
    return t, mask * jax.random.normal(k_z, (batch, *mask.shape))

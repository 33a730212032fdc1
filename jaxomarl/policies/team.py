"""A team's diffusion policy: one noise prediction for all agents, sampled in one chain."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

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
    """All agents' diffusion policies as one: x [..., N, A], obs [..., N, O]."""

    init: Callable[[Key[Array, ""]], Params]
    trained: Diffuser
    """The noise that is fitted, and sampled in losses."""
    played: Diffuser
    """The noise as the agents act."""
    mix: Callable[[Params, Array, Array], Array] | None
    """h: (params, x, obs) -> action; None leaves x as it is."""
    centralised: bool
    """Whether acting needs other agents' observations."""

    def sample(
        self,
        key: Key[Array, ""],
        params: Params,
        obs: Float[Array, "*B N O"],
        mask: Float[Array, "N A"],
    ) -> Float[Array, "*B N A"]:
        """Joint actions in the box from the trained noise; differentiable through every step."""
        x = sample(self.trained, key, params, obs, mask)
        return self.finished(params, x, obs, mask)

    def finished(
        self,
        params: Params,
        x: Float[Array, "*B N A"],
        obs: Float[Array, "*B N O"],
        mask: Float[Array, "N A"],
    ) -> Float[Array, "*B N A"]:
        """The actions h(x), clipped to the box."""
        if self.mix is None:
            return x
        return mask * jnp.clip(self.mix(params, x, obs), -1.0, 1.0)


@runtime_checkable
class Sizes(Protocol):
    """The fields that every team depends on."""

    @property
    def policy_width(self) -> int:
        """Width of the three hidden layers."""
        ...

    @property
    def levels(self) -> int:
        """Number of noise levels."""
        ...

    @property
    def schedule(self) -> str:
        """Name of the noise schedule."""
        ...


@runtime_checkable
class Factorised(Sizes, Protocol):
    """The fields that DoF's team depends on."""

    @property
    def networks(self) -> str:
        """Whether agents have "shared" or "separate" networks."""
        ...

    @property
    def noise_mixer(self) -> str:
        """Name of the noise factorisation f."""
        ...

    @property
    def data_mixer(self) -> str:
        """Name of the data factorisation h."""
        ...


@runtime_checkable
class Independent(Sizes, Protocol):
    """The fields that Independent Diffusion's team depends on."""

    @property
    def model(self) -> str:
        """Whether it is one "joint" model, "separate" ones, or one of all agents' rows."""
        ...


def factorised(spec: Spec, cfg: Factorised) -> Team:
    """DoF's team."""
    n = spec.agents
    width = spec.act_width
    mask = jnp.asarray(spec.act_mask)

    def net(obs_width: int) -> Network:
        return plain_mlp(width, obs_width, (cfg.policy_width,) * 3)

    if cfg.networks == "shared":
        parts = shared_denoiser(net, spec.obs_width, n)
    else:
        parts = separate(net(spec.obs_width), n, DENOISER)
    f = factorisation(cfg.noise_mixer, n, width, width + 1 + spec.obs_width)
    h = factorisation(cfg.data_mixer, n, width, spec.obs_width)

    def init(key):
        k_parts, k_noise, k_data = jax.random.split(key, 3)
        return {"parts": parts.init(k_parts), "noise": f.init(k_noise), "data": h.init(k_data)}

    def diffuser(executed: bool) -> Diffuser:
        noise = Network(init, composed(parts.apply, f, mask, executed))
        return Diffuser(noise, BY_LEVELS[cfg.schedule](cfg.levels), ddpm, cfg.levels)

    def mix(params: Params, x: Array, obs: Array) -> Array:
        return h.train(params["data"], x, obs)

    mixed = None if cfg.data_mixer == "concat" else mix
    centralised = not (f.decentralised and h.decentralised)
    return Team(init, diffuser(False), diffuser(True), mixed, centralised)


def independent(spec: Spec, cfg: Independent) -> Team:
    """Independent Diffusion's team."""
    n = spec.agents
    hidden = (cfg.policy_width,) * 3
    own = plain_mlp(spec.act_width, spec.obs_width, hidden)
    if cfg.model == "joint":
        net = joint_denoiser(plain_mlp(n * spec.act_width, n * spec.obs_width, hidden))
    elif cfg.model == "separate":
        net = separate(own, n, DENOISER)
    else:
        net = pooled_denoiser(own)
    diffuser = Diffuser(net, BY_LEVELS[cfg.schedule](cfg.levels), ddpm, cfg.levels)
    return Team(net.init, diffuser, diffuser, None, centralised=cfg.model == "joint")


# --- what its training draws ---


def team_times_and_noise(
    key: Key[Array, ""], levels: int, mask: Float[Array, "N A"], batch: int
) -> tuple[Float[Array, " B"], Float[Array, "B N A"]]:
    """A time from {1/K .. 1} for each row, shared by all agents, and masked noise."""
    k_t, k_z = jax.random.split(key)
    t = jax.random.randint(k_t, (batch,), 1, levels + 1) / levels
    return t, mask * jax.random.normal(k_z, (batch, *mask.shape))

"""A team's diffusion policy: one noise prediction for all agents, sampled in one chain."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Spec
from jaxomarl.diffusion.factorise import composed, factorisation
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.diffusion.schedules import BY_LEVELS
from jaxomarl.losses.candidates import pick_by_value
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
from jaxomarl.policies.diffusion import Diffuser, clean, sample, several


class Team(NamedTuple):
    """All agents' diffusion policies as one: x [..., N, A], obs [..., N, O]."""

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
    return Team(diffuser(False), diffuser(True), mixed, centralised)


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
    return Team(diffuser, diffuser, None, centralised=cfg.model == "joint")


# --- how it acts ---


def player(
    team: Team, q: Network, count: int, acting: str
) -> Callable[[Key[Array, ""], Any, Float[Array, "N O"], Float[Array, "N A"]], Float[Array, "N A"]]:
    """How a team acts: it samples `count` joint actions, and each agent takes its best one.

    The best has the largest min_k Qbar_i^k(o_i, a_i), of agent i's own critic `q`. A centralised
    team's joint action is one sample, so all its agents take the same one. The state has an
    `actor`, whose "online" or "target" networks are `acting`, and a `critic`.
    """

    def play(key, state, obs, mask):
        params = state.actor.target if acting == "target" else state.actor.params
        x = several(team.played, key, params, obs, mask, count)
        candidates = team.finished(params, x, jnp.broadcast_to(obs, (count, *obs.shape)), mask)
        if count == 1:
            return candidates[0]
        q_of_all = jax.vmap(q.apply, in_axes=(0, 0, 1), out_axes=2)
        value = q_of_all(state.critic.target, obs, candidates).min(axis=0)
        if team.centralised:
            value = jnp.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
        return pick_by_value(candidates, value)

    return play


# --- how it is trained ---


def team_times_and_noise(
    key: Key[Array, ""], levels: int, mask: Float[Array, "N A"], batch: int
) -> tuple[Float[Array, " B"], Float[Array, "B N A"]]:
    """A time from {1/K .. 1} for each row, shared by all agents, and masked noise."""
    k_t, k_z = jax.random.split(key)
    t = jax.random.randint(k_t, (batch,), 1, levels + 1) / levels
    return t, mask * jax.random.normal(k_z, (batch, *mask.shape))


def fitting_loss(
    team: Team,
    params: Params,
    action: Float[Array, "B N A"],
    obs: Float[Array, "B N O"],
    mask: Float[Array, "N A"],
    t: Float[Array, " B"],
    z: Float[Array, "B N A"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean |eps(alpha_t a + sigma_t z, t, o) - z|^2 / D, plus mean |h(sg x0) - a|^2 / D; metrics.

    D is the number of real columns, and the second term exists where there is an h. x0 is what the
    chain's last step makes of the batch's own action: in the chain, h is applied to such estimates.
    A regression on full samples would shrink h to the conditional mean.
    """
    schedule = team.trained.schedule
    columns = mask.sum()

    # --- |eps - z|^2 ---
    eps = lambda x, t: team.trained.net.apply(params, x, t, obs)
    denoising_loss = eps_loss(eps, schedule, action, t, z, mask) / columns
    if team.mix is None:
        return denoising_loss, {"denoising_loss": denoising_loss}

    # --- |h(sg x0) - a|^2 ---
    last_t = jnp.asarray(1.0 / team.trained.levels)
    denoise = clean(team.trained, params, obs, mask)
    x0 = denoise(noised(schedule, action, last_t, z * mask), last_t)
    error = mask * team.mix(params, jax.lax.stop_gradient(x0), obs) - action
    mixer_loss = jnp.mean(jnp.sum(error**2, axis=(-1, -2))) / columns
    metrics = {"denoising_loss": denoising_loss, "mixer_loss": mixer_loss}
    return denoising_loss + mixer_loss, metrics

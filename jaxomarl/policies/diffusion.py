"""Diffusion policies of agents that act apart.

Diffusion BC, MA-Diffusion-QL, MA-EDP and MA-SfBC use them. One agent's noise network eps(x, t, o)
is a Mish perceptron. Training regresses the noise in x = alpha_t a + sigma_t z. Acting runs a
reverse chain from noise to an action, and clips each step's clean estimate to the action box.

The systems choose the schedule, the chain, and a value function. One tuple holds a policy:

    Diffuser(net, schedule, chain, levels)
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise, Schedule, Spec
from jaxomarl.diffusion.guidance import clipped, masked
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import Sampler
from jaxomarl.losses.candidates import pick_by_value
from jaxomarl.networks.denoisers import plain_mlp
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params


class Diffuser(NamedTuple):
    """One agent's diffusion policy without its parameters, or a team's.

    In a team's, x, obs and masks have a further axis N.
    """

    net: Network
    """(params, x [..., A], t, obs [..., O]) -> noise [..., A]."""
    schedule: Schedule
    chain: Callable[..., Sampler]
    """A sampler's constructor: ddpm, ddim or dpm_solver."""
    levels: int
    """Steps of the chain."""


@runtime_checkable
class Imitated(Protocol):
    """One agent's rows in a batch."""

    @property
    def obs(self) -> Float[Array, "B O"]:
        """Observations."""
        ...

    @property
    def action(self) -> Float[Array, "B A"]:
        """Actions in the data."""
        ...

    @property
    def mask(self) -> Float[Array, " A"]:
        """1.0 on the agent's real action columns."""
        ...


def noise_network(spec: Spec, width: int) -> Network:
    """The noise prediction `apply(params, x, t, obs)` with three hidden layers."""
    return plain_mlp(spec.act_width, spec.obs_width, (width,) * 3)


def sample(
    policy: Diffuser,
    key: Key[Array, ""],
    params: Params,
    obs: Float[Array, "*B O"],
    mask: Float[Array, "*N A"],
) -> Float[Array, "*B A"]:
    """An action in the box for each observation; differentiable through every step of the chain."""
    denoise = clean(policy, params, obs, mask)
    chain = policy.chain(policy.schedule, policy.levels, mask=mask)
    return chain(key, denoise, (*obs.shape[:-1], mask.shape[-1]))


def clean(
    policy: Diffuser, params: Params, obs: Float[Array, "*B O"], mask: Float[Array, "*N A"]
) -> Denoise:
    """The denoiser (x, t) -> (x - sigma eps) / alpha, clipped to the action box.

    Near t = 1 the division by alpha would otherwise give estimates far outside.
    """

    def eps(x, t):
        return policy.net.apply(params, x, t, obs)

    return masked(clipped(from_eps(eps, policy.schedule), -1.0, 1.0), mask)


def several(
    policy: Diffuser,
    key: Key[Array, ""],
    params: Params,
    obs: Float[Array, "*B O"],
    mask: Array,
    count: int,
) -> Float[Array, "K *B A"]:
    """`count` actions for each observation."""
    return sample(policy, key, params, jnp.broadcast_to(obs, (count, *obs.shape)), mask)


def player(
    policy: Diffuser, q: Network, count: int
) -> Callable[[Key[Array, ""], Any, Float[Array, " O"], Float[Array, " A"]], Float[Array, " A"]]:
    """How one agent acts: it samples `count` actions and plays one of them.

    It plays action a with probability softmax(min_k Qbar^k(o, a)). Its state has an `actor` and a
    `critic`.
    """

    def play(key, state, obs, mask):
        k_draw, k_pick = jax.random.split(key)
        drawn = several(policy, k_draw, state.actor.params, obs, mask, count)
        value = q.apply(state.critic.target, obs, drawn).min(axis=0)
        return pick_by_value(drawn, value, jax.random.gumbel(k_pick, value.shape))

    return play


def denoising_loss(
    policy: Diffuser, params: Params, batch: Imitated, t: Float[Array, " B"], z: Float[Array, "B A"]
) -> Float[Array, ""]:
    """Mean over the batch of sum_dims (eps(alpha_t a + sigma_t z, t, o) - z)^2.

    The sum is over real columns.
    """

    def eps(x, t):
        return policy.net.apply(params, x, t, batch.obs)

    return eps_loss(eps, policy.schedule, batch.action, t, z, batch.mask)


def agent_times_and_noise(
    key: Key[Array, ""], batch: Imitated, levels: int | None = None
) -> tuple[Float[Array, " B"], Float[Array, "B A"]]:
    """Times t and masked noise z for a batch.

    t is uniform on {1/K .. 1} for K `levels`, and on [1e-3, 1] without `levels`. The former are
    exactly the times of a sampler of K steps. The latter suit a sampler whose steps are chosen
    later.
    """
    k_t, k_z = jax.random.split(key)
    shape = batch.action.shape[:-1]
    if levels is None:
        t = jax.random.uniform(k_t, shape, minval=1e-3, maxval=1.0)
    else:
        t = jax.random.randint(k_t, shape, 1, levels + 1) / levels
    return t, batch.mask * jax.random.normal(k_z, batch.action.shape)

"""Diffusion policies of agents that act apart, under Diffusion BC, MA-Diffusion-QL, MA-EDP and MA-SfBC.

One agent's noise network eps(x, t, o) is a Mish perceptron. Training regresses the noise in x = alpha_t a + sigma_t z;
acting runs a reverse chain from noise to an action, each step's estimate of the clean action held in the box. Which
schedule, which chain, and which value besides: that is what the systems show. A whole policy in one tuple:

    Diffuser(net, schedule, chain, levels)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise, Schedule, Spec
from jaxomarl.diffusion.guidance import clipped, masked
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import Sampler
from jaxomarl.losses.candidates import pick
from jaxomarl.networks.denoisers import plain_mlp
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params


class Diffuser(NamedTuple):
    """One agent's diffusion policy, its parameters apart; or a team's, where x, obs and masks have an axis N more."""

    net: Network  # (params, x [..., A], t, obs [..., O]) -> noise [..., A]
    schedule: Schedule
    chain: Callable[..., Sampler]  # ddpm, ddim, dpm_solver
    levels: int  # steps of the chain


def noise_network(spec: Spec, width: int) -> Network:
    """Noise prediction `apply(params, x, t, obs)` of three hidden layers."""
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
    """(x, t) -> (x - sigma eps) / alpha, held in the box: near t = 1 the division by alpha would throw it far out."""
    eps = lambda x, t: policy.net.apply(params, x, t, obs)
    return masked(clipped(from_eps(eps, policy.schedule), -1.0, 1.0), mask)


def several(
    policy: Diffuser,
    key: Key[Array, ""],
    params: Params,
    obs: Float[Array, "*B O"],
    mask: Array,
    count: int,
) -> tuple[Float[Array, "K *B O"], Float[Array, "K *B A"]]:
    """Each observation `count` times over, and an action for each."""
    wide = jnp.broadcast_to(obs, (count, *obs.shape))
    return wide, sample(policy, key, params, wide, mask)


def player(
    policy: Diffuser, q: Network, count: int
) -> Callable[[Key[Array, ""], Any, Float[Array, " O"], Float[Array, " A"]], Float[Array, " A"]]:
    """How one agent plays: one of `count` drawn actions, with chance softmax(min_k Qbar^k(o, a)).

    The state that it plays by has an `actor` and a `critic`.
    """

    def play(key, state, obs, mask):
        k_draw, k_pick = jax.random.split(key)
        wide, drawn = several(policy, k_draw, state.actor.params, obs, mask, count)
        value = q.apply(state.critic.target, wide, drawn).min(axis=0)
        return pick(drawn, value, jax.random.gumbel(k_pick, value.shape))

    return play


def denoising_loss(
    policy: Diffuser, params: Params, batch: Any, t: Float[Array, " B"], z: Float[Array, "B A"]
) -> Float[Array, ""]:
    """Mean over the batch of sum_dims (eps(alpha_t a + sigma_t z, t, o) - z)^2, real columns only.

    `batch` has one agent's obs [B, O] and action [B, A], and the mask [A] of its real columns.
    """
    eps = lambda x, t: policy.net.apply(params, x, t, batch.obs)
    return eps_loss(eps, policy.schedule, batch.action, t, z, batch.mask)


def times_and_noise(
    key: Key[Array, ""], batch: Any, levels: int | None = None
) -> tuple[Float[Array, " B"], Float[Array, "B A"]]:
    """Times t and masked noise z of a batch: t uniform on {1/K .. 1} for K `levels`, on [1e-3, 1] where there are none.

    A sampler of few steps wants the former, exactly its own times; a chain whose steps are chosen later, the latter.
    """
    k_t, k_z = jax.random.split(key)
    shape = batch.action.shape[:-1]
    if levels is None:
        t = jax.random.uniform(k_t, shape, minval=1e-3, maxval=1.0)
    else:
        t = jax.random.randint(k_t, shape, 1, levels + 1) / levels
    return t, batch.mask * jax.random.normal(k_z, batch.action.shape)

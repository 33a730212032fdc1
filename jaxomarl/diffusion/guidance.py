"""Guidance: each takes a denoiser (x_t, t) -> x_0 and returns another, so they compose and no sampler knows of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxomarl.base import Denoise, Schedule
from jaxomarl.diffusion.schedules import at


def masked(denoise: Denoise, mask: ArrayLike) -> Denoise:
    """Padded columns (mask = 0.0) are zero in what the denoiser sees and in what it says."""
    return lambda x, t: denoise(x * mask, t) * mask


def clipped(denoise: Denoise, lo: ArrayLike, hi: ArrayLike) -> Denoise:
    """x_0 held in [lo, hi]; samplers then use the noise that agrees with the clipped x_0 (Ho et al. 2020)."""
    return lambda x, t: jnp.clip(denoise(x, t), lo, hi)


def classifier_free(cond: Denoise, uncond: Denoise, w: ArrayLike) -> Denoise:
    """eps_u + w (eps_c - eps_u), which is linear and so the same on x_0: w = 1 none, w = 0 unconditional.

    `w` counts as in DoF and MADiff; CODA's and Ho and Salimans' weight is w - 1. Source: Ho and Salimans 2022, eq. 6.
    """

    def combined(x: Array, t: Array) -> Array:
        without = uncond(x, t)
        return without + w * (cond(x, t) - without)

    return combined


def guided(
    denoise: Denoise, schedule: Schedule, energy: Callable[[Array], Array], scale: ArrayLike
) -> Denoise:
    """Denoiser of p(x_t) exp(scale energy(x_0(x_t))), up to its constant.

    x_0 + scale sigma^2 / alpha J^T grad energy(x_0), J = d x_0 / d x_t
    `energy` maps samples [..., A] to one number each (any shape: they are added up), so that no sample's energy may
    depend on another's. Exact where energy is linear and the data Gaussian. Source: Chung et al. 2023 (DPS).
    """

    def tilted(x: Array, t: Array) -> Array:
        alpha, sigma = at(schedule, t, x)
        x0, pull = jax.vjp(lambda x: denoise(x, t), x)
        slope = jax.grad(lambda x0: jnp.sum(energy(x0)))(x0)
        return x0 + scale * sigma**2 / alpha * pull(slope)[0]

    return tilted


def inpaint(denoise: Denoise, known: ArrayLike, mask: ArrayLike) -> Denoise:
    """Entries with mask = 1.0 are known: the denoiser sees them clean, and says them.

    Source: Janner et al. 2022 (Diffuser), section 3.4.
    """

    def filled(x: Array, t: Array) -> Array:
        given = jnp.asarray(mask) > 0
        return jnp.where(given, known, denoise(jnp.where(given, known, x), t))

    return filled

"""Guidance: each function takes a denoiser (x_t, t) -> x_0 and returns another.

So they compose, and no sampler knows about them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxomarl.base import Denoise, Schedule
from jaxomarl.diffusion.schedules import alpha_sigma_at


def masked(denoise: Denoise, mask: ArrayLike) -> Denoise:
    """Padded columns (mask = 0.0) are zero in the denoiser's input and in its output."""
    return lambda x, t: denoise(x * mask, t) * mask


def clipped(denoise: Denoise, lo: ArrayLike, hi: ArrayLike) -> Denoise:
    """x_0 clipped to [lo, hi].

    Samplers then use the noise that agrees with the clipped x_0 (Ho et al. 2020).
    """
    return lambda x, t: jnp.clip(denoise(x, t), lo, hi)


def classifier_free(cond: Denoise, uncond: Denoise, w: ArrayLike) -> Denoise:
    """eps_u + w (eps_c - eps_u), which is linear, and so the same on x_0.

    w = 1 is the conditional denoiser, w = 0 the unconditional one. `w` counts as in DoF and
    MADiff; the weight of CODA and of Ho and Salimans is w - 1.
    Source: Ho and Salimans 2022, eq. 6.
    """

    def combined(x: Array, t: Array) -> Array:
        without = uncond(x, t)
        return without + w * (cond(x, t) - without)

    return combined


def guided(
    denoise: Denoise, schedule: Schedule, energy: Callable[[Array], Array], scale: ArrayLike
) -> Denoise:
    """The denoiser of p(x_t) exp(scale energy(x_0(x_t))), up to its constant:

    x_0 + scale sigma^2 / alpha J^T grad energy(x_0), J = d x_0 / d x_t

    `energy` maps samples [..., A] to one number each, in any shape. Its values are summed, so a
    sample's energy must not depend on another sample. The denoiser is exact where energy is linear
    and the data Gaussian. Where alpha = 0, at the start of `straight`, x has nothing of x_0 and the
    energy moves nothing. Source: Chung et al. 2023 (DPS).
    """

    def tilted(x: Array, t: Array) -> Array:
        alpha, sigma = alpha_sigma_at(schedule, t, x)
        x0, pull_back = jax.vjp(lambda x: denoise(x, t), x)
        slope = jax.grad(lambda x0: jnp.sum(energy(x0)))(x0)
        known = alpha > 0.0
        strength = jnp.where(known, sigma**2 / jnp.where(known, alpha, 1.0), 0.0)
        return x0 + scale * strength * pull_back(slope)[0]

    return tilted


def inpaint(denoise: Denoise, known: ArrayLike, mask: ArrayLike) -> Denoise:
    """Entries with mask = 1.0 are known: the denoiser gets them clean, and returns them.

    Source: Janner et al. 2022 (Diffuser), section 3.4.
    """

    def filled(x: Array, t: Array) -> Array:
        given = jnp.asarray(mask) > 0
        x0 = denoise(jnp.where(given, known, x), t)
        return jnp.where(given, known, x0)

    return filled

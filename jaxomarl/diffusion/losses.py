"""Denoising losses on given times t and noise z, so that a test can pass a reference's numbers.

The axes of t are the batch, and the mean is over them. All other axes of x_0 are summed, over real
columns only.
A mean over D dimensions (DoF, MADiff, Diffusion-QL) is this divided by D.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxomarl.base import Denoise, Schedule, refuse
from jaxomarl.diffusion.parameterise import noised


def eps_loss(
    eps: Callable[[Array, Array], Array],
    schedule: Schedule,
    x0: Array,
    t: Array,
    z: Array,
    mask: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Noise regression: mean over the batch of weight |eps(alpha x_0 + sigma z, t) - z|^2.

    x0, z [B, ..., A]; t, weight [B]; mask is 1.0 on what counts. For data N(m, s^2) the least
    value is E[alpha^2 s^2 / (alpha^2 s^2 + sigma^2)] per dimension. Raises where t's axes do not
    lead x0.
    Source: Ho et al. 2020, eq. 14; summed over dimensions as in SRPO and OMSD.
    """
    if mask is not None:
        z = z * mask
    x = noised(schedule, x0, t, z)
    return batch_mean_square(eps(x, t) - z, t, weight, mask)


def denoising_loss(
    denoise: Denoise,
    schedule: Schedule,
    x0: Array,
    t: Array,
    z: Array,
    weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Clean regression: mean over the batch of weight |denoise(alpha x_0 + sigma z, t) - x_0|^2.

    Shapes are those of `eps_loss`, which this equals for weight = alpha^2 / sigma^2. EDM's weight
    is (sigma^2 + sigma_d^2) / (sigma sigma_d)^2. Raises where t's axes do not lead x0.
    Source: Karras et al. 2022, eq. 2.
    """
    if mask is not None:
        z = z * mask
    x = noised(schedule, x0, t, z)
    return batch_mean_square(denoise(x, t) - x0, t, weight, mask)


def batch_mean_square(
    error: Array, t: Array, weight: ArrayLike | None = None, mask: ArrayLike | None = None
) -> Float[Array, ""]:
    """Mean over the batch of weight |error|^2, summed over real columns.

    error [B, ..., A]; t, weight [B]; mask is 1.0 on what counts. Raises where t's axes do not lead
    the error's.
    """
    if t.shape != error.shape[: t.ndim]:
        expected = f"the leading axes of {error.shape}"
        raise refuse("t", expected, t.shape, "One time per sample: t has shape [B].")
    square = jnp.square(error)
    if mask is not None:
        square = square * mask
    per_sample = jnp.sum(square, axis=tuple(range(t.ndim, error.ndim)))
    if weight is not None:
        per_sample = per_sample * weight
    return jnp.mean(per_sample)

"""Consistency models: one network call from noise to a clean sample, a few calls for better ones.

Along the path that `ddim` follows (the probability flow), every point has the same end. A consistency function names
it: f(x_t, t) is the path's point at t = 0, so that f(x_0, 0) = x_0. It is a denoiser in form, and `masked`, `clipped`
and the others take it, but not in meaning: a denoiser says the mean of all ends, and neither stands in for the other.

With y = x / alpha and kappa = sigma / alpha (on `edm` y = x, kappa = sigma) and e = kappa(0):

    f(x, t) = c_skip y + c_out F(c_in y, t),   c_skip = s^2 / ((kappa - e)^2 + s^2),
    c_out = s (kappa - e) / sqrt(s^2 + kappa^2),   c_in = 1 / sqrt(s^2 + kappa^2),   s the std of the data

Training and distillation are one loss, below. Source: Song et al. 2023 (Consistency models), eq. 5 and appendix C.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise, Schedule, refuse
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.samplers import Sampler
from jaxomarl.diffusion.schedules import at, times


def consistent(
    raw: Callable[[Array, Array], Array], schedule: Schedule, std: ArrayLike = 0.5
) -> Denoise:
    """The consistency function of a network F(c_in x / alpha, t) of x's shape, its parameters and conditions bound.

    f(x, 0) = x / alpha(0) whatever F says (it has to be finite). `std` is the data's. Raises unless it is positive,
    where it is a plain number. Source: Song et al. 2023, eq. 5, and Karras et al. 2022, eq. 7, for c_in.
    """
    if isinstance(std, int | float) and not std > 0:
        raise refuse(
            "consistent.std",
            "a standard deviation > 0",
            std,
            "It is the data's; 0.5 in the papers.",
        )

    def f(x: Array, t: Array) -> Array:
        s = jnp.asarray(std)
        alpha, sigma = at(schedule, t, x)
        over, size = (
            sigma - alpha * least(schedule),
            jnp.hypot(sigma, alpha * s),
        )  # times alpha, which may be 0
        skip, out = alpha * s**2 / (over**2 + (alpha * s) ** 2), s * over / size
        return skip * x + out * raw(x / size, t)

    return f


def consistency_loss(
    f: Denoise,
    target: Denoise,
    schedule: Schedule,
    x0: Array,
    t: Array,
    s: Array,
    z: Array,
    teacher: Denoise | None = None,
    weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    huber: float = 0.0,
) -> Float[Array, ""]:
    """Mean over the batch of weight d(f(x_t, t), sg[target(x_s, s)]), where x_s is one `ddim` step from x_t.

    x_t = alpha x_0 + sigma z. The step's clean sample is `teacher`'s (distillation of a trained denoiser), or without
    one x_0 itself (consistency training; then x_s has the same noise z). d is the squared distance summed over all
    axes but t's, or with `huber` = c > 0 sqrt(d + c^2) - c. x0, z [B, ..., A]; t > s >= 0 and weight [B]; mask is 1.0
    on what counts. `target` is f with the same parameters, or a slow copy of them. Nothing but the boundary f(x, 0) = x
    ties f to the data, so s = 0 has to be among the pairs: neighbours on a grid. Raises where t's or s's axes do not
    lead x0. Source: Song et al. 2023, eq. 7 (distillation) and 10 (training).
    """
    for name, value in (("t", t), ("s", s)):
        if value.shape != x0.shape[: value.ndim] or value.ndim != t.ndim:
            raise refuse(
                name,
                f"the leading axes of {x0.shape}",
                value.shape,
                "One time per sample: shape [B].",
            )
    z = z if mask is None else z * mask
    x = noised(schedule, x0, t, z)
    (alpha, sigma), (alpha_s, sigma_s) = at(schedule, t, x0), at(schedule, s, x0)
    clean = x0 if teacher is None else teacher(x, t)
    before = alpha_s * clean + sigma_s * (x - alpha * clean) / sigma
    gap = f(x, t) - jax.lax.stop_gradient(target(before, s))
    square = jnp.square(gap) if mask is None else jnp.square(gap) * mask
    each = jnp.sum(square, axis=tuple(range(t.ndim, x0.ndim)))
    each = jnp.sqrt(each + huber**2) - huber if huber else each
    return jnp.mean(each if weight is None else each * weight)


def consistency(
    schedule: Schedule, steps: int = 1, start: ArrayLike = 1.0, mask: ArrayLike | None = None
) -> Sampler:
    """Samples of a consistency function in place of the denoiser: one call, or `steps` calls with fresh noise between.

    x_0 = f(x_1, 1), then for t = (K-1)/K, ..., 1/K: x_0 <- f(alpha (x_0 + sqrt(kappa^2 - e^2) z), t). `start` and
    `mask` as in `ddim`, whose times these are. Raises unless steps >= 1. Source: Song et al. 2023, algorithm 1.
    """
    if steps < 1:
        raise refuse(
            "sampler.steps", "a whole number >= 1", steps, "Each step is one call of the function."
        )

    def sample(key: Key[Array, ""], f: Denoise, shape: tuple[int, ...]) -> Array:
        t = times(steps)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        added = jnp.sqrt(jnp.maximum(sigma**2 - (alpha * least(schedule)) ** 2, 0.0))
        k_start, k_steps = jax.random.split(key)

        def noise(key):
            z = jax.random.normal(key, shape)
            return z if mask is None else z * mask

        def body(x0, inputs):
            t, alpha, added, key = inputs
            return f(alpha * x0 + added * noise(key), t), None

        first = f(jnp.asarray(start) * jnp.hypot(alpha[0], sigma[0]) * noise(k_start), t[0])
        inputs = (t[1:], alpha[1:], added[1:], jax.random.split(k_steps, steps)[1:])
        return jax.lax.scan(body, first, inputs)[0] if steps > 1 else first

    return sample


def least(schedule: Schedule) -> Float[Array, ""]:
    """The e above, sigma(0) / alpha(0): the noise of what counts as clean: 0.002 on `edm`, 0 on the others."""
    zero = jnp.zeros(())
    return schedule.sigma(zero) / schedule.alpha(zero)

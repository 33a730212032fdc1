"""Consistency models: one network call from noise to a clean sample, a few calls for better ones.

`ddim` follows the probability flow, and all points of one of its paths have the same end. A
consistency function names that end: f(x_t, t) is the path's point at t = 0, so f(x_0, 0) = x_0.

It has the form of a denoiser, and `masked`, `clipped` and the others take it. Its meaning differs:
a denoiser predicts the mean of all ends. Neither can stand in for the other.

With y = x / alpha and kappa = sigma / alpha (on `edm` y = x, kappa = sigma) and e = kappa(0):

    f(x, t) = c_skip y + c_out F(c_in y, t)
    c_skip = s^2 / ((kappa - e)^2 + s^2)
    c_out = s (kappa - e) / sqrt(s^2 + kappa^2)
    c_in = 1 / sqrt(s^2 + kappa^2)
    s: the standard deviation of the data

Training and distillation are one loss, below.
Source: Song et al. 2023 (Consistency models), eq. 5 and appendix C.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise, Schedule, refuse
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.samplers import Sampler
from jaxomarl.diffusion.schedules import alpha_sigma_at, times


def consistent(
    raw: Callable[[Array, Array], Array], schedule: Schedule, std: ArrayLike = 0.5
) -> Denoise:
    """The consistency function of a network F(c_in x / alpha, t) that returns the shape of x.

    The network's parameters and conditions are bound already. f(x, 0) = x / alpha(0) for every
    finite F. `std` is the data's. Raises unless it is positive, where it is a plain number.
    Source: Song et al. 2023, eq. 5, and Karras et al. 2022, eq. 7, for c_in.
    """
    if isinstance(std, int | float) and not std > 0:
        way_out = "It is the data's; 0.5 in the papers."
        raise refuse("consistent.std", "a standard deviation > 0", std, way_out)

    def f(x: Array, t: Array) -> Array:
        s = jnp.asarray(std)
        alpha, sigma = alpha_sigma_at(schedule, t, x)
        # numerators and denominators are multiplied by alpha, which may be 0
        over = sigma - alpha * least(schedule)
        size = jnp.hypot(sigma, alpha * s)
        c_skip = alpha * s**2 / (over**2 + (alpha * s) ** 2)
        c_out = s * over / size
        return c_skip * x + c_out * raw(x / size, t)

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
    """Mean over the batch of weight d(f(x_t, t), sg[target(x_s, s)]).

    x_t = alpha x_0 + sigma z, and x_s is one `ddim` step from x_t. The step's clean sample is
    `teacher`'s, which distils a trained denoiser. Without a teacher it is x_0 itself, and x_s has
    the same noise z: consistency training. `target` is f with the same parameters, or with a slow
    copy of them.

    d is the squared distance summed over all axes but t's, or with `huber` = c > 0 it is
    sqrt(d + c^2) - c. x0, z [B, ..., A]; t > s >= 0 and weight [B]; mask is 1.0 on what counts.

    Only the boundary f(x, 0) = x ties f to the data. The pairs must therefore include s = 0, as
    neighbours on a grid do. Raises where t's or s's axes do not lead x0.
    Source: Song et al. 2023, eq. 7 (distillation) and 10 (training).
    """
    for name, time in (("t", t), ("s", s)):
        if time.shape != x0.shape[: time.ndim] or time.ndim != t.ndim:
            expected = f"the leading axes of {x0.shape}"
            raise refuse(name, expected, time.shape, "One time per sample: shape [B].")

    # --- two neighbours on one path ---
    if mask is not None:
        z = z * mask
    x = noised(schedule, x0, t, z)
    alpha, sigma = alpha_sigma_at(schedule, t, x0)
    alpha_s, sigma_s = alpha_sigma_at(schedule, s, x0)
    clean = x0 if teacher is None else teacher(x, t)
    before = alpha_s * clean + sigma_s * (x - alpha * clean) / sigma

    # --- their distance ---
    gap = f(x, t) - jax.lax.stop_gradient(target(before, s))
    square = jnp.square(gap)
    if mask is not None:
        square = square * mask
    distance = jnp.sum(square, axis=tuple(range(t.ndim, x0.ndim)))
    if huber:
        distance = jnp.sqrt(distance + huber**2) - huber
    if weight is not None:
        distance = distance * weight
    return jnp.mean(distance)


def consistency(
    schedule: Schedule, steps: int = 1, start: ArrayLike = 1.0, mask: ArrayLike | None = None
) -> Sampler:
    """A sampler that takes a consistency function in place of the denoiser.

    It calls the function once, or `steps` times with fresh noise between the calls:
    x_0 = f(x_1, 1),
    x_0 <- f(alpha (x_0 + sqrt(kappa^2 - e^2) z), t) for t = (K-1)/K, ..., 1/K.

    `start`, `mask` and the times are those of `ddim`. Raises unless steps >= 1.
    Source: Song et al. 2023, algorithm 1.
    """
    if steps < 1:
        way_out = "Each step is one call of the function."
        raise refuse("sampler.steps", "a whole number >= 1", steps, way_out)

    def sample(key: Key[Array, ""], f: Denoise, shape: tuple[int, ...]) -> Array:
        t = times(steps)
        alpha = schedule.alpha(t)
        sigma = schedule.sigma(t)
        added = jnp.sqrt(jnp.maximum(sigma**2 - (alpha * least(schedule)) ** 2, 0.0))
        k_start, k_steps = jax.random.split(key)

        def noise(key):
            z = jax.random.normal(key, shape)
            return z if mask is None else z * mask

        def body(x0, inputs):
            t, alpha, added, key = inputs
            return f(alpha * x0 + added * noise(key), t), None

        start_x = jnp.asarray(start) * jnp.hypot(alpha[0], sigma[0]) * noise(k_start)
        first = f(start_x, t[0])
        inputs = (t[1:], alpha[1:], added[1:], jax.random.split(k_steps, steps)[1:])
        if steps == 1:
            return first
        return jax.lax.scan(body, first, inputs)[0]

    return sample


def least(schedule: Schedule) -> Float[Array, ""]:
    """The e above, sigma(0) / alpha(0): the noise that still counts as clean.

    It is 0.002 on `edm` and 0 on the others.
    """
    zero = jnp.zeros(())
    return schedule.sigma(zero) / schedule.alpha(zero)

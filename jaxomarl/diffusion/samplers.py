"""Reverse chains from noise to clean samples.

They know a schedule and a denoiser, and nothing about guidance. A sampler is
(key, denoise, shape) -> x_0. It calls denoise(x, t) with x of the given shape and a scalar t.
One step is

    x' = c_x x + c_0 x_0 + c_z z,        x_0 = denoise(x, t)

The coefficients follow from alpha and sigma of neighbouring levels. The last level is clean data
(alpha = 1, sigma = 0).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jaxomarl.base import Denoise, Schedule, refuse
from jaxomarl.diffusion.schedules import levels, times

Sampler = Callable[[Key[Array, ""], Denoise, tuple[int, ...]], Array]
Shift = Callable[[Array, Array, Array], Array]
"""(k, x, x_0) -> x, for step k = 0..K-1 counted from the noise."""


class Step(NamedTuple):
    """Coefficients of one step, or of all K."""

    x: Array
    x0: Array
    z: Array


def ddim_step(alpha: Array, sigma: Array, alpha_next: Array, sigma_next: Array) -> Step:
    """One deterministic step: x' = alpha' x_0 + sigma' eps, eps = (x - alpha x_0) / sigma.

    In eps it is (alpha' / alpha) x - (alpha' sigma / alpha - sigma') eps. It does not use
    log(alpha / sigma), which is infinite at the clean level.
    Source: Song et al. 2021 (DDIM), eq. 12 with eta = 0; Lu et al. 2022 (DPM-Solver), eq. 3.7.
    """
    keep = sigma_next / sigma
    return Step(keep, alpha_next - alpha * keep, jnp.zeros_like(keep))


def ddpm_step(alpha: Array, sigma: Array, alpha_next: Array, sigma_next: Array) -> Step:
    """Mean and standard deviation of p(x' | x, x_0).

    With r = alpha / alpha' and v = sigma^2 - r^2 sigma'^2 (beta_k, where variance is preserved):
    mean = (r sigma'^2 x + alpha' v x_0) / sigma^2, variance = v sigma'^2 / sigma^2.
    The variance is 0 at the clean level.
    Source: Ho et al. 2020, eq. 7.
    """
    r = alpha / alpha_next
    v = sigma**2 - (r * sigma_next) ** 2
    c_x = r * (sigma_next / sigma) ** 2
    c_0 = alpha_next * v / sigma**2
    c_z = jnp.sqrt(v) * sigma_next / sigma
    return Step(c_x, c_0, c_z)


def ddpm(
    schedule: Schedule,
    steps: int,
    start: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    shift: Shift | None = None,
) -> Sampler:
    """Ancestral sampling with the posterior's variance; arguments and errors are those of `ddim`.

    Source: Ho et al. 2020, algorithm 2.
    """
    return _chain(ddpm_step, True, schedule, steps, start, mask, shift)


def ddim(
    schedule: Schedule,
    steps: int,
    start: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    shift: Shift | None = None,
) -> Sampler:
    """Deterministic sampling: all randomness is in the first noise.

    - `start` scales the first noise, whose variance is alpha^2 + sigma^2 at t = 1 (1 where the
      schedule preserves variance).
    - `mask` multiplies all drawn noise. Padded columns then stay zero under a `masked` denoiser.
    - `shift` moves the x of a step after x_0 and eps are predicted. The next level moves by
      alpha' / alpha times as much. Nothing projects a move of the last step back, so it should be
      none there (CODA, algorithm 1, where alpha = 1). Where alpha = 0, at the start of `straight`,
      x has nothing of x_0 yet, and a shift moves nothing.

    Few steps narrow the samples even with a perfect denoiser: for N(m, s^2) their std is the
    product over steps of (alpha' alpha s^2 + sigma' sigma) / (alpha^2 s^2 + sigma^2).
    Raises unless steps >= 1.
    Source: Song et al. 2021 (DDIM), eq. 12 with eta = 0.
    """
    return _chain(ddim_step, False, schedule, steps, start, mask, shift)


def dpm_solver(
    schedule: Schedule,
    steps: int,
    start: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    shift: Shift | None = None,
    order: int = 1,
) -> Sampler:
    """DPM-Solver with one call of the denoiser per step.

    Order 1 is `ddim`, order 2 is DPM-Solver++(2M).

    With lambda = log(alpha / sigma) and h_k = lambda_k+1 - lambda_k, step k of order 2 is `ddim`'s
    step towards x_0,k + h_k / (2 h_k-1) (x_0,k - x_0,k-1). Both predictions are known already. A
    single-step solver of order 2 (DPM-Solver-2, Heun) calls the denoiser twice per step.

    The first step has no past, and in the last one h is infinite. Both are therefore `ddim`'s, and
    so are chains of at most two steps. The last step returns the denoiser's x_0, inside its bounds.

    The error falls as K^-2 where h falls as 1 / K (`edm`). With the uniform times of `vp`, h is of
    order 1 near the data, and the last step has an error of sigma(1 / K)^2 ~ beta_min / K. Both
    show at K of some hundreds.

    Arguments and errors are `ddim`'s; raises for other orders.
    Source: Lu et al. 2022, eq. 3.7 (order 1); Lu et al. 2022, DPM-Solver++, algorithm 2. DOM2's
    printed step (Li et al. 2023, eq. 4) swaps two alphas and is another one.
    """
    if order not in (1, 2):
        raise refuse("dpm_solver.order", "1 or 2", order, "Set order=2 and take more steps.")
    second = order == 2
    return _chain(ddim_step, False, schedule, steps, start, mask, shift, second)


def _chain(
    rule: Callable[[Array, Array, Array, Array], Step],
    noisy: bool,
    schedule: Schedule,
    steps: int,
    start: ArrayLike,
    mask: ArrayLike | None,
    shift: Shift | None,
    second: bool = False,
) -> Sampler:
    if steps < 1:
        way_out = "Each step is one call of the denoiser."
        raise refuse("sampler.steps", "a whole number >= 1", steps, way_out)

    def sample(key: Key[Array, ""], denoise: Denoise, shape: tuple[int, ...]) -> Array:
        alpha, sigma = levels(schedule, steps)
        step = rule(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
        k_start, k_steps = jax.random.split(key)

        def noise(key):
            z = jax.random.normal(key, shape)
            return z if mask is None else z * mask

        def body(carried, inputs):
            x, x0_before = carried
            k, t, step, extrapolation, ratio, key = inputs
            x0 = denoise(x, t)
            aim = x0
            if second:
                aim = x0 + extrapolation * (x0 - x0_before)
                x0_before = x0
            following = step.x * x + step.x0 * aim
            if noisy:
                following = following + step.z * noise(key)
            if shift is not None:
                following = following + ratio * (shift(k, x, x0) - x)
            return (following, x0_before), None

        first = jnp.asarray(start) * jnp.hypot(alpha[0], sigma[0]) * noise(k_start)
        keys = jax.random.split(k_steps, steps)
        known = alpha[:-1] > 0.0
        ratio = jnp.where(known, alpha[1:] / jnp.where(known, alpha[:-1], 1.0), 0.0)
        extrapolation = _extrapolation(alpha[:-1], sigma[:-1]) if second else jnp.zeros(steps)
        inputs = (jnp.arange(steps), times(steps), step, extrapolation, ratio, keys)
        no_x0 = jnp.zeros_like(first) if second else ()
        (x, _), _ = jax.lax.scan(body, (first, no_x0), inputs)
        return x

    return sample


def _extrapolation(alpha: Array, sigma: Array) -> Array:
    """h_k / (2 h_k-1): how far the second order extrapolates from the past prediction.

    It is 0 in the first and the last step, which are `ddim`'s. alpha and sigma are those of the K
    calls, without the clean level, where log(alpha / sigma) is infinite.
    """
    h = jnp.diff(jnp.log(alpha / sigma))
    return jnp.pad(h[1:] / (2.0 * h[:-1]), 1)[: alpha.shape[0]]

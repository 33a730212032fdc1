"""Reverse chains from noise to clean samples; they know a schedule and a denoiser, and nothing of guidance.

A sampler is (key, denoise, shape) -> x_0. It calls denoise(x, t) with x of the given shape and a scalar t. One step is

    x' = c_x x + c_0 x_0 + c_z z,        x_0 = denoise(x, t)

written with alpha and sigma of neighbouring levels; the last level is clean data (alpha = 1, sigma = 0).
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

    In eps it is (alpha' / alpha) x - (alpha' sigma / alpha - sigma') eps; log(alpha / sigma), infinite at the clean
    level, is not used.

    Source: Song et al. 2021 (DDIM), eq. 12 with eta = 0; Lu et al. 2022 (DPM-Solver), eq. 3.7.
    """
    keep = sigma_next / sigma
    return Step(keep, alpha_next - alpha * keep, jnp.zeros_like(keep))


def ddpm_step(alpha: Array, sigma: Array, alpha_next: Array, sigma_next: Array) -> Step:
    """Mean and standard deviation of p(x' | x, x_0).

    With r = alpha / alpha' and v = sigma^2 - r^2 sigma'^2 (the beta_k of a variance-preserving chain):
    mean = (r sigma'^2 x + alpha' v x_0) / sigma^2, variance = v sigma'^2 / sigma^2: none at the clean level.
    Source: Ho et al. 2020, eq. 7.
    """
    ratio = alpha / alpha_next
    variance = sigma**2 - (ratio * sigma_next) ** 2
    return Step(
        ratio * (sigma_next / sigma) ** 2,
        alpha_next * variance / sigma**2,
        jnp.sqrt(variance) * sigma_next / sigma,
    )


def ddpm(
    schedule: Schedule,
    steps: int,
    start: ArrayLike = 1.0,
    mask: ArrayLike | None = None,
    shift: Shift | None = None,
) -> Sampler:
    """Ancestral sampling with the posterior's variance; arguments and errors as `ddim`.

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

    `start` scales the first noise, whose variance is alpha^2 + sigma^2 at t = 1 (1 where that is preserved).
    `mask` multiplies all drawn noise, so that padded columns stay zero under a `masked` denoiser.
    `shift` moves the x of a step after x_0 and eps are predicted; the move reaches the next level times alpha' / alpha,
    unprojected in the last step, where it should be none (CODA, algorithm 1, where alpha = 1).
    Few steps narrow the samples even with a perfect denoiser: for N(m, s^2) their std is the product over steps of
    (alpha' alpha s^2 + sigma' sigma) / (alpha^2 s^2 + sigma^2). Raises unless steps >= 1.
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
    """DPM-Solver of order 1, which is `ddim`, or of order 2 by two steps, at one call of the denoiser per step.

    With lambda = log(alpha / sigma) and h_k = lambda_k+1 - lambda_k, order 2 takes `ddim`'s step k towards
    x_0,k + h_k / (2 h_k-1) (x_0,k - x_0,k-1), both predictions known already (DPM-Solver++(2M)): a single-step solver
    of order 2 (DPM-Solver-2, Heun) calls the denoiser twice per step. The first step has no past and the last one has
    h infinite, so both are `ddim`'s: two steps or fewer are `ddim`, and samples are what the denoiser says, inside its
    bounds. The error falls as K^-2 where h does as 1 / K (`edm`); the uniform times of `vp` have h of order 1 near the
    data and a last step of sigma(1 / K)^2 ~ beta_min / K, which show at K of some hundreds. Arguments and errors are
    `ddim`'s; raises for other orders. Source: Lu et al. 2022, eq. 3.7 (order 1); Lu et al. 2022, DPM-Solver++,
    algorithm 2. DOM2's printed step (Li et al. 2023, eq. 4) swaps two alphas and is not this one.
    """
    if order not in (1, 2):
        raise refuse("dpm_solver.order", "1 or 2", order, "Set order=2 and take more steps.")
    return _chain(ddim_step, False, schedule, steps, start, mask, shift, second=order == 2)


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
        raise refuse(
            "sampler.steps", "a whole number >= 1", steps, "Each step is one call of the denoiser."
        )

    def sample(key: Key[Array, ""], denoise: Denoise, shape: tuple[int, ...]) -> Array:
        alpha, sigma = levels(schedule, steps)
        step = rule(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
        k_start, k_steps = jax.random.split(key)

        def noise(key):
            z = jax.random.normal(key, shape)
            return z if mask is None else z * mask

        def body(carried, inputs):
            (x, before), (k, t, step, past, carry, key) = carried, inputs
            x0 = denoise(x, t)
            aim = x0 + past * (x0 - before) if second else x0
            following = step.x * x + step.x0 * aim
            if noisy:
                following = following + step.z * noise(key)
            if shift is not None:
                following = following + carry * (shift(k, x, x0) - x)
            return (following, x0 if second else before), None

        first = jnp.asarray(start) * jnp.hypot(alpha[0], sigma[0]) * noise(k_start)
        keys, carry = jax.random.split(k_steps, steps), alpha[1:] / alpha[:-1]
        past = _past(alpha[:-1], sigma[:-1]) if second else jnp.zeros(steps)
        inputs = (jnp.arange(steps), times(steps), step, past, carry, keys)
        return jax.lax.scan(body, (first, jnp.zeros_like(first) if second else ()), inputs)[0][0]

    return sample


def _past(alpha: Array, sigma: Array) -> Array:
    """h_k / (2 h_k-1), what the second order makes of the past; 0 in the first and the last step, which are `ddim`'s.

    From the levels of the K calls, without the clean one, whose log(alpha / sigma) is infinite.
    """
    h = jnp.diff(jnp.log(alpha / sigma))
    return jnp.pad(h[1:] / (2.0 * h[:-1]), 1)[: alpha.shape[0]]

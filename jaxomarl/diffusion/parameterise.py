"""One prediction in four forms: noise eps, clean sample x_0, score, or velocity v.

In all of them t has the leading axes of x, or none. The noise is not the score: the factor
-1/sigma always lies between them.
"""

from collections.abc import Callable

from jax.typing import ArrayLike
from jaxtyping import Array

from jaxomarl.base import Denoise, Schedule
from jaxomarl.diffusion.schedules import alpha_sigma_at


def noised(schedule: Schedule, x0: Array, t: ArrayLike, z: Array) -> Array:
    """The forward process: x_t = alpha x_0 + sigma z."""
    alpha, sigma = alpha_sigma_at(schedule, t, x0)
    return alpha * x0 + sigma * z


def x0_from_eps(schedule: Schedule, x: Array, t: ArrayLike, eps: Array) -> Array:
    """Clean sample of a noise: x_0 = (x - sigma eps) / alpha."""
    alpha, sigma = alpha_sigma_at(schedule, t, x)
    return (x - sigma * eps) / alpha


def eps_from_x0(schedule: Schedule, x: Array, t: ArrayLike, x0: Array) -> Array:
    """Noise of a clean sample: eps = (x - alpha x_0) / sigma."""
    alpha, sigma = alpha_sigma_at(schedule, t, x)
    return (x - alpha * x0) / sigma


def score_from_eps(schedule: Schedule, x: Array, t: ArrayLike, eps: Array) -> Array:
    """Score of a noise: score = -eps / sigma."""
    _, sigma = alpha_sigma_at(schedule, t, x)
    return -eps / sigma


def eps_from_score(schedule: Schedule, x: Array, t: ArrayLike, score: Array) -> Array:
    """Noise of a score: eps = -sigma score."""
    _, sigma = alpha_sigma_at(schedule, t, x)
    return -sigma * score


def score_from_x0(schedule: Schedule, x: Array, t: ArrayLike, x0: Array) -> Array:
    """Score of a clean sample: score = (alpha x_0 - x) / sigma^2."""
    alpha, sigma = alpha_sigma_at(schedule, t, x)
    return (alpha * x0 - x) / sigma**2


def x0_from_score(schedule: Schedule, x: Array, t: ArrayLike, score: Array) -> Array:
    """Clean sample of a score (Tweedie): x_0 = (x + sigma^2 score) / alpha."""
    alpha, sigma = alpha_sigma_at(schedule, t, x)
    return (x + sigma**2 * score) / alpha


def v_from_x0(schedule: Schedule, x: Array, t: ArrayLike, x0: Array) -> Array:
    """Velocity of a clean sample: v = alpha eps - sigma x_0 (Salimans and Ho 2022)."""
    alpha, sigma = alpha_sigma_at(schedule, t, x)
    return alpha * (x - alpha * x0) / sigma - sigma * x0


def x0_from_v(schedule: Schedule, x: Array, t: ArrayLike, v: Array) -> Array:
    """Clean sample of a velocity: x_0 = (alpha x - sigma v) / (alpha^2 + sigma^2)."""
    alpha, sigma = alpha_sigma_at(schedule, t, x)
    return (alpha * x - sigma * v) / (alpha**2 + sigma**2)


def from_eps(eps_fn: Callable[[Array, Array], Array], schedule: Schedule) -> Denoise:
    """The denoiser of a noise network (x_t, t) -> eps with parameters and conditions bound."""
    return lambda x, t: x0_from_eps(schedule, x, t, eps_fn(x, t))

"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps for t in [0, 1], noise at t = 1.

Here alone, the k = 1..K of a paper is mapped to t = k / K.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxomarl.base import JaxomarlError, Schedule, refuse

# --- variance preserving: alpha^2 + sigma^2 = 1 ---


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """Continuous variance-preserving schedule of SRPO, OMSD and (at its own times) DOM2.

    log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2

    Raises unless 0 <= beta_min < beta_max.
    Source: Song et al. 2021, eq. 33; Chen et al. 2024 (SRPO).
    """
    _check_betas("vp", beta_min, beta_max)
    return _preserving(lambda t: -t * t * (beta_max - beta_min) / 4 - t * beta_min / 2)


def vp_discrete(beta_min: float = 0.1, beta_max: float = 10.0) -> Schedule:
    """The "vp" schedule of Diffusion-QL, IDQL and DoF-Policy, for every number of steps K at once.

    beta_k = 1 - exp(-beta_min / K - (beta_max - beta_min) (2 k - 1) / (2 K^2))

    The product of (1 - beta_j), j <= k, depends on t = k / K alone. It is `vp` with these betas,
    and raises the same errors.
    Source: Wang et al. 2023 (Diffusion-QL).
    """
    return vp(beta_min, beta_max)


def vp_dom2(
    steps: int, printed: bool = False, beta_min: float = 0.1, beta_max: float = 20.0
) -> Schedule:
    """DOM2's grid of N = `steps` levels, clean at t = 0.

    log(1 - beta_i) = -beta_min / (N + 1) - (beta_max - beta_min) (2 i + 1) / (2 (N + 1)^2)
    alpha(i / N)^2 = product of (1 - beta_k), k <= i: `vp` at (i + 1) / (N + 1), i = 0..N

    Networks get t = i / N. `printed` takes the paper's alpha(i / N) = 1 - beta_i instead, which is
    biased for N > 10.
    Raises unless steps >= 1 and 0 <= beta_min < beta_max. Source: Li et al. 2023, eq. 13.
    """
    _check_steps("vp_dom2.steps", steps)
    _check_betas("vp_dom2", beta_min, beta_max)
    i = np.arange(steps + 1)
    n = steps + 1
    log_keep = -beta_min / n - (beta_max - beta_min) * (2 * i + 1) / (2 * n * n)  # log(1 - beta_i)
    log_alpha = log_keep if printed else np.cumsum(log_keep) / 2
    return _tabulated(np.append(0.0, log_alpha[1:]))


def cosine(steps: int, offset: float = 0.008) -> Schedule:
    """Squared-cosine schedule of K = `steps` levels (MADiff, DoF-Trajectory).

    alpha(u)^2 ~ cos^2((u + offset) / (1 + offset) pi / 2), u = k / K; beta_k is at most 0.999

    Raises unless steps >= 1. Source: Nichol and Dhariwal 2021, eq. 17.
    """
    _check_steps("cosine.steps", steps)
    u = np.arange(steps + 1) / steps
    alpha_squared = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    betas = 1 - alpha_squared[1:] / alpha_squared[:-1]
    return _from_betas(np.minimum(betas, 0.999))


def linear(steps: int, beta_min: float = 1e-4, beta_max: float = 0.02) -> Schedule:
    """Linear betas over K = `steps` levels.

    beta_k = beta_min + (beta_max - beta_min) (k - 1) / (K - 1)

    Raises unless steps >= 1, 0 < beta_min <= beta_max < 1, and alpha(1)^2 < 0.01: otherwise
    sampling cannot start at noise.
    Source: Ho et al. 2020, section 4.
    """
    _check_steps("linear.steps", steps)
    if not 0 < beta_min <= beta_max < 1:
        given = (beta_min, beta_max)
        expected = "0 < beta_min <= beta_max < 1"
        raise refuse("linear.beta_min, beta_max", expected, given, "1e-4, 0.02.")
    betas = np.linspace(beta_min, beta_max, steps)
    alpha_squared = float(np.prod(1 - betas))
    if alpha_squared >= 0.01:
        expected = "alpha(1)^2 < 0.01, so that sampling may start at noise"
        way_out = (
            "Take about 1000 levels (a sampler may use fewer steps), larger betas, "
            "vp_discrete() or cosine()."
        )
        raise refuse(f"linear({steps})", expected, round(alpha_squared, 3), way_out)
    return _from_betas(betas)


BY_LEVELS: dict[str, Callable[[int], Schedule]] = {
    "vp": lambda levels: vp_discrete(),
    "cosine": cosine,
    "linear": linear,
}
"""Schedules by name, as functions of the number of noise levels."""


def check_by_levels(name: str, levels: int) -> None:
    """Raise JaxomarlError where the named schedule does not end at noise after `levels` levels."""
    try:
        BY_LEVELS[name](levels)
    except JaxomarlError as error:
        expected = f"one that ends at noise after {levels} levels"
        way = f"Take --cfg.schedule vp or cosine: {error}"
        raise refuse("--cfg.schedule", expected, name, way) from error


# --- variance exploding ---


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Karras' levels with alpha = 1: N of them lie at t = 1 - k / (N - 1), k = 0..N-1.

    sigma(t) = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho

    Raises unless 0 <= sigma_min < sigma_max and rho > 0. Source: Karras et al. 2022, eq. 5.
    """
    if not (0 <= sigma_min < sigma_max and rho > 0):
        expected = "0 <= sigma_min < sigma_max, rho > 0"
        given = (sigma_min, sigma_max, rho)
        raise refuse("edm", expected, given, "The paper's are 0.002, 80, 7.")
    low = sigma_min ** (1 / rho)
    high = sigma_max ** (1 / rho)
    return Schedule(
        alpha=lambda t: jnp.ones_like(t, dtype=float),
        sigma=lambda t: (low + t * (high - low)) ** rho,
    )


# --- straight ---


def straight() -> Schedule:
    """Straight paths from data to noise, those of flow matching: alpha = 1 - t, sigma = t.

    At t = 1 alpha is 0: a noise has no clean sample there, but a velocity has one
    (diffusion/flows.py).
    Source: Lipman et al. 2023, eq. 20 with sigma_min = 0; Liu et al. 2023 (Rectified flow).
    """
    return Schedule(alpha=lambda t: 1.0 - t, sigma=lambda t: t)


# --- reading a schedule ---


def times(steps: int) -> Float[Array, " K"]:
    """The K times at which a sampler calls its denoiser, noise first: K/K, (K-1)/K, ..., 1/K."""
    return jnp.arange(steps, 0, -1) / steps


def levels(schedule: Schedule, steps: int) -> tuple[Float[Array, " K1"], Float[Array, " K1"]]:
    """alpha and sigma at `times(steps)`, followed by the clean end alpha = 1, sigma = 0."""
    t = times(steps)
    alpha = jnp.append(schedule.alpha(t), 1.0)
    sigma = jnp.append(schedule.sigma(t), 0.0)
    return alpha, sigma


def alpha_sigma_at(schedule: Schedule, t: ArrayLike, x: Array) -> tuple[Array, Array]:
    """alpha(t) and sigma(t), with axes appended so that they multiply x.

    t has the leading axes of x, or none.
    """
    t = jnp.asarray(t)
    t = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
    return schedule.alpha(t), schedule.sigma(t)


def _preserving(log_alpha: Callable[[Array], Array]) -> Schedule:
    return Schedule(
        alpha=lambda t: jnp.exp(log_alpha(t)),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(2 * log_alpha(t))),
    )


def _from_betas(betas: np.ndarray) -> Schedule:
    return _tabulated(np.append(0.0, np.cumsum(np.log1p(-betas)) / 2))


def _tabulated(log_alpha: np.ndarray) -> Schedule:
    """The schedule through log alpha at t = k / K, k = 0..K, and linear in t between them."""
    last = len(log_alpha) - 1

    def read(t):
        # converted here, so that a schedule that is built under jit holds no tracer
        table = jnp.asarray(log_alpha, jnp.float32)
        place = jnp.clip(t * last, 0, last)
        low = jnp.clip(jnp.floor(place).astype(int), 0, last - 1)
        return table[low] + (place - low) * (table[low + 1] - table[low])

    return _preserving(read)


def _check_betas(field: str, beta_min: float, beta_max: float) -> None:
    if not 0 <= beta_min < beta_max:
        given = (beta_min, beta_max)
        way_out = "They are rates: 0.1 and 20 in SRPO, OMSD and DOM2, 0.1 and 10 in Diffusion-QL."
        raise refuse(f"{field}.beta_min, beta_max", "0 <= beta_min < beta_max", given, way_out)


def _check_steps(field: str, steps: int) -> None:
    if steps < 1:
        raise refuse(field, "a whole number >= 1", steps, "It is the number of noise levels.")

"""EDM (Karras et al. 2022): a preconditioned denoiser, its loss weight, its levels, its sampler.

Noise is added, x_sigma = x + sigma z. A time t in [0, 1] stands for sigma as in `schedules.edm`,
so denoisers (x, t) -> x_0 get the same arguments from every sampler. All broadcasts are over the
axes that t does not have.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise, Schedule, refuse
from jaxomarl.diffusion.samplers import Sampler, Shift
from jaxomarl.diffusion.schedules import edm

PLACEMENTS = ("denoised", "before-churn", "before-churn-denoised")
"""The places at which `heun` may move x."""
LOG_MEAN = -1.2
"""Mean of log sigma while training."""
LOG_STD = 1.2
"""Standard deviation of log sigma while training."""


class Karras(NamedTuple):
    """The range of the noise, and how strongly levels crowd towards its lower end."""

    low: float = 0.002
    high: float = 80.0
    rho: float = 7.0

    @property
    def schedule(self) -> Schedule:
        """sigma(t), with alpha = 1."""
        return edm(self.low, self.high, self.rho)

    def time(self, sigma: ArrayLike) -> Array:
        """The t at which the schedule has `sigma`; beyond `high` it is above 1."""
        low = self.low ** (1 / self.rho)
        high = self.high ** (1 / self.rho)
        return (jnp.asarray(sigma) ** (1 / self.rho) - low) / (high - low)

    def levels(self, steps: int) -> Float[Array, " N1"]:
        """sigma_0 = high, ..., sigma_N-1 = low, and sigma_N = 0; one step has `high` alone.

        Source: eq. 5.
        """
        t = 1.0 - jnp.arange(steps) / max(steps - 1, 1)
        return jnp.append(self.schedule.sigma(t), 0.0)

    def draw(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
        """Training times: log sigma ~ N(-1.2, 1.2^2), and CODA's clamp of sigma to [low, high]."""
        sigma = jnp.exp(LOG_MEAN + LOG_STD * jax.random.normal(key, shape))
        return self.time(jnp.clip(sigma, self.low, self.high))


KARRAS = Karras()


def preconditioned(
    net: Callable[[Array, Array], Array], sigma_data: float = 1.0, karras: Karras = KARRAS
) -> Denoise:
    """The denoiser D(x; sigma) = c_skip x + c_out F(c_in x, c_noise) of a network F.

    The input and the target of F then have variance one.

    c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2), c_noise = log(sigma) / 4,
    with s = `sigma_data`, the data's standard deviation. Source: table 1.
    """

    def denoise(x: Array, t: Array) -> Array:
        sigma = karras.schedule.sigma(jnp.asarray(t))
        wide = sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))
        size = jnp.hypot(wide, sigma_data)
        inner = net(x / size, 0.25 * jnp.log(sigma))
        return (sigma_data / size) ** 2 * x + wide * sigma_data / size * inner

    return denoise


def edm_loss_weight(sigma: Array, sigma_data: float = 1.0) -> Array:
    """(sigma^2 + s^2) / (sigma s)^2: every level then counts alike at the start.

    CODA prints the loss without it (its eq. 27): the errors at high noise then outweigh all
    others. Source: table 1.
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Churn(NamedTuple):
    """Fresh noise within the sampler: up to amount / N of each level in [low, high].

    An amount of 0 is the deterministic sampler.
    """

    amount: ArrayLike = 80.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003
    """Std of the fresh noise: a little above one, since denoisers remove too much noise."""

    def gamma(self, sigma: Float[Array, " N"], steps: int) -> Float[Array, " N"]:
        """min(amount / N, sqrt 2 - 1) where low <= sigma <= high, else 0."""
        inside = (sigma >= self.low) & (sigma <= self.high)
        share = jnp.minimum(jnp.asarray(self.amount) / steps, 2.0**0.5 - 1.0)
        return jnp.where(inside, share, 0.0)


class _Level(NamedTuple):
    """The inputs of one step of `heun`, or of all steps."""

    k: Array
    key: Array
    sigma: Array
    churned: Array
    """sigma^, the level after the fresh noise."""
    added: Array
    """Standard deviation of the fresh noise."""
    after: Array
    """sigma', the next level."""


def heun(
    steps: int,
    shift: Shift | None = None,
    churn: Churn | None = None,
    order: int = 2,
    placement: str = "denoised",
    karras: Karras = KARRAS,
    mask: ArrayLike | None = None,
) -> Sampler:
    """EDM's sampler of `steps` levels: Euler (`order` 1) or Heun (`order` 2).

        sigma^ = sigma (1 + gamma)
        x^ = x + sqrt(sigma^2^ - sigma^2) S_noise z
        d = (x^ - D(x^)) / sigma^
        x' = x^ + (sigma' - sigma^) d
        and where sigma' > 0 again with (d + d') / 2, d' = (x' - D(x')) / sigma'

    Both steps start from the churned x^, not from x: otherwise samples narrow. The last step is
    Euler's.

    `shift(k, x, x_0)` moves the x from which a step starts. In the last step it should move
    nothing, since no later step projects back. `placement` says where it moves x:
    - "denoised" moves x^ after x_0 = D(x^) and d are known, once, so that x' moves as far (CODA,
      algorithm 1).
    - "before-churn" moves x before the noise and gets x itself for x_0. Then d pulls back within
      the step (Jackson et al. 2024).
    - "before-churn-denoised" does the same with x_0 = D(x), a third call of the denoiser.

    `mask` multiplies all drawn noise. Raises unless steps >= 1.
    Source: Karras et al. 2022, algorithm 2.
    """
    _check_heun(steps, order, placement)
    step = _heun_step(karras, shift, churn is not None, order, placement)

    def sample(key: Key[Array, ""], denoise: Denoise, shape: tuple[int, ...]) -> Array:
        def noise(key):
            real = 1.0 if mask is None else jnp.asarray(mask)
            return jax.random.normal(key, shape) * real

        def body(x, level):
            return step(denoise, noise, x, level), None

        k_start, levels = _churned_levels(key, karras, churn or Churn(0.0), steps)
        first = karras.high * noise(k_start)
        return jax.lax.scan(body, first, levels)[0]

    return sample


def _check_heun(steps: int, order: int, placement: str) -> None:
    if steps < 1:
        way_out = "Each is one or two calls of the denoiser."
        raise refuse("heun.steps", "a whole number >= 1", steps, way_out)
    if order not in (1, 2):
        raise refuse("heun.order", "1 or 2", order, "1 is Euler's step, 2 Heun's.")
    if placement not in PLACEMENTS:
        expected = f"one of {', '.join(PLACEMENTS)}"
        raise refuse("heun.placement", expected, placement, "The first is the paper's.")


def _churned_levels(
    key: Key[Array, ""], karras: Karras, churn: Churn, steps: int
) -> tuple[Key[Array, ""], _Level]:
    """The key of the first noise, and the levels of all steps."""
    sigma = karras.levels(steps)
    churned = sigma[:-1] * (1.0 + churn.gamma(sigma[:-1], steps))
    variance = jnp.maximum(churned**2 - sigma[:-1] ** 2, 0.0)
    added = jnp.sqrt(variance) * churn.noise
    k_start, k_steps = jax.random.split(key)
    k = jnp.arange(steps)
    keys = jax.random.split(k_steps, steps)
    return k_start, _Level(k, keys, sigma[:-1], churned, added, sigma[1:])


def _heun_step(
    karras: Karras, shift: Shift | None, noisy: bool, order: int, placement: str
) -> Callable[[Denoise, Callable[[Array], Array], Array, _Level], Array]:
    """One step of `heun` as a function (denoise, noise, x, level) -> x'."""
    before = placement != "denoised"

    def step(denoise: Denoise, noise: Callable[[Array], Array], x: Array, level: _Level) -> Array:
        # --- move and churn ---
        if before and shift is not None:
            x0 = x
            if placement == "before-churn-denoised":
                x0 = denoise(x, karras.time(level.sigma))
            x = shift(level.k, x, x0)
        if noisy:
            x = x + level.added * noise(level.key)
        x0 = denoise(x, karras.time(level.churned))
        moved = x
        if not before and shift is not None:
            moved = shift(level.k, x, x0)

        # --- Euler ---
        # x' = x_0 + ratio (x^ - x_0), which at the clean level is x_0 to the last bit
        ratio = level.after / level.churned
        following = x0 + ratio * (x - x0) + (moved - x)
        if order == 1:
            return following

        # --- Heun ---
        sigma_after = jnp.where(level.after > 0, level.after, karras.low)
        slope_after = (following - denoise(following, karras.time(sigma_after))) / sigma_after
        move = (level.after - level.churned) * 0.5
        second = moved + move * ((x - x0) / level.churned + slope_after)
        return jnp.where(level.after > 0, second, following)

    return step

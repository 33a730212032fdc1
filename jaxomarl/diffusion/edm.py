"""EDM (Karras et al. 2022): a preconditioned denoiser, its loss's weight, its levels, and Heun's sampler with churn.

Noise is added, x_sigma = x + sigma z, and a time t in [0, 1] stands for sigma as in `schedules.edm`, so that denoisers
(x, t) -> x_0 are told what every other sampler tells them. All broadcasts are over the axes that t does not have.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise, Schedule, refuse
from jaxomarl.diffusion.samplers import Sampler, Shift
from jaxomarl.diffusion.schedules import edm

PLACEMENTS = ("denoised", "before-churn", "before-churn-denoised")
LOG_MEAN, LOG_STD = -1.2, 1.2  # of log sigma while training


class Karras(NamedTuple):
    """The range of noise and how levels crowd towards its lower end."""

    low: float = 0.002
    high: float = 80.0
    rho: float = 7.0

    @property
    def schedule(self) -> Schedule:
        """sigma(t), with alpha = 1."""
        return edm(self.low, self.high, self.rho)

    def time(self, sigma: ArrayLike) -> Array:
        """The t at which the schedule has `sigma`; beyond `high` it is above 1."""
        low, high = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return (jnp.asarray(sigma) ** (1 / self.rho) - low) / (high - low)

    def levels(self, steps: int) -> Float[Array, " N1"]:
        """sigma_0 = high, .., sigma_N-1 = low, and sigma_N = 0; one step has `high` alone. Source: eq. 5."""
        t = 1.0 - jnp.arange(steps) / max(steps - 1, 1)
        return jnp.append(self.schedule.sigma(t), 0.0)

    def draw(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
        """Training times: log sigma ~ N(-1.2, 1.2^2), held in [low, high] (CODA's clamp)."""
        sigma = jnp.exp(LOG_MEAN + LOG_STD * jax.random.normal(key, shape))
        return self.time(jnp.clip(sigma, self.low, self.high))


KARRAS = Karras()


def preconditioned(
    net: Callable[[Array, Array], Array], sigma_data: float = 1.0, karras: Karras = KARRAS
) -> Denoise:
    """D(x; sigma) = c_skip x + c_out F(c_in x, c_noise) of a network F, whose input and aim then have variance one.

    c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2), c_in = 1 / sqrt(sigma^2 + s^2),
    c_noise = log(sigma) / 4, with s = `sigma_data`, the data's deviation. Source: table 1.
    """

    def denoise(x: Array, t: Array) -> Array:
        sigma = karras.schedule.sigma(jnp.asarray(t))
        wide = sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))
        size = jnp.hypot(wide, sigma_data)
        inner = net(x / size, 0.25 * jnp.log(sigma))
        return (sigma_data / size) ** 2 * x + wide * sigma_data / size * inner

    return denoise


def weight(sigma: Array, sigma_data: float = 1.0) -> Array:
    """(sigma^2 + s^2) / (sigma s)^2: every level then counts alike at the start. Source: table 1.

    CODA prints the loss without it (its eq. 27), so that the errors at high noise outweigh all others.
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Churn(NamedTuple):
    """Fresh noise within the sampler: up to amount / N of each level in [low, high]; 0 is the deterministic sampler."""

    amount: Any = 80.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003
    """Deviation of the fresh noise, a little above one against what denoisers lose."""

    def gamma(self, sigma: Float[Array, " N"], steps: int) -> Float[Array, " N"]:
        """min(amount / N, sqrt 2 - 1) where low <= sigma <= high, else 0."""
        among = (sigma >= self.low) & (sigma <= self.high)
        return jnp.where(among, jnp.minimum(jnp.asarray(self.amount) / steps, 2.0**0.5 - 1.0), 0.0)


def heun(
    steps: int,
    shift: Shift | None = None,
    churn: Churn | None = None,
    order: int = 2,
    placement: str = "denoised",
    karras: Karras = KARRAS,
    mask: ArrayLike | None = None,
) -> Sampler:
    """EDM's sampler of `steps` levels: Euler (`order` 1) or Heun's second order, whose last step is Euler's.

        sigma^ = sigma (1 + gamma),   x^ = x + sqrt(sigma^2^ - sigma^2) S_noise z,   d = (x^ - D(x^)) / sigma^
        x' = x^ + (sigma' - sigma^) d,   and where sigma' > 0 again with (d + d') / 2, d' = (x' - D(x')) / sigma'

    `shift(k, x, x_0)` moves the x from which a step sets out, at one of these places:
    "denoised" moves x^ after x_0 = D(x^) and d are known, once, so that x' is moved by as much (CODA, algorithm 1);
    "before-churn" moves x before the noise, with x itself given for x_0, and d pulls back within the step (Jackson et
    al. 2024); "before-churn-denoised" is that with x_0 = D(x), a third call of the denoiser.
    In the last step it should move nothing: nothing would project it back. `mask` multiplies all drawn noise.
    Both steps set out from the churned x^, not from x: otherwise samples narrow. Raises unless steps >= 1.
    Source: Karras et al. 2022, algorithm 2.
    """
    if steps < 1:
        raise refuse(
            "heun.steps", "a whole number >= 1", steps, "Each is one or two calls of the denoiser."
        )
    if order not in (1, 2):
        raise refuse("heun.order", "1 or 2", order, "1 is Euler's step, 2 Heun's.")
    if placement not in PLACEMENTS:
        raise refuse(
            "heun.placement",
            f"one of {', '.join(PLACEMENTS)}",
            placement,
            "The first is the paper's.",
        )
    noisy, more, move = churn is not None, churn or Churn(0.0), shift or (lambda k, x, x0: x)
    before = placement != "denoised"

    def sample(key: Key[Array, ""], denoise: Denoise, shape: tuple[int, ...]) -> Array:
        sigma = karras.levels(steps)
        up = sigma[:-1] * (1.0 + more.gamma(sigma[:-1], steps))
        fresh = jnp.sqrt(jnp.maximum(up**2 - sigma[:-1] ** 2, 0.0)) * more.noise
        k_start, k_steps = jax.random.split(key)

        noise = lambda key: (
            jax.random.normal(key, shape) * (1.0 if mask is None else jnp.asarray(mask))
        )

        def step(x, inputs):
            k, key, now, up, fresh, after = inputs
            if before and shift is not None:
                x = move(
                    k,
                    x,
                    denoise(x, karras.time(now)) if placement == "before-churn-denoised" else x,
                )
            x = x + fresh * noise(key) if noisy else x
            x0 = denoise(x, karras.time(up))
            moved = x if before else move(k, x, x0)
            ratio = (
                after / up
            )  # x' = x_0 + ratio (x^ - x_0), which at the clean level is x_0 to the last bit
            following = x0 + ratio * (x - x0) + (moved - x)
            if order == 2:
                level = jnp.where(after > 0, after, karras.low)
                there = (following - denoise(following, karras.time(level))) / level
                second = moved + (after - up) * 0.5 * ((x - x0) / up + there)
                following = jnp.where(after > 0, second, following)
            return following, None

        inputs = (
            jnp.arange(steps),
            jax.random.split(k_steps, steps),
            sigma[:-1],
            up,
            fresh,
            sigma[1:],
        )
        return jax.lax.scan(step, karras.high * noise(k_start), inputs)[0]

    return sample

"""Flows: the velocity along straight paths from data to noise, and maps that jump along them.

    x_t = (1 - t) x_0 + t z        the path, `schedules.straight()`: data at t = 0, noise at t = 1
    v(x, t) = E[z - x_0 | x_t = x] the velocity dx / dt, which `flow_loss` fits
    u(x, r, t)                     its mean from r to t along the path through x, `mean_flow_loss`

A velocity is a prediction in a further form: `from_velocity` gives the denoiser that every sampler
and every guidance takes. `euler` follows it from a given z, which distillation needs. One call of
it is never a sample: v(x, 1) = x - E[x_0] for every data, so one step gives the data's mean.

The "v" of parameterise.py is another quantity, alpha eps - sigma x_0. Papers that count time from
noise to data (flow Q-learning, MAC-Flow, OM2P) have -v(x, 1 - t) for our v(x, t).

Source: Lipman et al. 2023 (Flow matching); Geng et al. 2025 (Mean flows).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxomarl.base import Denoise, refuse
from jaxomarl.diffusion.losses import batch_mean_square
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.schedules import straight, times

Velocity = Callable[[Array, Array], Array]
"""(x_t, t) -> dx / dt. t has the leading axes of x, or none."""
MeanVelocity = Callable[[Array, Array, Array], Array]
"""(x_t, r, t) -> the mean velocity between the times r <= t."""

# --- one prediction in other forms ---


def x0_from_velocity(x: Array, t: ArrayLike, v: Array) -> Array:
    """Clean sample of a velocity: x_0 = x - t v."""
    return x - _beside(t, x) * v


def eps_from_velocity(x: Array, t: ArrayLike, v: Array) -> Array:
    """Noise of a velocity: eps = x + (1 - t) v."""
    return x + (1.0 - _beside(t, x)) * v


def score_from_velocity(x: Array, t: ArrayLike, v: Array) -> Array:
    """Score of a velocity: -(x + (1 - t) v) / t."""
    return -eps_from_velocity(x, t, v) / _beside(t, x)


def velocity_from_x0(x: Array, t: ArrayLike, x0: Array) -> Array:
    """Velocity of a clean sample: v = (x - x_0) / t."""
    return (x - x0) / _beside(t, x)


def from_velocity(velocity: Velocity) -> Denoise:
    """The denoiser (x_t, t) -> x_t - t v of a velocity with parameters and conditions bound."""
    return lambda x, t: x0_from_velocity(x, t, velocity(x, t))


def _beside(t: ArrayLike, x: Array) -> Array:
    """The time, with axes appended so that it multiplies x."""
    t = jnp.asarray(t)
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


# --- velocities ---


def flow_loss(
    velocity: Velocity,
    x0: Array,
    t: Array,
    z: Array,
    mask: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Flow matching: mean over the batch of weight |v((1 - t) x_0 + t z, t) - (z - x_0)|^2.

    x0, z [B, ..., A]; t, weight [B]; mask is 1.0 on what counts. The square is summed over columns.
    With t ~ U(0, 1) and data N(m, s^2) the least value is pi s / 2 per column: a loss above zero is
    no sign of a poor fit. Raises where t's axes do not lead x0.
    Source: Lipman et al. 2023, eq. 23.
    """
    if mask is not None:
        z = z * mask
    x = noised(straight(), x0, t, z)
    return batch_mean_square(velocity(x, t) - (z - x0), t, weight, mask)


def euler(
    velocity: Velocity, z: Array, steps: int, mask: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Where K = `steps` steps x <- x - v(x, t) / K lead from the noise z, t = 1, .., 1/K.

    It is `ddim` on `straight()`, from a given start. `mask` keeps padded columns zero. For
    N(m, s^2) the std is the product over steps of 1 - ((t - (1 - t) s^2) / G^2) / K with
    G^2 = (1 - t)^2 s^2 + t^2, which approaches s as 1 / K.
    Raises unless steps >= 1.
    """
    if steps < 1:
        way_out = "Each step is one call of the velocity."
        raise refuse("euler.steps", "a whole number >= 1", steps, way_out)
    mask = 1.0 if mask is None else mask

    def step(x: Array, t: Array) -> tuple[Array, None]:
        return x - mask * velocity(x, t) / steps, None

    return jax.lax.scan(step, z * mask, times(steps))[0]


# --- mean velocities ---


def mean_flow_loss(
    mean_velocity: MeanVelocity,
    x0: Array,
    r: Array,
    t: Array,
    z: Array,
    mask: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Mean over the batch of weight |u(x, r, t) - sg[w - (t - r) du/dt]|^2, w = z - x_0.

    du/dt = w d_x u + d_t u is the derivative along the path, one forward-mode product. In it w
    stands for v: the target is linear in w, so its mean is the target of v. At r = t the loss is
    `flow_loss`. x0, z [B, ..., A]; r <= t and weight [B]; mask is 1.0 on what counts.
    Raises where t's axes do not lead x0.
    Source: Geng et al. 2025 (Mean flows), eqs. 6-10. OM2P's code has the other sign of (t - r).
    """
    if mask is not None:
        z = z * mask
    x = noised(straight(), x0, t, z)
    w = z - x0
    along = lambda x, t: mean_velocity(x, r, t)
    u, slope = jax.jvp(along, (x, t), (w, jnp.ones_like(t)))
    target = w - _beside(t - r, x) * slope
    return batch_mean_square(u - jax.lax.stop_gradient(target), t, weight, mask)


def jump(mean_velocity: MeanVelocity) -> Denoise:
    """The consistency function of a mean velocity: (x, t) -> x - t u(x, 0, t), the path's end.

    `consistency(straight(), k)` samples it in k calls. f(x, 0) = x for every u.
    """
    return lambda x, t: x0_from_velocity(x, t, mean_velocity(x, jnp.zeros_like(t), t))

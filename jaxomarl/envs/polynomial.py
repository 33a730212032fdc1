"""Polynomial games of two agents, R(x, y) = -A (x^2 + y^2) - B x^2 y^2 + C x y, and their offline gradients.

A learner that best-responds under data (BRUD) follows the gradient of its reward with the other's action taken from
the data; the online learner takes it from the other's current policy. Source: CODA, sections on BRUD.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Task, refuse
from jaxomarl.envs.stateless import EPISODES, Draw, one_step_recipe, stateless


def multiplication(data_x: float = -0.64, data_y: float = 0.65, data_std: float = 0.1) -> Task:
    """R = x y in [-1, 1]^2; the best corners are (1, 1) and (-1, -1).

    Qualities: "uniform" on the square, and "gaussian", N((data_x, data_y), data_std^2 I) clamped. The default centre
    is CODA's start: online learners go from there to (1, 1), learners on the data to (1, -1).
    Raises JaxomarlError for a negative data_std.
    """
    about = "R = x y; optimum 1 at (1, 1) and (-1, -1)"
    return _task("multiplication", (0.0, 0.0, 1.0), (data_x, data_y), data_std, about)


def twin_peaks(
    A: float = 1.0,
    B: float = 4.0,
    C: float = 5.0,
    data_x: float = 0.2,
    data_y: float = 0.2,
    data_std: float = 0.3,
) -> Task:
    """R = -A (x^2 + y^2) - B x^2 y^2 + C x y in [-1, 1]^2: two peaks, and a saddle at the origin where |C| > 2A.

    Qualities as in `multiplication`; the default centre is off the peaks, so that BRUD stops short of them.
    Raises JaxomarlError where A, B or data_std is negative.
    """
    (x, y), best = twin_peaks_optimum(A, B, C)
    about = f"R = -A(x^2 + y^2) - B x^2 y^2 + C x y; optimum {best:.4g} at +-({x:.4g}, {y:.4g})"
    return _task("twin-peaks", (A, B, C), (data_x, data_y), data_std, about)


def _task(
    name: str,
    weights: tuple[float, float, float],
    centre: tuple[float, float],
    data_std: float,
    about: str,
) -> Task:
    if data_std < 0:
        raise refuse(
            f"games/{name}, data_std", "at least 0", data_std, "It is a standard deviation."
        )

    def rule(action: Float[Array, "2 1"]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        return polynomial(action[:, 0], *weights), {
            "action_1": action[0, 0],
            "action_2": action[1, 0],
        }

    def uniform(key: Key[Array, ""], rows: int) -> tuple[Float[Array, "M 2 1"], Int[Array, " M"]]:
        action = jax.random.uniform(key, (rows, 2, 1), minval=-1.0, maxval=1.0)
        return action, jnp.zeros(rows, jnp.int32)

    def gaussian(key: Key[Array, ""], rows: int) -> tuple[Float[Array, "M 2 1"], Int[Array, " M"]]:
        action = jnp.array(centre) + data_std * jax.random.normal(key, (rows, 2))
        return jnp.clip(action, -1.0, 1.0)[..., None], jnp.zeros(rows, jnp.int32)

    env = stateless((1, 1), rule)
    draws: dict[str, Draw] = {"uniform": uniform, "gaussian": gaussian}
    recipes = {quality: one_step_recipe(env, draw) for quality, draw in draws.items()}
    return Task(
        f"games/{name}",
        env,
        recipes,
        "uniform",
        optimum=twin_peaks_optimum(*weights)[1],
        about=about,
        episodes=EPISODES,
    )


def polynomial(action: Float[Array, "*B 2"], A: float, B: float, C: float) -> Float[Array, "*B"]:
    """R = -A (x^2 + y^2) - B x^2 y^2 + C x y; A = B = 0, C = 1 is the multiplication game."""
    x, y = action[..., 0], action[..., 1]
    return -A * (x**2 + y**2) - B * x**2 * y**2 + C * x * y


def twin_peaks_optimum(A: float, B: float, C: float) -> tuple[tuple[float, float], float]:
    """One maximiser in [-1, 1]^2 (the other is its negative) and the maximum.

    At a given product p = |x y| the best is |x| = |y|, so that R = (|C| - 2A) p - B p^2 with p in [0, 1]: inside the
    square p = (|C| - 2A) / (2B) and R = (|C| - 2A)^2 / (4B). Raises JaxomarlError where A or B is negative.
    """
    for field, value in (("A", A), ("B", B)):
        if value < 0:
            raise refuse(
                f"games/twin-peaks, {field}",
                "at least 0",
                value,
                "The optimum is known for A, B >= 0.",
            )
    slope = abs(C) - 2 * A
    p = 0.0 if slope <= 0 else 1.0 if slope >= 2 * B else slope / (2 * B)
    x = math.sqrt(p)
    return (x, math.copysign(x, C)), slope * p - B * p**2


# --- gradients and fixed points ---


def brud_gradient(
    theta: Float[Array, "*B 2"],
    mean: Float[Array, "*B 2"],
    std: Float[Array, "*B 2"] | float,
    A: float,
    B: float,
    C: float,
) -> Float[Array, "*B 2"]:
    """E over data of dR/da_i at (theta_i, a_-i): -2A theta_i - 2B theta_i (m_-i^2 + s_-i^2) + C m_-i.

    `mean` and `std` [*B, 2] are the data's, agent by agent; the online gradient is mean = theta, std = 0. In the
    multiplication game this is the constant (mean of y, mean of x).
    """
    other = mean[..., ::-1]
    second = other**2 + (jnp.broadcast_to(std, mean.shape)[..., ::-1]) ** 2
    return -2 * A * theta - 2 * B * theta * second + C * other


def ascend(
    theta: Float[Array, "*B 2"],
    gradient: Float[Array, "*B 2"],
    rate: float = 0.1,
    clip: float = 1.0,
) -> Float[Array, "*B 2"]:
    """One step of CODA's stateless learner: each agent's gradient clipped in norm, the step projected on [-1, 1]."""
    return jnp.clip(theta + rate * jnp.clip(gradient, -clip, clip), -1.0, 1.0)


def twin_peaks_brud_fixed_point(
    A: float, B: float, C: float, mean: Array | float, std: Array | float
) -> Array | float:
    """Where an agent's BRUD gradient vanishes: C m / (2A + 2B (m^2 + s^2)), m and s being the other agent's data.

    For the "gaussian" recipe, take m and s from `clamped_moments`; on the uniform one m = 0, so that it is 0.
    """
    return C * mean / (2 * A + 2 * B * (mean**2 + std**2))


def clamped_moments(mean: float, std: float) -> tuple[float, float]:
    """Mean and standard deviation of N(mean, std^2) clamped to [-1, 1]: the moments of the "gaussian" recipe."""
    if std == 0:
        return max(-1.0, min(1.0, mean)), 0.0
    low, high = (-1 - mean) / std, (1 - mean) / std
    below, above = (0.5 * math.erfc(-z / math.sqrt(2)) for z in (low, -high))
    d_low, d_high = (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (low, high))
    inside = 1 - below - above
    first = above - below + mean * inside - std * (d_high - d_low)
    second = above + below + (mean**2 + std**2) * inside - 2 * mean * std * (d_high - d_low)
    second -= std**2 * (high * d_high - low * d_low)
    return first, math.sqrt(max(second - first**2, 0.0))

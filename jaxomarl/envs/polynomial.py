"""Polynomial games of two agents, R(x, y) = -A (x^2 + y^2) - B x^2 y^2 + C x y.

A learner that best-responds under data (BRUD) follows the gradient of its reward with the other's
action taken from the data. The online learner takes it from the other's current policy. Both
gradients are here. Source: CODA, sections on BRUD.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Task, refuse
from jaxomarl.envs.stateless import EPISODES, Actions, Draw, Payoff, one_step_recipe, stateless


def multiplication(data_x: float = -0.64, data_y: float = 0.65, data_std: float = 0.1) -> Task:
    """R = x y in [-1, 1]^2; the best corners are (1, 1) and (-1, -1).

    Qualities: "uniform" on the square, and "gaussian", N((data_x, data_y), data_std^2 I) clamped.
    The default centre is CODA's start: online learners go from there to (1, 1), learners on the
    data to (1, -1). Raises JaxomarlError for a negative data_std.
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
    """R = -A (x^2 + y^2) - B x^2 y^2 + C x y in [-1, 1]^2.

    Where |C| > 2A it has two peaks, and a saddle at the origin. Qualities are those of
    `multiplication`. The default centre is off the peaks, so that BRUD stops short of them. Raises
    JaxomarlError where A, B or data_std is negative.
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
        way = "It is a standard deviation."
        raise refuse(f"games/{name}, data_std", "at least 0", data_std, way)

    def rule(action: Float[Array, "2 1"]) -> Payoff:
        reward = polynomial(action[:, 0], *weights)
        return reward, {"action_1": action[0, 0], "action_2": action[1, 0]}

    def uniform(key: Key[Array, ""], rows: int) -> Actions:
        action = jax.random.uniform(key, (rows, 2, 1), minval=-1.0, maxval=1.0)
        return action, jnp.zeros(rows, jnp.int32)

    def gaussian(key: Key[Array, ""], rows: int) -> Actions:
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


def polynomial(
    action: Float[Array, "*B 2"], A: float | Array, B: float | Array, C: float | Array
) -> Float[Array, "*B"]:
    """R = -A (x^2 + y^2) - B x^2 y^2 + C x y; A = B = 0, C = 1 is the multiplication game."""
    x = action[..., 0]
    y = action[..., 1]
    return -A * (x**2 + y**2) - B * x**2 * y**2 + C * x * y


def twin_peaks_optimum(A: float, B: float, C: float) -> tuple[tuple[float, float], float]:
    """One maximiser in [-1, 1]^2 (the other is its negative) and the maximum.

    At a given product p = |x y| the best is |x| = |y|, so that R = (|C| - 2A) p - B p^2 with p in
    [0, 1]. Inside the square p = (|C| - 2A) / (2B) and R = (|C| - 2A)^2 / (4B). Raises
    JaxomarlError where A or B is negative.
    """
    for field, value in (("A", A), ("B", B)):
        if value < 0:
            way = "The optimum is known for A, B >= 0."
            raise refuse(f"games/twin-peaks, {field}", "at least 0", value, way)

    slope = abs(C) - 2 * A
    if slope <= 0:
        p = 0.0
    elif slope >= 2 * B:
        p = 1.0
    else:
        p = slope / (2 * B)
    x = math.sqrt(p)
    return (x, math.copysign(x, C)), slope * p - B * p**2


# --- gradients and fixed points ---


def brud_gradient(
    theta: Float[Array, "*B 2"],
    mean: Float[Array, "*B 2"],
    std: Float[Array, "*B 2"] | float,
    A: float | Array,
    B: float | Array,
    C: float | Array,
) -> Float[Array, "*B 2"]:
    """The expectation over the data of dR/da_i at (theta_i, a_-i).

        -2A theta_i - 2B theta_i (m_-i^2 + s_-i^2) + C m_-i

    `mean` and `std` [*B, 2] are the data's, agent by agent. The online gradient has mean = theta
    and std = 0. In the multiplication game the gradient is the constant (mean of y, mean of x).
    """
    other_mean = mean[..., ::-1]
    other_std = jnp.broadcast_to(std, mean.shape)[..., ::-1]
    second_moment = other_mean**2 + other_std**2
    return -2 * A * theta - 2 * B * theta * second_moment + C * other_mean


def ascend(
    theta: Float[Array, "*B 2"],
    gradient: Float[Array, "*B 2"],
    rate: float = 0.1,
    clip: float = 1.0,
    bound: float = 1.0,
) -> Float[Array, "*B 2"]:
    """One step of CODA's stateless learner.

    Each agent's gradient is clipped in norm, and the step is projected on [-bound, bound].
    """
    clipped = jnp.clip(gradient, -clip, clip)
    return jnp.clip(theta + rate * clipped, -bound, bound)


def twin_peaks_brud_fixed_point(
    A: float | Array, B: float | Array, C: float | Array, mean: Array | float, std: Array | float
) -> Array | float:
    """The zero C m / (2A + 2B (m^2 + s^2)) of an agent's BRUD gradient.

    m and s are the moments of the other agent's data. For the "gaussian" recipe `clamped_moments`
    gives them. The "uniform" recipe has m = 0, so that the zero is 0.
    """
    return C * mean / (2 * A + 2 * B * (mean**2 + std**2))


def clamped_moments(mean: float, std: float) -> tuple[float, float]:
    """Mean and standard deviation of N(mean, std^2) clamped to [-1, 1].

    They are the moments of the "gaussian" recipe.
    """
    if std == 0:
        return max(-1.0, min(1.0, mean)), 0.0
    low = (-1 - mean) / std
    high = (1 - mean) / std
    below = 0.5 * math.erfc(-low / math.sqrt(2))
    above = 0.5 * math.erfc(high / math.sqrt(2))
    inside = 1 - below - above
    density_low = math.exp(-low * low / 2) / math.sqrt(2 * math.pi)
    density_high = math.exp(-high * high / 2) / math.sqrt(2 * math.pi)
    rise = density_high - density_low

    first = above - below + mean * inside - std * rise
    second = above + below + (mean**2 + std**2) * inside - 2 * mean * std * rise
    second -= std**2 * (high * density_high - low * density_low)
    return first, math.sqrt(max(second - first**2, 0.0))

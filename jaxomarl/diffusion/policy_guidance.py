"""Policy guidance: each step moves samples to where the current joint policy is likely to act.

    p(tau) ~ p_data(tau) exp(lambda sum_t sum_i log pi_i(a_t^i | o_t^i))

is the target of CODA's algorithm 1, which approximates it. The gradient is taken at the denoised
trajectory, not averaged over it, and scaled to length one over the full trajectory.
Source: CODA, section 5 and algorithm 1.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxomarl.diffusion.samplers import Shift

REFERENCE = 128
"""Number of levels at which a strength and the paper's lambda are the same number."""
TINY = 1e-8
"""It prevents 0 / 0 in the direction of a zero gradient."""


def profile(steps: int) -> Float[Array, " N"]:
    """(1 - k / N) + 0.3 sin(pi (k + 1) / N) for k = 0..N-1, and 0 in the last step.

    No later step would project a move of the last step back. CODA prints no schedule; this is
    that of policy-guided diffusion (Jackson et al. 2024), whose code calls it a cosine.
    """
    k = jnp.arange(steps)
    shape = (1.0 - k / steps) + 0.3 * jnp.sin(math.pi * (k + 1) / steps)
    return jnp.where(k == steps - 1, 0.0, shape)


def strengths(steps: int, strength: ArrayLike, raw: bool = False) -> Float[Array, " N"]:
    """lambda_k of each step.

    Their sum does not depend on N: it is the paper's at 128 levels, where `strength` is the
    paper's lambda. With `raw` it is the paper's lambda at every N, and the sum grows with N:
    28.1 lambda for 40 steps, 88.9 lambda for 128.
    """
    shape = profile(steps)
    if raw or steps == 1:
        return jnp.asarray(strength) * shape
    return jnp.asarray(strength) * shape * (_total(REFERENCE) / _total(steps))


def _total(steps: int) -> float:
    return sum(
        1.0 - k / steps + 0.3 * math.sin(math.pi * (k + 1) / steps) for k in range(steps - 1)
    )


def towards(
    scores: Callable[[Array], Array], strength: Float[Array, " N"], mask: ArrayLike = 1.0
) -> Shift:
    """The shift x + lambda_k g / (|g| + 1e-8) with g = mask scores(x_0).

    |g| is over all entries of one sample. `scores` maps denoised samples [B, ...] to gradients of
    their log-likelihood, in the coordinates of x. `mask` is 1.0 on what may move: action columns.
    No gradient flows through the shift, neither of the policy nor of the denoiser.
    Source: CODA, algorithm 1, with the small number inside the division, where it prevents 0 / 0.
    """

    def shift(k: Array, x: Array, x0: Array) -> Array:
        g = jnp.asarray(mask) * scores(jax.lax.stop_gradient(x0))
        entries = tuple(range(1, g.ndim))
        norm = jnp.sqrt(jnp.sum(jnp.square(g), axis=entries, keepdims=True))
        return x + strength[k] * jax.lax.stop_gradient(g / (norm + TINY))

    return shift


def of_deterministic(
    action: Float[Array, "*B A"], played: Float[Array, "*B A"]
) -> Float[Array, "*B A"]:
    """The gradient in a of log N(a; mu(o), I): mu(o) - a.

    This normal stands in for the density of a deterministic policy. Its standard deviation is one
    in the environment's units of action, whatever that of the data is.
    """
    return played - action


def likelihood(
    action: Float[Array, "*B H N A"], played: Float[Array, "*B H N A"], mask: Float[Array, "N A"]
) -> Float[Array, "*B"]:
    """The log-likelihood of a trajectory without constants: -(a - mu)^2 / 2.

    It is summed over steps, agents and real columns.
    """
    return -0.5 * jnp.sum(mask * jnp.square(action - played), axis=(-3, -2, -1))

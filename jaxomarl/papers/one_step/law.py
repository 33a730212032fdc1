"""Exact values: what squared-error students of a joint flow play where agents agree on a level.

The data are n agents that all take one of K levels, equally often, with a small deviation. A joint
flow maps the team's noise z to an agreement: level k where sum_i z_i / sqrt(n) is in the k-th of K
equal slices of the normal. A student of agent i sees z_i alone, and its squared error is least at

    f(z_i) = E[g_i | z_i] = sum_k level_k P(the team is in slice k | z_i)

the mean over the others' noise. For two levels +-m it is m (2 Phi(z_i / sqrt(n - 1)) - 1): uniform
between the levels for n = 2, and narrower for more agents.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from jaxomarl.diffusion import flows
from jaxomarl.envs import games

GRID = 20_001
"""Points of the noise at which a student is evaluated: equal slices of the normal."""
DRAWN = 20_000
"""Samples of a flow whose velocity is exact."""


class Values(NamedTuple):
    """How a team's levels compare with the data's."""

    distance: float
    """Total variation of the joint levels from the data's."""
    share: float
    """Share of coordinated teams."""
    variance: float
    """Variance of one agent's action."""


def levels_of(levels: int) -> Float[np.ndarray, " K"]:
    """The levels, evenly spaced in +-0.8."""
    return np.linspace(-games.BANDIT_MODE, games.BANDIT_MODE, levels)


def student(z: Float[np.ndarray, " B"], agents: int, levels: int) -> Float[np.ndarray, " B"]:
    """f(z_i): what the student of one of n agents plays."""
    if agents == 1:
        edges = np.asarray(ndtri(jnp.arange(1, levels) / levels))
        return levels_of(levels)[np.searchsorted(edges, z)]
    edges = np.asarray(ndtri(jnp.arange(levels + 1) / levels))
    centred = (edges[:, None] - z / math.sqrt(agents)) / math.sqrt((agents - 1) / agents)
    slices = np.diff(np.asarray(ndtr(jnp.asarray(centred))), axis=0)
    return levels_of(levels) @ slices


def students(agents: int, levels: int) -> Values:
    """Students of the joint flow, each with its own noise, as the data's deviation goes to 0."""
    quantiles = (jnp.arange(GRID) + 0.5) / GRID
    action = student(np.asarray(ndtri(quantiles)), agents, levels)
    return of_independent(action, agents, levels)


def product(agents: int, levels: int) -> Values:
    """Agents that each have the data's own marginal, and act apart."""
    return of_independent(levels_of(levels), agents, levels)


def of_independent(action: Float[np.ndarray, " B"], agents: int, levels: int) -> Values:
    """Agents that draw their actions apart, each one of these with equal chance."""
    decoded = np.asarray(games.consensus_levels(jnp.asarray(action)[:, None], levels))
    chance = np.bincount(decoded.ravel(), minlength=levels) / len(action)
    agree = chance**agents
    distance = 0.5 * (np.abs(1.0 / levels - agree).sum() + 1.0 - agree.sum())
    share = agree.sum()
    if levels == 2:
        high = np.mean(action > games.COORDINATED)
        low = np.mean(action < -games.COORDINATED)
        share = high**agents + low**agents
    return Values(float(distance), float(share), float(action.var()))


def partly_shared(q: float) -> float:
    """Total variation of two students that share a part q of the noise's variance, two levels."""
    return 0.5 - math.asin(2.0 * q / (1.0 + q)) / math.pi


def exact_velocity(x: Float[Array, "B N"], t: Array, levels: int, std: float) -> Array:
    """The velocity of the data's joint distribution: agreements on one level, deviation `std`."""
    clean = jnp.asarray(levels_of(levels), jnp.float32)
    alpha = 1.0 - t
    variance = alpha**2 * std**2 + t**2
    gap = x[:, None] - alpha * clean[:, None]
    chance = jax.nn.softmax(-0.5 * jnp.square(gap).sum(axis=-1) / variance, axis=-1)
    means = clean[:, None] + alpha * std**2 * gap / variance
    x0 = jnp.einsum("bk,bkn->bn", chance, means)
    return flows.velocity_from_x0(x, t, x0)


def followed(agents: int, levels: int, std: float, steps: int) -> Values:
    """What so many Euler steps of the exact joint velocity make; drawn with a fixed key."""
    z = jax.random.normal(jax.random.key(0), (DRAWN, agents))
    x = flows.euler(lambda x, t: exact_velocity(x, t, levels, std), z, steps)
    return of_samples(np.clip(np.asarray(x), -1.0, 1.0), levels)


def of_samples(x: Float[np.ndarray, "B N"], levels: int) -> Values:
    """The values of sampled joint actions."""
    agents = x.shape[1]
    decoded = np.asarray(games.consensus_levels(jnp.asarray(x)[..., None], levels))
    law = games.joint_distribution(decoded, levels)
    distance = games.total_variation(law, games.consensus_distribution(agents, levels))
    agreed = (decoded == decoded[:, :1]).all(axis=1)
    if levels == 2:
        agreed &= np.abs(x).min(axis=1) > games.COORDINATED
    return Values(distance, float(agreed.mean()), float(x[:, 0].var()))

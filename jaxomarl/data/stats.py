"""Statistics of a data set, which the networks apply to their inputs.

`Dataset`, environments and `act` speak raw units.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.base import Dataset, Spec


class Stats(NamedTuple):
    """Means and standard deviations of the columns over all rows.

    A padded column has mean 0 and deviation 1. A constant one has its value and deviation 1.
    """

    obs_mean: Float[Array, "N O"]
    obs_std: Float[Array, "N O"]
    state_mean: Float[Array, " S"]
    state_std: Float[Array, " S"]


def statistics(data: Dataset) -> Stats:
    """Statistics over every stored row, summed on the host in float64."""
    obs_mean, obs_std = _moments(np.asarray(data.obs))
    state_mean, state_std = _moments(np.asarray(data.state))
    return Stats(
        obs_mean=jnp.asarray(obs_mean, jnp.float32),
        obs_std=jnp.asarray(obs_std, jnp.float32),
        state_mean=jnp.asarray(state_mean, jnp.float32),
        state_std=jnp.asarray(state_std, jnp.float32),
    )


def identity(spec: Spec) -> Stats:
    """Statistics that change nothing, for online systems."""
    obs_shape = (spec.agents, spec.obs_width)
    return Stats(
        obs_mean=jnp.zeros(obs_shape),
        obs_std=jnp.ones(obs_shape),
        state_mean=jnp.zeros(spec.state_dim),
        state_std=jnp.ones(spec.state_dim),
    )


def _moments(x: np.ndarray, slice_rows: int = 1 << 16) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) of each column, a slice of rows at a time; a constant's deviation is 1."""
    # sums of squares are taken about this mean, so that nothing cancels
    first_mean = x[:slice_rows].mean(axis=0, dtype=np.float64)
    total = np.zeros_like(first_mean)
    square = np.zeros_like(first_mean)
    for start in range(0, len(x), slice_rows):
        centred = x[start : start + slice_rows] - first_mean
        total += centred.sum(axis=0)
        square += (centred**2).sum(axis=0)

    mean = total / len(x)
    std = np.sqrt(np.maximum(square / len(x) - mean**2, 0.0))
    return first_mean + mean, np.where(std < 1e-6, 1.0, std)

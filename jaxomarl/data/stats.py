"""Statistics of a data set, applied inside the networks: `Dataset`, environments and `act` speak raw units."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.base import Dataset, Spec


class Stats(NamedTuple):
    """Means and deviations over all rows; padded and constant columns have mean 0 or their value, and std 1."""

    obs_mean: Float[Array, "N O"]
    obs_std: Float[Array, "N O"]
    state_mean: Float[Array, " S"]
    state_std: Float[Array, " S"]


def statistics(data: Dataset) -> Stats:
    """Per column, over every stored row (float64 sums on the host, a slice at a time)."""
    return Stats(
        *(
            jnp.asarray(x, jnp.float32)
            for block in (data.obs, data.state)
            for x in _moments(np.asarray(block))
        )
    )


def _moments(x: np.ndarray, slices: int = 1 << 16) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) of each column; the deviation of a constant one is 1."""
    first = x[:slices].mean(
        axis=0, dtype=np.float64
    )  # sums of squares are taken about it, so that nothing cancels
    total, square = np.zeros_like(first), np.zeros_like(first)
    for i in range(0, len(x), slices):
        part = x[i : i + slices] - first
        total += part.sum(axis=0)
        square += (part**2).sum(axis=0)
    mean = total / len(x)
    std = np.sqrt(np.maximum(square / len(x) - mean**2, 0.0))
    return first + mean, np.where(std < 1e-6, 1.0, std)


def identity(spec: Spec) -> Stats:
    """Statistics that change nothing, for online systems."""
    n, o, s = spec.agents, spec.obs_width, spec.state_dim
    return Stats(jnp.zeros((n, o)), jnp.ones((n, o)), jnp.zeros(s), jnp.ones(s))

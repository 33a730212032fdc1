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
    """Per column, over every stored row (float64 sums on the host)."""
    obs, state = np.asarray(data.obs, np.float64), np.asarray(data.state, np.float64)
    return Stats(*(jnp.asarray(x, jnp.float32) for x in (obs.mean(0), _spread(obs), state.mean(0), _spread(state))))


def _spread(x: np.ndarray) -> np.ndarray:
    std = x.std(0)
    return np.where(std < 1e-6, 1.0, std)


def identity(spec: Spec) -> Stats:
    """Statistics that change nothing, for online systems."""
    n, o, s = spec.agents, spec.obs_width, spec.state_dim
    return Stats(jnp.zeros((n, o)), jnp.ones((n, o)), jnp.zeros(s), jnp.ones(s))

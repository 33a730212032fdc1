"""Observations mapped to [-1, 1], for models whose samples are held in a box.

`limits` maps the data's least value to -1 and their largest to 1, and continues linearly beyond.
`cdf` maps a value to its rank among the data's, linear between 257 quantiles, and stops at the
ends. Constant columns become 0, and so do padded ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Dataset, Spec

KINDS = ("limits", "cdf")
QUANTILES = 257
"""Number of quantiles of a column."""
MOST_ROWS = 1 << 16
"""Rows that the quantiles are computed from, at most about."""
TINY = 1e-6
"""A range of at most this size counts as constant."""

Quantiles = Float[Array, "Q N O"]


def fit_quantiles(kind: str, spec: Spec, data: Dataset) -> Quantiles:
    """Values of the data at equally spaced ranks.

    They are the two ends alone for `limits`, or 257 quantiles of at most 2^16 rows for `cdf`.
    """
    obs = data.obs * spec.obs_mask
    if kind == "limits":
        return jnp.stack([obs.min(axis=0), obs.max(axis=0)])
    stride = -(-obs.shape[0] // MOST_ROWS)
    return jnp.quantile(obs[::stride], jnp.linspace(0.0, 1.0, QUANTILES), axis=0)


def ranged(
    kind: str, spec: Spec
) -> Callable[[Quantiles, Float[Array, "*B N O"]], Float[Array, "*B N O"]]:
    """(quantiles, observations in raw units) -> numbers in [-1, 1] on the data's range."""

    def limits(table: Quantiles, obs: Array) -> Array:
        half = (table[-1] - table[0]) / 2
        centred = obs - (table[-1] + table[0]) / 2
        return centred / jnp.where(half > TINY, half, 1.0)

    def cdf(table: Quantiles, obs: Array) -> Array:
        flat_obs = obs.reshape(-1, spec.agents * spec.obs_width)
        flat_table = table.reshape(table.shape[0], -1)
        ranks = jnp.linspace(-1.0, 1.0, table.shape[0])

        def column(x: Array, quantiles: Array) -> Array:
            return jnp.interp(x, quantiles, ranks)

        return jax.vmap(column, 1, 1)(flat_obs, flat_table).reshape(obs.shape)

    to_box = limits if kind == "limits" else cdf

    def normalise(table: Quantiles, obs: Array) -> Array:
        varies = (table[-1] - table[0] > TINY) * spec.obs_mask
        return varies * to_box(table, obs)

    return normalise

"""Observations to [-1, 1] and no further, as models that hold their samples in a box want them.

`limits` maps the data's least value to -1 and its largest to 1, and goes on beyond. `cdf` maps a value to its rank
among the data's, linear between 257 quantiles, and stops at the ends. Constant columns become 0, padded ones too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Dataset, Spec

KINDS = ("limits", "cdf")
COUNT, ROWS = 257, 1 << 16

Quantiles = Float[Array, "Q N O"]


def fit_quantiles(kind: str, spec: Spec, data: Dataset) -> Quantiles:
    """Values of the data at equally spaced ranks: the ends alone, or 257 quantiles of at most 2^16 rows."""
    obs = data.obs * spec.obs_mask
    if kind == "limits":
        return jnp.stack([obs.min(axis=0), obs.max(axis=0)])
    every = -(-obs.shape[0] // ROWS)
    return jnp.quantile(obs[::every], jnp.linspace(0.0, 1.0, COUNT), axis=0)


def ranged(
    kind: str, spec: Spec
) -> Callable[[Quantiles, Float[Array, "*B N O"]], Float[Array, "*B N O"]]:
    """(quantiles, observations in raw units) -> numbers in [-1, 1] where the data were."""

    def limits(table: Quantiles, obs: Array) -> Array:
        half = (table[-1] - table[0]) / 2
        return (obs - (table[-1] + table[0]) / 2) / jnp.where(half > 1e-6, half, 1.0)

    def cdf(table: Quantiles, obs: Array) -> Array:
        flat, columns = (
            obs.reshape(-1, spec.agents * spec.obs_width),
            table.reshape(table.shape[0], -1),
        )
        ranks = jnp.linspace(-1.0, 1.0, table.shape[0])
        return jax.vmap(lambda x, at: jnp.interp(x, at, ranks), 1, 1)(flat, columns).reshape(
            obs.shape
        )

    def see(table: Quantiles, obs: Array) -> Array:
        varies = (table[-1] - table[0] > 1e-6) * spec.obs_mask
        return varies * (limits if kind == "limits" else cdf)(table, obs)

    return see

"""Columns of any distribution transformed to a logistic one: mid-ranks, then the logit.

    u(v) = (F(v-) + F(v)) / 2,    z = sqrt(3) / pi log(u / (1 - u))

F is the empirical distribution function. z has standard deviation one where a column is continuous.
Mid-ranks keep an atom where its mass is: ranks F would map every maximum to u = 1, and the atom of
saturated actions far out. Quantiles are kept in z, so that the inverse is exact to rounding on a
column's quantiles and on the lines between them. Everything is arrays and runs within jit.

`standard` has z-scores in the same form. Source: CODA, appendix D. The normaliser of Janner et al.
and of MADiff uses F itself and maps to [-1, 1].
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SCALE = math.sqrt(3.0) / math.pi
EDGE = 1e-6
"""u is clipped to [EDGE, 1 - EDGE]."""
REACH = 0.25
"""Slopes are means over +-REACH in z, because an empirical function's own slope is noise."""


class Cdf(NamedTuple):
    """Quantiles of each of C columns, in rising order; a constant column has all alike."""

    value: Float[Array, "C Q"]
    z: Float[Array, "C Q"]

    @property
    def varies(self) -> Float[Array, " C"]:
        """1.0 on columns with more than one value; a constant column is 0 in z."""
        return (self.value[:, -1] > self.value[:, 0]).astype(jnp.float32)

    def forward(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Values to z. What lies beyond the data's range becomes the range's end."""
        return self.varies * _map_columns(x, self.value, self.z)

    def inverse(self, z: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Values of z, which are within the data's range."""
        return _map_columns(z, self.z, self.value)

    def slope(self, z: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """The slope d value / d z >= 0, as its mean over +-REACH.

        Beyond the range it is the slope at the end. It is 0 on constant columns.
        """
        within = jnp.clip(z, self.z[:, 0], self.z[:, -1])
        above = self.inverse(within + REACH)
        below = self.inverse(within - REACH)
        return (above - below) / (2.0 * REACH)

    def part(self, start: int, stop: int) -> "Cdf":
        """Columns start..stop-1 alone."""
        return Cdf(self.value[start:stop], self.z[start:stop])


def fit_cdf(x: Float[Array, "M C"], quantiles: int = 256) -> Cdf:
    """Quantiles at `quantiles` ranks of each column, the least and the largest value included.

    Half of the ranks are evenly spaced in u and half in z. All rows count alike. Data of fewer rows
    than `quantiles` repeat some; M >= 1.
    """
    rows = x.shape[0]
    ranks = jnp.asarray(_ranks(rows, quantiles))

    def column(in_order: Float[Array, " M"]) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
        value = in_order[ranks]
        below = jnp.searchsorted(in_order, value, side="left")
        up_to = jnp.searchsorted(in_order, value, side="right")
        u = jnp.clip((below + up_to) / (2.0 * rows), EDGE, 1.0 - EDGE)
        z = SCALE * (jnp.log(u) - jnp.log1p(-u))
        return value, jnp.where(value[-1] > value[0], z, 0.0)

    return Cdf(*jax.vmap(column)(jnp.sort(x.T, axis=-1)))


def fit_z_scores(x: Float[Array, "M C"]) -> Cdf:
    """z-scores z = (v - mean) / deviation, as policy-guided diffusion's, by two values a column.

    What lies beyond the data's range becomes its end, as in `fit`. All rows count alike; M >= 1.
    """
    value = jnp.stack([x.min(axis=0), x.max(axis=0)], axis=-1)
    spread = x.std(axis=0)[:, None]
    centred = value - x.mean(axis=0)[:, None]
    return Cdf(value, centred / jnp.where(spread > 0, spread, 1.0) * (spread > 0))


def _ranks(rows: int, quantiles: int) -> np.ndarray:
    """Positions among `rows` sorted values, rising."""
    half = quantiles // 2
    even_in_u = np.linspace(0.0, 1.0, quantiles - half)
    farthest = math.log(max(2.0 * rows - 1.0, 2.0))
    even_in_z = 1.0 / (1.0 + np.exp(-np.linspace(-farthest, farthest, half)))
    shares = np.sort(np.concatenate([even_in_u, even_in_z]))
    return np.clip(np.round(shares * (rows - 1)), 0, rows - 1).astype(np.int32)


def _map_columns(
    x: Float[Array, "*B C"], at: Float[Array, "C Q"], to: Float[Array, "C Q"]
) -> Float[Array, "*B C"]:
    """Each column through its own piecewise linear function."""
    return jax.vmap(_piecewise_linear, in_axes=(-1, 0, 0), out_axes=-1)(x, at, to)


def _piecewise_linear(
    x: Float[Array, "*B"], at: Float[Array, " Q"], to: Float[Array, " Q"]
) -> Float[Array, "*B"]:
    """The piecewise linear function through the points (at, to), constant beyond its ends.

    Of equal points the last one counts. NaN stays NaN.
    """
    within = jnp.clip(x, at[0], at[-1])
    low = jnp.clip(jnp.searchsorted(at, within, side="right") - 1, 0, at.shape[0] - 1)
    high = jnp.minimum(low + 1, at.shape[0] - 1)
    width = at[high] - at[low]
    share = jnp.where(width > 0, (within - at[low]) / jnp.where(width > 0, width, 1.0), 0.0)
    mapped = to[low] + share * (to[high] - to[low])
    # the search puts NaN at the end, where it would look like a number
    return jnp.where(jnp.isnan(x), x, mapped)

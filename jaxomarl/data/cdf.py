"""Columns of any distribution made logistic: the empirical distribution function by mid-ranks, then the logit.

    u(v) = (F(v-) + F(v)) / 2,    z = sqrt(3) / pi log(u / (1 - u))

z has deviation one where a column is continuous. Mid-ranks keep an atom where its mass is: ranks F would map every
maximum to u = 1 and a saturated action's atom far out. Knots are kept in z, so that the way back is exact to rounding
on a column's knots and on the lines between them. Everything is arrays and runs within jit. `standard` has z-scores in
the same form. Source: CODA, appendix D; Janner et al.'s and MADiff's normaliser uses F itself and maps to [-1, 1].
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SCALE = math.sqrt(3.0) / math.pi
EDGE = 1e-6  # u is held in [EDGE, 1 - EDGE]
REACH = 0.25  # slopes are means over +-REACH deviations: an empirical function's own slope is noise


class Cdf(NamedTuple):
    """Knots of each of C columns, in rising order, equal ones side by side; a constant column has all alike."""

    value: Float[Array, "C Q"]
    z: Float[Array, "C Q"]

    @property
    def varies(self) -> Float[Array, " C"]:
        """1.0 on columns that hold more than one value; the others are 0 in z, and their constant in values."""
        return (self.value[:, -1] > self.value[:, 0]).astype(jnp.float32)

    def forward(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Values to z; beyond the data's range, the range's end."""
        return self.varies * _columns(x, self.value, self.z)

    def inverse(self, z: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Z to values, which are within the data's range."""
        return _columns(z, self.z, self.value)

    def slope(self, z: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """The slope d value / d z >= 0, its mean over +-0.25; beyond the range as at its end; 0 on constant columns."""
        held = jnp.clip(z, self.z[:, 0], self.z[:, -1])
        return (self.inverse(held + REACH) - self.inverse(held - REACH)) / (2.0 * REACH)

    def part(self, start: int, stop: int) -> "Cdf":
        """Columns start..stop-1 alone."""
        return Cdf(self.value[start:stop], self.z[start:stop])


def fit(x: Float[Array, "M C"], knots: int = 256) -> Cdf:
    """Knots at `knots` ranks of each column, half of them even in u and half even in z, the outermost values included.

    All rows count alike. Data of fewer rows than knots repeat some; M >= 1.
    """
    rows = x.shape[0]
    where = jnp.asarray(_ranks(rows, knots))

    def column(sorted_: Float[Array, " M"]):
        value = sorted_[where]
        below = jnp.searchsorted(sorted_, value, side="left")
        upto = jnp.searchsorted(sorted_, value, side="right")
        u = jnp.clip((below + upto) / (2.0 * rows), EDGE, 1.0 - EDGE)
        z = SCALE * (jnp.log(u) - jnp.log1p(-u))
        return value, jnp.where(value[-1] > value[0], z, 0.0)

    return Cdf(*jax.vmap(column)(jnp.sort(x.T, axis=-1)))


def standard(x: Float[Array, "M C"]) -> Cdf:
    """Two knots for each column, at its ends: z = (v - mean) / deviation, as policy-guided diffusion's z-scores.

    What lies beyond the data's range is its end, as in `fit`. All rows count alike; M >= 1.
    """
    value = jnp.stack([x.min(axis=0), x.max(axis=0)], axis=-1)
    spread = x.std(axis=0)[:, None]
    return Cdf(
        value, (value - x.mean(axis=0)[:, None]) / jnp.where(spread > 0, spread, 1.0) * (spread > 0)
    )


def _ranks(rows: int, knots: int) -> np.ndarray:
    """Positions among `rows` sorted values, rising."""
    half = knots // 2
    even = np.linspace(0.0, 1.0, knots - half)
    far = math.log(max(2.0 * rows - 1.0, 2.0))
    tails = 1.0 / (1.0 + np.exp(-np.linspace(-far, far, half)))
    shares = np.sort(np.concatenate([even, tails]))
    return np.clip(np.round(shares * (rows - 1)), 0, rows - 1).astype(np.int32)


def _columns(
    x: Float[Array, "*B C"], at: Float[Array, "C Q"], to: Float[Array, "C Q"]
) -> Float[Array, "*B C"]:
    """Each column through its own broken line."""
    return jax.vmap(_line, in_axes=(-1, 0, 0), out_axes=-1)(x, at, to)


def _line(
    x: Float[Array, "*B"], at: Float[Array, " Q"], to: Float[Array, " Q"]
) -> Float[Array, "*B"]:
    """The broken line through (at, to), constant beyond its ends; of equal knots the last one counts; nan stays nan."""
    given, x = x, jnp.clip(x, at[0], at[-1])
    low = jnp.clip(jnp.searchsorted(at, x, side="right") - 1, 0, at.shape[0] - 1)
    high = jnp.minimum(low + 1, at.shape[0] - 1)
    width = at[high] - at[low]
    share = jnp.where(width > 0, (x - at[low]) / jnp.where(width > 0, width, 1.0), 0.0)
    found = to[low] + share * (to[high] - to[low])
    return jnp.where(
        jnp.isnan(given), given, found
    )  # a search puts it at the end, where it would look like a number

"""How far rows of a model are from rows of data: marginals, correlations and errors.

Everything is NumPy on rows [M, C]. Each number is meant to be compared with the same number of two
draws of the data, which says how much draws of that size differ when nothing is wrong.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxomarl.base import Dataset

TINY = 1e-6
"""A standard deviation of at most this size counts as zero."""


def real_windows(data: Dataset, count: int, horizon: int, seed: int) -> list[np.ndarray]:
    """Two draws of at most `count` full windows each, [K, H + 1, W], of packed rows as in `data`.

    No start is in both draws.
    """
    left = np.asarray(data.left)
    starts = np.asarray(data.starts)
    starts = np.unique(starts[left[starts] >= horizon])
    order = np.random.default_rng(seed).permutation(starts)
    half = min(count, len(order) // 2)
    rows = np.asarray(data.rows)
    offset = np.arange(horizon + 1)
    return [rows[drawn[:, None] + offset] for drawn in (order[:half], order[half : 2 * half])]


def varying(rows: Float[np.ndarray, "M C"]) -> Bool[np.ndarray, " C"]:
    """Whether each column has more than one value."""
    return rows.std(axis=0) > TINY


def ks(a: Float[np.ndarray, "M C"], b: Float[np.ndarray, "K C"]) -> Float[np.ndarray, " C"]:
    """Kolmogorov-Smirnov distance of each column: the largest gap of the distribution functions."""
    distance = np.zeros(a.shape[1])
    for column in range(a.shape[1]):
        distance[column] = ks_distance(a[:, column], b[:, column])
    return distance


def ks_distance(x: Float[np.ndarray, " M"], y: Float[np.ndarray, " K"]) -> float:
    """The largest gap between the empirical distribution functions of two samples."""
    values = np.concatenate([x, y])
    below_x = np.searchsorted(np.sort(x), values, side="right") / len(x)
    below_y = np.searchsorted(np.sort(y), values, side="right") / len(y)
    return float(np.abs(below_x - below_y).max())


def correlations(rows: Float[np.ndarray, "M C"]) -> Float[np.ndarray, "C C"]:
    """Correlation of every two columns; 0 where one of them does not vary."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    size = np.sqrt(np.square(centred).sum(axis=0))
    constant = size <= TINY * np.sqrt(len(centred))
    unit = np.where(constant, 0.0, centred / np.where(constant, 1.0, size))
    return unit.T @ unit


def above(matrix: Float[np.ndarray, "C C"]) -> Float[np.ndarray, " P"]:
    """The entries above the diagonal."""
    return matrix[np.triu_indices(len(matrix), 1)]


def errors(
    said: Float[np.ndarray, "M C"], true: Float[np.ndarray, "M C"], std: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " M"]:
    """Root mean square over columns of (said - true) / std. Constant columns are left out."""
    varies = std > TINY
    if not varies.any():
        return np.zeros(len(said))
    error = (said[:, varies] - true[:, varies]) / std[varies]
    return np.sqrt(np.square(error).mean(axis=1))

"""How far rows of a model are from rows of data: marginals, correlations, errors in deviations of the data.

All is NumPy on rows [M, C]. Every number is meant to be read beside the same number of two draws of the data, which
says what draws of that size differ by when nothing is wrong.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxomarl.base import Dataset

TINY = 1e-6


def real_windows(data: Dataset, count: int, horizon: int, seed: int) -> list[np.ndarray]:
    """Two draws of at most `count` whole windows each [K, H + 1, W], no start in both; packed rows, as in `data`."""
    left, starts = np.asarray(data.left), np.asarray(data.starts)
    starts = np.unique(starts[left[starts] >= horizon])
    order = np.random.default_rng(seed).permutation(starts)
    half = min(count, len(order) // 2)
    rows = np.asarray(data.rows)
    return [rows[order[k * half : (k + 1) * half, None] + np.arange(horizon + 1)] for k in range(2)]


def varying(rows: Float[np.ndarray, "M C"]) -> Bool[np.ndarray, " C"]:
    """Whether a column holds more than one value."""
    return rows.std(axis=0) > TINY


def ks(a: Float[np.ndarray, "M C"], b: Float[np.ndarray, "K C"]) -> Float[np.ndarray, " C"]:
    """Kolmogorov's and Smirnov's distance of each column: the largest gap between its distribution functions."""
    out = np.zeros(a.shape[1])
    for c in range(a.shape[1]):
        x, y = np.sort(a[:, c]), np.sort(b[:, c])
        at = np.concatenate([x, y])
        below = [np.searchsorted(z, at, side="right") / len(z) for z in (x, y)]
        out[c] = np.abs(below[0] - below[1]).max()
    return out


def correlations(rows: Float[np.ndarray, "M C"]) -> Float[np.ndarray, "C C"]:
    """Correlation of every two columns; 0 where one does not vary."""
    x = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    size = np.sqrt(np.square(x).sum(axis=0))
    flat = size <= TINY * np.sqrt(len(x))
    x = np.where(flat, 0.0, x / np.where(flat, 1.0, size))
    return x.T @ x


def above(matrix: Float[np.ndarray, "C C"]) -> Float[np.ndarray, " P"]:
    """The entries above the diagonal."""
    return matrix[np.triu_indices(len(matrix), 1)]


def errors(
    said: Float[np.ndarray, "M C"], true: Float[np.ndarray, "M C"], std: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " M"]:
    """Root mean square over columns of (said - true) / std; columns that do not vary are left out."""
    some = std > TINY
    if not some.any():
        return np.zeros(len(said))
    return np.sqrt(np.square((said[:, some] - true[:, some]) / std[some]).mean(axis=1))

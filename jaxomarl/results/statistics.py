"""Statistics over seeds, in numpy: one convention, stated once, so that no two tables disagree.

The unit is a run (a seed), and its score is the mean over its episodes, which are not independent
runs. `mean`, `std` and `iqm` reduce the last axis, so that a bootstrap applies them to all
replicates at once. A value that is not finite makes the statistic nan; to leave diverged seeds out
is the caller's decision, to be shown.
"""

import numpy as np
from jaxtyping import Float, Num


def _strict(x: np.ndarray) -> np.ndarray:
    """The values in float64; a sample with a value that is not finite becomes nan throughout."""
    finite = np.isfinite(x).all(-1, keepdims=True)
    return np.where(finite, x, np.nan).astype(np.float64)


def mean(x: Num[np.ndarray, "*B n"]) -> Float[np.ndarray, "*B"]:
    """Arithmetic mean over the last axis."""
    return np.asarray(np.mean(_strict(x), -1))


def std(x: Num[np.ndarray, "*B n"]) -> Float[np.ndarray, "*B"]:
    """Sample standard deviation over the last axis; nan where n < 2.

    It is sqrt(sum (x - mean)^2 / (n - 1)), that is ddof = 1.

    It is the spread of seeds. The standard error of their mean is std / sqrt(n): never mix the two
    in one table.
    """
    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], np.nan)
    return np.asarray(np.std(_strict(x), -1, ddof=1))


def standard_error(deviation: float, count: int) -> float | None:
    """Standard error of the mean of `count` values.

    It is None of a single value, which says nothing of its own error.

    `deviation` divides by `count` (ddof = 0), as manifests have it: s / sqrt(n) = deviation /
    sqrt(n - 1).
    """
    if count < 2:
        return None
    return deviation / (count - 1) ** 0.5


def iqm(x: Num[np.ndarray, "*B n"]) -> Float[np.ndarray, "*B"]:
    """Interquartile mean over the last axis.

    Sort, drop floor(n / 4) values at each end, average the rest.

    The semantics of `scipy.stats.trim_mean(x, 0.25)` and of Agarwal et al. 2021; for runs x tasks
    give `x.ravel()`.
    """
    n = x.shape[-1]
    cut = n // 4
    ordered = np.sort(_strict(x), -1)
    return np.asarray(np.mean(ordered[..., cut : n - cut], -1))


def probability_of_improvement(
    x: Num[np.ndarray, " n"] | Num[np.ndarray, "n tasks"],
    y: Num[np.ndarray, " m"] | Num[np.ndarray, "m tasks"],
) -> float:
    """P(X > Y) + P(X = Y) / 2 for a random run of each, averaged over tasks.

    It is Mann-Whitney's U / (n m).

    Source: Agarwal et al. 2021. nan where a value is not finite. ValueError where x and y differ in
    tasks.
    """
    if x.shape[1:] != y.shape[1:]:
        tasks = f"{x.shape[1:]} and {y.shape[1:]}"
        raise ValueError(f"probability_of_improvement: the tasks differ, {tasks}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    above = x[:, None] > y[None]
    equal = x[:, None] == y[None]
    return float(np.mean(above + 0.5 * equal))


def performance_profile(
    x: Num[np.ndarray, " runs"] | Num[np.ndarray, "runs tasks"], thresholds: Num[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """[T], the share of runs (over all tasks) that score above each threshold.

    Source: Dolan and More 2002; Agarwal et al. 2021.

    A nan is above no threshold and stays in the denominator: a diverged run counts as a failure.
    """
    return np.mean(x.reshape(-1, 1) > thresholds, axis=0)

"""Figures on arrays: errors, correlations, linear regressions, returns.

All are of one run and can be vmapped over runs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

RIDGE = 1e-3
"""Penalty of linear regressions, in units of the mean square of a standardised column."""
TINY = 1e-8


def rmse(
    predicted: Float[Array, "B *N D"], true: Float[Array, "B *N D"], mask: Float[Array, "..."]
) -> Float[Array, ""]:
    """Root mean square error over the entries where `mask`, which is broadcast, is 1; 0 without
    any.
    """
    square = mask * jnp.square(predicted - true)
    entries = jnp.broadcast_to(mask, true.shape).sum()
    return jnp.sqrt(square.sum() / jnp.maximum(entries, 1.0))


def ranks(x: Float[Array, " B"]) -> Float[Array, " B"]:
    """Rank of each number, from 0; equal numbers share the mean of their ranks."""
    ordered = jnp.sort(x)
    first = jnp.searchsorted(ordered, x, side="left")
    after_last = jnp.searchsorted(ordered, x, side="right")
    return 0.5 * (first + after_last - 1)


def correlation(x: Float[Array, " B"], y: Float[Array, " B"]) -> Float[Array, ""]:
    """Pearson's correlation; 0 where one of the two does not vary."""
    x = x - x.mean()
    y = y - y.mean()
    size = jnp.sqrt(jnp.square(x).sum() * jnp.square(y).sum())
    return jnp.where(size > TINY, (x * y).sum() / jnp.maximum(size, TINY), 0.0)


def rank_correlation(x: Float[Array, " B"], y: Float[Array, " B"]) -> Float[Array, ""]:
    """Spearman's correlation; NaN where a number is not finite, whose rank says nothing."""
    finite = jnp.isfinite(x).all() & jnp.isfinite(y).all()
    return jnp.where(finite, correlation(ranks(x), ranks(y)), jnp.nan)


def linear_prediction(
    inputs: Float[Array, "B C"], targets: Float[Array, "B D"], where: Float[Array, "K C"]
) -> Float[Array, "K D"]:
    """Predictions at `where` of the ridge regression of targets on standardised inputs and a
    constant.
    """
    mean = inputs.mean(axis=0)
    std = inputs.std(axis=0)
    scale = jnp.where(std > 1e-6, std, 1.0)
    standardise = lambda x: (x - mean) / scale

    x = standardise(inputs)
    centre = targets.mean(axis=0)
    gram = x.T @ x / len(x) + RIDGE * jnp.eye(x.shape[1])
    weights = jnp.linalg.solve(gram, x.T @ (targets - centre) / len(x))
    return centre + standardise(where) @ weights


def linear_error(
    inputs: Float[Array, "K M C"], actions: Float[Array, "K M D"], mask: Float[Array, "M D"]
) -> Float[Array, ""]:
    """Error on the second half of the rows of each model's linear regression of actions on inputs.

    It is fitted to the first half. The first half's mean takes its place where that is nearer:
    a regression on few rows fits their noise.
    """
    half = len(inputs) // 2
    regress = jax.vmap(linear_prediction, in_axes=1, out_axes=1)
    predicted = regress(inputs[:half], actions[:half], inputs[half:])
    mean = jnp.broadcast_to(actions[:half].mean(axis=0), predicted.shape)
    errors = [rmse(x, actions[half:], mask) for x in (jnp.clip(predicted, -1.0, 1.0), mean)]
    return jnp.minimum(*errors)


def returns_to_go(
    reward: Float[Array, "M *N"], left: Int[Array, " M"], gamma: float | Float[Array, ""]
) -> Float[Array, "M *N"]:
    """Discounted sum of rewards from each row to its episode's end; 0 in successor rows (`left` =
    0).

    Rows are whole episodes, back to back.
    """

    def add(after: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        paid, rows_left = row
        total = jnp.where(rows_left > 0, paid + gamma * after, jnp.zeros_like(after))
        return total, total

    nothing = jnp.zeros(reward.shape[1:], reward.dtype)
    _, total = jax.lax.scan(add, nothing, (reward, left), reverse=True)
    return total

"""Returns as a condition: what each row of a data set led to, added to its rows by a system's `prepare`."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxomarl.base import Dataset, team_reward

KINDS = ("togo", "episode")
"""Discounted sum from the row on; the same from the episode's first row, for all of its rows."""


def returns(
    data: Dataset, gamma: float, kind: str = "togo", reward: str = "own"
) -> Float[np.ndarray, "M N"]:
    """sum_k gamma^k r_(t+k) to the episode's end, of each agent's `own` reward or of the `team`'s, in raw units.

    0 in successor rows; with kind "episode" every row, the successor too, has its first row's. Host, in float64.
    """
    paid = np.asarray(data.reward, np.float64)
    if reward == "team":
        paid = np.broadcast_to(team_reward(data.layout.team, paid)[:, None], paid.shape)
    left, step, out = np.asarray(data.left), np.asarray(data.step), np.zeros(paid.shape)
    order = np.argsort(
        left, kind="stable"
    )  # rows by their distance from the end, so that a row's successor is done
    ends = np.searchsorted(left[order], np.arange(1, left.max(initial=0) + 2))
    for first, after in itertools.pairwise(ends):
        rows = order[first:after]
        out[rows] = paid[rows] + gamma * out[rows + 1]
    return out[np.arange(len(out)) - step] if kind == "episode" else out


def conditioned(
    data: Dataset, gamma: float, kind: str, reward: str, scale: float, unit: bool = False
) -> Dataset:
    """The data with `extra["returns"]` [M, N]: returns over `scale`, or for 0 from the least (0) to the largest (1).

    With `unit` also `extra["unit"]` [M, 2], in all rows the same: the return that counts as 0, and how much more is 1.
    """
    found = returns(data, gamma, kind, reward)
    started = found[np.asarray(data.left) > 0]
    low, high = (
        (0.0, scale) if scale else (started.min(initial=np.inf), started.max(initial=-np.inf))
    )
    span = high - low if high > low else 1.0
    extra = {**data.extra, "returns": jnp.asarray((found - low) / span, jnp.float32)}
    if unit:
        extra["unit"] = jnp.broadcast_to(jnp.asarray([low, span], jnp.float32), (len(found), 2))
    return dataclasses.replace(data, extra=extra)

"""Returns as a condition: what each row of a data set led to. A system's `prepare` adds them."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxomarl.base import Dataset, team_reward

KINDS = ("togo", "episode")
"""togo: the discounted sum from the row on. episode: that of the episode's first row, for all."""


def returns(
    data: Dataset, gamma: float, kind: str = "togo", reward: str = "own"
) -> Float[np.ndarray, "M N"]:
    """Discounted returns sum_k gamma^k r_(t+k) to the episode's end, in raw units.

    `reward` is each agent's `own` or the `team`'s. Successor rows have 0. With kind "episode" every
    row, the successor too, has the return of its episode's first row. Computed on the host, in
    float64.
    """
    rewards = np.asarray(data.reward, np.float64)
    if reward == "team":
        team = team_reward(data.layout.team, rewards)
        rewards = np.broadcast_to(team[:, None], rewards.shape)

    # rows by their distance from the end, so that a row's successor is done before it
    left = np.asarray(data.left)
    order = np.argsort(left, kind="stable")
    bounds = np.searchsorted(left[order], np.arange(1, left.max(initial=0) + 2))
    togo = np.zeros(rewards.shape)
    for start, stop in itertools.pairwise(bounds):
        rows = order[start:stop]
        togo[rows] = rewards[rows] + gamma * togo[rows + 1]

    if kind == "episode":
        first_row = np.arange(len(togo)) - np.asarray(data.step)
        return togo[first_row]
    return togo


def with_returns(
    data: Dataset, gamma: float, kind: str, reward: str, scale: float, unit: bool = False
) -> Dataset:
    """The data with `extra["returns"]` [M, N]: the returns divided by `scale`.

    A scale of 0 maps the data's least return to 0 and their largest to 1. With `unit` the data also
    have `extra["unit"]` [M, 2], the same in all rows: the return that counts as 0, and how much
    more counts as 1.
    """
    raw_returns = returns(data, gamma, kind, reward)
    if scale:
        low = 0.0
        high = scale
    else:
        of_transitions = raw_returns[np.asarray(data.left) > 0]
        low = of_transitions.min(initial=np.inf)
        high = of_transitions.max(initial=-np.inf)
    span = high - low
    if high <= low:
        span = 1.0

    extra = dict(data.extra)
    extra["returns"] = jnp.asarray((raw_returns - low) / span, jnp.float32)
    if unit:
        both = jnp.asarray([low, span], jnp.float32)
        extra["unit"] = jnp.broadcast_to(both, (len(raw_returns), 2))
    return dataclasses.replace(data, extra=extra)

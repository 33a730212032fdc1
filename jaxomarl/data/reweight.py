"""Trajectories counted more often the better they went: a multiset of starts, no row copied."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxomarl.base import Dataset, team_reward


def trajectories(data: Dataset) -> tuple[Int[np.ndarray, " M"], Float[np.ndarray, " L"]]:
    """Which of L trajectories each row belongs to, and the undiscounted sum of the team's rewards of each."""
    which = np.cumsum(np.asarray(data.step) == 0) - 1
    reward = np.asarray(data.reward, np.float64)
    team = team_reward(data.layout.team, reward)
    started = np.asarray(data.left) > 0  # the successor row pays nothing
    return which, np.bincount(which, weights=team * started, minlength=which[-1] + 1)


def reweighted(data: Dataset, thresholds: Sequence[float]) -> Dataset:
    """A trajectory's starts appear 1 + #{thresholds <= its return} times; equal thresholds count each.

    Source: Li et al. 2023 (DOM2), Algorithm 1, lines 2-4.
    """
    if not thresholds:
        return data
    which, returns = trajectories(data)
    times = 1 + (returns[:, None] >= np.asarray(thresholds, np.float64)).sum(axis=1)
    starts = np.asarray(data.starts)
    return dataclasses.replace(
        data, starts=jnp.asarray(np.repeat(starts, times[which[starts]]), jnp.int32)
    )

"""Good trajectories counted more often: starts are repeated, and no row is copied."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxomarl.base import Dataset, team_reward


def trajectories(data: Dataset) -> tuple[Int[np.ndarray, " M"], Float[np.ndarray, " L"]]:
    """The trajectory of each row, and the undiscounted team return of each of L trajectories."""
    trajectory = np.cumsum(np.asarray(data.step) == 0) - 1
    team = team_reward(data.layout.team, np.asarray(data.reward, np.float64))
    # a successor row earns nothing
    earned = team * (np.asarray(data.left) > 0)
    returns = np.bincount(trajectory, weights=earned, minlength=trajectory[-1] + 1)
    return trajectory, returns


def reweighted(data: Dataset, thresholds: Sequence[float]) -> Dataset:
    """The data with each trajectory's starts repeated 1 + #{thresholds <= its return} times.

    Equal thresholds count each. Source: Li et al. 2023 (DOM2), Algorithm 1, lines 2-4.
    """
    if not thresholds:
        return data
    trajectory, returns = trajectories(data)
    reached = returns[:, None] >= np.asarray(thresholds, np.float64)
    copies = 1 + reached.sum(axis=1)
    starts = np.asarray(data.starts)
    repeated = np.repeat(starts, copies[trajectory[starts]])
    return dataclasses.replace(data, starts=jnp.asarray(repeated, jnp.int32))

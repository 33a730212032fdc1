"""Episodes that training never draws, on which trained stages are judged.

Whole episodes are held out, because neighbouring rows of one episode are nearly equal. Which ones
is a function of the number of episodes alone, so that all systems, seeds and resumed runs on one
data set hold out the same.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxomarl.base import Dataset

SHARE = 0.02
"""Share of the episodes that is held out."""
FEWEST = 2
"""Least number of episodes that is held out, where there are four or more."""
FEW = 50
"""Number of episodes of a data set below which the held-out ones say little."""
SEED = 20_261
"""Seed of the choice of episodes."""


class HeldOut(NamedTuple):
    """Which episodes of a data set are held out."""

    rows: Int[np.ndarray, " M"]
    """Numbers of their rows, successor rows included, in order."""
    starts: Int[np.ndarray, " K"]
    """Numbers of the rows at which their transitions start."""
    episodes: Int[np.ndarray, " H"]
    """Numbers of the episodes, counted from 0 in the order of the rows."""
    of: int
    """Number of all episodes."""


def hold_out(data: Dataset) -> HeldOut:
    """Choose SHARE of the episodes, at least FEWEST and at most half of them.

    A data set of one episode keeps it: then nothing is held out.
    """
    ends_episode = np.asarray(data.left) == 0
    episodes = int(ends_episode.sum())
    wanted = max(FEWEST, round(SHARE * episodes))
    order = np.random.default_rng(SEED).permutation(episodes)
    chosen = np.sort(order[: min(wanted, episodes // 2)])

    episode_of_row = np.cumsum(ends_episode) - ends_episode
    is_held = np.isin(episode_of_row, chosen)
    starts = np.asarray(data.starts)
    return HeldOut(np.flatnonzero(is_held), starts[is_held[starts]], chosen, episodes)


def without(data: Dataset, held: HeldOut) -> Dataset:
    """The data set without transitions of the held-out episodes; its rows stay in place."""
    starts = np.asarray(data.starts)
    kept = starts[~np.isin(starts, held.rows)]
    return dataclasses.replace(data, starts=jnp.asarray(kept, jnp.int32))


def only(data: Dataset, held: HeldOut) -> Dataset:
    """The held-out episodes as a data set of their own."""
    place = np.searchsorted(held.rows, held.starts)
    return dataclasses.replace(
        data,
        rows=data.rows[held.rows],
        step=data.step[held.rows],
        left=data.left[held.rows],
        behaviour=data.behaviour[held.rows],
        starts=jnp.asarray(place, jnp.int32),
        extra={name: x[held.rows] for name, x in data.extra.items()},
    )

"""Episodes that training never draws, on which trained stages are judged.

Whole episodes are held out, because neighbouring rows of one episode are nearly equal. Which ones
is a function of the number of episodes alone, so that all systems, seeds and resumed runs on one
data set hold out the same.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

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

    episodes: Int[np.ndarray, " H"]
    """Numbers of the episodes, counted from 0 in the order of the rows."""
    of: int
    """Number of all episodes."""

    def facts(self) -> dict[str, int]:
        """What run.json says of it."""
        return {"episodes": len(self.episodes), "of": self.of}


def hold_out(data: Dataset | None) -> HeldOut:
    """Choose SHARE of the episodes, at least FEWEST and at most half of them.

    A data set of one episode keeps it: then nothing is held out, nor without data.
    """
    episodes = 0 if data is None else int((np.asarray(data.left) == 0).sum())
    wanted = max(FEWEST, round(SHARE * episodes))
    order = np.random.default_rng(SEED).permutation(episodes)
    return HeldOut(np.sort(order[: min(wanted, episodes // 2)]), episodes)


def split(data: Dataset, held: HeldOut) -> tuple[Dataset, Dataset | None]:
    """(the episodes that training may draw, the held-out ones), as data sets of their own.

    The second is None where nothing is held out.
    """
    if not len(held.episodes):
        return data, None
    ends_episode = np.asarray(data.left) == 0
    episode_of_row = np.cumsum(ends_episode) - ends_episode
    is_held = np.isin(episode_of_row, held.episodes)
    return _of_rows(data, ~is_held), _of_rows(data, is_held)


def _of_rows(data: Dataset, chosen: Bool[np.ndarray, " M"]) -> Dataset:
    """Whole episodes of a data set, which have these rows."""
    starts = np.asarray(data.starts)
    place = np.cumsum(chosen) - 1
    # on the host: JAX compiles programs for each array's shape
    own = lambda x: jnp.asarray(np.asarray(x)[chosen])
    return dataclasses.replace(
        data,
        rows=own(data.rows),
        step=own(data.step),
        left=own(data.left),
        behaviour=own(data.behaviour),
        starts=jnp.asarray(place[starts[chosen[starts]]], jnp.int32),
        extra={name: own(x) for name, x in data.extra.items()},
    )

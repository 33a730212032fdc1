"""OMIGA's HDF5 files: `s` [T, N, S], `o` [T, N, O], `a` [T, N, A], `r` [T, 1], `d` [T, 1].

An episode of L steps has L + 1 rows. The last row, marked by d = 1, is a dummy. Its observation is
the true successor of step L. Its action and reward mean nothing and are dropped: a sum of rewards
over all rows is wrong. d does not tell a time-out from a termination. The successors count as
known, unless all of them repeat the row before.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import hdf5
from jaxomarl.data.raw import Raw, index_rows, interleave

BLOCK_ROWS = 1 << 16
"""Rows of the states that are read at a time."""
KEYS = {"s", "o", "a", "r", "d"}


class OmigaArrays(NamedTuple):
    """The arrays of a file, whose shapes belong together."""

    obs: np.ndarray
    """Observations [T, N, O]."""
    state: np.ndarray
    """The first agent's state [T, S]."""
    shared: bool
    """Whether all agents have that state."""
    action: np.ndarray
    """Actions [T, N, A]."""
    reward: np.ndarray
    """Rewards [T, 1] or [T, N]."""
    dummy: np.ndarray
    """Whether a row is a dummy [T], as `d` says."""


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with `s`, `o`, `a`, `r` and `d`."""
    return hdf5.keys(path) >= KEYS


def read(path: Path) -> Raw:
    """The rows of a file.

    Raises JaxomarlError where an array is missing, of another shape, or unsafe to read.
    """
    where = str(path)
    arrays = _read_arrays(path, where)

    # --- episodes ---
    dummy = arrays.dummy.copy()
    unfinished = not dummy[-1]
    # nothing follows the last row, so it can only be a successor
    dummy[-1] = True
    ends = np.flatnonzero(dummy)
    lengths = np.diff(ends, prepend=-1) - 1
    alone = ends[lengths == 0]
    index = index_rows(lengths[lengths > 0], where)
    successors = index.successors

    # --- rows ---
    if len(alone):
        arrays = _without_rows(arrays, alone)
    obs = arrays.obs
    agents = obs.shape[1]
    action = interleave([arrays.action[index.transitions]], index)
    reward = arrays.reward
    if reward.shape[1] != agents:
        reward = np.repeat(reward, agents, axis=1)

    # --- ends and successors ---
    done = np.zeros(len(obs), np.float32)
    done[successors - 1] = 1.0
    if unfinished:
        done[successors[-1] - 1] = 0.0
    repeats = np.array_equal(obs[successors], obs[successors - 1], equal_nan=True)
    copied = repeats and bool((obs[1:] != obs[:-1]).any())
    known = np.ones(len(obs), np.float32)
    if copied:
        known[successors - 1] = 0.0

    repairs = _repairs(len(successors), unfinished, len(alone), copied, arrays.shared)
    return Raw(
        format="omiga",
        obs=tuple(obs[:, i] for i in range(agents)),
        action=tuple(action[:, i] for i in range(agents)),
        reward=interleave([reward[index.transitions]], index),
        done=done,
        step=index.step,
        left=index.left,
        known=known,
        behaviour=np.zeros(len(obs), np.int32),
        state=arrays.state,
        evidence=(f"{len(successors)} dummy rows marked by d",),
        repairs=tuple(repairs),
        distinct=False,
    )


def _repairs(
    successors: int, unfinished: bool, alone: int, copied: bool, shared: bool
) -> list[str]:
    """What was changed in reading."""
    repairs = [
        f"{successors} dummy rows serve as successors; their actions and rewards are dropped"
    ]
    if unfinished:
        repairs.append("the last episode has no dummy row: its last row is the successor")
    if alone:
        repairs.append(f"{alone} dummy rows without an episode are dropped")
    if copied:
        repairs.append(f"{successors} dummy rows repeat the row before: known = 0")
    if not shared:
        repairs.append("each agent has a state of its own: the first agent's is kept")
    return repairs


def _read_arrays(path: Path, where: str) -> OmigaArrays:
    """The arrays of a file; JaxomarlError where their shapes do not belong together."""
    with hdf5.opened(path) as file:
        obs = hdf5.open_array(file, "o", where, (3,))
        rows, agents, _ = obs.shape
        if 0 in obs.shape:
            expected = "at least one row, agent and column"
            way = "The set is empty: make or copy it again."
            raise refuse(f"{where}, o", expected, f"shape {obs.shape}", way)
        state = hdf5.open_array(file, "s", where, (2, 3), rows)
        action = hdf5.open_array(file, "a", where, (3,), rows)
        reward = hdf5.read_array(file, "r", where, (1, 2), rows)
        if reward.ndim == 1:
            reward = reward[:, None]
        flags = hdf5.read_column(file, "d", where, rows)

        # --- numbers of agents ---
        odd = {}
        for name, array in (("s", state), ("a", action)):
            if len(array.shape) == 3 and array.shape[1] != agents:
                odd[name] = array.shape[1]
        if reward.shape[1] not in (1, agents):
            odd["r"] = reward.shape[1]
        if odd:
            expected = f"{agents} agents in every array, as o has, and r with 1 column or {agents}"
            way = "The arrays do not belong together: copy the file again."
            raise refuse(f"{where}, {', '.join(odd)}", expected, f"{odd} on the second axis", way)

        first_state, shared = _first_state(state)
        obs = np.asarray(obs[()], np.float32)
        action = np.asarray(action[()], np.float32)
    if not np.isin(flags, (0, 1)).all():
        way = "The file is damaged: copy it again."
        raise refuse(f"{where}, d", "zeros and ones", "other numbers", way)
    return OmigaArrays(obs, first_state, shared, action, reward, flags != 0)


def _without_rows(arrays: OmigaArrays, rows: np.ndarray) -> OmigaArrays:
    """The arrays without these rows."""
    return arrays._replace(
        obs=np.delete(arrays.obs, rows, axis=0),
        state=np.delete(arrays.state, rows, axis=0),
        action=np.delete(arrays.action, rows, axis=0),
        reward=np.delete(arrays.reward, rows, axis=0),
    )


def _first_state(states: Any) -> tuple[np.ndarray, bool]:
    """The first agent's state [T, S], and whether the others' are the same.

    N copies can be large, so they are read in blocks.
    """
    if len(states.shape) == 2:
        return np.asarray(states[()], np.float32), True
    first = np.zeros((states.shape[0], states.shape[2]), np.float32)
    shared = True
    for start in range(0, len(first), BLOCK_ROWS):
        block = states[start : start + BLOCK_ROWS]
        first[start : start + BLOCK_ROWS] = block[:, 0]
        shared = shared and bool((block == block[:, :1]).all())
    return first, shared

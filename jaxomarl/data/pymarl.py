"""pymarl's replay buffers in HDF5, as CFCQL keeps its StarCraft sets.

Actions are discrete and episodes are padded. There is one array per field of the buffer (CFCQL,
`discrete/src/run/offline_utils.py`, and the buffer that it dumps), for E episodes of at most L
steps: `obs` [E, L + 1, N, O], `state` [E, L + 1, S], `actions` [E, L + 1, N, 1], `avail_actions`
[E, L + 1, N, A], `reward`, `terminated` and `filled` [E, L + 1, 1]. Other fields are ignored.
EPyMARL with common_reward=False writes `reward` [E, L + 1, N], one for each agent.

A step is filled when its observation was seen, so the last filled step is the successor of the last
transition. `terminated` is 1 for a true end and 0 for a time-out: the runner takes the limit out of
it. Where the last filled step is itself terminated, the writer kept no successor, and it is a copy
with known = 0. An episode without a transition, as in a buffer that was not full, is left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.data import hdf5
from jaxomarl.data.raw import Raw, index_rows, one_hot

EMPTY = "The set is empty: make or copy it again."
DAMAGED = "The file is damaged: copy it again."
KEYS = {"obs", "actions", "avail_actions", "reward", "terminated", "filled"}


class Buffer(NamedTuple):
    """The arrays of a file, of shapes that belong together: E episodes of S = L + 1 steps."""

    obs: np.ndarray
    """Observations [E, S, N, O]."""
    actions: np.ndarray
    """Numbers of actions [E, S, N]."""
    legal: np.ndarray
    """Legal actions [E, S, N, A]."""
    rewards: np.ndarray
    """Rewards [E, S, N]."""
    terminated: np.ndarray
    """Whether a step terminates [E, S], as 0 and 1."""
    filled: np.ndarray
    """Whether a step is part of the episode [E, S], as 0 and 1."""
    state: np.ndarray | None
    """States [E, S, width]."""


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with the fields of a buffer."""
    return hdf5.keys(path) >= KEYS


def read(path: Path) -> Raw:
    """The rows of a file.

    Raises JaxomarlError where an array is missing, of another shape, or unsafe to read.
    """
    where = str(path)
    buffer = _read_buffer(path, where)
    agents = buffer.obs.shape[2]

    # --- episodes ---
    episodes = len(buffer.filled)
    filled = buffer.filled.sum(axis=1).astype(np.int64)
    last_filled = np.maximum(filled - 1, 0)
    lost = (buffer.terminated[np.arange(episodes), last_filled] != 0) & (filled > 0)
    lengths = np.where(lost, filled, last_filled)
    _check_ends(buffer, lengths, where)

    # --- rows ---
    used = lengths > 0
    index = index_rows(lengths[used], where)
    episode = np.repeat(np.flatnonzero(used), lengths[used] + 1)
    # a lost successor is a copy of the last filled step
    at = (episode, np.minimum(index.step, last_filled[episode]))
    transition = index.left > 0
    last = index.left == 1
    one_hot_actions = one_hot(buffer.actions[at], buffer.legal.shape[3], f"{where}, actions")
    state = None
    if buffer.state is not None:
        state = buffer.state[at].astype(np.float32)

    # --- what was done ---
    repairs = []
    empty = int((~used).sum())
    if empty:
        repairs.append(f"{empty} empty episodes, with no filled transition, are left out")
    copies = int((lost & used).sum())
    if copies:
        repairs.append(f"{copies} last successors are lost: copies of the row before, known = 0")
    evidence = f"filled steps of {int(used.sum())} episodes, `terminated` without the time limit"

    return Raw(
        format="pymarl",
        obs=tuple(buffer.obs[:, :, i][at].astype(np.float32) for i in range(agents)),
        action=tuple(
            np.where(transition[:, None], one_hot_actions[:, i], 0) for i in range(agents)
        ),
        reward=np.where(transition[:, None], buffer.rewards[at], 0).astype(np.float32),
        done=(last & (buffer.terminated[at] != 0)).astype(np.float32),
        step=index.step,
        left=index.left,
        known=np.where(last & lost[episode], 0, 1).astype(np.float32),
        behaviour=np.zeros(len(index.step), np.int32),
        state=state,
        available=buffer.legal[at].astype(np.float32),
        discrete=True,
        evidence=(evidence,),
        repairs=tuple(repairs),
    )


def _check_ends(buffer: Buffer, lengths: np.ndarray, where: str) -> None:
    """Raise JaxomarlError for gaps between filled steps, and for ends inside an episode."""
    gaps = (np.diff(buffer.filled.astype(np.int8), axis=1) > 0).any(axis=1)
    if gaps.any():
        expected = "ones and then zeros in each episode"
        found = f"others in episode {int(np.flatnonzero(gaps)[0])}"
        raise refuse(f"{where}, filled", expected, found, DAMAGED)

    steps = np.arange(buffer.filled.shape[1])
    early = (buffer.terminated != 0) & (steps < lengths[:, None] - 1)
    if early.any():
        episode, step = np.argwhere(early)[0]
        field = f"{where}, terminated, episode {episode}, step {step}"
        raise refuse(field, "0 inside an episode", 1, "Contradictory ends.")


# --- the file ---


def _read_buffer(path: Path, where: str) -> Buffer:
    """The arrays of a file; JaxomarlError where their shapes or flags are none of a buffer's."""
    with hdf5.opened(path) as file:
        obs = hdf5.read_array(file, "obs", where, (4,))
        episodes, steps, agents, _ = obs.shape
        single = {
            name: hdf5.read_array(file, name, where, (2, 3), episodes)
            for name in ("reward", "terminated", "filled")
        }
        actions = hdf5.read_array(file, "actions", where, (3, 4), episodes)
        legal = hdf5.read_array(file, "avail_actions", where, (4,), episodes)
        state = None
        if "state" in file:
            state = hdf5.read_array(file, "state", where, (3,), episodes)
    if 0 in obs.shape:
        expected = "at least one episode, step, agent and column"
        raise refuse(f"{where}, obs", expected, f"shape {obs.shape}", EMPTY)

    # --- shapes ---
    reward = _with_axes(single["reward"], 3)
    terminated = _with_axes(single["terminated"], 3)
    filled = _with_axes(single["filled"], 3)
    actions = _with_axes(actions, 4)
    _check_shape(where, "reward", reward, [(steps, 1), (steps, agents)])
    _check_shape(where, "terminated", terminated, [(steps, 1)])
    _check_shape(where, "filled", filled, [(steps, 1)])
    _check_shape(where, "actions", actions, [(steps, agents, 1)])
    _check_columns(where, "avail_actions", legal, (steps, agents))
    if state is not None:
        _check_columns(where, "state", state, (steps,))

    # --- flags ---
    flags = {"terminated": terminated, "filled": filled, "avail_actions": legal}
    for name, values in flags.items():
        if not np.isin(values, (0, 1)).all():
            raise refuse(f"{where}, {name}", "zeros and ones", "other numbers", DAMAGED)
    return Buffer(
        obs=obs,
        actions=actions[..., 0],
        legal=legal,
        rewards=np.broadcast_to(reward, (episodes, steps, agents)),
        terminated=terminated[..., 0],
        filled=filled[..., 0],
        state=state,
    )


def _with_axes(array: np.ndarray, axes: int) -> np.ndarray:
    """The array, with a last axis of one column where it lacks that axis."""
    return array if array.ndim == axes else array[..., None]


def _check_shape(
    where: str, name: str, array: np.ndarray, allowed: Sequence[tuple[int, ...]]
) -> None:
    """Raise JaxomarlError where the axes after the episodes' are not among those allowed."""
    if array.shape[1:] not in allowed:
        raise _misshapen(where, name, array, allowed)


def _check_columns(where: str, name: str, array: np.ndarray, front: tuple[int, ...]) -> None:
    """Raise JaxomarlError where the axes between episodes and columns differ from `front`."""
    if array.shape[1:-1] != front or not array.shape[-1]:
        raise _misshapen(where, name, array, [(*front, "columns")])


def _misshapen(
    where: str, name: str, array: np.ndarray, allowed: Sequence[tuple[int | str, ...]]
) -> JaxomarlError:
    """The refusal of an array [E, ...] of a wrong shape."""
    shapes = " or ".join(f"(E, {', '.join(map(str, shape))})" for shape in allowed)
    way = "The arrays do not belong together: is it pymarl's buffer, whole and not sliced?"
    if name == "reward":
        way = (
            "It has one column, or one for each agent with EPyMARL's common_reward=False: "
            "save the buffer so."
        )
    return refuse(f"{where}, {name}", f"shape {shapes}", f"shape {array.shape}", way)

"""OMIGA's HDF5 files: `s` [T, N, S], `o` [T, N, O], `a` [T, N, A], `r` [T, 1], `d` [T, 1].

An episode of L steps is L + 1 rows. The last, marked by d = 1, is a dummy: its observation is the true successor of
step L, its action and reward mean nothing and are dropped (a sum of rewards over all rows is wrong). d does not tell a
time-out from a termination. The successor counts as known, unless it repeats the row before in every episode.
"""

from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import hdf5
from jaxomarl.data.raw import Raw, lay, places

BLOCK = 1 << 16
KEYS = {"s", "o", "a", "r", "d"}


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with `s`, `o`, `a`, `r` and `d`."""
    return hdf5.keys(path) >= KEYS


def read(path: Path) -> Raw:
    """The rows of a file; raises JaxomarlError where an array is missing, of another shape, or unsafe to read."""
    where = str(path)
    obs, state, shared, action, reward, flags = _arrays(path, where)
    rows, agents = obs.shape[:2]
    dummy = flags != 0
    cut = bool(rows) and not dummy[-1]
    dummy[-1:] = True  # nothing follows it, so it can only be a successor
    ends = np.flatnonzero(dummy)
    lengths = np.diff(ends, prepend=-1) - 1
    alone = ends[lengths == 0]
    ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    at = places(lengths, where)
    if len(alone):
        obs, state, action, reward = (
            np.delete(x, alone, axis=0) for x in (obs, state, action, reward)
        )
    now = np.flatnonzero(at.left > 0)
    done = np.zeros(len(obs), np.float32)
    done[at.ends - 1] = 1.0
    if cut:
        done[at.ends[-1] - 1] = 0.0
    copied = (
        np.array_equal(obs[at.ends], obs[at.ends - 1], equal_nan=True)
        and (obs[1:] != obs[:-1]).any()
    )
    known = np.where((at.left == 1) & copied, 0, 1).astype(np.float32)
    if reward.shape[1] != agents:
        reward = np.repeat(reward, agents, axis=1)
    action = lay([action[now]], at)
    repairs = [f"{len(ends)} dummy rows serve as successors; their actions and rewards are dropped"]
    repairs += ["the last episode has no dummy row: its last row is the successor"] if cut else []
    repairs += [f"{len(alone)} dummy rows without an episode are dropped"] if len(alone) else []
    repairs += [f"{len(ends)} dummy rows repeat the row before: known = 0"] if copied else []
    repairs += [] if shared else ["each agent has a state of its own: the first agent's is kept"]
    return Raw(
        "omiga",
        tuple(obs[:, i] for i in range(agents)),
        tuple(action[:, i] for i in range(agents)),
        lay([reward[now]], at),
        done,
        at.step,
        at.left,
        known,
        np.zeros(len(at.step), np.int32),
        state,
        evidence=(f"{len(ends)} dummy rows marked by d",),
        repairs=tuple(repairs),
        distinct=False,
    )


def _arrays(
    path: Path, where: str
) -> tuple[np.ndarray, np.ndarray, bool, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays o [T, N, O], s [T, S] and whether all agents have the same, a [T, N, A], r [T, 1 or N], d [T]."""
    with hdf5.opened(path) as file:
        obs = hdf5.checked(file, "o", where, (3,))
        rows, agents, _ = obs.shape
        if 0 in obs.shape:
            expected, way = (
                "at least one row, agent and column",
                "The set is empty: make or copy it again.",
            )
            raise refuse(f"{where}, o", expected, f"shape {obs.shape}", way)
        found = {
            "s": hdf5.checked(file, "s", where, (2, 3), rows),
            "a": hdf5.checked(file, "a", where, (3,), rows),
        }
        reward = hdf5.array(file, "r", where, (1, 2), rows)
        reward = reward if reward.ndim == 2 else reward[:, None]
        flags = hdf5.flat(file, "d", where, rows)
        odd = {
            name: x.shape[1]
            for name, x in found.items()
            if len(x.shape) == 3 and x.shape[1] != agents
        }
        odd |= {} if reward.shape[1] in (1, agents) else {"r": reward.shape[1]}
        if odd:
            expected = f"{agents} agents in every array, as o has, and r with 1 column or {agents}"
            way = "The arrays do not belong together: copy the file again."
            raise refuse(f"{where}, {', '.join(odd)}", expected, f"{odd} on the second axis", way)
        state, shared = _one_state(found["s"])
        obs, action = np.asarray(obs[()], np.float32), np.asarray(found["a"][()], np.float32)
    if not np.isin(flags, (0, 1)).all():
        raise refuse(
            f"{where}, d", "zeros and ones", "other numbers", "The file is damaged: copy it again."
        )
    return obs, state, shared, action, reward, flags


def _one_state(found: Any) -> tuple[np.ndarray, bool]:
    """The first agent's state [T, S], and whether the others' are the same; read in blocks, for N copies are much."""
    if len(found.shape) == 2:
        return np.asarray(found[()], np.float32), True
    out, shared = np.zeros((found.shape[0], found.shape[2]), np.float32), True
    for a in range(0, len(out), BLOCK):
        part = found[a : a + BLOCK]
        out[a : a + BLOCK] = part[:, 0]
        shared = shared and bool((part == part[:, :1]).all())
    return out, shared

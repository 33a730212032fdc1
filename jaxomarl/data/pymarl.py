"""pymarl's replay buffers in HDF5, as CFCQL keeps its StarCraft sets: discrete actions, padded episodes.

One array per field of the buffer (CFCQL, `discrete/src/run/offline_utils.py`, and the buffer that it dumps), E
episodes of at most L steps: `obs` [E, L + 1, N, O], `state` [E, L + 1, S], `actions` [E, L + 1, N, 1],
`avail_actions` [E, L + 1, N, A], `reward`, `terminated` and `filled` [E, L + 1, 1]; others are left alone. EPyMARL
with common_reward=False writes `reward` [E, L + 1, N], one for each agent.

A step is filled when its observation was seen, so the last filled one holds the successor of the last transition.
`terminated` is 1 for a true end and 0 for a time-out: the runner takes the limit out of it. Where the last filled step
is itself terminated, the writer kept no successor, and it is a copy with known = 0. An episode without a transition,
as in a buffer that was not full, is left out.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.data import hdf5
from jaxomarl.data.raw import Raw, one_hot, places

EMPTY = "The set is empty: make or copy it again."
KEYS = {"obs", "actions", "avail_actions", "reward", "terminated", "filled"}


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with the fields of a buffer."""
    return hdf5.keys(path) >= KEYS


class Buffer(NamedTuple):
    """The arrays of a file, of shapes that belong together: E episodes of S = L + 1 steps, N agents."""

    obs: np.ndarray
    """[E, S, N, O]"""
    actions: np.ndarray
    """[E, S, N], whole numbers."""
    legal: np.ndarray
    """[E, S, N, A]"""
    rewards: np.ndarray
    """[E, S, N]"""
    terminated: np.ndarray
    """[E, S]"""
    filled: np.ndarray
    """[E, S]"""
    state: np.ndarray | None
    """[E, S, width]"""


def _buffer(path: Path, where: str) -> Buffer:
    """The arrays of a file; JaxomarlError where their shapes or flags are none of a buffer's."""
    with hdf5.opened(path) as file:
        obs = hdf5.array(file, "obs", where, (4,))
        episodes, steps, agents, _ = obs.shape
        single = {
            name: hdf5.array(file, name, where, (2, 3), episodes)
            for name in ("reward", "terminated", "filled")
        }
        actions = hdf5.array(file, "actions", where, (3, 4), episodes)
        legal = hdf5.array(file, "avail_actions", where, (4,), episodes)
        state = hdf5.array(file, "state", where, (3,), episodes) if "state" in file else None
    if 0 in obs.shape:
        raise refuse(
            f"{where}, obs",
            "at least one episode, step, agent and column",
            f"shape {obs.shape}",
            EMPTY,
        )
    single = {name: x if x.ndim == 3 else x[..., None] for name, x in single.items()}
    actions = actions if actions.ndim == 4 else actions[..., None]
    one, each = [(steps, 1)], [(steps, 1), (steps, agents)]
    expected = {"reward": each, "terminated": one, "filled": one, "actions": [(steps, agents, 1)]}
    for name, found in {**single, "actions": actions}.items():
        if found.shape[1:] not in expected[name]:
            raise _misshapen(where, name, found.shape, expected[name])
    for name, found, front in (
        ("avail_actions", legal, (steps, agents)),
        ("state", state, (steps,)),
    ):
        if found is not None and (found.shape[1:-1] != front or not found.shape[-1]):
            raise _misshapen(where, name, found.shape, [(*front, "columns")])
    rewards = np.broadcast_to(single["reward"], (episodes, steps, agents))
    terminated, filled = single["terminated"][..., 0], single["filled"][..., 0]
    for name, found in {"terminated": terminated, "filled": filled, "avail_actions": legal}.items():
        if not np.isin(found, (0, 1)).all():
            way = "The file is damaged: copy it again."
            raise refuse(f"{where}, {name}", "zeros and ones", "other numbers", way)
    return Buffer(obs, actions[..., 0], legal, rewards, terminated, filled, state)


def read(path: Path) -> Raw:
    """The rows of a file; raises JaxomarlError where an array is missing, of another shape, or unsafe to read."""
    where = str(path)
    obs, actions, legal, rewards, terminated, filled, state = _buffer(path, where)
    episodes, steps, agents = obs.shape[:3]
    seen = filled.sum(axis=1).astype(np.int64)
    gaps = (np.diff(filled.astype(np.int8), axis=1) > 0).any(axis=1)
    if gaps.any():
        found, way = (
            f"others in episode {int(np.flatnonzero(gaps)[0])}",
            "The file is damaged: copy it again.",
        )
        raise refuse(f"{where}, filled", "ones and then zeros in each episode", found, way)
    final, every = np.maximum(seen - 1, 0), np.arange(episodes)
    lost = (terminated[every, final] != 0) & (seen > 0)
    lengths = np.where(lost, seen, np.maximum(seen - 1, 0))
    early = (terminated != 0) & (np.arange(steps) < lengths[:, None] - 1)
    if early.any():
        k, t = np.argwhere(early)[0]
        raise refuse(
            f"{where}, terminated, episode {k}, step {t}",
            "0 inside an episode",
            1,
            "Contradictory ends.",
        )
    used = lengths > 0
    empty = int((~used).sum())
    at = places(lengths[used], where)
    episode = np.repeat(every[used], lengths[used] + 1)
    index = (episode, np.minimum(at.step, final[episode]))
    live = at.left > 0
    chosen = one_hot(actions[index], legal.shape[3], f"{where}, actions")
    gone = int((lost & used).sum())
    return Raw(
        "pymarl",
        tuple(obs[:, :, i][index].astype(np.float32) for i in range(agents)),
        tuple(np.where(live[:, None], chosen[:, i], 0) for i in range(agents)),
        np.where(live[:, None], rewards[index], 0).astype(np.float32),
        ((at.left == 1) & (terminated[index] != 0)).astype(np.float32),
        at.step,
        at.left,
        np.where((at.left == 1) & lost[episode], 0, 1).astype(np.float32),
        np.zeros(len(at.step), np.int32),
        None if state is None else state[index].astype(np.float32),
        legal[index].astype(np.float32),
        True,
        evidence=(
            f"filled steps of {int(used.sum())} episodes, `terminated` without the time limit",
        ),
        repairs=(
            *(
                (f"{empty} empty episodes, with no filled transition, are left out",)
                if empty
                else ()
            ),
            *(
                (f"{gone} last successors are lost: copies of the row before, known = 0",)
                if gone
                else ()
            ),
        ),
    )


def _misshapen(
    where: str, name: str, found: tuple[int, ...], allowed: list[tuple[Any, ...]]
) -> JaxomarlError:
    """The refusal of an array [E, ...] of a wrong shape."""
    shapes = " or ".join(f"(E, {', '.join(map(str, shape))})" for shape in allowed)
    way = "The arrays do not belong together: is it pymarl's buffer, whole and not sliced?"
    if name == "reward":
        way = "It has one column, or one for each agent with EPyMARL's common_reward=False: save the buffer so."
    return refuse(f"{where}, {name}", f"shape {shapes}", f"shape {found}", way)

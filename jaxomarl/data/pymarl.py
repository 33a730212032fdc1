"""pymarl's replay buffers in HDF5, as CFCQL keeps its StarCraft sets: discrete actions, padded episodes.

One array per field of the buffer (CFCQL, `discrete/src/run/offline_utils.py`, and the buffer that it dumps), E
episodes of at most L steps: `obs` [E, L + 1, N, O], `state` [E, L + 1, S], `actions` [E, L + 1, N, 1],
`avail_actions` [E, L + 1, N, A], `reward`, `terminated` and `filled` [E, L + 1, 1]; others are left alone.

A step is filled when its observation was seen, so the last filled one holds the successor of the last transition.
`terminated` is 1 for a true end and 0 for a time-out: the runner takes the limit out of it. Where the last filled step
is itself terminated, the writer kept no successor, and it is a copy with known = 0.
"""

from pathlib import Path

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import hdf5
from jaxomarl.data.raw import Raw, one_hot, places

KEYS = {"obs", "actions", "avail_actions", "reward", "terminated", "filled"}


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with the fields of a buffer."""
    return hdf5.keys(path) >= KEYS


def read(path: Path) -> Raw:
    """The rows of a file; raises JaxomarlError where an array is missing, of another shape, or unsafe to read."""
    where = str(path)
    with hdf5.opened(path) as file:
        obs = hdf5.array(file, "obs", where, (4,))
        episodes, steps, agents, _ = obs.shape
        single = {name: hdf5.array(file, name, where, (2, 3), episodes) for name in ("reward", "terminated", "filled")}
        actions = hdf5.array(file, "actions", where, (3, 4), episodes)
        legal = hdf5.array(file, "avail_actions", where, (4,), episodes)
        state = hdf5.array(file, "state", where, (3,), episodes) if "state" in file else None
    shapes = {"actions": (actions.reshape(*actions.shape[:3], -1), (steps, agents, 1))}
    shapes |= {name: (x.reshape(*x.shape[:2], -1), (steps, 1)) for name, x in single.items()}
    shapes |= {"avail_actions": (legal[..., :1], (steps, agents, 1))}
    shapes |= {} if state is None else {"state": (state[..., :1], (steps, 1))}
    for name, (found, expected) in shapes.items():
        if found.shape[1:] != expected or 0 in found.shape:
            raise refuse(f"{where}, {name}", f"{expected} for each episode", found.shape[1:], "Is it of this format?")
    reward, terminated, filled = (single[name].reshape(episodes, steps) for name in single)
    for name, found in {"terminated": terminated, "filled": filled, "avail_actions": legal}.items():
        if not np.isin(found, (0, 1)).all():
            raise refuse(f"{where}, {name}", "zeros and ones", "other numbers", "Is the file damaged?")
    seen = filled.sum(axis=1).astype(np.int64)
    if (np.diff(filled.astype(np.int8), axis=1) > 0).any() or (seen < 1).any():
        raise refuse(f"{where}, filled", "ones and then zeros in each episode", "others", "Is the file damaged?")
    final, every = seen - 1, np.arange(episodes)
    lost = terminated[every, final] != 0
    lengths = np.where(lost, seen, seen - 1)
    early = (terminated != 0) & (np.arange(steps) < lengths[:, None] - 1)
    if early.any():
        k, t = np.argwhere(early)[0]
        raise refuse(f"{where}, terminated, episode {k}, step {t}", "0 inside an episode", 1, "Contradictory ends.")
    used = lengths > 0
    at = places(lengths[used], where)
    episode = np.repeat(every[used], lengths[used] + 1)
    index = (episode, np.minimum(at.step, final[episode]))
    live = at.left > 0
    chosen = one_hot(np.asarray(actions).reshape(episodes, steps, agents)[index], legal.shape[3], f"{where}, actions")
    gone = int(lost.sum())
    return Raw(
        "pymarl",
        tuple(obs[:, :, i][index].astype(np.float32) for i in range(agents)),
        tuple(np.where(live[:, None], chosen[:, i], 0) for i in range(agents)),
        np.repeat(np.where(live, reward[index], 0).astype(np.float32)[:, None], agents, axis=1),
        ((at.left == 1) & (terminated[index] != 0)).astype(np.float32),
        at.step,
        at.left,
        np.where((at.left == 1) & lost[episode], 0, 1).astype(np.float32),
        np.zeros(len(at.step), np.int32),
        None if state is None else state[index].astype(np.float32),
        legal[index].astype(np.float32),
        True,
        evidence=(f"filled steps of {int(used.sum())} episodes, `terminated` without the time limit",),
        repairs=(f"{gone} last successors are lost: copies of the row before, known = 0",) if gone else (),
    )

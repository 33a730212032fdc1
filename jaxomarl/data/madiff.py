"""MADiff's and DoF's preprocessed .npy files of OG-MARL's older sets: all episodes of all agents in one array each.

`obs` [T, N, N + O] (a one-hot agent id comes first), `actions` [T, N, A] or whole numbers [T, N], `rewards` and
`discounts` [T, N] (or [T], of the team), `path_lengths` [E], and for discrete tasks `states` [T, S] and `legals`
[T, N, A]. A discount is 0 on an episode's last row, whether it terminated or ran out of time. The last row's successor
is lost.
"""

from pathlib import Path

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import folder, npy
from jaxomarl.data.raw import Raw, lay, one_hot, places

NEEDED = ("obs", "actions", "rewards", "discounts", "path_lengths")


def recognises(path: Path) -> bool:
    """Whether the folder holds path_lengths.npy, obs.npy and actions.npy."""
    return all((path / f"{name}.npy").exists() for name in ("path_lengths", "obs", "actions"))


def read(path: Path) -> Raw:
    """The rows of a folder; raises JaxomarlError where a file is missing, ragged, or contradicts another."""
    files = {name: folder.inside(path, f"{name}.npy") for name in (*NEEDED, "states", "legals")}
    for name in NEEDED:
        if not files[name].is_file():
            raise refuse(
                str(files[name]),
                "a file of this name",
                "none",
                f"The format needs {', '.join(NEEDED)}.",
            )
    obs = npy.table(files["obs"], (3,))
    rows, agents, _ = obs.shape
    if 0 in obs.shape:
        expected, way = (
            "at least one row, agent and column",
            "The set is empty: make or copy it again.",
        )
        raise refuse(str(files["obs"]), expected, f"shape {obs.shape}", way)
    lengths, empty = _lengths(files["path_lengths"], rows)
    action = npy.table(files["actions"], (2, 3), rows)
    rewards, discounts = (npy.table(files[name], (1, 2), rows) for name in ("rewards", "discounts"))
    team = rewards.size == rows and agents > 1
    rewards, discounts = (_each(x, rows, agents) for x in (rewards, discounts))
    legals = npy.table(files["legals"], (3,), rows) if files["legals"].is_file() else None
    shapes = {"actions": action, "rewards": rewards, "discounts": discounts}
    for name, found in {**shapes, **({} if legals is None else {"legals": legals})}.items():
        if found.shape[1] != agents:
            way = "The files do not belong together: copy the set again."
            raise refuse(
                str(files[name]),
                f"{agents} agents, as in obs",
                f"{found.shape[1]} on the second axis",
                way,
            )
    if not np.isin(discounts, (0, 1)).all() or (discounts != discounts[:, :1]).any():
        raise refuse(
            str(files["discounts"]),
            "0 or 1, the same for all agents",
            "others",
            "Is the file damaged?",
        )
    at = places(lengths, str(path))
    done = np.asarray(discounts[:, 0]) == 0
    if len(inner := np.setdiff1d(np.flatnonzero(done), at.final)):
        way = "path_lengths and discounts contradict each other: copy the set again."
        raise refuse(f"{files['discounts']}, row {inner[0]}", "1 inside an episode", 0, way)
    states = (
        npy.table(files["states"], (2, 3), rows).reshape(rows, -1)
        if files["states"].is_file()
        else None
    )
    discrete = action.ndim == 2
    if discrete:
        choices = legals.shape[2] if legals is not None else int(action.max(initial=0)) + 1
        action = one_hot(np.asarray(action), min(choices, 1 << 12), str(files["actions"]))
    obs, repairs = _without_id(obs)
    final = at.final
    seen, played = lay([obs], at, obs[final]), lay([action], at)
    available = None if legals is None else lay([legals], at, legals[final])
    return Raw(
        "madiff",
        tuple(seen[:, i] for i in range(agents)),
        tuple(played[:, i] for i in range(agents)),
        lay([rewards], at),
        lay([done], at),
        at.step,
        at.left,
        np.where(at.left == 1, 0, 1).astype(np.float32),
        np.zeros(len(at.step), np.int32),
        None if states is None else lay([states], at, states[final]),
        available,
        discrete,
        evidence=(f"path_lengths of {len(lengths)} episodes",),
        repairs=(
            *repairs,
            *((f"{empty} empty episodes, of length 0, are left out",) if empty else ()),
            *(("rewards: one for the team, taken for every agent's",) if team else ()),
            f"{len(lengths)} last successors are lost: copies of the row before, known = 0",
        ),
        distinct=False,
    )


def _lengths(file: Path, rows: int) -> tuple[np.ndarray, int]:
    """The episodes' lengths [E], whose sum is `rows`, without those of none, and how many have none."""
    lengths = np.asarray(npy.table(file, (1,)))
    if (
        not np.issubdtype(lengths.dtype, np.integer)
        or (lengths < 0).any()
        or (lengths > rows).any()
    ):
        raise refuse(
            str(file), f"whole numbers from 0 to {rows}", "others", "It is damaged: copy it again."
        )
    if int(lengths.astype(np.int64).sum()) != rows:
        raise refuse(
            str(file),
            f"a sum of {rows}, the rows of obs",
            int(lengths.sum()),
            "Copy the set again.",
        )
    return lengths[lengths > 0], int((lengths == 0).sum())


def _each(x: np.ndarray, rows: int, agents: int) -> np.ndarray:
    """[T] or [T, 1] of the team as [T, N]; others as they are."""
    return np.broadcast_to(x.reshape(rows, 1), (rows, agents)) if x.size == rows else x


def _without_id(obs: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Observations without the one-hot id that comes first, where there is one."""
    agents = obs.shape[1]
    if obs.shape[2] > agents and (obs[:, :, :agents] == np.eye(agents, dtype=obs.dtype)).all():
        return obs[:, :, agents:], [
            f"the agents' one-hot ids, the first {agents} columns, are taken off"
        ]
    return obs, []

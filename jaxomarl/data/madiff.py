"""MADiff's and DoF's preprocessed .npy files of OG-MARL's older sets.

There is one array per field, for all agents and episodes: `obs` [T, N, N + O] (a one-hot agent id
comes first), `actions` [T, N, A] or whole numbers [T, N], `rewards` and `discounts` [T, N] (or the
team's, [T]) and `path_lengths` [E]. Discrete tasks have `states` [T, S] and `legals` [T, N, A] too.
A discount is 0 on an episode's last row, whether it terminated or ran out of time. The successor of
the last row is lost.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import folder, npy
from jaxomarl.data.raw import Raw, index_rows, interleave, one_hot

NEEDED = ("obs", "actions", "rewards", "discounts", "path_lengths")
MOST_ACTIONS = 1 << 12


class MadiffArrays(NamedTuple):
    """The arrays of a folder, whose shapes belong together."""

    obs: np.ndarray
    """Observations [T, N, O], with the agents' ids if the files have them."""
    action: np.ndarray
    """Actions [T, N, A], or numbers of discrete actions [T, N]."""
    reward: np.ndarray
    """Rewards [T, N]."""
    discount: np.ndarray
    """Discounts [T, N]."""
    lengths: np.ndarray
    """Steps of each episode [E]; none has no step."""
    state: np.ndarray | None
    """States [T, S]."""
    legal: np.ndarray | None
    """Legal actions [T, N, A]."""
    repairs: list[str]
    """What was changed in reading them."""


def recognises(path: Path) -> bool:
    """Whether the folder has path_lengths.npy, obs.npy and actions.npy."""
    return all((path / f"{name}.npy").exists() for name in ("path_lengths", "obs", "actions"))


def read(path: Path) -> Raw:
    """The rows of a folder.

    Raises JaxomarlError where a file is missing, ragged, or contradicts another.
    """
    arrays = _read_arrays(path)
    index = index_rows(arrays.lengths, str(path))
    final = index.final
    rows = len(index.step)
    done = _ends(arrays.discount, final, path)
    obs, repairs = _without_id(arrays.obs)
    repairs += arrays.repairs
    repairs.append(f"{len(final)} last successors are lost: copies of the row before, known = 0")

    # --- actions ---
    action = arrays.action
    discrete = action.ndim == 2
    if discrete:
        if arrays.legal is not None:
            choices = arrays.legal.shape[2]
        else:
            choices = int(action.max(initial=0)) + 1
        file = str(path / "actions.npy")
        action = one_hot(np.asarray(action), min(choices, MOST_ACTIONS), file)

    # --- rows ---
    state = None
    if arrays.state is not None:
        state = interleave([arrays.state], index, arrays.state[final])
    available = None
    if arrays.legal is not None:
        available = interleave([arrays.legal], index, arrays.legal[final])
    obs = interleave([obs], index, obs[final])
    action = interleave([action], index)
    agents = obs.shape[1]
    known = np.ones(rows, np.float32)
    known[index.successors - 1] = 0.0
    return Raw(
        format="madiff",
        obs=tuple(obs[:, i] for i in range(agents)),
        action=tuple(action[:, i] for i in range(agents)),
        reward=interleave([arrays.reward], index),
        done=interleave([done], index),
        step=index.step,
        left=index.left,
        known=known,
        behaviour=np.zeros(rows, np.int32),
        state=state,
        available=available,
        discrete=discrete,
        evidence=(f"path_lengths of {len(final)} episodes",),
        repairs=tuple(repairs),
        distinct=False,
    )


# --- the files ---


def _read_arrays(path: Path) -> MadiffArrays:
    """The arrays of a folder; JaxomarlError where their shapes do not belong together."""
    files = {name: folder.inside(path, f"{name}.npy") for name in (*NEEDED, "states", "legals")}
    for name in NEEDED:
        if not files[name].is_file():
            way = f"The format needs {', '.join(NEEDED)}."
            raise refuse(str(files[name]), "a file of this name", "none", way)

    # --- sizes ---
    obs = npy.map_table(files["obs"], (3,))
    if 0 in obs.shape:
        expected = "at least one row, agent and column"
        way = "The set is empty: make or copy it again."
        raise refuse(str(files["obs"]), expected, f"shape {obs.shape}", way)
    rows, agents, _ = obs.shape
    lengths = _lengths(files["path_lengths"], rows)

    # --- arrays ---
    action = npy.map_table(files["actions"], (2, 3), rows)
    reward = npy.map_table(files["rewards"], (1, 2), rows)
    discount = npy.map_table(files["discounts"], (1, 2), rows)
    common_reward = reward.size == rows and agents > 1
    reward = _per_agent(reward, rows, agents)
    discount = _per_agent(discount, rows, agents)
    legal = None
    if files["legals"].is_file():
        legal = npy.map_table(files["legals"], (3,), rows)
    for name, array in (
        ("actions", action),
        ("rewards", reward),
        ("discounts", discount),
        ("legals", legal),
    ):
        if array is not None and array.shape[1] != agents:
            found = f"{array.shape[1]} on the second axis"
            way = "The files do not belong together: copy the set again."
            raise refuse(str(files[name]), f"{agents} agents, as in obs", found, way)
    _check_discounts(files["discounts"], discount)
    state = None
    if files["states"].is_file():
        state = npy.map_table(files["states"], (2, 3), rows).reshape(rows, -1)

    # --- what was changed ---
    repairs = []
    empty = int((lengths == 0).sum())
    if empty:
        repairs.append(f"{empty} empty episodes, of length 0, are left out")
    if common_reward:
        repairs.append("rewards: one for the team, taken for every agent's")
    return MadiffArrays(obs, action, reward, discount, lengths[lengths > 0], state, legal, repairs)


def _lengths(file: Path, rows: int) -> np.ndarray:
    """The episodes' lengths [E], whose sum is `rows`; some may be 0."""
    lengths = np.asarray(npy.map_table(file, (1,)))
    whole = np.issubdtype(lengths.dtype, np.integer)
    if not whole or (lengths < 0).any() or (lengths > rows).any():
        expected = f"whole numbers from 0 to {rows}"
        raise refuse(str(file), expected, "other numbers", "It is damaged: copy it again.")
    if int(lengths.astype(np.int64).sum()) != rows:
        expected = f"a sum of {rows}, the rows of obs"
        raise refuse(str(file), expected, int(lengths.sum()), "Copy the set again.")
    return lengths


def _check_discounts(file: Path, discount: np.ndarray) -> None:
    """Raise JaxomarlError for discounts other than 0 and 1, or not the same for all agents."""
    unequal = (discount != discount[:, :1]).any()
    if unequal or not np.isin(discount, (0, 1)).all():
        expected = "0 or 1, the same for all agents"
        raise refuse(str(file), expected, "other numbers", "Is the file damaged?")


def _ends(discount: np.ndarray, final: np.ndarray, path: Path) -> np.ndarray:
    """Whether a discount is 0 [T]; JaxomarlError where one is 0 inside an episode."""
    ends = np.asarray(discount[:, 0]) == 0
    inner = np.setdiff1d(np.flatnonzero(ends), final)
    if len(inner):
        field = f"{path / 'discounts.npy'}, row {inner[0]}"
        way = "path_lengths and discounts contradict each other: copy the set again."
        raise refuse(field, "1 inside an episode", 0, way)
    return ends


def _per_agent(x: np.ndarray, rows: int, agents: int) -> np.ndarray:
    """The team's numbers [T] or [T, 1] as [T, N]; others as they are."""
    if x.size == rows:
        return np.broadcast_to(x.reshape(rows, 1), (rows, agents))
    return x


def _without_id(obs: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Observations without the one-hot agent id that comes first, and what was cut off."""
    agents = obs.shape[1]
    identity = np.eye(agents, dtype=obs.dtype)
    if obs.shape[2] <= agents or (obs[:, :, :agents] != identity).any():
        return obs, []
    repair = f"the agents' one-hot ids, the first {agents} columns, are cut off"
    return obs[:, :, agents:], [repair]

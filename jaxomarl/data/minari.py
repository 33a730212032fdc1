"""Minari sets of several agents.

Minari has no layout for them. This one is ours, read and written with h5py and json:
`<id>/data/metadata.json` and `main_data.hdf5`, as Minari's own library reads them. Spaces are
dictionaries with one entry per agent, so that each agent keeps its true width.

| entry of an episode | content |
|---|---|
| observations/agent_<i> | [T + 1, o_i] float32 |
| actions/agent_<i> | [T, a_i] float32, or whole numbers [T] |
| rewards | [T], the mean over the agents |
| terminations, truncations | [T] bool, true at the last step only |
| infos/rewards | [T + 1, N], of each agent; row 0 belongs to the reset and is zero |
| infos/state | [T + 1, S], where the set has it |
| infos/available | [T + 1, N, A], where the set has it |

An episode's attributes are `behaviour`, and `known`: 0 where the last observation is a copy because
it was lost. metadata.json has an entry "jaxomarl": the version of this layout, the dialects, and
whether time-outs are told from terminations.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import folder, hdf5
from jaxomarl.data.raw import Raw, index_rows, interleave, one_hot

LAYOUT = 1
METADATA = "metadata.json"
ARRAYS = "main_data.hdf5"
FLAGS = ("terminations", "truncations")
MOST_ACTIONS = 1 << 12
LAYOUT_PAGE = "The layout is described in jaxomarl/data/minari.py."
OTHER_LAYOUT = "Is it of our layout?"

Choices = list[int | None]
"""Number of actions of each agent; None where its actions are continuous."""


class MinariEpisode(NamedTuple):
    """One episode's arrays, of T steps and N agents."""

    obs: list[np.ndarray]
    """Each agent's observations [T + 1, o_i]."""
    action: list[np.ndarray]
    """Each agent's actions [T, a_i]; one-hot if discrete."""
    reward: np.ndarray
    """Rewards [T + 1, N], the reset's first."""
    infos: dict[str, np.ndarray]
    """`state` and `available`, where the set has them."""
    terminated: bool
    truncated: bool
    behaviour: int
    known: int

    @property
    def steps(self) -> int:
        """Number of transitions T."""
        return len(self.reward) - 1


def _home(path: Path) -> Path:
    """The folder of the two files, for the set's own folder or its `data`."""
    if (path / "data" / METADATA).exists():
        return path / "data"
    return path


def recognises(path: Path) -> bool:
    """Whether the folder, or its `data`, has metadata.json and main_data.hdf5."""
    home = _home(path)
    return (home / METADATA).exists() and (home / ARRAYS).exists()


def read(path: Path) -> Raw:
    """The rows of a set.

    Raises JaxomarlError where it has another layout, or is damaged or unsafe to read.
    """
    home = _home(path)
    metadata = folder.read_json(folder.inside(home, METADATA))
    field = f"{home / METADATA}"
    ours, choices = _read_entry(metadata, field)

    file = folder.inside(home, ARRAYS)
    with hdf5.opened(file) as opened:
        names = [name for name in opened if name.startswith("episode_")]
        if not names:
            found = sorted(opened)[:20]
            expected = "groups episode_0, episode_1, ..."
            raise refuse(str(file), expected, found, "The set is empty.")
        names.sort(key=lambda name: (len(name), name))
        episodes = [_read_episode(opened, name, str(file), choices) for name in names]

    moving = [episode for episode in episodes if episode.steps]
    if not moving:
        found = f"{len(episodes)} without a step"
        raise refuse(str(file), "an episode with a step", found, "The set is empty: make it again.")
    raw = _join_episodes(moving, choices, ours, field)
    empty = len(episodes) - len(moving)
    if empty:
        raw = raw._replace(repairs=(f"{empty} empty episodes, of 0 steps, are left out",))
    return raw


def _read_entry(metadata: dict[str, Any], field: str) -> tuple[dict[str, Any], Choices]:
    """Our entry of the metadata, and each agent's number of actions."""
    ours = metadata.get("jaxomarl")
    if not isinstance(ours, dict) or ours.get("layout") != LAYOUT:
        expected = f"an entry with layout {LAYOUT}"
        way = (
            "Minari has no layout for several agents; ours is described in jaxomarl/data/minari.py."
        )
        raise refuse(f"{field}, jaxomarl", expected, str(ours)[:80], way)

    choices = ours.get("choices")
    if not isinstance(choices, list) or not choices or not all(map(_is_choice, choices)):
        expected = "null or a count for each agent"
        raise refuse(f"{field}, jaxomarl, choices", expected, str(choices)[:80], "Copy again.")
    return ours, choices


def _is_choice(choice: object) -> bool:
    """Whether it is a number of actions, or None for continuous ones."""
    if choice is None:
        return True
    return type(choice) is int and 0 < choice < MOST_ACTIONS


# --- one episode ---


def _read_episode(
    file: Mapping[str, Any], name: str, where: str, choices: Choices
) -> MinariEpisode:
    """One episode's arrays; JaxomarlError where it is not of our layout."""
    group = hdf5.child(file, name, where)
    where = f"{where}, {name}"
    inner = {key: hdf5.child(group, key, where) for key in ("observations", "actions", "infos")}
    for key, entry in {**inner, "": group}.items():
        if not isinstance(entry, hdf5.h5py().Group):
            raise refuse(f"{where}, {key}", "a group", type(entry).__name__, OTHER_LAYOUT)

    steps = len(hdf5.read_array(group, "rewards", where, (1,)))
    obs = [
        hdf5.read_array(
            inner["observations"], f"agent_{i}", f"{where}, observations", (2,), steps + 1
        )
        for i in range(len(choices))
    ]
    action = [
        _read_action(inner["actions"], f"agent_{i}", f"{where}, actions", choice, steps)
        for i, choice in enumerate(choices)
    ]
    infos = _read_infos(inner["infos"], f"{where}, infos", steps, len(choices))
    return MinariEpisode(
        obs=obs,
        action=action,
        reward=infos.pop("rewards"),
        infos=infos,
        terminated=_read_flag(group, "terminations", where, steps),
        truncated=_read_flag(group, "truncations", where, steps),
        behaviour=_read_attribute(group, "behaviour", where, default=0),
        known=_read_attribute(group, "known", where, default=1),
    )


def _read_action(
    group: Mapping[str, Any], agent: str, where: str, choice: int | None, steps: int
) -> np.ndarray:
    """One agent's actions [T, A]; one-hot rows where it has a number of actions."""
    if choice is None:
        return hdf5.read_array(group, agent, where, (2,), steps)
    numbers = hdf5.read_array(group, agent, where, (1,), steps)
    return one_hot(numbers, choice, f"{where}, {agent}")


def _read_infos(
    group: Mapping[str, Any], where: str, steps: int, agents: int
) -> dict[str, np.ndarray]:
    """The rewards [T + 1, N] of an episode, and its state and legal actions where it has them."""
    infos = {}
    for key, axes in {"rewards": 2, "state": 2, "available": 3}.items():
        if key in group:
            infos[key] = hdf5.read_array(group, key, where, (axes,), steps + 1)

    expected = f"shape ({steps + 1}, {agents})"
    if "rewards" not in infos:
        raise refuse(f"{where}, rewards", expected, sorted(group)[:20], LAYOUT_PAGE)
    found = infos["rewards"].shape
    if found[1] != agents:
        raise refuse(f"{where}, rewards", expected, f"shape {found}", LAYOUT_PAGE)
    if "available" in infos:
        expected = f"shape ({steps + 1}, {agents}, A)"
        found = infos["available"].shape
        if found[1] != agents:
            raise refuse(f"{where}, available", expected, f"shape {found}", LAYOUT_PAGE)
    return infos


def _read_flag(group: Mapping[str, Any], key: str, where: str, steps: int) -> bool:
    """Whether the last step has the flag; JaxomarlError where another step has it."""
    flags = hdf5.read_column(group, key, where, steps) != 0
    if flags[:-1].any():
        expected = "an end at the last step only"
        raise refuse(f"{where}, {key}", expected, "one before it", "Contradictory ends.")
    return bool(flags[-1:].any())


def _read_attribute(group: Any, key: str, where: str, default: int) -> int:
    """A whole number among the group's attributes."""
    value = np.asarray(group.attrs.get(key, default))
    if value.shape or value.dtype.kind not in "iub" or not 0 <= int(value) < 1 << 31:
        raise refuse(f"{where}, {key}", "a whole number", str(value)[:40], OTHER_LAYOUT)
    return int(value)


# --- all episodes ---


def _join_episodes(
    episodes: list[MinariEpisode], choices: Choices, ours: dict[str, Any], where: str
) -> Raw:
    """The rows of all episodes; JaxomarlError where episodes differ in their columns."""
    index = index_rows([episode.steps for episode in episodes], where)
    if len({choice is None for choice in choices}) != 1:
        expected = "discrete actions for all agents or none"
        raise refuse(f"{where}, choices", expected, str(choices)[:80], "Convert it.")

    # --- arrays ---
    obs = []
    action = []
    for i in range(len(choices)):
        field = f"{where}, observations, agent_{i}"
        obs.append(_concatenate([episode.obs[i] for episode in episodes], field))
        field = f"{where}, actions, agent_{i}"
        transitions = _concatenate([episode.action[i] for episode in episodes], field)
        action.append(interleave([transitions], index))
    reward = _concatenate([episode.reward[1:] for episode in episodes], f"{where}, rewards")

    # --- flags ---
    rows = len(index.step)
    last = index.successors - 1
    done = np.zeros(rows, np.float32)
    done[last] = [episode.terminated for episode in episodes]
    cut = np.zeros(rows, np.float32)
    cut[last] = [episode.truncated for episode in episodes]
    known = np.ones(rows, np.float32)
    known[last] = [bool(episode.known) for episode in episodes]
    behaviour = np.repeat(
        [episode.behaviour for episode in episodes], [episode.steps + 1 for episode in episodes]
    )
    return Raw(
        format="minari",
        obs=tuple(obs),
        action=tuple(action),
        reward=interleave([reward], index),
        done=done,
        step=index.step,
        left=index.left,
        known=known,
        behaviour=behaviour.astype(np.int32),
        state=_join_infos(episodes, "state", where),
        available=_join_infos(episodes, "available", where),
        discrete=choices[0] is not None,
        dialects=folder.check_texts(ours.get("dialects", []), where),
        evidence=(f"{len(episodes)} episode groups, layout {LAYOUT}",),
        distinct=ours.get("distinct") is True,
        cut=cut,
    )


def _join_infos(episodes: list[MinariEpisode], name: str, where: str) -> np.ndarray | None:
    """The rows [M, ...] of an entry of `infos`; None where no episode has it."""
    parts = [episode.infos[name] for episode in episodes if name in episode.infos]
    if not parts:
        return None
    if len(parts) < len(episodes):
        found = f"{len(parts)} of {len(episodes)}"
        raise refuse(f"{where}, infos, {name}", "an entry in every episode", found, "Repair it.")
    return _concatenate(parts, f"{where}, {name}")


def _concatenate(parts: list[np.ndarray], field: str) -> np.ndarray:
    """The episodes' arrays as one, float32; JaxomarlError where they differ in width."""
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) != 1:
        expected = "one width in every episode"
        raise refuse(field, expected, sorted(shapes), "Is the set damaged?")
    return np.concatenate(parts, dtype=np.float32, casting="unsafe")

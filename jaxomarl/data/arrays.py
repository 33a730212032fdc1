"""Episodes as arrays in memory, in the form that a reader of files finds them.

`fit` then compares them with a task. An episode of T steps is a mapping of arrays. Where agents
differ in width, obs and action are a list of one array per agent.

| entry | shape |
|---|---|
| obs | [T + 1, N, O]: the last row follows the last step; or [T, N, O], where it is not known |
| action | [T, N, A]; where actions are discrete, their numbers [T, N] or one-hot rows |
| reward | [T, N], or [T] where all agents receive the same |
| terminated | [T] or one flag: whether the rules ended the episode |
| truncated | [T] or one flag: whether time did; optional |
| done | replaces both if they were not told apart: an end at the task's horizon is a time-out |
| state | [T + 1, S] or [T, S], as obs; optional |
| available | [T + 1, N, A] or [T, N, A], as obs: the legal actions; optional |
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxomarl.base import Spec, nearest, refuse
from jaxomarl.data.raw import Raw, RowIndex, index_rows, interleave, one_hot

NEEDED = ("obs", "action", "reward")
FLAGS = ("terminated", "truncated", "done")
ENTRIES = (*NEEDED, *FLAGS, "state", "available")
FORMAT = "arrays"


class Episode(NamedTuple):
    """One episode's arrays, checked.

    `obs` and `rows` have T or T + 1 rows, as many as were given.
    """

    obs: list[np.ndarray]
    """Each agent's observations."""
    action: list[np.ndarray]
    """Each agent's actions [T, A]."""
    reward: np.ndarray
    """Rewards [T, N]."""
    flags: dict[str, bool]
    """Whether the episode ends so, for each of `FLAGS`."""
    rows: dict[str, np.ndarray]
    """`state` and `available`, where they were given."""

    @property
    def steps(self) -> int:
        """Number of transitions T."""
        return len(self.reward)

    @property
    def known(self) -> bool:
        """Whether the row after the last step was given."""
        return len(self.obs[0]) > self.steps


def read(episodes: object, spec: Spec, quality: str = FORMAT) -> Raw:
    """The episodes' rows, back to back.

    Raises JaxomarlError, naming the episode and the field, for an entry that is missing or unknown,
    for arrays that are no numbers or have another shape, and for entries that are not the same in
    all episodes.
    """
    if isinstance(episodes, Mapping | str) or not isinstance(episodes, Sequence):
        expected = "a list of episodes, each a dict of arrays"
        found = type(episodes).__name__
        raise refuse("data, episodes", expected, found, "Put it into a list.")
    if not episodes:
        raise refuse("data, episodes", "at least one", 0, "The set is empty.")
    _check_entries(episodes)
    checked = []
    for e, episode in enumerate(episodes):
        checked.append(_read_episode(f"data, episode {e}", episode, spec))
    _check_widths(checked)

    # --- flags ---
    index = index_rows([episode.steps for episode in checked], "data, episodes")
    rows = len(index.step)
    last = index.successors - 1
    done = np.zeros(rows, np.float32)
    done[last] = [episode.flags["done"] or episode.flags["terminated"] for episode in checked]
    known = np.ones(rows, np.float32)
    known[last] = [episode.known for episode in checked]
    cut = None
    if "truncated" in episodes[0]:
        cut = np.zeros(rows, np.float32)
        cut[last] = [episode.flags["truncated"] for episode in checked]

    # --- arrays ---
    obs = []
    action = []
    for i in range(spec.agents):
        obs.append(_with_successors([episode.obs[i] for episode in checked], index))
        action.append(interleave([episode.action[i] for episode in checked], index))
    entries = {}
    for name in checked[0].rows:
        entries[name] = _with_successors([episode.rows[name] for episode in checked], index)

    return Raw(
        format=FORMAT,
        obs=tuple(obs),
        action=tuple(action),
        reward=interleave([episode.reward for episode in checked], index),
        done=done,
        step=index.step,
        left=index.left,
        known=known,
        behaviour=np.zeros(rows, np.int32),
        state=entries.get("state"),
        available=entries.get("available"),
        discrete=spec.discrete,
        quality=quality,
        evidence=("arrays in memory",),
        distinct="done" not in episodes[0],
        cut=cut,
    )


def _with_successors(values: list[np.ndarray], index: RowIndex) -> np.ndarray:
    """Rows [M, ...] of one entry. An episode of T rows alone repeats the last of them."""
    lengths = index.left[index.step == 0]
    transitions = [value[:steps] for value, steps in zip(values, lengths, strict=True)]
    successors = np.stack([value[-1] for value in values])
    return interleave(transitions, index, successors)


# --- checks of all episodes ---


def _check_entries(episodes: Sequence[object]) -> None:
    """Raise JaxomarlError for an entry that is missing, unknown or not in every episode."""
    listed = ", ".join(ENTRIES)
    first: list[str] | None = None
    for e, episode in enumerate(episodes):
        where = f"data, episode {e}"
        if not isinstance(episode, Mapping):
            found = type(episode).__name__
            raise refuse(where, "a dict of arrays", found, f"Its entries are {listed}.")
        for name in episode:
            if name not in ENTRIES:
                raise refuse(where, f"entries among {listed}", name, nearest(str(name), ENTRIES))

        present = sorted(episode)
        for name in NEEDED:
            if name not in episode:
                way = "Every episode needs it."
                raise refuse(f"{where}, {name}", "this entry", present, way)
        if "done" in episode and ("terminated" in episode or "truncated" in episode):
            way = "Give done alone, or terminated and truncated."
            raise refuse(f"{where}, done", "one way to say how it ends", present, way)
        if first is None:
            first = present
        if present != first:
            expected = f"the entries of episode 0: {first}"
            raise refuse(where, expected, present, "Give every episode the same entries.")


def _check_widths(episodes: list[Episode]) -> None:
    """Raise JaxomarlError where episodes differ in the width of an entry."""
    first = _widths(episodes[0])
    for e, episode in enumerate(episodes):
        for name, width in _widths(episode).items():
            if width != first[name]:
                field = f"data, episode {e}, {name}"
                expected = f"{first[name]} columns, as episode 0 has"
                raise refuse(field, expected, width, "Give every episode the same columns.")


def _widths(episode: Episode) -> dict[str, int | tuple[int, ...]]:
    """Width of each entry, for each agent where agents have arrays of their own."""
    widths: dict[str, int | tuple[int, ...]] = {}
    for i, x in enumerate(episode.obs):
        widths[f"obs of agent {i}"] = x.shape[1]
    for i, x in enumerate(episode.action):
        widths[f"action of agent {i}"] = x.shape[1]
    for name, x in episode.rows.items():
        widths[name] = x.shape[1:]
    return widths


# --- one episode ---


def _read_episode(where: str, given: Mapping[str, object], spec: Spec) -> Episode:
    """One episode's arrays, whose lengths agree."""
    action = _actions(f"{where}, action", given["action"], spec)
    steps = len(action[0])
    if steps < 1:
        raise refuse(f"{where}, action", "at least one step", 0, "Leave empty episodes out.")
    obs = _arrays_per_agent(f"{where}, obs", given["obs"], spec, (2,))
    _check_rows(f"{where}, obs", len(obs[0]), steps, steps + 1)

    rows: dict[str, np.ndarray] = {}
    for name, axes in (("state", 2), ("available", 3)):
        if name in given:
            rows[name] = _numbers(f"{where}, {name}", given[name], (axes,))
            _check_rows(f"{where}, {name}", len(rows[name]), len(obs[0]))

    reward = _rewards(f"{where}, reward", given["reward"], steps, spec)
    flags = {name: _flag(f"{where}, {name}", given.get(name, False), steps) for name in FLAGS}
    return Episode(obs, action, reward, flags, rows)


def _rewards(where: str, given: object, steps: int, spec: Spec) -> np.ndarray:
    """Rewards [T, N]; a common reward [T] is repeated for every agent."""
    reward = _numbers(where, given, (1, 2))
    _check_rows(where, len(reward), steps)
    if reward.ndim == 1:
        reward = np.repeat(reward[:, None], spec.agents, axis=1)
    if reward.shape[1] != spec.agents:
        way = "One column per agent, or [T] where all receive the same."
        raise refuse(where, f"shape ({steps}, {spec.agents})", reward.shape, way)
    return reward


def _actions(where: str, given: object, spec: Spec) -> list[np.ndarray]:
    """Each agent's actions [T, A]; numbers of discrete actions become one-hot rows."""
    if not spec.discrete:
        return _arrays_per_agent(where, given, spec, (2,))
    if isinstance(given, list | tuple):
        arrays = _arrays_per_agent(where, given, spec, (1, 2))
    else:
        joint = _numbers(where, given, (2, 3))
        _check_agents(where, joint.shape[1], spec)
        arrays = [joint[:, i] for i in range(spec.agents)]
    for i, x in enumerate(arrays):
        if x.ndim == 1:
            arrays[i] = one_hot(x, spec.act_dims[i], f"{where} of agent {i}")
    return arrays


def _arrays_per_agent(
    where: str, given: object, spec: Spec, axes: tuple[int, ...]
) -> list[np.ndarray]:
    """An array [T, N, C], or a list of one array per agent with so many axes, as a list."""
    if not isinstance(given, list | tuple):
        joint = _numbers(where, given, (3,))
        _check_agents(where, joint.shape[1], spec)
        return [joint[:, i] for i in range(spec.agents)]
    _check_agents(where, len(given), spec)
    arrays = [_numbers(f"{where} of agent {i}", x, axes) for i, x in enumerate(given)]
    for i, x in enumerate(arrays):
        _check_rows(f"{where} of agent {i}", len(x), len(arrays[0]))
    return arrays


# --- checks of one array ---


def _check_agents(where: str, found: int, spec: Spec) -> None:
    """Raise JaxomarlError for another number of agents than the task's."""
    if found != spec.agents:
        way = "A list has one array per agent; np.stack makes one array of a list of steps."
        raise refuse(where, f"{spec.agents} agents", found, way)


def _check_rows(where: str, found: int, *expected: int) -> None:
    """Raise JaxomarlError for another number of rows than those expected."""
    if found not in expected:
        numbers = " or ".join(map(str, expected))
        way = "T actions go with T or T + 1 observations and T rewards."
        raise refuse(where, f"{numbers} rows", found, way)


def _numbers(where: str, given: object, axes: tuple[int, ...]) -> np.ndarray:
    """An array of real numbers, as float32, whose number of axes is one of `axes`."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        way = "Rows of one array have one length."
        raise refuse(where, "an array of numbers", str(error)[:200], way) from None
    if array.dtype.kind not in "biuf":
        raise refuse(where, "an array of real numbers", f"dtype {array.dtype}", "Convert it.")
    if array.ndim not in axes:
        expected = f"an array with {' or '.join(map(str, axes))} axes"
        raise refuse(where, expected, f"shape {array.shape}", "Time is the first axis.")
    # a number beyond float32 becomes infinite here, and `fit` names it
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _flag(where: str, given: object, steps: int) -> bool:
    """Whether an episode ends so, from one flag or from a flag per step [T]."""
    flags = _numbers(where, given, (0, 1))
    if not np.isin(flags, (0, 1)).all():
        other = flags[~np.isin(flags, (0, 1))][0]
        raise refuse(where, "zeros and ones", other, "Flags are true or false.")
    if flags.ndim == 0:
        return bool(flags)
    _check_rows(where, len(flags), steps)
    if flags[:-1].any():
        found = f"one at step {int(np.flatnonzero(flags)[0])} of {steps}"
        raise refuse(where, "an end at the last step only", found, "Split it into two episodes.")
    return bool(flags[-1])

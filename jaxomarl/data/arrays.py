"""Episodes as arrays in memory, in the form that a reader of files finds them; `fit` then compares them with a task.

An episode of T steps is a mapping of arrays. Where agents differ in width, obs and action are a list of one array per
agent.

| entry | shape |
|---|---|
| obs | [T + 1, N, O]: the last row follows the last step; or [T, N, O], where it is not known |
| action | [T, N, A]; where actions are discrete, their numbers [T, N] or one-hot rows |
| reward | [T, N], or [T] where all agents receive the same |
| terminated | [T] or one flag: whether the rules ended the episode |
| truncated | [T] or one flag: whether time did; optional |
| done | in place of both, where they were not told apart: an end at the task's horizon is a time-out |
| state | [T + 1, S] or [T, S], as obs; optional |
| available | [T + 1, N, A] or [T, N, A], as obs: the legal actions; optional |
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import Spec, nearest, refuse
from jaxomarl.data.raw import Raw, lay, one_hot, places

NEEDED = ("obs", "action", "reward")
FLAGS = ("terminated", "truncated", "done")
ENTRIES = (*NEEDED, *FLAGS, "state", "available")
FORMAT = "arrays"


class Episode(NamedTuple):
    """One episode's arrays, checked; `obs`, `state` and `available` have as many rows as were given."""

    obs: list[np.ndarray]
    action: list[np.ndarray]
    reward: np.ndarray
    flags: dict[str, bool]
    rows: dict[str, np.ndarray]

    @property
    def steps(self) -> int:
        """Transitions T."""
        return len(self.reward)

    @property
    def known(self) -> bool:
        """Whether what follows the last step is among the rows."""
        return len(self.obs[0]) > self.steps


def read(episodes: Any, spec: Spec, quality: str = FORMAT) -> Raw:
    """The episodes' rows, back to back.

    Raises JaxomarlError, naming the episode and the field, for an entry that is missing or unknown, for arrays that are
    no numbers or have another shape, and for entries that are not the same in all episodes.
    """
    if isinstance(episodes, Mapping | str) or not isinstance(episodes, Sequence):
        found = type(episodes).__name__
        raise refuse(
            "data, episodes",
            "a list of episodes, each a dict of arrays",
            found,
            "Put it into a list.",
        )
    if not episodes:
        raise refuse("data, episodes", "at least one", 0, "The set is empty.")
    _same_entries(episodes)
    read_ones = [
        _episode(f"data, episode {e}", episode, spec) for e, episode in enumerate(episodes)
    ]
    _same_widths(read_ones)

    # --- rows ---
    at = places([episode.steps for episode in read_ones], "data, episodes")
    final = at.ends - 1
    done = np.zeros(len(at.step), np.float32)
    cut = np.zeros(len(at.step), np.float32)
    known = np.ones(len(at.step), np.float32)
    done[final] = [episode.flags["done"] or episode.flags["terminated"] for episode in read_ones]
    cut[final] = [episode.flags["truncated"] for episode in read_ones]
    known[final] = [episode.known for episode in read_ones]
    entries = {
        name: _with_successors([episode.rows[name] for episode in read_ones], read_ones, at)
        for name in read_ones[0].rows
    }
    agents = range(spec.agents)
    return Raw(
        format=FORMAT,
        obs=tuple(
            _with_successors([episode.obs[i] for episode in read_ones], read_ones, at)
            for i in agents
        ),
        action=tuple(lay([episode.action[i] for episode in read_ones], at) for i in agents),
        reward=lay([episode.reward for episode in read_ones], at),
        done=done,
        step=at.step,
        left=at.left,
        known=known,
        behaviour=np.zeros(len(at.step), np.int32),
        state=entries.get("state"),
        available=entries.get("available"),
        discrete=spec.discrete,
        quality=quality,
        evidence=("arrays in memory",),
        distinct="done" not in episodes[0],
        cut=cut if "truncated" in episodes[0] else None,
    )


def _with_successors(values: list[np.ndarray], episodes: list[Episode], at: Any) -> np.ndarray:
    """Rows [M, ...] of one entry; an episode without its last row has a copy of the one before."""
    last = np.stack([value[-1] for value in values])
    return lay(
        [value[: episode.steps] for value, episode in zip(values, episodes, strict=True)], at, last
    )


# --- entries ---


def _same_entries(episodes: Sequence[Any]) -> None:
    """Raise JaxomarlError for an entry that is missing, unknown or not in every episode."""
    for e, episode in enumerate(episodes):
        where = f"data, episode {e}"
        if not isinstance(episode, Mapping):
            raise refuse(
                where,
                "a dict of arrays",
                type(episode).__name__,
                f"Its entries are {', '.join(ENTRIES)}.",
            )
        for name in episode:
            if name not in ENTRIES:
                raise refuse(
                    where, f"entries among {', '.join(ENTRIES)}", name, nearest(str(name), ENTRIES)
                )
        for name in NEEDED:
            if name not in episode:
                raise refuse(
                    f"{where}, {name}", "this entry", sorted(episode), "Every episode needs it."
                )
        if "done" in episode and ("terminated" in episode or "truncated" in episode):
            way = "Give done alone, or terminated and truncated."
            raise refuse(f"{where}, done", "one way to say how it ends", sorted(episode), way)
        if set(episode) != set(episodes[0]):
            way = "Give every episode the same entries."
            raise refuse(
                where, f"the entries of episode 0: {sorted(episodes[0])}", sorted(episode), way
            )


def _same_widths(episodes: list[Episode]) -> None:
    """Raise JaxomarlError where episodes differ in the width of an entry."""
    first = _widths(episodes[0])
    for e, episode in enumerate(episodes):
        for name, width in _widths(episode).items():
            if width != first[name]:
                way = "Give every episode the same columns."
                raise refuse(
                    f"data, episode {e}, {name}",
                    f"{first[name]} columns, as episode 0 has",
                    width,
                    way,
                )


def _widths(episode: Episode) -> dict[str, Any]:
    obs = {f"obs of agent {i}": x.shape[1] for i, x in enumerate(episode.obs)}
    action = {f"action of agent {i}": x.shape[1] for i, x in enumerate(episode.action)}
    return {**obs, **action, **{name: x.shape[1:] for name, x in episode.rows.items()}}


def _episode(where: str, given: Mapping[str, Any], spec: Spec) -> Episode:
    """One episode's arrays, whose lengths agree."""
    action = _actions(f"{where}, action", given["action"], spec)
    steps = len(action[0])
    if steps < 1:
        raise refuse(f"{where}, action", "at least one step", 0, "Leave empty episodes out.")
    obs = _per_agent(f"{where}, obs", given["obs"], spec)
    _check_rows(f"{where}, obs", len(obs[0]), steps, steps + 1)
    rows: dict[str, np.ndarray] = {}
    for name, axes in (("state", 2), ("available", 3)):
        if name in given:
            rows[name] = _numbers(f"{where}, {name}", given[name], (axes,))
            _check_rows(f"{where}, {name}", len(rows[name]), len(obs[0]))
    reward = _numbers(f"{where}, reward", given["reward"], (1, 2))
    _check_rows(f"{where}, reward", len(reward), steps)
    if reward.ndim == 1:
        reward = np.repeat(reward[:, None], spec.agents, axis=1)
    if reward.shape[1] != spec.agents:
        way = "One column per agent, or [T] where all receive the same."
        raise refuse(f"{where}, reward", f"shape ({steps}, {spec.agents})", reward.shape, way)
    flags = {name: _flag(f"{where}, {name}", given.get(name, False), steps) for name in FLAGS}
    return Episode(obs, action, reward, flags, rows)


def _actions(where: str, given: Any, spec: Spec) -> list[np.ndarray]:
    """Each agent's actions [T, A]; numbers of discrete ones become one-hot rows."""
    if not spec.discrete or isinstance(given, list | tuple):
        arrays = _per_agent(where, given, spec, (1, 2) if spec.discrete else (2,))
    else:
        whole = _numbers(where, given, (2, 3))
        _check_agents(where, whole.shape[1], spec)
        arrays = [whole[:, i] for i in range(spec.agents)]
    for i, x in enumerate(arrays):
        if x.ndim == 1:
            arrays[i] = one_hot(x, spec.act_dims[i], f"{where} of agent {i}")
    return arrays


def _per_agent(
    where: str, given: Any, spec: Spec, axes: tuple[int, ...] = (2,)
) -> list[np.ndarray]:
    """An array [T, N, C], or one [T, c] of each agent, as a list of the agents'."""
    if not isinstance(given, list | tuple):
        whole = _numbers(where, given, (3,))
        _check_agents(where, whole.shape[1], spec)
        return [whole[:, i] for i in range(spec.agents)]
    _check_agents(where, len(given), spec)
    arrays = [_numbers(f"{where} of agent {i}", x, axes) for i, x in enumerate(given)]
    for i, x in enumerate(arrays):
        _check_rows(f"{where} of agent {i}", len(x), len(arrays[0]))
    return arrays


def _check_agents(where: str, found: int, spec: Spec) -> None:
    if found != spec.agents:
        way = "A list has one array per agent; np.stack makes one array of a list of steps."
        raise refuse(where, f"{spec.agents} agents", found, way)


def _check_rows(where: str, found: int, *expected: int) -> None:
    if found not in expected:
        words = " or ".join(map(str, expected))
        raise refuse(
            where,
            f"{words} rows",
            found,
            "T actions go with T or T + 1 observations and T rewards.",
        )


def _numbers(where: str, given: Any, axes: tuple[int, ...]) -> np.ndarray:
    """An array of real numbers with so many axes."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        way = "Rows of one array have one length."
        raise refuse(where, "an array of numbers", str(error)[:200], way) from None
    if array.dtype.kind not in "biuf":
        raise refuse(where, "an array of real numbers", f"dtype {array.dtype}", "Convert it.")
    if array.ndim not in axes:
        words = " or ".join(map(str, axes))
        raise refuse(
            where, f"an array with {words} axes", f"shape {array.shape}", "Time is the first axis."
        )
    with np.errstate(over="ignore"):  # `fit` names what is not finite
        return array.astype(np.float32)


def _flag(where: str, given: Any, steps: int) -> bool:
    """Whether an episode ends so, of one flag or [T] flags."""
    flags = _numbers(where, given, (0, 1))
    if not np.isin(flags, (0, 1)).all():
        raise refuse(
            where, "zeros and ones", flags[~np.isin(flags, (0, 1))][0], "Flags are true or false."
        )
    if flags.ndim == 0:
        return bool(flags)
    _check_rows(where, len(flags), steps)
    if flags[:-1].any():
        found = f"one at step {int(np.flatnonzero(flags)[0])} of {steps}"
        raise refuse(where, "an end at the last step only", found, "Split it into two episodes.")
    return bool(flags[-1])

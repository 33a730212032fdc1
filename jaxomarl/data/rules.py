"""Which rules a set that names none may have been made under.

They are guessed from all that its rows tell, or not at all.
"""

from typing import NamedTuple

import numpy as np

from jaxomarl.data.raw import Raw, describe_padding


class Rules(NamedTuple):
    """A task of published data, as its rows look."""

    task: str
    """The task's name in our catalog."""
    dialect: str
    """Name of the rules."""
    obs: tuple[int, ...]
    """True observation width of each agent, and of the prey where the files have it."""
    act: tuple[int, ...]
    """True action width of each agent."""
    state: int
    """Width of the state."""
    horizon: int
    """Steps of the longest possible episode."""
    never: bool
    """Whether its episodes end by the horizon alone."""


def _particle(task: str, width: int, dialect: str = "mpe-omar", prey: int = 0) -> list[Rules]:
    """The task with the learners alone, and with the prey where it has one."""
    alone = Rules(task, dialect, (width,) * 3, (2,) * 3, 3 * width, 25, True)
    if not prey:
        return [alone]
    return [alone, alone._replace(obs=(width,) * 3 + (prey,), act=(2,) * 4)]


def _robot(
    task: str, dialect: str, obs: tuple[int, ...], act: int, state: int, more: str = ""
) -> Rules:
    """A robot's task; `more` is appended to its name."""
    name = f"mamujoco/{task}{more}"
    if dialect == "gymnasium":
        full_dialect = "mamujoco-gymnasium-v1"
    else:
        full_dialect = f"mamujoco-{dialect}"
        name += f":dialect={dialect}"
    return Rules(name, full_dialect, obs, (act,) * len(obs), state, 1000, "halfcheetah" in task)


KNOWN = (
    *_particle("mpe/spread", 18),
    *_particle("mpe/tag", 16, prey=14),
    *_particle("mpe/world", 24, prey=22),
    *_particle("mpe/six", 24, "mpe-six"),
    _robot("2halfcheetah", "gymnasium", (12, 12), 3, 17),
    _robot("6halfcheetah", "gymnasium", (9, 9, 8, 9, 9, 8), 1, 17),
    _robot("2ant", "gymnasium", (63, 63), 4, 105),
    _robot("4ant", "gymnasium", (42,) * 4, 2, 105),
    _robot("3hopper", "gymnasium", (8, 9, 8), 1, 11),
    _robot("walker2d", "gymnasium", (12, 12), 3, 17),
    _robot("2halfcheetah", "gymnasium", (11, 11), 3, 17, ":obsk=0"),
    _robot("6halfcheetah", "gymnasium", (7,) * 6, 1, 17, ":obsk=0"),
    _robot("2ant", "gymnasium", (61, 61), 4, 105, ":obsk=0"),
    _robot("4ant", "gymnasium", (39,) * 4, 2, 105, ":obsk=0"),
    _robot("3hopper", "gymnasium", (7,) * 3, 1, 11, ":obsk=0"),
    _robot("2halfcheetah", "omar", (6, 6), 3, 17),
    _robot("2halfcheetah", "ogmarl", (13, 13), 3, 17),
    _robot("2ant", "ogmarl", (54, 54), 4, 111),
    _robot("4ant", "ogmarl", (33,) * 4, 2, 111),
    _robot("6halfcheetah", "omiga", (23,) * 6, 1, 23),
    _robot("2ant", "omiga", (113, 113), 4, 113),
    _robot("3hopper", "omiga", (14,) * 3, 1, 14),
)
"""Every set that was published in a format that we read, likeliest first.

A test compares the table with the catalog.
"""


def candidates(raw: Raw) -> list[Rules]:
    """The known rules that agree with the set's agents, widths, state and episode length.

    The list is empty where none agree.
    """
    if raw.discrete:
        return []
    return [rules for rules in KNOWN if _agrees(raw, rules)]


def _agrees(raw: Raw, rules: Rules) -> bool:
    """Whether a set may have been made under these rules."""
    if raw.agents != len(rules.obs) or not len(raw.step):
        return False
    longest = _longest_episode(raw)
    if longest > rules.horizon or (rules.never and longest < rules.horizon):
        return False
    if raw.state is not None:
        joint_obs = {sum(x.shape[1] for x in raw.obs), sum(rules.obs)}
        if raw.state.shape[1] not in {rules.state, *joint_obs}:
            return False

    for x, width in zip(raw.obs, rules.obs, strict=True):
        if not _has_width(x, width, max(rules.obs)):
            return False
    transitions = raw.left > 0
    for x, width in zip(raw.action, rules.act, strict=True):
        if not _has_width(x, width, max(rules.act), transitions):
            return False
    return True


def _has_width(x: np.ndarray, width: int, widest: int, rows: np.ndarray | None = None) -> bool:
    """Whether an array has that width, or was padded from it to the widest agent's.

    Only `rows` are looked at for padding, where they are given.
    """
    if x.shape[1] == width:
        return True
    if x.shape[1] != widest or widest < width:
        return False
    if rows is not None:
        x = x[rows]
    return bool(describe_padding(x, width))


def _longest_episode(raw: Raw) -> int:
    """Transitions of the longest episode."""
    return int(raw.step[raw.left > 0].max(initial=-1)) + 1


def describe_widths(raw: Raw) -> str:
    """What the guess is made from, in words."""
    obs = " ".join(str(x.shape[1]) for x in raw.obs)
    action = " ".join(str(x.shape[1]) for x in raw.action)
    kind = "discrete actions" if raw.discrete else "actions"
    state = "no state"
    if raw.state is not None:
        state = f"a state of {raw.state.shape[1]}"
    return (
        f"{raw.agents} agents, observations of {obs}, {kind} of {action}, {state}, "
        f"episodes of up to {_longest_episode(raw)} steps"
    )

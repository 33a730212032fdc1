"""Which rules a set of unnamed ones may have been made under: guessed from all that its rows tell, or not at all."""

from typing import NamedTuple

import numpy as np

from jaxomarl.data.raw import Raw, padding


class Rules(NamedTuple):
    """A task of published data, as its rows look."""

    task: str
    """Its name in our catalog."""
    dialect: str
    obs: tuple[int, ...]
    """True observation width of each agent, the prey included where it is one of the files' agents."""
    act: tuple[int, ...]
    state: int
    horizon: int
    never: bool
    """Whether its episodes end by the horizon alone."""


def _particle(task: str, width: int, dialect: str = "mpe-omar", prey: int = 0) -> list[Rules]:
    """The task with the learners alone, and with the prey where it has one."""
    alone = Rules(task, dialect, (width,) * 3, (2,) * 3, 3 * width, 25, True)
    return [alone, alone._replace(obs=(width,) * 3 + (prey,), act=(2,) * 4)] if prey else [alone]


def _robot(
    task: str, dialect: str, obs: tuple[int, ...], act: int, state: int, more: str = ""
) -> Rules:
    name = f"mamujoco/{task}{more}"
    if dialect != "gymnasium":
        name += f":dialect={dialect}"
    full = "mamujoco-gymnasium-v1" if dialect == "gymnasium" else f"mamujoco-{dialect}"
    return Rules(name, full, obs, (act,) * len(obs), state, 1000, "halfcheetah" in task)


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
"""Every set that was published in a format that we read, likeliest first; a test compares it with the catalog."""


def candidates(raw: Raw) -> list[Rules]:
    """The known rules that agree with the set's agents, widths, state and episode length; [] where none do."""
    return [] if raw.discrete else [rules for rules in KNOWN if _agrees(raw, rules)]


def _agrees(raw: Raw, rules: Rules) -> bool:
    if raw.agents != len(rules.obs) or not len(raw.step):
        return False
    longest = int(raw.step[raw.left > 0].max(initial=-1)) + 1
    if longest > rules.horizon or (rules.never and longest < rules.horizon):
        return False
    if raw.state is not None:
        beside = {sum(x.shape[1] for x in raw.obs), sum(rules.obs)}
        if raw.state.shape[1] not in {rules.state, *beside}:
            return False
    moves = raw.left > 0
    obs = all(_fits(x, width, max(rules.obs)) for x, width in zip(raw.obs, rules.obs, strict=True))
    return obs and all(
        _fits(x, width, max(rules.act), moves)
        for x, width in zip(raw.action, rules.act, strict=True)
    )


def _fits(x: np.ndarray, width: int, widest: int, rows: np.ndarray | None = None) -> bool:
    """Whether it has that width, or was padded from it to the widest agent's."""
    if x.shape[1] == width:
        return True
    return x.shape[1] == widest > width and bool(padding(x if rows is None else x[rows], width))


def seen_of(raw: Raw) -> str:
    """What the guess is made from, in words."""
    obs, act = (" ".join(str(x.shape[1]) for x in blocks) for blocks in (raw.obs, raw.action))
    state = "no state" if raw.state is None else f"a state of {raw.state.shape[1]}"
    longest = int(raw.step[raw.left > 0].max(initial=-1)) + 1
    kind = "discrete actions" if raw.discrete else "actions"
    return f"{raw.agents} agents, observations of {obs}, {kind} of {act}, {state}, episodes of up to {longest} steps"

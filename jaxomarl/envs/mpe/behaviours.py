"""How the particle tasks' data sets are mixed, and the references by which their returns are normalised.

Made by `python -m experiments.behaviours`. Qualities (DOM2, section 5; OMAR):

    random          uniform actions                         medium-replay   a ladder of training snapshots up to medium
    medium, expert  four independently trained behaviours   medium-expert   90 % medium, 10 % expert
                    each, in equal shares                   random-medium   90 % random, 10 % medium
    one-expert      the first expert alone: what a clone can do where nothing has to be averaged
    expert-modes    spread alone: its four experts, numbered as they were trained

Spread's four experts play one strategy, found under four of the six ways to number three alike agents: the mean of
their actions is worth little more than half an expert as they were trained, and a whole one once all are numbered alike
(tests/data/test_on_demand.py). Two are stored renumbered, which leaves two ways at equal shares in `expert`. A
deterministic clone of two ways learns 90 % of the data's mean return, and one of four ways does not (docs/results.md,
particle tasks); `expert-modes` has all four, for systems that claim to keep modes. The experts of the other tasks are
stored as they were trained.
"""

from collections.abc import Mapping

import numpy as np

from jaxomarl.base import Scale
from jaxomarl.envs import stored

RENUMBERED = {1: (2, 0, 1), 2: (2, 0, 1)}
"""Spread's expert -> the order in which its agents were renumbered before it was stored."""


def as_trained(held: Mapping[str, list[stored.Params]]) -> list[stored.Params]:
    """Spread's experts numbered as they were trained: what was done to two of them, undone."""
    teams = list(held["expert"])
    for k, order in RENUMBERED.items():
        back = tuple(int(i) for i in np.argsort(order))
        teams[k] = renumbered(teams[k], back)
    return teams


PARTICLES = stored.Family(
    "mpe",
    {
        "expert": {"expert": 1.0},
        "medium": {"medium": 1.0},
        "medium-replay": {"ladder": 1.0},
        "random": {"random": 1.0},
        "medium-expert": {"medium": 0.9, "expert": 0.1},
        "random-medium": {"random": 0.9, "medium": 0.1},
        "one-expert": {"expert": 1.0},
        "expert-modes": {"expert-modes": 1.0},
    },
    {"random": 0, "medium": 1, "expert": 101, "expert-modes": 151, "ladder": 201},
    frozenset({"one-expert"}),
    {("spread", "expert-modes"): as_trained},
)
OMAR = {
    "spread": Scale(159.8, 516.8, "OMAR's data", 273.39),
    "tag": Scale(-4.1, 185.6, "OMAR's data", 116.36),
    "world": Scale(-6.8, 79.5, "OMAR's data", 65.86),
}
"""Random and expert returns that the papers normalise by (dialect mpe-omar)."""


def renumbered(params: stored.Params, order: tuple[int, ...]) -> stored.Params:
    """A team of spread where agent i takes the part of `order[i]`; alike agents give its returns the same law.

    An agent sees itself and the landmarks, then the others by number: rows 2 k and 2 k + 1 of its first kernel, counted
    from the first of them, read the k-th.
    """
    out = {name: x[list(order)].copy() for name, x in params.items()}
    first = params["kernel_0"].shape[1] - 4 - 2 * (len(order) - 1)
    for i, part in enumerate(order):
        heard = [sorted(set(order) - {part}).index(p) for p in (*order[:i], *order[i + 1 :])]
        rows = first + np.array([(2 * k, 2 * k + 1) for k in heard]).ravel()
        out["kernel_0"][i, first : first + len(rows)] = params["kernel_0"][part, rows]
    return out


def scale(task: str, dialect: str) -> Scale | None:
    """The references of a task under a dialect: the papers' for `mpe-omar`, ours for `mpe-own-prey` and `mpe-six`."""
    if dialect == "mpe-omar":
        return OMAR[task]
    own = stored.measured("mpe").get(task)
    if own is None or own["dialect"] != dialect:
        return None
    return Scale(own["random"], own["expert"], "this package's behaviours", own["medium"])

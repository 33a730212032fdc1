"""The mixtures of the particle tasks' data, and the references that normalise their returns.

The behaviours were trained by `python -m experiments.behaviours`. The qualities are those of DOM2,
section 5, and of OMAR:

    random          uniform actions
    medium, expert  four independently trained behaviours each, in equal shares
    medium-replay   a ladder of training snapshots up to medium
    medium-expert   90 % medium, 10 % expert
    random-medium   90 % random, 10 % medium
    one-expert      the first expert alone: behaviour cloning has nothing to average
    expert-modes    spread alone: its four experts, numbered as they were trained

Spread's four experts have one strategy, which training reached under four of the six ways to number
three alike agents. As they were trained, the mean of their actions is worth little more than half
an expert; once all are numbered alike, it is worth a full one (tests/data/test_on_demand.py). Two
are stored renumbered, which leaves two numberings at equal shares in `expert`.

A deterministic clone of two numberings reaches 90 % of the data's mean return, and one of four does
not (docs/results.md, particle tasks). `expert-modes` has all four, for systems that claim to keep
modes. The experts of the other tasks are stored as they were trained.
"""

from collections.abc import Mapping

import numpy as np

from jaxomarl.base import Scale
from jaxomarl.envs import stored

RENUMBERED = {1: (2, 0, 1), 2: (2, 0, 1)}
"""Spread's expert -> the order in which its agents were renumbered before it was stored."""


def as_trained(kinds: Mapping[str, list[stored.Params]]) -> list[stored.Params]:
    """Spread's experts numbered as they were trained; two are renumbered back."""
    teams = list(kinds["expert"])
    for k, order in RENUMBERED.items():
        inverse = tuple(int(i) for i in np.argsort(order))
        teams[k] = renumbered(teams[k], inverse)
    return teams


PARTICLES = stored.Family(
    folder="mpe",
    mixtures={
        "expert": {"expert": 1.0},
        "medium": {"medium": 1.0},
        "medium-replay": {"ladder": 1.0},
        "random": {"random": 1.0},
        "medium-expert": {"medium": 0.9, "expert": 0.1},
        "random-medium": {"random": 0.9, "medium": 0.1},
        "one-expert": {"expert": 1.0},
        "expert-modes": {"expert-modes": 1.0},
    },
    numbers={"random": 0, "medium": 1, "expert": 101, "expert-modes": 151, "ladder": 201},
    alone=frozenset({"one-expert"}),
    derived={("spread", "expert-modes"): as_trained},
)
OMAR = {
    "spread": Scale(159.8, 516.8, "OMAR's data", 273.39),
    "tag": Scale(-4.1, 185.6, "OMAR's data", 116.36),
    "world": Scale(-6.8, 79.5, "OMAR's data", 65.86),
}
"""Random and expert returns that the papers normalise by (dialect mpe-omar)."""


def renumbered(params: stored.Params, order: tuple[int, ...]) -> stored.Params:
    """A team of spread where agent i acts as `order[i]` did.

    Its returns have the same distribution, as the agents are alike. An agent observes itself and
    the landmarks, then the others by number. From row `first` on, rows 2 k and 2 k + 1 of its first
    kernel belong to the k-th of the others.
    """
    out = {name: x[list(order)].copy() for name, x in params.items()}
    kernel = params["kernel_0"]
    first = kernel.shape[1] - 4 - 2 * (len(order) - 1)
    for i, part in enumerate(order):
        others_before = sorted(set(order) - {part})
        others_now = (*order[:i], *order[i + 1 :])
        places = [others_before.index(other) for other in others_now]
        rows = first + np.array([(2 * k, 2 * k + 1) for k in places]).ravel()
        out["kernel_0"][i, first : first + len(rows)] = kernel[part, rows]
    return out


def scale(task: str, dialect: str) -> Scale | None:
    """The references of a task under a dialect.

    They are the papers' for `mpe-omar`, and ours for `mpe-own-prey` and `mpe-six`.
    """
    if dialect == "mpe-omar":
        return OMAR[task]
    own = stored.measured("mpe").get(task)
    if own is None or own["dialect"] != dialect:
        return None
    return Scale(own["random"], own["expert"], "this package's behaviours", own["medium"])

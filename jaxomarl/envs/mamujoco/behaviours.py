"""The mixtures of the MuJoCo tasks' data sets, and the references that normalise their returns.

The behaviours were trained by `python -m experiments.behaviours`: MATD3 under the dialect
mamujoco-gymnasium-v1, obsk 1. Each training seed gives four snapshots. "expert" is its best; the
data of "good", "medium" and "poor" have a return nearest to 75, 50 and 20 % of the way from random
to expert.

A robot whose best snapshot falls short of an expert has no such kind. Its best is called "good",
and medium and poor lie 50 and 20 % of the way to that. Qualities:

    expert, good, medium, poor, random      one kind; all training seeds in equal shares
    medium-expert                           half each, as OMIGA's
    medium-replay                           equal shares of random, poor and medium
    replay                                  equal shares of all kinds that there are
"""

from collections.abc import Callable, Mapping

from jaxomarl.base import Behaviours, Environment, Recipe, Scale
from jaxomarl.envs import stored
from jaxomarl.envs.recipes import random_play

KINDS = ("random", "poor", "medium", "good", "expert")
WALKERS = stored.Family(
    folder="mamujoco",
    mixtures={
        **{kind: {kind: 1.0} for kind in KINDS},
        "medium-expert": {"medium": 0.5, "expert": 0.5},
        "medium-replay": dict.fromkeys(KINDS[:3], 1 / 3),
        "replay": dict.fromkeys(KINDS, 1 / 5),
    },
    numbers={"random": 0, "poor": 301, "medium": 1, "good": 401, "expert": 101},
)
SHORT = WALKERS._replace(
    mixtures={
        **{kind: {kind: 1.0} for kind in KINDS[:4]},
        "medium-replay": dict.fromkeys(KINDS[:3], 1 / 3),
        "replay": dict.fromkeys(KINDS[:4], 1 / 4),
    }
)
"""The family of robots without an expert."""
DIALECT = "mamujoco-gymnasium-v1"
"""The dialect of the shipped behaviours."""
OBSK = 1
"""The distance up to which the shipped behaviours observe joints."""


def recipes(env: Environment, task: str, obsk: int) -> Mapping[str, Recipe]:
    """The recipe of every quality of a task.

    `random` is always there; the others need shipped behaviours.
    """
    family = shipped(env, task, obsk)
    if family is None:
        return {"random": random_play(env)}
    return stored.recipes(env, family, task)


def known(env: Environment, task: str, obsk: int) -> Mapping[str, Callable[[], Behaviours]]:
    """The behaviours of every quality without random actions, where they are shipped."""
    family = shipped(env, task, obsk)
    if family is None:
        return {}
    return stored.gaussian_behaviours(family, task)


def shipped(env: Environment, task: str, obsk: int) -> stored.Family | None:
    """The family of a task's shipped behaviours; None where there are none of its rules."""
    own = stored.measured(WALKERS.folder).get(task)
    if (env.spec.dialect, obsk) != (DIALECT, OBSK) or own is None:
        return None
    return WALKERS if "expert" in own else SHORT


def scale(env: Environment, task: str, shift: str) -> Scale | None:
    """The package's own references, where there is an expert of the task's rules."""
    own = stored.measured(WALKERS.folder).get(task)
    if own is None or "expert" not in own:
        return None
    if env.spec.dialect != DIALECT or shift != "deterministic":
        return None
    return Scale(own["random"], own["expert"], "this package's behaviours", own["medium"])

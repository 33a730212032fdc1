"""How the MuJoCo tasks' data sets are mixed, and the references by which their returns are normalised.

Made by `python -m experiments.behaviours`: MATD3 under the dialect mamujoco-gymnasium-v1, obsk 1. Each training seed
gives four snapshots: its best (expert) and those whose data lie nearest to 75, 50 and 20 % of the way from random to
expert (good, medium, poor). A robot whose best falls short of an expert has no such kind: its best is called good, and
medium and poor lie 50 and 20 % of the way to that. Qualities:

    expert, good, medium, poor, random      one kind; all training seeds in equal shares
    medium-expert                           half each, as OMIGA's
    medium-replay, replay                   equal shares of random, poor and medium, or of all kinds that there are
"""

from collections.abc import Callable, Mapping

from jaxomarl.base import Behaviours, Environment, Recipe, Scale
from jaxomarl.envs import stored
from jaxomarl.envs.recipes import random_play

KINDS = ("random", "poor", "medium", "good", "expert")
WALKERS = stored.Family(
    "mamujoco",
    {
        **{kind: {kind: 1.0} for kind in KINDS},
        "medium-expert": {"medium": 0.5, "expert": 0.5},
        "medium-replay": dict.fromkeys(KINDS[:3], 1 / 3),
        "replay": dict.fromkeys(KINDS, 1 / 5),
    },
    {"random": 0, "poor": 301, "medium": 1, "good": 401, "expert": 101},
)
SHORT = WALKERS._replace(
    mixtures={
        **{kind: {kind: 1.0} for kind in KINDS[:4]},
        "medium-replay": dict.fromkeys(KINDS[:3], 1 / 3),
        "replay": dict.fromkeys(KINDS[:4], 1 / 4),
    }
)
"""Of robots without an expert."""
DIALECT, OBSK = "mamujoco-gymnasium-v1", 1
"""What the shipped behaviours see and steer."""


def recipes(env: Environment, task: str, obsk: int) -> Mapping[str, Recipe]:
    """Every quality that can be made for a task: `random` always, the others where behaviours are shipped."""
    family = shipped(env, task, obsk)
    return stored.recipes(env, family, task) if family else {"random": random_play(env)}


def known(env: Environment, task: str, obsk: int) -> Mapping[str, Callable[[], Behaviours]]:
    """The behaviours of every quality without random actions, where they are shipped."""
    family = shipped(env, task, obsk)
    return stored.behaviours(family, task) if family else {}


def shipped(env: Environment, task: str, obsk: int) -> stored.Family | None:
    """How a task's data are mixed of shipped behaviours; None where there are none of its rules."""
    own = stored.measured(WALKERS.folder).get(task)
    if (env.spec.dialect, obsk) != (DIALECT, OBSK) or own is None:
        return None
    return WALKERS if "expert" in own else SHORT


def scale(env: Environment, task: str, shift: str) -> Scale | None:
    """The package's own references, where there is an expert of the task's rules."""
    own = stored.measured(WALKERS.folder).get(task)
    if (
        own is None
        or "expert" not in own
        or env.spec.dialect != DIALECT
        or shift != "deterministic"
    ):
        return None
    return Scale(own["random"], own["expert"], "this package's behaviours", own["medium"])

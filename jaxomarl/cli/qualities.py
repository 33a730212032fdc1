"""The behaviours behind a quality of data, in words."""

import fnmatch

from jaxomarl.base import Task

FOUR = "four independently trained behaviours, in equal shares"
SNAPSHOTS = "snapshots of training"
BEHAVIOURS = {
    ("games/bandit", "std0.1"): "two modes, N(+-0.8, 0.1^2) for both agents",
    ("games/bandit", "std0.3"): "two modes, N(+-0.8, 0.3^2) for both agents",
    ("games/bandit", "sqrt0.3"): "two modes, N(+-0.8, 0.3) for both agents",
    ("games/consensus", "default"): "one level for all agents, drawn uniformly",
    ("games/four-gaussians", "default"): "four modes, one in each quadrant",
    ("games/xor", "two"): "the two cells that pay 1, in halves",
    ("games/xor", "three"): "the cells that pay 0 or 1, in thirds",
    ("games/xor", "all"): "uniform actions",
    ("games/penalty", "two"): "the two cells that pay 10, in halves",
    ("games/climbing", "peak"): "a share at the cell that pays 8, the rest uniform",
    ("games/bridge", "optimal"): "the two shortest ways in halves",
    ("games/bridge", "mix"): "the two shortest ways, and as many episodes of uniform actions",
    ("smax/*", "good"): "three learned teams that win most battles",
    ("smax/*", "medium"): "three learned teams that win a quarter to a half",
    ("smax/*", "poor"): "three learned teams that hardly win",
    ("smax/*", "mixed"): "good and poor in halves",
    ("smax/*", "scripted"): "JaxMARL's heuristic on the allies' side",
    ("smax/*", "scripted-weakest"): "a script that shoots the weakest foe in range",
    ("smax/*", "scripted-two"): "scripts that shoot the first or the last foe, in halves",
    ("battle/*", "good"): "a script that steps back while its weapon cools",
    ("battle/*", "medium"): "the foes' own script",
    ("battle/*", "poor"): "the foes' script with half of its actions uniform",
    ("battle/*", "mixed"): "good and poor in halves",
    ("games/*", "gaussian"): "one normal mode, clipped to the box",
    ("games/*", "uniform"): "uniform actions",
    ("mpe/*", "medium"): f"{FOUR}, stopped at medium returns",
    ("mpe/*", "expert"): f"{FOUR}, fully trained",
    ("mpe/*", "medium-replay"): f"{SNAPSHOTS} up to medium returns",
    ("mpe/*", "medium-expert"): "90 % medium, 10 % expert",
    ("mpe/*", "random-medium"): "90 % random, 10 % medium",
    ("mpe/*", "one-expert"): "the first expert alone: cloning has no modes to average",
    ("mpe/spread", "expert-modes"): "four experts that number the agents in four ways",
    ("mamujoco/*", "expert"): "the best snapshot of every training seed",
    ("mamujoco/*", "good"): f"{SNAPSHOTS} at 75 % of the way from random to expert",
    ("mamujoco/*", "medium"): f"{SNAPSHOTS} at 50 % of the way from random to expert",
    ("mamujoco/*", "poor"): f"{SNAPSHOTS} at 20 % of the way from random to expert",
    ("mamujoco/*", "medium-expert"): "50 % medium, 50 % expert",
    ("mamujoco/*", "medium-replay"): "random, poor and medium in equal shares",
    ("mamujoco/*", "replay"): "every kind that there is, in equal shares",
    ("*", "random"): "uniform actions",
}
"""(pattern of tasks, quality) -> its behaviours; the first fit counts."""


def behaviours(task: Task, quality: str) -> str:
    """The behaviours that collected a task's data of this quality."""
    base = task.name.partition(":")[0]
    for (pattern, named), text in BEHAVIOURS.items():
        if named == quality and fnmatch.fnmatch(base, pattern):
            return text
    if quality in task.behaviours:
        return f"{len(task.behaviours[quality]().shares)} stored behaviours"
    return "the task's own recipe"

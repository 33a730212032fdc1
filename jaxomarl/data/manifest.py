"""The manifest of a data set: schema, dialect, counts, returns, content hash and origin."""

import math
from typing import Any

import numpy as np

from jaxomarl.base import Dataset, Task, team_reward
from jaxomarl.data.dataset import content_hash


def manifest(task: Task, quality: str, data: Dataset, origin: dict[str, Any]) -> dict[str, Any]:
    """What is written down of a data set, as values that JSON has."""
    spec = task.env.spec
    scale = task.scale
    first = np.flatnonzero(np.asarray(data.step) == 0)
    team = team_reward(data.layout.team, _rewards(data))
    returns = np.add.reduceat(team, first)
    behaviour = np.asarray(data.behaviour)[first]
    by_behaviour = {}
    for number in np.unique(behaviour):
        by_behaviour[str(number)] = float(returns[behaviour == number].mean())

    described: dict[str, Any] = {
        "task": task.name,
        "quality": quality,
        "dialect": spec.dialect,
        "agents": data.layout.agents,
        "obs_dims": list(spec.obs_dims),
        "act_dims": list(spec.act_dims),
        "state_dim": spec.state_dim,
        "transitions": int(data.starts.shape[0]),
        "episodes": len(first),
        "behaviours": len(by_behaviour),
        "return": {
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "min": float(returns.min()),
            "max": float(returns.max()),
        },
        "return_by_behaviour": by_behaviour,
        "references": None,
        "normalised": None,
        "sha256": content_hash(data),
        "origin": origin,
    }
    if scale:
        described["references"] = scale._asdict()
        described["normalised"] = float(scale.normalise(returns.mean()))
    return described


def _rewards(data: Dataset) -> np.ndarray:
    """Rewards [M, N], float64. The other blocks, which are most of the set, are not unpacked."""
    start = 0
    for name, shape in data.layout.blocks.items():
        if name == "reward":
            break
        start += math.prod(shape)
    return np.asarray(data.rows[:, start : start + data.layout.agents], np.float64)

"""What is written down of a data set: schema, dialect, counts, returns, hash, origin."""

import math
from typing import Any

import numpy as np

from jaxomarl.base import Dataset, Task, team_reward
from jaxomarl.data.dataset import content_hash


def manifest(task: Task, quality: str, data: Dataset, origin: dict[str, Any]) -> dict[str, Any]:
    """Schema, dialect, counts, return statistics, content hash and origin of a data set: JSON-able."""
    reward = _rewards(data)
    team = team_reward(data.layout.team, reward)
    first = np.flatnonzero(np.asarray(data.step) == 0)
    returns = np.add.reduceat(team, first)
    behaviour = np.asarray(data.behaviour)[first]
    own = {str(b): float(returns[behaviour == b].mean()) for b in np.unique(behaviour)}
    spread = {
        "mean": returns.mean(),
        "std": returns.std(),
        "min": returns.min(),
        "max": returns.max(),
    }
    return {
        "task": task.name,
        "quality": quality,
        "dialect": task.env.spec.dialect,
        "agents": data.layout.agents,
        "obs_dims": list(task.env.spec.obs_dims),
        "act_dims": list(task.env.spec.act_dims),
        "state_dim": task.env.spec.state_dim,
        "transitions": int(data.starts.shape[0]),
        "episodes": len(first),
        "behaviours": len(own),
        "return": {k: float(v) for k, v in spread.items()},
        "return_by_behaviour": own,
        "references": task.scale._asdict() if task.scale else None,
        "normalised": float(task.scale.normalise(returns.mean())) if task.scale else None,
        "sha256": content_hash(data),
        "origin": origin,
    }


def _rewards(data: Dataset) -> np.ndarray:
    """[M, N], float64: without unpacking the other blocks, which are most of the set."""
    widths = {name: math.prod(shape) for name, shape in data.layout.blocks.items()}
    at = sum(list(widths.values())[: list(widths).index("reward")])
    return np.asarray(data.rows[:, at : at + widths["reward"]], np.float64)

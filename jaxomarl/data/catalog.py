"""Data sets on demand: a recipe's name -> a packed data set and its manifest."""

import difflib
import zlib
from typing import Any

import jax
import numpy as np

from jaxomarl.base import Dataset, Task, refuse
from jaxomarl.data import files
from jaxomarl.data.dataset import content_hash, pack


def load(task: Task, quality: str = "", rows: int = 0, seed: int = 0) -> tuple[Dataset, dict[str, Any]]:
    """Make the data set `<task>/<quality>` with `rows` transitions, or read it from a folder, and its manifest.

    "" and 0 take the task's own defaults. The same arguments give the same bits on the same backend. Raises
    JaxomarlError for a quality that the task has no recipe for.
    """
    if "/" in quality or quality.startswith("."):
        if rows or seed:
            raise refuse("--rows", "nothing beside a folder", rows or seed, "A folder's rows are what they are.")
        return files.load(quality, task.env.spec)
    quality, rows = quality or task.quality, rows or task.rows
    if quality not in task.recipes:
        near = difflib.get_close_matches(quality, task.recipes, n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise refuse(
            "--data", f"one of {', '.join(task.recipes)} for {task.name}", quality, f"{hint}A folder needs a slash."
        )
    if rows < 1:
        raise refuse("--rows", "a positive number of transitions", rows, "Leave it out for the task's default.")
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(quality.encode()))
    data = pack(task.recipes[quality](key, rows), task.env.spec)
    return data, manifest(task, quality, data, origin={"recipe": quality, "rows": rows, "seed": seed})


def manifest(task: Task, quality: str, data: Dataset, origin: dict[str, Any]) -> dict[str, Any]:
    """Schema, dialect, counts, return statistics, content hash and origin of a data set: JSON-able."""
    reward = np.asarray(data.reward, np.float64)
    team = reward[:, 0] if data.layout.team == "first" else reward.mean(axis=1)
    first = np.flatnonzero(np.asarray(data.step) == 0)
    returns = np.add.reduceat(team, first)
    behaviour = np.asarray(data.behaviour)[first]
    own = {str(b): float(returns[behaviour == b].mean()) for b in np.unique(behaviour)}
    spread = {"mean": returns.mean(), "std": returns.std(), "min": returns.min(), "max": returns.max()}
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

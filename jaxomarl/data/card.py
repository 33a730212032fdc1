"""What a data set is, as a JSON-able description: arrays -> its card."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxomarl.base import Fields, Task
from jaxomarl.data import modes
from jaxomarl.data.raw import Raw

BINS = 60
EDGE = 1.0 - 1e-6
"""An action of this size or more is saturated; one above 1 is out of bounds."""


def describe(raw: Raw, name: str, task: Task | None = None) -> dict[str, Any]:
    """The card of a data set: counts, columns, actions, returns, behaviours, ends; numbers that are not finite: None.

    `task` gives columns their names, says which agents are the team and how its return is made, and brings the
    references; without one the return is the mean over all agents, and is not normalised. Nothing here refuses: a set
    that fits no task has a card too.
    """
    first = np.flatnonzero(raw.step == 0)
    moves = raw.left > 0
    team, how = team_reward(raw, task)
    returns = np.add.reduceat(team, first) if len(first) else np.zeros(0)
    return {
        "name": name,
        "task": task.name if task else None,
        "quality": raw.quality,
        "format": raw.format,
        "dialects": list(raw.dialects),
        "evidence": list(raw.evidence),
        "repairs": list(raw.repairs),
        "counts": {
            "rows": len(raw.step),
            "transitions": int(moves.sum()),
            "episodes": len(first),
            "length": _quantiles(raw.left[first], {"min": 0.0, "median": 0.5, "max": 1.0}),
        },
        "agents": raw.agents,
        "obs_dims": [x.shape[1] for x in raw.obs],
        "act_dims": [x.shape[1] for x in raw.action],
        "state_dim": None if raw.state is None else raw.state.shape[1],
        "discrete": raw.discrete,
        "columns": columns(raw, task.fields if task else None),
        "actions": _actions([x[moves] for x in raw.action], raw.discrete),
        "return": {"of": how, **_returns(returns), **_references(raw, task, returns)},
        "behaviours": _behaviours(raw, first, returns),
        "ends": _ends(raw, moves),
        "not_finite": {
            "obs": sum(_broken(x) for x in raw.obs),
            "action": sum(_broken(x[moves]) for x in raw.action),
            "reward": _broken(raw.reward),
            "state": 0 if raw.state is None else _broken(raw.state),
        },
        "duplicates": duplicates([*raw.obs, *raw.action], moves),
    }


# --- columns ---


def columns(raw: Raw, fields: Fields | None) -> list[dict[str, Any]]:
    """For each agent, {"obs": [...], "action": [...]}, each column {"name", "min", "mean", "max"}.

    Observations are of all rows, actions of transitions. Names are the task's where the widths agree, else "obs 0", ...
    """
    moves = raw.left > 0
    out = []
    for i, (obs, action) in enumerate(zip(raw.obs, raw.action, strict=True)):
        own = {}
        for kind, block in (("obs", obs), ("action", action[moves])):
            named: Sequence[Sequence[str]] = getattr(fields, kind) if fields else ()
            fits = i < len(named) and len(named[i]) == block.shape[1]
            names = named[i] if fits else [f"{kind} {k}" for k in range(block.shape[1])]
            table = np.stack(spans(block), axis=1)
            own[kind] = [
                {"name": name, "min": number(low), "mean": number(mean), "max": number(high)}
                for name, (low, mean, high) in zip(names, table, strict=True)
            ]
        out.append(own)
    return out


def spans(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(min, mean, max) of each column [C] over its finite values, the sums in float64; nan where it has none."""
    if not len(x):
        return tuple(np.full(x.shape[1], np.nan) for _ in range(3))  # type: ignore[return-value]
    good = np.isfinite(x)
    if good.all():
        return x.min(axis=0), x.mean(axis=0, dtype=np.float64), x.max(axis=0)
    count = good.sum(axis=0)
    low = np.where(good, x, np.inf).min(axis=0)
    high = np.where(good, x, -np.inf).max(axis=0)
    mean = np.where(good, x, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    return tuple(np.where(count > 0, z, np.nan) for z in (low, mean, high))  # type: ignore[return-value]


def _actions(action: Sequence[np.ndarray], discrete: bool) -> dict[str, Any]:
    """Continuous: least and largest, shares of saturated and of out-of-bounds numbers. Discrete: how often each."""
    if discrete:
        return {"share": [[number(x) for x in spans(a)[1]] for a in action]}
    count = max(1, sum(a.size for a in action))
    low = [a.min() for a in action if a.size]
    return {
        "min": number(min(low)) if low else None,
        "max": number(max(a.max() for a in action if a.size)) if low else None,
        "saturated": sum(int((np.abs(a) >= EDGE).sum()) for a in action) / count,
        "beyond": sum(int((np.abs(a) > 1.0).sum()) for a in action) / count,
    }


# --- returns ---


def team_reward(raw: Raw, task: Task | None) -> tuple[np.ndarray, str]:
    """The team's reward [M], float64, and how it is made; agents after the task's (a prey) are no part of it."""
    agents = min(task.env.spec.agents, raw.agents) if task else raw.agents
    reward = raw.reward[:, :agents].astype(np.float64)
    if task and task.env.spec.team == "first":
        return reward[:, 0], "agent 0's rewards"
    return reward.mean(axis=1), "the agents' mean reward" if agents > 1 else "the rewards"


def _returns(returns: np.ndarray) -> dict[str, Any]:
    """Moments, the mean's standard error (None of one episode), quartiles and a histogram of the finite returns."""
    good = returns[np.isfinite(returns)]
    if not len(good):
        return {"mean": None, "std": None, "error": None, "quantiles": None, "histogram": None}
    counts, edges = np.histogram(good, bins=_edges(float(good.min()), float(good.max())))
    wanted = {
        "min": 0.0,
        "5 %": 0.05,
        "25 %": 0.25,
        "median": 0.5,
        "75 %": 0.75,
        "95 %": 0.95,
        "max": 1.0,
    }
    return {
        "mean": number(good.mean()),
        "std": number(good.std()),
        "error": number(good.std(ddof=1) / np.sqrt(len(good))) if len(good) > 1 else None,
        "quantiles": _quantiles(good, wanted),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _edges(low: float, high: float) -> np.ndarray:
    """At most 62 edges at multiples of 1, 2, 10, 20, 100, ...: round steps hide no quantum of reward, and they nest."""
    least = (high - low) / BINS
    if least < 1e-9 * max(1.0, abs(low), abs(high)):
        return np.array([low - 0.5, low + 0.5])
    power = 10.0 ** np.floor(np.log10(least))
    width = next(float(k * power) for k in (1, 2, 10) if k * power >= least)
    return width * np.arange(np.floor(low / width), np.floor(high / width) + 2)


def _references(raw: Raw, task: Task | None, returns: np.ndarray) -> dict[str, Any]:
    """The task's references and the normalised mean; without them, why the set is scored raw only."""
    none = {"references": None, "normalised": None}
    if task is None:
        return {**none, "note": "raw only: no task was named, so there are no references"}
    if task.scale is None:
        return {**none, "note": f"raw only: {task.name} has no references"}
    dialect = task.env.spec.dialect
    if dialect not in raw.dialects:
        made = " or ".join(raw.dialects) or "unknown rules"
        return {**none, "note": f"raw only: the data are of {made}, the references of {dialect}"}
    mean = returns.mean() if len(returns) else np.nan
    return {
        "references": task.scale._asdict(),
        "normalised": number(task.scale.normalise(mean)),
        "note": "",
    }


def _behaviours(raw: Raw, first: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
    """Each behaviour's episodes and mean return where rows carry numbers; an estimate of the modes where not."""
    made = raw.behaviour[first]
    known = bool((made != 0).any())
    own: dict[str, Any] = {}
    if known:
        numbers, at, episodes = np.unique(made, return_inverse=True, return_counts=True)
        means = np.bincount(at.reshape(-1), weights=returns) / episodes
        own = {
            str(b): {"episodes": int(n), "return": number(m)}
            for b, n, m in zip(numbers, episodes, means, strict=True)
        }
    found = None if known and raw.format == "jaxomarl" else modes.estimate(raw)
    estimate = found and {
        "count": found.count,
        "at_most": modes.MOST,
        "dispersion": found.dispersion,
    }
    return {"known": known, "count": len(own) if known else None, "each": own, "estimate": estimate}


# --- rows ---


def _ends(raw: Raw, moves: np.ndarray) -> dict[str, int | bool]:
    """How episodes end; `stray` terminations stand before an episode's last transition."""
    last, done = raw.left == 1, raw.done > 0
    return {
        "terminations": int((done & last).sum()),
        "time_outs": int((last & ~done).sum()),
        "stray": int((done & moves & ~last).sum()),
        "distinct": raw.distinct,
        "unknown_successors": int((moves & (raw.known == 0)).sum()),
    }


def duplicates(blocks: Sequence[np.ndarray], moves: np.ndarray) -> float | None:
    """Share of transitions whose observations and actions, bit by bit, an earlier one has too; None without any."""
    at = np.flatnonzero(moves)
    if not len(at):
        return None
    rng, slices = np.random.default_rng(0), 1 << 15
    odd = [
        rng.integers(0, 1 << 63, block.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for block in blocks
    ]
    hashed = np.zeros(len(at), np.uint64)
    for k in range(0, len(at), slices):
        for block, factors in zip(blocks, odd, strict=True):
            bits = (block[at[k : k + slices]].astype(np.float32) + np.float32(0.0)).view(
                np.uint32
            )  # -0.0 becomes 0.0
            bits ^= bits >> np.uint32(15)  # round numbers end in zero bits, which a product keeps
            hashed[k : k + slices] += (bits * factors).sum(
                axis=1
            )  # modulo 2^64: two of 10^6 rows collide in 10^-5
    return 1.0 - len(np.unique(hashed)) / len(hashed)


def _broken(x: np.ndarray) -> int:
    return int(x.size - np.isfinite(x).sum())


def _quantiles(x: np.ndarray, wanted: Mapping[str, float]) -> dict[str, float | None]:
    values = np.quantile(x, list(wanted.values())) if len(x) else [np.nan] * len(wanted)
    return {k: number(v) for k, v in zip(wanted, values, strict=True)}


def number(x: Any) -> float | None:
    """A number that JSON has."""
    return float(x) if np.isfinite(x) else None

"""Whether two data sets hold the same rows, and how far apart they are where not."""

from typing import Any

import numpy as np

from jaxomarl.base import Task
from jaxomarl.data.card import number, team_reward
from jaxomarl.data.raw import Raw

SHOWN = 3


def compare(a: Raw, b: Raw, task: Task | None = None) -> dict[str, Any]:
    """{"same", "shapes", "counts", "rows", "columns", "return", "beside"}: JSON-able; columns and rows where unlike.

    The same content is equal observations, actions, rewards, ends, episodes and known successors, value by value, and
    equal states and legal actions where both have them. `beside` lists what may differ in sets that are the same: the
    format, the behaviours' numbers, a state that only one has.
    """
    pairs = _pairs(a, b)
    shapes: dict[str, Any] = {
        name: {"a": list(x.shape), "b": list(y.shape)}
        for name, (x, y) in pairs.items()
        if x.shape != y.shape
    }
    if a.agents != b.agents:
        shapes["agents"] = {"a": a.agents, "b": b.agents}
    same = not shapes and all(np.array_equal(x, y, equal_nan=True) for x, y in pairs.values())
    return {
        "same": same,
        "shapes": shapes,
        "counts": {"a": _counts(a), "b": _counts(b)},
        "rows": [] if same else _first_rows(pairs),
        "columns": [] if same else _columns(a, b),
        "return": _return(a, b, task),
        "beside": _beside(a, b),
    }


def _pairs(a: Raw, b: Raw) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Arrays of both that make the content, by name."""
    out: dict[str, tuple[Any, Any]] = {}
    for i in range(min(a.agents, b.agents)):
        out[f"obs of agent {i}"] = a.obs[i], b.obs[i]
        out[f"action of agent {i}"] = a.action[i], b.action[i]
    out |= {
        name: (getattr(a, name), getattr(b, name))
        for name in ("reward", "done", "step", "left", "known")
    }
    for name in ("state", "available"):
        if getattr(a, name) is not None and getattr(b, name) is not None:
            out[name] = getattr(a, name), getattr(b, name)
    return out


def _counts(raw: Raw) -> dict[str, int]:
    return {
        "agents": raw.agents,
        "transitions": int((raw.left > 0).sum()),
        "episodes": int((raw.step == 0).sum()),
        "terminations": int((raw.done > 0).sum()),
        "unknown_successors": int(((raw.left > 0) & (raw.known == 0)).sum()),
    }


def _first_rows(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """The first rows that differ, of the fields that are as wide in both: {"field", "row", "differ", "a", "b"}."""
    out = []
    for name, (x, y) in pairs.items():
        if x.shape[1:] != y.shape[1:]:
            continue
        rows = min(len(x), len(y))
        unlike = ~((x[:rows] == y[:rows]) | (np.isnan(x[:rows]) & np.isnan(y[:rows]))).reshape(
            rows, -1
        ).all(axis=1)
        for row in np.flatnonzero(unlike)[:SHOWN]:
            differ, show = (
                int(unlike.sum()),
                lambda z, row=row: [number(v) for v in np.ravel(z[row])[:24]],
            )
            out.append(
                {"field": name, "row": int(row), "differ": differ, "a": show(x), "b": show(y)}
            )
    return sorted(out, key=lambda r: r["row"])


def _columns(a: Raw, b: Raw) -> list[dict[str, Any]]:
    """Columns whose moments differ, the farthest first: means and deviations, and their differences in standard errors.

    The errors are those of independent rows; rows of an episode are not, so a few of them are no finding.
    """
    out = []
    now_a, now_b = a.left > 0, b.left > 0
    blocks = {
        f"obs of agent {i}": (a.obs[i][now_a], b.obs[i][now_b])
        for i in range(min(a.agents, b.agents))
    }
    blocks |= {
        f"action of agent {i}": (a.action[i][now_a], b.action[i][now_b])
        for i in range(min(a.agents, b.agents))
    }
    blocks["reward"] = a.reward[now_a], b.reward[now_b]
    for name, (x, y) in blocks.items():
        if x.shape[1:] != y.shape[1:] or not len(x) or not len(y):
            continue
        (mean_a, std_a, n_a), (mean_b, std_b, n_b) = _moments(x), _moments(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = (mean_b - mean_a) / np.sqrt(std_a**2 / n_a + std_b**2 / n_b)
            spread = (std_b - std_a) / np.sqrt(std_a**2 / (2 * n_a) + std_b**2 / (2 * n_b))
        unlike = (mean_a != mean_b) | (std_a != std_b)
        for k in np.flatnonzero(unlike):
            numbers = {
                "mean_a": mean_a[k],
                "mean_b": mean_b[k],
                "std_a": std_a[k],
                "std_b": std_b[k],
            }
            errors = {"mean_errors": shift[k], "std_errors": spread[k]}
            out.append(
                {
                    "column": f"{name}, column {k}",
                    **{n: number(v) for n, v in {**numbers, **errors}.items()},
                }
            )
    far = lambda c: max(
        abs(c[k]) if c[k] is not None else np.inf for k in ("mean_errors", "std_errors")
    )
    return sorted(out, key=far, reverse=True)


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(mean, deviation, rows) of each column, summed in float64."""
    return x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64), len(x)


def _return(a: Raw, b: Raw, task: Task | None) -> dict[str, Any]:
    """Mean returns of both, and the largest gap of their distribution functions (Kolmogorov and Smirnov)."""
    (x, how), (y, _) = (_returns(raw, task) for raw in (a, b))
    at = np.concatenate([x, y])
    gap = None
    if len(x) and len(y) and np.isfinite(at).all():
        below = [np.searchsorted(np.sort(z), at, side="right") / len(z) for z in (x, y)]
        gap = float(np.abs(below[0] - below[1]).max())
    mean = lambda z: number(z.mean()) if len(z) else None
    return {"of": how, "a": mean(x), "b": mean(y), "ks_distance": gap}


def _returns(raw: Raw, task: Task | None) -> tuple[np.ndarray, str]:
    team, how = team_reward(raw, task)
    first = np.flatnonzero(raw.step == 0)
    return (np.add.reduceat(team, first) if len(first) else np.zeros(0)), how


def _beside(a: Raw, b: Raw) -> list[str]:
    """What differs beside the content, one line each."""
    out = []
    for name in ("format", "dialects", "quality", "discrete", "distinct"):
        if getattr(a, name) != getattr(b, name):
            out.append(f"{name}: {getattr(a, name)!r} and {getattr(b, name)!r}")
    for name in ("state", "available"):
        if (getattr(a, name) is None) != (getattr(b, name) is None):
            out.append(f"{name}: only {'a' if getattr(b, name) is None else 'b'} has it")
    if a.behaviour.shape != b.behaviour.shape or (a.behaviour != b.behaviour).any():
        out.append(
            f"behaviours: {len(np.unique(a.behaviour))} and {len(np.unique(b.behaviour))} numbers, or other rows"
        )
    return out

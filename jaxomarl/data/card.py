"""The card of a data set: a description of its arrays that JSON can hold."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import Fields, Task
from jaxomarl.data import modes
from jaxomarl.data.raw import Raw

BINS = 60
"""Bins of the histogram of returns, about."""
EDGE = 1.0 - 1e-6
"""An action of this size or more is saturated; one above 1 is out of bounds."""
SLICE_ROWS = 1 << 15
"""Rows that are hashed at a time."""
LENGTH_QUANTILES = {"min": 0.0, "median": 0.5, "max": 1.0}
RETURN_QUANTILES = {
    "min": 0.0,
    "5 %": 0.05,
    "25 %": 0.25,
    "median": 0.5,
    "75 %": 0.75,
    "95 %": 0.95,
    "max": 1.0,
}


def describe(raw: Raw, name: str, task: Task | None = None) -> dict[str, Any]:
    """The card of a data set: counts, columns, actions, returns, behaviours and ends.

    Numbers that are not finite are None. `task` gives columns their names, says which agents are
    the team and how its return is computed, and has the references. Without one the return is the
    mean over all agents, and it is not normalised. Nothing is refused here: a set that fits no task
    has a card too.
    """
    first = np.flatnonzero(raw.step == 0)
    transitions = raw.left > 0
    returns, how = team_returns(raw, task)
    fields = task.fields if task else None
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
            "transitions": int(transitions.sum()),
            "episodes": len(first),
            "length": _quantiles(raw.left[first], LENGTH_QUANTILES),
        },
        "agents": raw.agents,
        "obs_dims": [x.shape[1] for x in raw.obs],
        "act_dims": [x.shape[1] for x in raw.action],
        "state_dim": None if raw.state is None else raw.state.shape[1],
        "discrete": raw.discrete,
        "columns": describe_columns(raw, fields),
        "actions": _actions([x[transitions] for x in raw.action], raw.discrete, _legal(raw)),
        "return": {"of": how, **_returns(returns), **_references(raw, task, returns)},
        "behaviours": _behaviours(raw, first, returns),
        "ends": _ends(raw, transitions),
        "not_finite": _not_finite(raw, transitions),
        "duplicates": duplicates([*raw.obs, *raw.action], transitions),
    }


# --- columns ---


class Spans(NamedTuple):
    """Least, mean and largest finite value of each column [C]; NaN where a column has none."""

    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def describe_columns(raw: Raw, fields: Fields | None) -> list[dict[str, Any]]:
    """For each agent, {"obs": [...], "action": [...]}; a column is {"name", "min", "mean", "max"}.

    Observations are those of all rows, actions those of transitions. Names are the task's where the
    widths agree, else "obs 0", ...
    """
    transitions = raw.left > 0
    described = []
    for i, (obs, action) in enumerate(zip(raw.obs, raw.action, strict=True)):
        obs_names = _column_names("obs", obs.shape[1], fields, i)
        action_names = _column_names("action", action.shape[1], fields, i)
        described.append(
            {
                "obs": _describe_block(obs, obs_names),
                "action": _describe_block(action[transitions], action_names),
            }
        )
    return described


def _column_names(kind: str, width: int, fields: Fields | None, agent: int) -> Sequence[str]:
    """The task's names of an agent's columns where there are as many, else "obs 0", ..."""
    if fields is not None:
        of_agents = getattr(fields, kind)
        if agent < len(of_agents) and len(of_agents[agent]) == width:
            return of_agents[agent]
    return [f"{kind} {k}" for k in range(width)]


def _describe_block(block: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Name and span of each column of a block [M, C]."""
    low, mean, high = spans(block)
    described = []
    for column, name in enumerate(names):
        described.append(
            {
                "name": name,
                "min": json_number(low[column]),
                "mean": json_number(mean[column]),
                "max": json_number(high[column]),
            }
        )
    return described


def spans(x: np.ndarray) -> Spans:
    """The span of each column of [M, C] over its finite values, summed in float64."""
    if not len(x):
        nothing = np.full(x.shape[1], np.nan)
        return Spans(nothing, nothing, nothing)
    finite = np.isfinite(x)
    if finite.all():
        return Spans(x.min(axis=0), x.mean(axis=0, dtype=np.float64), x.max(axis=0))

    count = finite.sum(axis=0)
    low = np.where(finite, x, np.inf).min(axis=0)
    high = np.where(finite, x, -np.inf).max(axis=0)
    total = np.where(finite, x, 0.0).sum(axis=0, dtype=np.float64)
    some = count > 0
    return Spans(
        low=np.where(some, low, np.nan),
        mean=np.where(some, total / np.maximum(count, 1), np.nan),
        high=np.where(some, high, np.nan),
    )


def _legal(raw: Raw) -> list[np.ndarray] | None:
    """Legal actions [T, A] of each agent in all transitions; None where the set has no masks."""
    if raw.available is None:
        return None
    masks = np.asarray(raw.available)[raw.left > 0]
    return [masks[:, i, : x.shape[1]] for i, x in enumerate(raw.action)]


def _actions(
    action: Sequence[np.ndarray], discrete: bool, legal: Sequence[np.ndarray] | None = None
) -> dict[str, Any]:
    """What the agents' actions [T, A] are.

    For continuous actions: their least and largest number, and the shares that are saturated and
    out of bounds. For discrete ones: how often each is taken and, where the set says it, how often
    it is legal.
    """
    if discrete:
        described_choices = {"share": [[json_number(x) for x in spans(a).mean] for a in action]}
        if legal is not None:
            shares = [mask.mean(axis=0, dtype=np.float64) for mask in legal]
            described_choices["legal"] = [[json_number(x) for x in share] for share in shares]
        return described_choices
    described: dict[str, Any] = {"min": None, "max": None}
    some = [a for a in action if a.size]
    if some:
        described["min"] = json_number(min(a.min() for a in some))
        described["max"] = json_number(max(a.max() for a in some))
    sizes = np.abs(np.concatenate([a.ravel() for a in action]))
    count = max(1, len(sizes))
    described["saturated"] = int((sizes >= EDGE).sum()) / count
    described["beyond"] = int((sizes > 1.0).sum()) / count
    return described


# --- returns ---


def team_returns(raw: Raw, task: Task | None) -> tuple[np.ndarray, str]:
    """Each episode's team return [E], float64, and how it is computed."""
    team, how = _team_reward(raw, task)
    first = np.flatnonzero(raw.step == 0)
    if not len(first):
        return np.zeros(0), how
    return np.add.reduceat(team, first), how


def _team_reward(raw: Raw, task: Task | None) -> tuple[np.ndarray, str]:
    """The team's reward [M], float64, and how it is computed.

    Agents after the task's own (a prey) are no part of the team.
    """
    agents = raw.agents
    if task:
        agents = min(task.env.spec.agents, raw.agents)
    reward = raw.reward[:, :agents].astype(np.float64)
    if task and task.env.spec.team == "first":
        return reward[:, 0], "agent 0's rewards"
    if agents == 1:
        return reward[:, 0], "the rewards"
    return reward.mean(axis=1), "the agents' mean reward"


def _returns(returns: np.ndarray) -> dict[str, Any]:
    """Moments, quantiles and a histogram of the finite returns.

    `error` is the mean's standard error, None for one episode.
    """
    finite = returns[np.isfinite(returns)]
    if not len(finite):
        return dict.fromkeys(("mean", "std", "error", "quantiles", "histogram"))
    error = None
    if len(finite) > 1:
        error = json_number(finite.std(ddof=1) / np.sqrt(len(finite)))
    bins = _edges(float(finite.min()), float(finite.max()))
    counts, edges = np.histogram(finite, bins=bins)
    return {
        "mean": json_number(finite.mean()),
        "std": json_number(finite.std()),
        "error": error,
        "quantiles": _quantiles(finite, RETURN_QUANTILES),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _edges(low: float, high: float) -> np.ndarray:
    """At most 62 bin edges, at multiples of 1, 2, 10, 20, 100, ...

    Round steps hide no quantum of reward, and the edges of one step are edges of a smaller one too.
    """
    least = (high - low) / BINS
    if least < 1e-9 * max(1.0, abs(low), abs(high)):
        return np.array([low - 0.5, low + 0.5])
    power = 10.0 ** np.floor(np.log10(least))
    width = next(float(k * power) for k in (1, 2, 10) if k * power >= least)
    return width * np.arange(np.floor(low / width), np.floor(high / width) + 2)


def _references(raw: Raw, task: Task | None, returns: np.ndarray) -> dict[str, Any]:
    """The task's references and the normalised mean, or why the set has raw scores only."""
    note = _why_raw_only(raw, task)
    if note or task is None or task.scale is None:
        return {"references": None, "normalised": None, "note": note}
    mean = returns.mean() if len(returns) else np.nan
    return {
        "references": task.scale._asdict(),
        "normalised": json_number(task.scale.normalise(mean)),
        "note": "",
    }


def _why_raw_only(raw: Raw, task: Task | None) -> str:
    """Why a set's return cannot be normalised; "" where it can."""
    if task is None:
        return "raw only: no task was named, so there are no references"
    if task.scale is None:
        return f"raw only: {task.name} has no references"
    dialect = task.env.spec.dialect
    if dialect not in raw.dialects:
        of_data = " or ".join(raw.dialects) or "unknown rules"
        return f"raw only: the data are of {of_data}, the references of {dialect}"
    return ""


def _behaviours(raw: Raw, first: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
    """Each behaviour's episodes and mean return, where rows say who made them.

    The number of modes is estimated unless the set is our own and says so.
    """
    behaviour = raw.behaviour[first]
    known = bool((behaviour != 0).any())
    each: dict[str, Any] = {}
    if known:
        numbers, which, episodes = np.unique(behaviour, return_inverse=True, return_counts=True)
        means = np.bincount(which.reshape(-1), weights=returns) / episodes
        for number, count, mean in zip(numbers, episodes, means, strict=True):
            each[str(number)] = {"episodes": int(count), "return": json_number(mean)}

    estimate = None
    if not known or raw.format != "jaxomarl":
        found = modes.estimate(raw)
        if found:
            estimate = {
                "count": found.count,
                "at_most": modes.MOST,
                "dispersion": found.dispersion,
            }
    return {
        "known": known,
        "count": len(each) if known else None,
        "each": each,
        "estimate": estimate,
    }


# --- rows ---


def _ends(raw: Raw, transitions: np.ndarray) -> dict[str, int | bool]:
    """How episodes end; `stray` terminations stand before an episode's last transition."""
    last = raw.left == 1
    done = raw.done > 0
    return {
        "terminations": int((done & last).sum()),
        "time_outs": int((last & ~done).sum()),
        "stray": int((done & transitions & ~last).sum()),
        "distinct": raw.distinct,
        "unknown_successors": int((transitions & (raw.known == 0)).sum()),
    }


def _not_finite(raw: Raw, transitions: np.ndarray) -> dict[str, int]:
    """How many numbers of each block are not finite."""
    return {
        "obs": sum(_count_not_finite(x) for x in raw.obs),
        "action": sum(_count_not_finite(x[transitions]) for x in raw.action),
        "reward": _count_not_finite(raw.reward),
        "state": 0 if raw.state is None else _count_not_finite(raw.state),
    }


def _count_not_finite(x: np.ndarray) -> int:
    return int(x.size - np.isfinite(x).sum())


def duplicates(blocks: Sequence[np.ndarray], transitions: np.ndarray) -> float | None:
    """Share of transitions that repeat an earlier one's observations and actions, bit by bit.

    None for a set without transitions. Rows are compared by hashes modulo 2^64; the chance that two
    of 10^6 different rows collide is 10^-5.
    """
    rows = np.flatnonzero(transitions)
    if not len(rows):
        return None
    rng = np.random.default_rng(0)
    odd_factors = []
    for block in blocks:
        drawn = rng.integers(0, 1 << 63, block.shape[1], dtype=np.uint64)
        odd_factors.append(drawn * np.uint64(2) + np.uint64(1))

    hashed = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), SLICE_ROWS):
        part = slice(start, start + SLICE_ROWS)
        for block, factors in zip(blocks, odd_factors, strict=True):
            # adding zero makes 0.0 of -0.0
            values = block[rows[part]].astype(np.float32) + np.float32(0.0)
            bits = values.view(np.uint32)
            # round numbers end in zero bits, which a product would keep
            bits ^= bits >> np.uint32(15)
            hashed[part] += (bits * factors).sum(axis=1)
    return 1.0 - len(np.unique(hashed)) / len(hashed)


# --- numbers ---


def _quantiles(x: np.ndarray, wanted: Mapping[str, float]) -> dict[str, float | None]:
    """The quantiles of x by name; None where there are no values."""
    if not len(x):
        return dict.fromkeys(wanted)
    values = np.quantile(x, list(wanted.values()))
    return {name: json_number(value) for name, value in zip(wanted, values, strict=True)}


def json_number(x: float | np.number) -> float | None:
    """The number, or None where JSON has no such number."""
    return float(x) if np.isfinite(x) else None

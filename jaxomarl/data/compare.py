"""Whether two data sets have the same rows, and how far apart they are where not."""

from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import Task
from jaxomarl.data.card import json_number, team_returns
from jaxomarl.data.fidelity import ks_distance
from jaxomarl.data.raw import Raw
from jaxomarl.data.rules import candidates

SHOWN_ROWS = 3
"""Rows of each field that are shown where they differ."""
SHOWN_NUMBERS = 24
"""Numbers of such a row that are shown."""

Pair = tuple[np.ndarray, np.ndarray]


def compare(a: Raw, b: Raw, task: Task | None = None) -> dict[str, Any]:
    """How two sets differ, as values that JSON has.

    The entries are "same", "shapes", "counts", "rows", "columns", "return" and "beside". The same
    content is equal observations, actions, rewards, ends, episodes and known successors, value by
    value, and equal states and legal actions where both have them. "rows" and "columns" are empty
    for equal sets. "beside" lists what may differ in sets of the same content: the format, the
    behaviours' numbers, a state that only one has. Ends at the time limit of a task that never
    terminates are time-outs, whatever the format calls them.
    """
    a = without_time_outs(a, task)
    b = without_time_outs(b, task)
    pairs = _pairs(a, b)
    shapes: dict[str, Any] = {}
    for name, (x, y) in pairs.items():
        if x.shape != y.shape:
            shapes[name] = {"a": list(x.shape), "b": list(y.shape)}
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
        "beside": _other_differences(a, b),
    }


def without_time_outs(raw: Raw, task: Task | None) -> Raw:
    """The rows with done = 0 at the time limit of a task that never terminates.

    Without a task, the rules are those that the set's rows agree with, if all of them say so.
    """
    if task is not None:
        spec = task.env.spec
        limits = {spec.horizon if spec.terminates == "never" else None}
    else:
        limits = {rules.horizon if rules.never else None for rules in candidates(raw)}
    if len(limits) != 1 or None in limits:
        return raw
    at_limit = (raw.left == 1) & (raw.step + 1 == limits.pop())
    return raw._replace(done=np.where(at_limit, np.zeros_like(raw.done), raw.done))


def _pairs(a: Raw, b: Raw) -> dict[str, Pair]:
    """The arrays of both sets that are their content, by name."""
    pairs: dict[str, Pair] = {}
    for i in range(min(a.agents, b.agents)):
        pairs[f"obs of agent {i}"] = a.obs[i], b.obs[i]
        pairs[f"action of agent {i}"] = a.action[i], b.action[i]
    for name in ("reward", "done", "step", "left", "known"):
        pairs[name] = getattr(a, name), getattr(b, name)
    for name in ("state", "available"):
        if getattr(a, name) is not None and getattr(b, name) is not None:
            pairs[name] = getattr(a, name), getattr(b, name)
    return pairs


def _counts(raw: Raw) -> dict[str, int]:
    """The counts of a set that are shown next to the other's."""
    transitions = raw.left > 0
    return {
        "agents": raw.agents,
        "transitions": int(transitions.sum()),
        "episodes": int((raw.step == 0).sum()),
        "terminations": int((raw.done > 0).sum()),
        "time_outs": int(((raw.left == 1) & (raw.done == 0)).sum()),
        "unknown_successors": int((transitions & (raw.known == 0)).sum()),
    }


# --- rows ---


def _first_rows(pairs: dict[str, Pair]) -> list[dict[str, Any]]:
    """The first rows that differ, of the fields that are as wide in both sets.

    A row is {"field", "row", "differ", "a", "b"}; "differ" counts the rows of its field.
    """
    found = []
    for name, (x, y) in pairs.items():
        if x.shape[1:] != y.shape[1:]:
            continue
        common = min(len(x), len(y))
        differ = _differing_rows(x[:common], y[:common])
        for row in np.flatnonzero(differ)[:SHOWN_ROWS]:
            found.append(
                {
                    "field": name,
                    "row": int(row),
                    "differ": int(differ.sum()),
                    "a": _shown(x, int(row)),
                    "b": _shown(y, int(row)),
                }
            )
    return sorted(found, key=lambda entry: entry["row"])


def _differing_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each row [M] of two arrays of one shape differs; NaN equals NaN."""
    equal = (x == y) | (np.isnan(x) & np.isnan(y))
    return ~equal.reshape(len(x), -1).all(axis=1)


def _shown(x: np.ndarray, row: int) -> list[float | None]:
    """The first numbers of a row."""
    return [json_number(number) for number in np.ravel(x[row])[:SHOWN_NUMBERS]]


# --- columns ---


class Moments(NamedTuple):
    """Mean and standard deviation of each column [C], and the number of rows."""

    mean: np.ndarray
    std: np.ndarray
    rows: int


def _columns(a: Raw, b: Raw) -> list[dict[str, Any]]:
    """Columns whose moments differ, the farthest first.

    A column has the means and deviations of both sets, and their differences in standard errors.
    These are the errors of independent rows; rows of an episode are not, so a few of them are no
    finding.
    """
    found = []
    for name, (x, y) in _blocks_of_transitions(a, b).items():
        if x.shape[1:] == y.shape[1:] and len(x) and len(y):
            found += _differing_columns(name, _moments(x), _moments(y))
    return sorted(found, key=_distance, reverse=True)


def _blocks_of_transitions(a: Raw, b: Raw) -> dict[str, Pair]:
    """Observations, actions and rewards of both sets' transitions, by name."""
    in_a = a.left > 0
    in_b = b.left > 0
    blocks: dict[str, Pair] = {}
    for kind in ("obs", "action"):
        for i in range(min(a.agents, b.agents)):
            x = getattr(a, kind)[i]
            y = getattr(b, kind)[i]
            blocks[f"{kind} of agent {i}"] = x[in_a], y[in_b]
    blocks["reward"] = a.reward[in_a], b.reward[in_b]
    return blocks


def _differing_columns(name: str, a: Moments, b: Moments) -> list[dict[str, Any]]:
    """The columns of one block whose moments differ."""
    mean_variance = a.std**2 / a.rows + b.std**2 / b.rows
    std_variance = a.std**2 / (2 * a.rows) + b.std**2 / (2 * b.rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_errors = (b.mean - a.mean) / np.sqrt(mean_variance)
        std_errors = (b.std - a.std) / np.sqrt(std_variance)

    differs = (a.mean != b.mean) | (a.std != b.std)
    return [
        {
            "column": f"{name}, column {k}",
            "mean_a": json_number(a.mean[k]),
            "mean_b": json_number(b.mean[k]),
            "std_a": json_number(a.std[k]),
            "std_b": json_number(b.std[k]),
            "mean_errors": json_number(mean_errors[k]),
            "std_errors": json_number(std_errors[k]),
        }
        for k in np.flatnonzero(differs)
    ]


def _distance(column: dict[str, Any]) -> float:
    """The larger difference of a column's moments, in standard errors; infinite where unknown."""
    errors = [column["mean_errors"], column["std_errors"]]
    if None in errors:
        return np.inf
    return max(abs(error) for error in errors)


def _moments(x: np.ndarray) -> Moments:
    """The moments of each column, summed in float64."""
    mean = x.mean(axis=0, dtype=np.float64)
    std = x.std(axis=0, dtype=np.float64)
    return Moments(mean, std, len(x))


# --- returns and the rest ---


def _return(a: Raw, b: Raw, task: Task | None) -> dict[str, Any]:
    """Mean returns of both sets, and the Kolmogorov-Smirnov distance of their returns."""
    returns_a, how = team_returns(a, task)
    returns_b, _ = team_returns(b, task)
    distance = None
    finite = np.isfinite(returns_a).all() and np.isfinite(returns_b).all()
    if len(returns_a) and len(returns_b) and finite:
        distance = ks_distance(returns_a, returns_b)
    return {
        "of": how,
        "a": _mean(returns_a),
        "b": _mean(returns_b),
        "ks_distance": distance,
    }


def _mean(x: np.ndarray) -> float | None:
    """The mean, or None where there are no values."""
    return json_number(x.mean()) if len(x) else None


def _other_differences(a: Raw, b: Raw) -> list[str]:
    """What differs apart from the content, one line each."""
    lines = []
    for name in ("format", "dialects", "quality", "discrete", "distinct"):
        if getattr(a, name) != getattr(b, name):
            lines.append(f"{name}: {getattr(a, name)!r} and {getattr(b, name)!r}")
    for name in ("state", "available"):
        in_a = getattr(a, name) is not None
        in_b = getattr(b, name) is not None
        if in_a != in_b:
            owner = "a" if in_a else "b"
            lines.append(f"{name}: only {owner} has it")
    if not np.array_equal(a.behaviour, b.behaviour):
        numbers_a = len(np.unique(a.behaviour))
        numbers_b = len(np.unique(b.behaviour))
        lines.append(f"behaviours: {numbers_a} and {numbers_b} numbers, or other rows")
    return lines

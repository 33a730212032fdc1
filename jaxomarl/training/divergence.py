"""Runs whose numbers stop being finite: which run, which update, which array of its state.

A run has diverged when an array of its state that was finite at first is not finite at the end of a
chunk. From there on its state stays as it is, and its metrics are NaN; the other runs continue. The
states are looked at whenever they are saved, and after each chunk with a metric that is not finite.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxomarl import documents

FILE = "diverged.json"
"""File of a stage's folder that names its diverged runs, once there is one."""


@dataclass(frozen=True)
class Divergence:
    """When and where a run's numbers stopped being finite."""

    update: int
    """The first update with a metric that is not finite; without one, the last of its chunk."""
    metric: str
    """The metric that showed it; "" where none did."""
    leaf: str
    """The first array of the state that is not finite at the end of that chunk."""

    def __str__(self) -> str:
        where = f"{self.metric} at update {self.update}" if self.metric else f"by {self.update}"
        return f"{where}, {self.leaf}"


Found = dict[str, Divergence]
"""Row, as in `Identity` -> its divergence."""


def first_bad_updates(metrics: Mapping[str, np.ndarray]) -> dict[int, tuple[int, str]]:
    """Run -> (number in the chunk of its first update with a bad metric, that metric's name).

    `metrics` are those of a chunk, name -> [U, chunk].
    """
    found: dict[int, tuple[int, str]] = {}
    for name, values in metrics.items():
        bad = ~np.isfinite(values)
        for r in np.flatnonzero(bad.any(axis=1)).tolist():
            first = (int(bad[r].argmax()), name)
            found[r] = min(found.get(r, first), first)
    return found


def bad_leaves(state: PyTree, runs: int) -> dict[int, list[str]]:
    """Run -> names of the arrays of its state that are not finite, in the order of the state."""
    found: dict[int, list[str]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        values = np.asarray(leaf)[:runs]
        finite = np.isfinite(values).reshape(runs, -1).all(axis=1)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        for r in np.flatnonzero(~finite).tolist():
            found.setdefault(r, []).append(name)
    return found


def everywhere(bad: Mapping[int, Collection[str]], runs: int) -> set[str]:
    """The arrays that are not finite in any run: a state may begin with a bound of infinity."""
    if len(bad) < runs:
        return set()
    return set.intersection(*(set(names) for names in bad.values()))


def with_rows(state: PyTree, rows: Mapping[int, Any]) -> PyTree:
    """The state with some runs' rows replaced, on the same devices."""
    for r, row in rows.items():
        put = lambda x, own, r=r: jax.device_put(x.at[r].set(own), x.sharding)
        state = jax.tree.map(put, state, row)
    return state


# --- kept next to the checkpoints ---


def as_facts(found: Mapping[str, Divergence]) -> dict[str, Any]:
    """What a JSON file says of divergences."""
    return {row: asdict(one) for row, one in found.items()}


def from_facts(facts: Mapping[str, Any]) -> Found:
    """The divergences that a JSON file says; JaxomarlError where it says something else."""
    kind = {"update": int, "metric": str, "leaf": str}
    documents.check_known(FILE, facts, "It is trained again.", **dict.fromkeys(facts, kind))
    return {row: Divergence(x["update"], x["metric"], x["leaf"]) for row, x in facts.items()}


def write(folder: Path, found: Found, ignored: Collection[str]) -> None:
    """Replace a stage's file in one step."""
    documents.write_sealed(folder / FILE, {"runs": as_facts(found), "ignored": sorted(ignored)})


def read(folder: Path, update: int) -> tuple[Found, set[str]]:
    """(divergences up to an update, arrays that are not looked at) of a stage's folder.

    JaxomarlError where its file is damaged.
    """
    if not (folder / FILE).exists():
        return {}, set()
    facts = documents.read_sealed(folder / FILE, "Delete the file.", runs=dict, ignored=[str])
    found = from_facts(facts["runs"])
    return {row: one for row, one in found.items() if one.update <= update}, set(facts["ignored"])

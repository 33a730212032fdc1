"""The cache of trained stages: a stage is trained once for each distinct (seed, fields).

A stage is found again by what it is, whichever system or command asks for it. A batch of rows that
were trained together lives in `<root>/<stage>-<digest>/`, which holds:

- `checkpoints/`,
- `executed`, one line for each chunk that was begun,
- `DONE`, which says what the rows are, once they are finished.
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl import documents
from jaxomarl.base import Stage, State
from jaxomarl.config import digest, static_fields, traced_fields
from jaxomarl.paths import named_in_errors
from jaxomarl.training import checkpoint
from jaxomarl.training.evaluation import Config

FORMAT = 2
"""Version of an identity; stages of another version are not found."""

Say = Callable[[str], None]
"""Prints a line for the user."""


class Identity(NamedTuple):
    """What R runs' copies of a stage are."""

    kind: str
    """Names the program and the data, which all runs share."""
    rows: tuple[str, ...]
    """What is particular to each run: its seed and its traced fields, as JSON."""

    @staticmethod
    def of(
        stage: Stage,
        cfgs: list[Config],
        seeds: list[int],
        facts: Mapping[str, Any],
    ) -> "Identity":
        """The identity of a stage for the runs of one group.

        `facts` names task, data and evaluation.
        """
        reaches = lambda field: stage.fields is None or field in stage.fields

        # --- what all runs share ---
        fixed = {f: v for f, v in static_fields(cfgs[0]).items() if reaches(f)}
        if stage.algorithm.act:
            # a stage that acts is evaluated: when and how often is part of what it is
            shared = {**facts, "every": stage.every}
        else:
            shared = {k: v for k, v in facts.items() if k != "episodes"}
        program = digest(FORMAT, stage.owner, stage.name, stage.steps, stage.chunk, fixed, shared)
        name = f"{stage.owner}-{stage.name}" if stage.owner else stage.name

        # --- what is particular to each run ---
        rows = []
        for cfg, seed in zip(cfgs, seeds, strict=True):
            own = {f: float(v) for f, v in traced_fields(cfg).items() if reaches(f)}
            rows.append(json.dumps([seed, own], sort_keys=True))
        return Identity(f"{name}-{program}", tuple(rows))


@dataclass
class TrainedStage:
    """A stage's final states and histories for U rows; arrays lead with U."""

    rows: tuple[str, ...]
    """What is particular to each row, as in `Identity`."""
    state: State
    metrics: dict[str, np.ndarray]
    """Name -> [U, C], means over each chunk."""
    evaluations: dict[str, np.ndarray]
    """Metric -> [U, V, E]."""
    health: dict[str, np.ndarray]
    """Figure -> [U, V - 1], after each mark."""
    facts: dict[str, Any]
    """Updates executed, seconds, seconds of compilation, and mapping."""

    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "state": self.state,
            "metrics": self.metrics,
            "evaluations": self.evaluations,
            "health": self.health,
        }


@dataclass
class Folder:
    """Where a batch of rows is kept while it trains; with `path` None nothing is kept on disk."""

    path: Path | None
    begun: int = 0

    def begin_chunk(self, chunk: int) -> None:
        """Note that a chunk starts, so that a killed process's work is counted."""
        self.begun += 1
        if self.path:
            file = self.path / "executed"
            with named_in_errors(file), open(file, "a", encoding="utf-8") as f:
                f.write(f"{chunk}\n")

    @property
    def executed(self) -> int:
        """Chunks begun so far, over all processes that worked on this batch."""
        if self.path and (self.path / "executed").exists():
            return len((self.path / "executed").read_text(encoding="utf-8").splitlines())
        return self.begun

    def save(self, chunk: int, trained: TrainedStage) -> None:
        """Commit a checkpoint after `chunk` chunks."""
        if self.path:
            checkpoint.save(self.path / "checkpoints", chunk, trained.arrays())

    def restore(self, like: Any, say: Say) -> tuple[int, Any] | None:
        """The newest checkpoint that can be read, as (chunk, arrays)."""
        if not self.path:
            return None
        return checkpoint.restore(self.path / "checkpoints", like, say)


class StageCache:
    """Finished stages in memory and under folders.

    The first folder is written; the others are only read (`--from`).
    """

    def __init__(self, *roots: Path) -> None:
        self.roots = [Path(r) for r in roots]
        self.here: dict[str, list[TrainedStage]] = {}

    def open(self, identity: Identity) -> Folder:
        """The folder in which these rows are, or will be, trained."""
        if not self.roots:
            return Folder(None)
        path = self.roots[0] / f"{identity.kind}-{digest(identity.rows)[:6]}"
        path.mkdir(parents=True, exist_ok=True)
        return Folder(path)

    def finish(self, identity: Identity, folder: Folder, trained: TrainedStage) -> None:
        """Record a batch as finished."""
        if folder.path:
            done = {"kind": identity.kind, "rows": trained.rows, "facts": trained.facts}
            part = folder.path / "DONE.part"
            with named_in_errors(part):
                part.write_text(json.dumps(done, indent=1), encoding="utf-8")
            os.replace(part, folder.path / "DONE")
        self.here.setdefault(identity.kind, []).append(trained)

    def find(
        self, kind: str, chunks: int, like: Callable[[int], Any], say: Say
    ) -> list[TrainedStage]:
        """Every finished batch of a kind whose last checkpoint can be read.

        `like(U)` gives the shapes of the arrays of U rows.
        """
        known = {trained.rows for trained in self.here.get(kind, [])}
        for done in self._finished(kind):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                trained = read_finished(done, kind, chunks, known, like, say)
                if trained:
                    self.here.setdefault(kind, []).append(trained)
                    known.add(trained.rows)
        return self.here.get(kind, [])

    def _finished(self, kind: str) -> Iterator[Path]:
        for root in self.roots:
            yield from sorted(root.glob(f"{kind}-*/DONE"))


def read_finished(
    done: Path,
    kind: str,
    chunks: int,
    known: Collection[tuple[str, ...]],
    like: Callable[[int], Any],
    say: Say,
) -> TrainedStage | None:
    """The batch whose DONE file this is; None where it is another kind, known, or not complete."""
    facts = documents.read(done, "It is trained again.", kind=str, rows=list, facts=dict)
    rows = tuple(facts["rows"])
    if facts["kind"] != kind or rows in known:
        return None
    restored = checkpoint.restore(done.parent / "checkpoints", like(len(rows)), say)
    if not restored:
        return None
    chunk, arrays = restored
    if chunk != chunks:  # an older checkpoint is no finished stage
        return None
    state = arrays.pop("state")
    return TrainedStage(rows, state, **jax.tree.map(np.asarray, arrays), facts=facts["facts"])


def gather(rows: tuple[str, ...], batches: list[TrainedStage]) -> TrainedStage:
    """The rows, in this order, from finished batches that together hold them all."""
    if len(batches) == 1 and batches[0].rows == rows:
        return batches[0]

    # --- where each row lies, when all batches are joined ---
    joined = [(b, row) for b, batch in enumerate(batches) for row in batch.rows]
    place = {row: i for i, (_, row) in enumerate(joined)}
    batch_of = {row: b for b, row in joined}
    index = np.array([place[row] for row in rows])

    # --- the rows of every array ---
    def join(*parts: Any) -> jax.Array:
        # through NumPy, because the batches may lie on different devices
        return jnp.asarray(np.concatenate([np.asarray(part) for part in parts])[index])

    def history(name: str) -> dict[str, np.ndarray]:
        parts = [getattr(batch, name) for batch in batches]
        return {k: np.concatenate([part[k] for part in parts])[index] for k in parts[0]}

    state = jax.tree.map(join, *(batch.state for batch in batches))
    used = sorted({batch_of[row] for row in rows})
    facts = {"batches": [batches[b].facts for b in used]}
    histories = {name: history(name) for name in ("metrics", "evaluations", "health")}
    return TrainedStage(rows, state, **histories, facts=facts)

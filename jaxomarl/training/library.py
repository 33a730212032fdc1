"""The cache of trained stages: a stage is trained once for each distinct (seed, fields).

A stage is found again by what it is, whichever system or command asks for it. A batch of rows that
were trained together lives in `<root>/<stage>-<digest>/`, which holds:

- `checkpoints/`,
- `executed`, one line for each chunk that was begun,
- `rows.json`, which says what the rows are,
- `DONE`, which says so again, once they are finished.
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl import documents
from jaxomarl.base import Stage, State
from jaxomarl.config import digest, static_fields, traced_fields
from jaxomarl.paths import named_in_errors, open_own, read_file
from jaxomarl.training import checkpoint, divergence
from jaxomarl.training.background import AtOnce
from jaxomarl.training.evaluation import Config

ROWS = "rows.json"
"""What a batch's rows are while it trains."""
BEGUN_AGAIN = "Its rows are trained from the start."
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

    def first_runs(self, finished: Collection[str]) -> list[int]:
        """The first run of each distinct row that is not among the finished ones."""
        first: dict[str, int] = {}
        for index, row in enumerate(self.rows):
            if row not in finished:
                first.setdefault(row, index)
        return list(first.values())


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
    diverged: divergence.Found = field(default_factory=dict)
    """The rows whose numbers stopped being finite."""

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
    cadence: checkpoint.Cadence = field(default_factory=checkpoint.Cadence)
    save_seconds: float = 0.0
    """What the saves of this process took; a stage's last one is beside the training."""

    def begin_chunk(self, chunk: int) -> None:
        """Note that a chunk starts, so that a killed process's work is counted."""
        self.begun += 1
        if self.path:
            file = self.path / "executed"
            with named_in_errors(file), open_own(file, os.O_APPEND) as f:
                f.write(f"{chunk}\n")

    @property
    def executed(self) -> int:
        """Chunks begun so far, over all processes that worked on this batch."""
        if self.path and (self.path / "executed").exists():
            return read_file(self.path / "executed").count(b"\n")
        return self.begun

    def save(self, chunk: int, trained: TrainedStage) -> None:
        """Commit a checkpoint after `chunk` chunks."""
        if self.path:
            with self.cadence.save():
                checkpoint.save(self.path / "checkpoints", chunk, trained.arrays())
            self.save_seconds += self.cadence.cost

    def note_diverged(self, found: divergence.Found, ignored: Collection[str]) -> None:
        """Note which rows have diverged, and the arrays that begin without finite numbers."""
        if self.path:
            divergence.write(self.path, found, ignored)

    def diverged(self, update: int) -> tuple[divergence.Found, set[str]]:
        """What `note_diverged` noted up to an update."""
        if not self.path:
            return {}, set()
        return divergence.read(self.path, update)

    def restore(self, like: Any, say: Say) -> tuple[int, Any] | None:
        """The newest checkpoint that can be read, as (chunk, arrays)."""
        if not self.path:
            return None
        return checkpoint.restore(self.path / "checkpoints", like, say)


class StageCache:
    """Finished stages in memory and under folders.

    The first folder is written; the others are only read (`--from`).
    """

    def __init__(
        self,
        *roots: Path,
        save_every: float | None = None,
        background: AtOnce | None = None,
    ) -> None:
        """The folders, the seconds between two checkpoints, and who writes finished stages."""
        self.roots = [Path(r) for r in roots]
        self.background = background or AtOnce()
        self.cadence = checkpoint.Cadence(save_every)
        self.here: dict[str, list[TrainedStage]] = {}

    def open(self, identity: Identity) -> Folder:
        """The folder in which these rows are, or will be, trained."""
        if not self.roots:
            return Folder(None)
        path = self.roots[0] / f"{identity.kind}-{digest(identity.rows)[:6]}"
        path.mkdir(parents=True, exist_ok=True)
        collect_leftovers(path)
        if not (path / ROWS).exists():
            documents.write_sealed(path / ROWS, {"kind": identity.kind, "rows": identity.rows})
        return Folder(path, cadence=self.cadence)

    # --- stages that were begun with other runs beside them ---

    def begun(self, kind: str) -> list[tuple[tuple[str, ...], Folder]]:
        """(rows, folder) of every batch of a kind that has a checkpoint and is not finished."""
        found = []
        for path in sorted(self.roots[0].glob(f"{kind}-*")) if self.roots else ():
            if (path / "DONE").exists() or not checkpoint.committed_steps(path / "checkpoints"):
                continue
            with contextlib.suppress(ValueError):
                facts = documents.read_sealed(path / ROWS, BEGUN_AGAIN, kind=str, rows=[str])
                found.append((tuple(facts["rows"]), Folder(path)))
        return found

    def parts(self, identity: Identity, missing: list[int]) -> list[list[int]]:
        """The missing runs, in the batches that train on.

        Those of a batch that was begun go on as it was, where all its rows are missing; the others
        are one batch. So a sweep that began on two hosts continues on one.
        """
        number = {identity.rows[r]: r for r in missing}
        parts = []
        for rows, _ in self.begun(identity.kind):
            if set(rows) <= set(number):
                parts.append([number.pop(row) for row in rows])
        if number:
            parts.append(sorted(number.values()))
        return parts

    def wider(self, identity: Identity) -> tuple[tuple[str, ...], Folder] | None:
        """An unfinished batch that has these rows and more, such as one of fewer hosts."""
        for rows, folder in self.begun(identity.kind):
            if set(identity.rows) < set(rows):
                return rows, folder
        return None

    def finish(
        self, identity: Identity, folder: Folder, trained: TrainedStage, chunks: int
    ) -> None:
        """Record a batch as finished after `chunks` chunks."""
        self.here.setdefault(identity.kind, []).append(trained)
        if folder.path is None:
            return
        path = folder.path / "DONE"
        done = {"kind": identity.kind, "rows": trained.rows, "facts": trained.facts}
        if trained.diverged:
            done["diverged"] = divergence.as_facts(trained.diverged)

        def write() -> None:
            folder.save(chunks, trained)
            documents.write_sealed(path, done)

        self.background.do(write)

    def find(
        self,
        kind: str,
        rows: Collection[str],
        chunks: int,
        like: Callable[[int, int | None], Any],
        say: Say,
    ) -> list[TrainedStage]:
        """Every finished batch of a kind that has some of the rows and can be read.

        `like(U, every)` gives the shapes of the arrays of U rows, of which figures were measured
        after each `every`-th chunk; None where the batch does not say it.
        """
        known = {trained.rows for trained in self.here.get(kind, [])}
        for done in self._finished(kind):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                facts = heard(done, say)
                own = tuple(facts["rows"])
                if facts["kind"] != kind or own in known or not set(own) & set(rows):
                    continue
                trained = read_finished(done, facts, chunks, like, say)
                if trained:
                    self.here.setdefault(kind, []).append(trained)
                    known.add(trained.rows)
        return self.here.get(kind, [])

    def finished_rows(self, kind: str) -> set[str]:
        """The rows that are said to be finished; no array is read for it."""
        rows = {row for trained in self.here.get(kind, []) for row in trained.rows}
        for done in self._finished(kind):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                facts = read_done(done)
                if facts["kind"] == kind:
                    rows.update(facts["rows"])
        return rows

    def forget(self) -> None:
        """Let go of the batches in memory, where all of them lie in a folder too."""
        self.background.wait()
        if self.roots:
            self.here.clear()

    def _finished(self, kind: str) -> Iterator[Path]:
        for root in self.roots:
            yield from sorted(root.glob(f"{kind}-*/DONE"))


def collect_leftovers(folder: Path) -> None:
    """Delete what a killed process left in a stage's folder of a write, a save or a removal."""
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)
    if (folder / "checkpoints").is_dir():
        checkpoint.clean(folder / "checkpoints")


def heard(done: Path, say: Say) -> dict[str, Any]:
    """As `read_done`; a file that is damaged is named before the error is raised."""
    try:
        return read_done(done)
    except ValueError as error:
        say(f"stage {done.parent.name} is read from its checkpoints: {str(error)[:200]}")
        raise


def read_done(done: Path) -> dict[str, Any]:
    """What a DONE file says: kind, rows and facts; JaxomarlError as of `documents.read`."""
    return documents.read_sealed(done, "It is trained again.", kind=str, rows=[str], facts=dict)


def read_finished(
    done: Path,
    facts: Mapping[str, Any],
    chunks: int,
    like: Callable[[int, int | None], Any],
    say: Say,
) -> TrainedStage | None:
    """The batch of a DONE file that says `facts`; None where its last checkpoint is not there."""
    rows = tuple(facts["rows"])
    shapes = like(len(rows), measured_every(facts["facts"]))
    restored = checkpoint.restore(done.parent / "checkpoints", shapes, say)
    if not restored:
        return None
    chunk, arrays = restored
    if chunk != chunks:  # an older checkpoint is no finished stage
        return None
    state = arrays.pop("state")
    diverged = divergence.from_facts(facts.get("diverged", {}))
    histories = jax.tree.map(np.asarray, arrays)
    return TrainedStage(rows, state, **histories, facts=facts["facts"], diverged=diverged)


def measured_every(facts: Mapping[str, Any]) -> int | None:
    """After how many chunks figures of a batch were measured; None where its facts do not say."""
    every = facts.get("every")
    if isinstance(every, int) and every > 0:
        return every
    return None


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
    diverged = {row: one for batch in batches for row, one in batch.diverged.items()}
    return TrainedStage(rows, state, **histories, facts=facts, diverged=diverged)

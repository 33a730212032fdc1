"""Trained stages, kept by what they are: a stage is trained once per distinct (seed, fields), whoever asks for it.

A batch of rows that were trained together lives in `<root>/<stage>-<digest>/`: `checkpoints/`, `executed` (one line for
each chunk that was begun) and, once finished, `DONE` with what the rows are.
"""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl import documents
from jaxomarl.base import Stage, State
from jaxomarl.config import digest, static_fields, traced_fields
from jaxomarl.training import checkpoint

FORMAT = 1


class Identity(NamedTuple):
    """What R runs' copies of a stage are: `kind` names program and data, `rows` what is particular to each run."""

    kind: str
    rows: tuple[str, ...]

    @staticmethod
    def of(stage: Stage, cfgs: list[Any], seeds: list[int], facts: Any) -> "Identity":
        """The identity of a stage for runs of one group; `facts` names task, data and evaluation."""
        reaches = lambda field: stage.fields is None or field in stage.fields
        fixed = {f: v for f, v in static_fields(cfgs[0]).items() if reaches(f)}
        rows = []
        for cfg, seed in zip(cfgs, seeds, strict=True):
            own = {f: float(v) for f, v in traced_fields(cfg).items() if reaches(f)}
            rows.append(json.dumps([seed, own], sort_keys=True))
        name = f"{stage.owner}-{stage.name}" if stage.owner else stage.name
        shown = {
            **facts,
            "every": stage.every,
        }  # when and how often a stage that acts was evaluated
        acts = shown if stage.algorithm.act else {k: v for k, v in facts.items() if k != "episodes"}
        return Identity(
            f"{name}-{digest(FORMAT, stage.owner, stage.name, stage.steps, stage.chunk, fixed, acts)}",
            tuple(rows),
        )


@dataclass
class Trained:
    """A stage's final states and histories for U rows; arrays lead with U."""

    rows: tuple[str, ...]
    state: State
    metrics: dict[str, np.ndarray]  # name -> [U, C], means over each chunk
    evaluations: dict[str, np.ndarray]  # metric -> [U, V, E]
    facts: dict[str, Any]  # updates executed, seconds, compile seconds, mapping

    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"state": self.state, "metrics": self.metrics, "evaluations": self.evaluations}


@dataclass
class Folder:
    """Where a batch of rows is kept while it trains; `path` None keeps nothing on disk."""

    path: Path | None
    begun: int = 0

    def begin_chunk(self, chunk: int) -> None:
        """Note that a chunk starts, so that a killed process's work is counted."""
        self.begun += 1
        if self.path:
            with open(self.path / "executed", "a", encoding="utf-8") as f:
                f.write(f"{chunk}\n")

    @property
    def executed(self) -> int:
        """Chunks begun so far, over all processes that worked on this batch."""
        if self.path and (self.path / "executed").exists():
            return len((self.path / "executed").read_text(encoding="utf-8").splitlines())
        return self.begun

    def save(self, chunk: int, trained: Trained) -> None:
        """Commit a checkpoint after `chunk` chunks."""
        if self.path:
            checkpoint.save(self.path / "checkpoints", chunk, trained.arrays())

    def restore(self, like: Any, say: Callable[[str], None]) -> tuple[int, Any] | None:
        """The newest readable checkpoint."""
        return checkpoint.restore(self.path / "checkpoints", like, say) if self.path else None


class Library:
    """Finished stages in memory and under folders; the first root is written, the others only read (`--from`)."""

    def __init__(self, *roots: Path) -> None:
        self.roots = [Path(r) for r in roots]
        self.here: dict[str, list[Trained]] = {}

    def open(self, identity: Identity) -> Folder:
        """The folder in which these rows are, or will be, trained."""
        if not self.roots:
            return Folder(None)
        path = self.roots[0] / f"{identity.kind}-{digest(identity.rows)[:6]}"
        path.mkdir(parents=True, exist_ok=True)
        return Folder(path)

    def finish(self, identity: Identity, folder: Folder, trained: Trained) -> None:
        """Make a trained batch known."""
        if folder.path:
            done = {"kind": identity.kind, "rows": trained.rows, "facts": trained.facts}
            part = folder.path / "DONE.part"
            part.write_text(json.dumps(done, indent=1), encoding="utf-8")
            os.replace(part, folder.path / "DONE")
        self.here.setdefault(identity.kind, []).append(trained)

    def find(
        self, kind: str, chunks: int, like: Callable[[int], Any], say: Callable[[str], None]
    ) -> list[Trained]:
        """Every batch of a kind whose last checkpoint is whole; `like(U)` gives the arrays' shapes for U rows."""
        known = {t.rows for t in self.here.get(kind, [])}
        for done in (d for root in self.roots for d in sorted(root.glob(f"{kind}-*/DONE"))):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                facts = documents.read(
                    done, "It is trained again.", kind=str, rows=list, facts=dict
                )
                rows = tuple(facts["rows"])
                if facts["kind"] != kind or rows in known:
                    continue
                found = checkpoint.restore(done.parent / "checkpoints", like(len(rows)), say)
                if found and found[0] == chunks:  # an older one is no finished stage
                    arrays = {
                        k: jax.tree.map(np.asarray, v) for k, v in found[1].items() if k != "state"
                    }
                    trained = Trained(
                        rows,
                        found[1]["state"],
                        arrays["metrics"],
                        arrays["evaluations"],
                        facts["facts"],
                    )
                    self.here.setdefault(kind, []).append(trained)
                    known.add(rows)
        return self.here.get(kind, [])


def gather(rows: tuple[str, ...], batches: list[Trained]) -> Trained:
    """The wanted rows, in order, from finished batches that hold them all."""
    where = {row: (b, i) for b, batch in enumerate(batches) for i, row in enumerate(batch.rows)}
    if len(batches) == 1 and batches[0].rows == rows:
        return batches[0]
    starts = np.cumsum([0, *(len(b.rows) for b in batches)])
    index = np.array([starts[where[r][0]] + where[r][1] for r in rows])
    join = lambda *x: jnp.asarray(
        np.concatenate([np.asarray(one) for one in x])[index]
    )  # they may lie on other devices
    state = jax.tree.map(join, *(b.state for b in batches))
    metrics = {
        k: np.concatenate([b.metrics[k] for b in batches])[index] for k in batches[0].metrics
    }
    evals = {
        k: np.concatenate([b.evaluations[k] for b in batches])[index]
        for k in batches[0].evaluations
    }
    used = [batches[b] for b in sorted({where[r][0] for r in rows})]
    return Trained(rows, state, metrics, evals, {"batches": [b.facts for b in used]})

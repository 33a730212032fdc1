"""A whole run is a pure function of (seed, config); R runs are one program: scan inside, decide outside.

Every key is counted, `fold_in(fold_in(key(seed), stage), chunk)`, so that resuming needs no random state and a run does
not depend on how many run beside it, nor on when it is evaluated.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Past, Stage, refuse
from jaxomarl.numerics import pinned, rounded
from jaxomarl.training import evaluation, sharding
from jaxomarl.training.library import Identity, Trained, gather
from jaxomarl.training.program import Job, Program, Progress

__all__ = ["Interrupted", "Job", "Program", "Progress", "Training", "run"]


OVER = (
    "no number of any run was finite in the whole chunk, and further updates would change nothing"
)


class Interrupted(Exception):  # noqa: N818 (it is no error: the work is saved)
    """Training was asked to stop and has saved what it had."""


@pinned()
def run(job: Job) -> Past:
    """Train every stage of R runs and return the finished ones by name, each leading with R.

    A stage that some of the runs share, or that the library knows, is not trained again. Raises Interrupted, with
    everything saved, once `job.stopped()` says so.
    """
    runs = len(job.seeds)
    past: Past = {"stats": jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), job.stats)}
    for index, stage in enumerate(job.make(job.cfgs[0])):
        program = Program(job, index, past)
        identity = Identity.of(
            stage, job.cfgs, job.seeds, {**job.facts, **rounded(), "episodes": program.episodes}
        )
        known = job.library.find(identity.kind, program.chunks, program.finished, job.say)
        held = {row for batch in known for row in batch.rows}
        wanted = {row: r for r, row in reversed(list(enumerate(identity.rows))) if row not in held}
        if wanted:
            chosen = sorted(wanted.values())
            program.devices = sharding.mesh(len(chosen))
            known = [*known, Training(job, program, chosen, identity).run()]
        trained = gather(identity.rows, [b for b in known if set(b.rows) & set(identity.rows)])
        past[stage.name] = trained.state
        job.finished(index, stage, trained)
    return past


class Training:
    """One stage of some of a group's runs while it trains, from its newest checkpoint where there is one."""

    def __init__(self, job: Job, program: Program, chosen: list[int], identity: Identity) -> None:
        self.job, self.program, self.chosen = job, program, chosen
        self.identity = Identity(identity.kind, tuple(identity.rows[r] for r in chosen))
        self.folder, self.runs = job.library.open(self.identity), len(chosen)
        self.size = sharding.padded(self.runs, program.devices)
        self.cfgs, self.keys, self.past = program.rows(chosen)
        self.data = sharding.replicate(job.data, program.devices)
        self.resets = sharding.replicate(evaluation.reset_keys(program.episodes), program.devices)
        self.played: Callable | None = None
        self.state: Any = None

    def run(self) -> Trained:
        """Train to the end, or until every run has diverged; raises Interrupted, with a checkpoint, when stopped."""
        job, program = self.job, self.program
        first = self.start()
        if job.stopped():
            raise Interrupted
        step: Callable | None = None
        began = time.perf_counter()
        for chunk in range(first + 1, program.chunks + 1):
            number = jnp.asarray(chunk, jnp.int32)
            args = (self.state, self.cfgs, self.keys, self.past, number, self.data)
            if step is None:
                step = program.compile(program.advance, program.how, 2, args, donate=(0,))
                began = time.perf_counter()
                if job.stopped():
                    raise Interrupted
            self.folder.begin_chunk(chunk)
            self.state, metrics = step(*args)
            metrics = jax.tree.map(lambda x: np.asarray(x)[: self.runs], metrics)
            for name, values in metrics.items():
                self.trained.metrics[name][:, chunk - 1] = values.mean(axis=1)
            over = chunk < program.chunks and nothing_finite(metrics)
            reached = program.chunks if over else chunk
            mark = reached in program.marks
            shown = self.play(reached) if mark else {}
            stop = job.stopped()
            if mark or stop:
                self.save(reached)
            self.report(chunk, chunk - first, time.perf_counter() - began, metrics, shown)
            if over:
                job.say(f"  ! {program.stage.name} ends at step {chunk * program.chunk}: {OVER}")
                break
            if stop and chunk < program.chunks:
                raise Interrupted
        return self.finish(time.perf_counter() - began)

    def start(self) -> int:
        """Restore the newest checkpoint, or make the first state and evaluate it; the chunks that are done."""
        program, like = self.program, self.program.like(self.runs)
        found = self.folder.restore(like, self.job.say)
        if found:
            done, arrays = found
            metrics, shown = (jax.tree.map(np.array, arrays[k]) for k in ("metrics", "evaluations"))
            self.trained = Trained(self.identity.rows, None, metrics, shown, {})
            self.state = sharding.place(arrays["state"], program.devices, self.size)
            return done
        blank = lambda tree: jax.tree.map(lambda x: np.full(x.shape, np.nan, np.float32), tree)
        self.trained = Trained(
            self.identity.rows, None, blank(like["metrics"]), blank(like["evaluations"]), {}
        )
        args = (self.cfgs, self.keys, self.past, self.data)
        self.state = program.compile(program.init, program.how, 1, args)(*args)
        self.play(0)
        return 0

    def play(self, chunk: int) -> dict[str, np.ndarray]:
        """Evaluate after `chunk` chunks and note it in the history: metric -> [U, E]."""
        job, program = self.job, self.program
        if not program.evaluates:
            return {}
        step = chunk * program.chunk
        acts = jnp.stack(
            [evaluation.act_keys(job.seeds[r], step, program.episodes) for r in self.chosen]
        )
        args = (
            self.cfgs,
            self.state,
            self.past,
            sharding.place(acts, program.devices, self.size),
            self.resets,
        )
        self.played = self.played or program.compile(program.evaluate, program.how, 1, args)
        shown = jax.tree.map(lambda x: np.asarray(x)[: self.runs], self.played(*args))
        mark = 0 if chunk == 0 else 1 + program.marks.index(chunk)
        for name, values in shown.items():
            self.trained.evaluations[name][:, mark] = values
        return shown

    def save(self, chunk: int) -> None:
        """Commit a checkpoint of the true runs, without the devices' padding."""
        self.keep(chunk)
        self.folder.save(chunk, self.trained)

    def keep(self, chunk: int) -> None:
        """Take the true runs' state as the trained one; at the end, only what the stage keeps."""
        state = self.program.stage.kept(self.state) if chunk == self.program.chunks else self.state
        self.trained.state = jax.tree.map(lambda x: x[: self.runs], state)

    def report(self, chunk: int, done: int, seconds: float, metrics: dict, shown: dict) -> None:
        """Tell what a chunk has done; raises JaxomarlError where it went beyond a limit of the stage."""
        program, stage = self.program, self.program.stage
        progress = Progress(
            stage=stage.name,
            step=chunk * program.chunk,
            steps=stage.steps,
            runs=self.runs,
            rate=done * program.chunk / seconds,
            seconds=seconds,
            compile_seconds=program.compile_seconds,
            metrics=metrics,
            evaluations=shown,
            state=self.state,
            bad=not_finite(metrics, [self.job.seeds[r] for r in self.chosen]),
        )
        self.job.report(progress)
        check_limits(stage, metrics)

    def finish(self, seconds: float) -> Trained:
        """Make the stage known, with what it cost."""
        program = self.program
        self.keep(program.chunks)
        self.trained.facts = {
            "stage": program.stage.name,
            "runs": self.runs,
            "devices": program.devices.size,
            "mapping": program.how,
            "updates": program.stage.steps,
            "updates_executed": self.folder.executed * program.chunk,
            "seconds": round(seconds, 3),
            "compile_seconds": round(program.compile_seconds, 3),
        }
        self.job.library.finish(self.identity, self.folder, self.trained)
        return self.trained


def check_limits(stage: Stage, metrics: dict[str, np.ndarray]) -> None:
    """Raise JaxomarlError where a metric of a chunk is above what the stage allows."""
    for limit in stage.limits:
        found = float(metrics[limit.metric].max())
        if found > limit.most:
            raise refuse(
                limit.field,
                f"at most {limit.most:.0%} {limit.of}",
                f"{found:.0%}",
                f"To go on, {limit.way_out}",
            )


def not_finite(metrics: dict[str, np.ndarray], seeds: list[int]) -> tuple[str, ...]:
    """Lines like "seed 7: q_loss" for each run and metric with a number that is not finite."""
    found = []
    for name, values in metrics.items():
        found += [
            f"seed {seeds[r]}: {name}" for r in np.flatnonzero(~np.isfinite(values).all(axis=1))
        ]
    return tuple(found)


def nothing_finite(metrics: dict[str, np.ndarray]) -> bool:
    """Whether every run has diverged for good: no metric of any update of a chunk is a number."""
    return bool(metrics) and not any(np.isfinite(values).any() for values in metrics.values())

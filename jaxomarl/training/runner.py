"""Trains the stages of a group of runs, one after another.

The R runs of a group differ in their seeds and in swept settings. They are one compiled program,
which scans a chunk of updates. Between two chunks plain Python decides: whether to evaluate, to
save a checkpoint, to report, and to continue.

Every random key is counted: `fold_in(fold_in(key(seed), stage), chunk)`. So resuming needs no
random state, and a run does not depend on how many others train next to it, nor on when it is
evaluated.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Past, Stage, refuse
from jaxomarl.numerics import pinned
from jaxomarl.training import divergence, evaluation, memory, sharding
from jaxomarl.training.library import Identity, TrainedStage, gather, measured_every
from jaxomarl.training.program import Job, Program, Progress, marks_of

__all__ = ["Interrupted", "Job", "Program", "Progress", "Training", "run"]

History = dict[str, np.ndarray]
"""Metric -> an array that leads with the runs."""

DIVERGED = (
    "no number of any run was finite in the whole chunk, and further updates would change nothing"
)
FROZEN = "Its state stays as it is; other runs continue."
"""What happens to a diverged run."""


# it is no error, because the work is saved
class Interrupted(Exception):  # noqa: N818
    """Training was asked to stop, and has saved its work."""


@pinned()
def run(job: Job) -> Past:
    """Train every stage of R runs, and return the finished stages by name, each leading with R.

    A stage that several runs share is trained once, and a stage in the cache is not trained again.
    Raises Interrupted, with everything saved, once `job.stopped()` is true.
    """
    runs = len(job.seeds)
    stats = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), job.stats)
    past: Past = {"stats": stats}
    try:
        for index, stage in enumerate(job.make(job.cfgs[0])):
            trained = train_stage(job, Program(job, index, past))
            past[stage.name] = trained.state
            job.finished(index, stage, trained)
    except BaseException:
        # Python ends when its threads do: what is still to be compiled is not waited for
        job.compiler.shutdown(wait=False, cancel_futures=True)
        raise
    return sharding.united(past)


def train_stage(job: Job, program: Program) -> TrainedStage:
    """One finished stage of all R runs: from the cache where it is there, else trained now."""
    identity = program.identity
    rows = set(identity.rows)
    batches = job.library.find(identity.kind, rows, program.chunks, program.finished, job.say)
    missing = identity.first_runs({row for batch in batches for row in batch.rows})
    if missing:
        for part in job.library.parts(identity, missing):
            program.lay(len(part))
            batches = [*batches, Training(job, program, part, identity).run()]

    own = [at_marks(batch, program) for batch in batches if rows & set(batch.rows)]
    return gather(identity.rows, own)


def at_marks(trained: TrainedStage, program: Program) -> TrainedStage:
    """A finished stage with its figures at a program's marks; NaN where none was measured.

    A stage that does not act is shared by systems that evaluate their policies at other times.
    """
    every = measured_every(trained.facts)
    if every in (None, program.stage.every):
        return trained
    column = {mark: k for k, mark in enumerate(marks_of(program.chunks, every))}
    health = {}
    for name, values in trained.health.items():
        unknown = np.full(len(values), np.nan, np.float32)
        columns = [values[:, column[m]] if m in column else unknown for m in program.marks]
        health[name] = np.stack(columns, axis=1)
    return dataclasses.replace(trained, health=health)


class Training:
    """One stage while it trains, from its newest checkpoint if there is one.

    `chosen` are the numbers of the runs that train, out of the group's.
    """

    def __init__(self, job: Job, program: Program, chosen: list[int], identity: Identity) -> None:
        self.job = job
        self.program = program
        self.chosen = chosen
        self.runs = len(chosen)
        self.size = sharding.padded(self.runs, program.devices)

        self.identity = Identity(identity.kind, tuple(identity.rows[r] for r in chosen))
        self.folder = job.library.open(self.identity)

        self.cfgs, self.keys, self.past = program.rows(chosen)
        self.data = sharding.replicate(job.data, program.devices)
        self.resets = sharding.replicate(evaluation.reset_keys(program.episodes), program.devices)
        self.state: Any = None
        self.held = sharding.replicate(job.held, program.devices)
        self.compiled_evaluation: Callable | None = None
        self.compiled_measure: Callable | None = None

        # --- diverged runs ---
        self.ignored: set[str] = set()
        # the state's rows that stay as they are, by number
        self.frozen: dict[int, Any] = {}
        self.told: set[tuple[int, str]] = set()
        self.report_seconds = 0.0
        self.health_seconds = 0.0

    def run(self) -> TrainedStage:
        """Train to the end, or until every run has diverged.

        Raises Interrupted, with a checkpoint, when the job is stopped.
        """
        job = self.job
        program = self.program
        done = self.start()
        if job.stopped():
            raise Interrupted

        advance: Callable | None = None
        began = time.perf_counter()
        for chunk in range(done + 1, program.chunks + 1):
            # --- compile, before the first chunk ---
            number = jnp.asarray(chunk, jnp.int32)
            args = (self.state, self.cfgs, self.keys, self.past, number, self.data)
            if advance is None:
                # all runs share the last two arguments, and the state is given away
                advance = program.compile(
                    program.advance, program.how, shared=2, args=args, donate=(0,)
                )
                self.compile_measure()
                self.folder.cadence.begin()
                began = time.perf_counter()
                if job.stopped():
                    raise Interrupted

            # --- a chunk of updates ---
            self.folder.begin_chunk(chunk)
            self.state, metrics = advance(*args)
            self.state = divergence.with_rows(self.state, self.frozen)
            metrics = self.note_metrics(chunk, metrics)
            bad = divergence.first_bad_updates(metrics)

            # --- evaluate, and save ---
            # where every run has diverged, the stage ends here and counts as finished
            diverged = chunk < program.chunks and nothing_finite(metrics)
            reached = program.chunks if diverged else chunk
            due = reached in program.marks
            if due or set(bad) - set(self.frozen):
                self.freeze(chunk, bad)
            evaluations = self.evaluate(reached) if due else {}
            if due:
                self.measure(reached)
            stopped = job.stopped()
            # the last one is saved with DONE
            if reached < program.chunks and (stopped or (due and self.folder.cadence.due())):
                self.save(reached)

            # --- report, and continue or stop ---
            seconds = time.perf_counter() - began
            self.report(chunk, chunk - done, seconds, metrics, evaluations, bad)
            if diverged:
                step = chunk * program.chunk
                job.say(f"  ! {program.stage.name} ends at step {step}: {DIVERGED}")
                break
            if stopped and chunk < program.chunks:
                raise Interrupted
        return self.finish(time.perf_counter() - began)

    def start(self) -> int:
        """Restore the newest checkpoint, or build the first state and evaluate it.

        Returns the number of chunks that are done.
        """
        program = self.program
        like = program.like(self.runs)

        # --- resume ---
        restored = self.folder.restore(like, self.job.say) or self.taken_over()
        if restored:
            done, arrays = restored
            self.state = sharding.place(arrays.pop("state"), program.devices, self.size)
            histories: dict[str, Any] = jax.tree.map(np.array, arrays)
            rows = self.identity.rows
            self.trained = TrainedStage(rows, None, **histories, facts={})
            found, self.ignored = self.folder.diverged(done * program.chunk)
            for r, row in enumerate(rows):
                if row in found:
                    self.trained.diverged[row] = found[row]
                    self.frozen[r] = jax.tree.map(lambda x, r=r: np.asarray(x[r]), self.state)
            return done

        # --- or begin ---
        empty = {name: unfilled(shapes) for name, shapes in like.items() if name != "state"}
        self.trained = TrainedStage(self.identity.rows, None, **empty, facts={}, diverged={})
        args = (self.cfgs, self.keys, self.past, self.data)
        init = program.compile(program.init, program.how, shared=1, args=args)
        self.state = init(*args)
        self.ignored = divergence.everywhere(
            divergence.bad_leaves(self.state, self.runs), self.runs
        )
        self.evaluate(0)
        return 0

    def taken_over(self) -> tuple[int, Any] | None:
        """The checkpoint of these rows from a batch that has more, as (chunk, arrays)."""
        wider = self.job.library.wider(self.identity)
        if wider is None:
            return None
        rows, folder = wider
        restored = folder.restore(self.program.like(len(rows)), self.job.say)
        if restored is None:
            return None
        done, arrays = restored
        place = np.array([rows.index(row) for row in self.identity.rows])
        found, ignored = folder.diverged(done * self.program.chunk)
        self.folder.note_diverged(
            {row: one for row, one in found.items() if row in self.identity.rows}, ignored
        )
        return done, jax.tree.map(lambda x: x[place], arrays)

    def note_metrics(self, chunk: int, metrics: dict[str, jax.Array]) -> History:
        """The metrics of a chunk, [U, chunk]; their means go into the history."""
        values = jax.tree.map(lambda x: np.asarray(x)[: self.runs], metrics)
        if self.frozen:
            values = jax.tree.map(np.array, values)
            for value in values.values():
                value[[*self.frozen]] = np.nan
        for name, value in values.items():
            self.trained.metrics[name][:, chunk - 1] = value.mean(axis=1)
        return values

    def freeze(self, chunk: int, bad: dict[int, tuple[int, str]]) -> None:
        """Find the runs that have diverged by the end of a chunk, and keep their states so.

        `bad` has the first update of the chunk in which a run's metric was not finite.
        """
        program = self.program
        before = len(self.frozen)
        for r, names in divergence.bad_leaves(self.state, self.runs).items():
            leaves = [name for name in names if name not in self.ignored]
            if r in self.frozen or not leaves:
                continue
            number, metric = bad.get(r, (program.chunk - 1, ""))
            update = (chunk - 1) * program.chunk + number + 1
            found = divergence.Divergence(update, metric, leaves[0])
            self.trained.diverged[self.identity.rows[r]] = found
            self.frozen[r] = jax.tree.map(lambda x, r=r: np.asarray(x[r]), self.state)
            name = self.job.name(self.chosen[r], program.stage)
            self.job.say(f"  ! {program.stage.name}, {name} has diverged: {found}. {FROZEN}")
        if len(self.frozen) > before:
            self.folder.note_diverged(self.trained.diverged, self.ignored)

    def evaluate(self, chunk: int) -> History:
        """Evaluate after `chunk` chunks and note it in the history: metric -> [U, E]."""
        job = self.job
        program = self.program
        if not program.evaluates:
            return {}

        # --- roll out ---
        step = chunk * program.chunk
        seeds = [job.seeds[r] for r in self.chosen]
        keys = jnp.stack([evaluation.act_keys(seed, step, program.episodes) for seed in seeds])
        keys = sharding.place(keys, program.devices, self.size)
        args = (self.cfgs, self.state, self.past, keys, self.resets)
        if self.compiled_evaluation is None:
            evaluate = program.compile(program.evaluate, program.how, shared=1, args=args)
            self.compiled_evaluation = evaluate
        returns = self.compiled_evaluation(*args)

        # --- note ---
        values = jax.tree.map(lambda x: np.asarray(x)[: self.runs], returns)
        # the first column is from before training
        column = [0, *program.marks].index(chunk)
        for name, value in values.items():
            self.trained.evaluations[name][:, column] = value
        return values

    def measure(self, chunk: int) -> None:
        """Note figures of the stage's health after `chunk` chunks: figure -> [U].

        They are NaN at marks where they would cost too much.
        """
        program = self.program
        if chunk not in program.measured:
            return
        assert self.compiled_measure is not None
        began = time.perf_counter()
        args = (self.cfgs, self.keys, self.state, self.past, self.held)
        column = program.marks.index(chunk)
        for name, value in self.compiled_measure(*args).items():
            self.trained.health[name][:, column] = np.asarray(value)[: self.runs]
        self.health_seconds += time.perf_counter() - began

    def compile_measure(self) -> None:
        """Compile the stage's figures, where it has any."""
        program = self.program
        if program.measures:
            args = (self.cfgs, self.keys, self.state, self.past, self.held)
            measure = program.compile(program.measure, program.how, shared=1, args=args)
            self.compiled_measure = measure

    def save(self, chunk: int) -> None:
        """Commit a checkpoint of the chosen runs, without the padding that fills the devices."""
        self.take_state(chunk)
        self.folder.save(chunk, self.trained)

    def take_state(self, chunk: int) -> None:
        """Take the chosen runs' state as the trained one; at the end, only what the stage keeps."""
        state = self.state
        if chunk == self.program.chunks:
            state = self.program.stage.kept(state)
        self.trained.state = jax.tree.map(lambda x: x[: self.runs], state)

    def report(
        self,
        chunk: int,
        done: int,
        seconds: float,
        metrics: History,
        evaluations: History,
        bad: dict[int, tuple[int, str]],
    ) -> None:
        """Report a chunk; raises JaxomarlError where it went beyond a limit of the stage.

        `done` counts the chunks of this process, which took `seconds`.
        """
        program = self.program
        stage = program.stage
        progress = Progress(
            stage=stage.name,
            step=chunk * program.chunk,
            steps=stage.steps,
            runs=self.runs,
            rate=done * program.chunk / seconds,
            seconds=seconds,
            compile_seconds=program.compile_seconds,
            metrics=metrics,
            evaluations=evaluations,
            state=self.state,
            bad=self.not_finite(chunk, bad),
            chosen=tuple(self.chosen),
        )
        began = time.perf_counter()
        self.job.report(progress)
        self.report_seconds += time.perf_counter() - began
        check_limits(stage, metrics)

    def not_finite(self, chunk: int, bad: dict[int, tuple[int, str]]) -> tuple[str, ...]:
        """Lines like "seed 7 beta=0.5: q_loss at update 12", once for each run and metric."""
        lines = []
        for r, (number, metric) in bad.items():
            if (r, metric) not in self.told and (r, "") not in self.told:
                name = self.job.name(self.chosen[r], self.program.stage)
                update = (chunk - 1) * self.program.chunk + number + 1
                lines.append(f"{name}: {metric} at update {update}")
            self.told.add((r, metric))
            if r in self.frozen:
                self.told.add((r, ""))
        return tuple(lines)

    def finish(self, seconds: float) -> TrainedStage:
        """Put the finished stage into the cache, with what it cost."""
        program = self.program
        self.take_state(program.chunks)
        self.trained.facts = {
            "stage": program.stage.name,
            "runs": self.runs,
            "devices": program.devices.size,
            "devices_of_a_run": program.devices.shape["data"],
            "mapping": program.how,
            "at_once": sharding.at_once(program.how, self.size // program.devices.shape["runs"]),
            "updates": program.stage.steps,
            "every": program.stage.every,
            "updates_executed": self.folder.executed * program.chunk,
            "seconds": round(seconds, 3),
            "compile_seconds": round(program.compile_seconds, 3),
            "save_seconds": round(self.folder.save_seconds, 3),
            "report_seconds": round(self.report_seconds, 3),
            "health_seconds": round(self.health_seconds, 3),
            **memory.facts(program.compiled_for(self.size)),
        }
        self.job.library.finish(self.identity, self.folder, self.trained, program.chunks)
        return self.trained


def unfilled(shapes: dict[str, jax.ShapeDtypeStruct]) -> History:
    """Arrays of NaN, for a history that is still to come."""
    return {name: np.full(x.shape, np.nan, np.float32) for name, x in shapes.items()}


def check_limits(stage: Stage, metrics: History) -> None:
    """Raise JaxomarlError where a metric of a chunk is above what the stage allows."""
    for limit in stage.limits:
        largest = float(metrics[limit.metric].max())
        if largest > limit.most:
            expected = f"at most {limit.most:.0%} {limit.of}"
            raise refuse(limit.field, expected, f"{largest:.0%}", f"To continue, {limit.way_out}")


def nothing_finite(metrics: History) -> bool:
    """Whether every run has diverged for good: no metric of any update of a chunk is a number."""
    return bool(metrics) and not any(np.isfinite(values).any() for values in metrics.values())

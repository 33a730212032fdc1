"""Trains the stages of a group of runs, one after another.

The R runs of a group differ in their seeds and in swept settings. They are one compiled program,
which scans a chunk of updates. Between two chunks plain Python decides: whether to evaluate, to
save a checkpoint, to report, and to continue.

Every random key is counted: `fold_in(fold_in(key(seed), stage), chunk)`. So resuming needs no
random state, and a run does not depend on how many others train next to it, nor on when it is
evaluated.
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
from jaxomarl.training.library import Identity, TrainedStage, gather
from jaxomarl.training.program import Job, Program, Progress

__all__ = ["Interrupted", "Job", "Program", "Progress", "Training", "run"]

History = dict[str, np.ndarray]
"""Metric -> an array that leads with the runs."""

DIVERGED = (
    "no number of any run was finite in the whole chunk, and further updates would change nothing"
)


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
    for index, stage in enumerate(job.make(job.cfgs[0])):
        trained = train_stage(job, Program(job, index, past))
        past[stage.name] = trained.state
        job.finished(index, stage, trained)
    return past


def train_stage(job: Job, program: Program) -> TrainedStage:
    """One finished stage of all R runs: from the cache where it is there, else trained now."""
    facts = {**job.facts, **rounded(), "episodes": program.episodes}
    identity = Identity.of(program.stage, job.cfgs, job.seeds, facts)

    batches = job.library.find(identity.kind, program.chunks, program.finished, job.say)
    missing = runs_to_train(identity, batches)
    if missing:
        program.devices = sharding.mesh(len(missing))
        batches = [*batches, Training(job, program, missing, identity).run()]

    wanted = set(identity.rows)
    return gather(identity.rows, [batch for batch in batches if wanted & set(batch.rows)])


def runs_to_train(identity: Identity, batches: list[TrainedStage]) -> list[int]:
    """The first run of each distinct row that no finished batch holds."""
    finished = {row for batch in batches for row in batch.rows}
    first: dict[str, int] = {}
    for index, row in enumerate(identity.rows):
        if row not in finished:
            first.setdefault(row, index)
    return list(first.values())


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
                began = time.perf_counter()
                if job.stopped():
                    raise Interrupted

            # --- a chunk of updates ---
            self.folder.begin_chunk(chunk)
            self.state, metrics = advance(*args)
            metrics = self.note_metrics(chunk, metrics)

            # --- evaluate, and save ---
            # where every run has diverged, the stage ends here and counts as finished
            diverged = chunk < program.chunks and nothing_finite(metrics)
            reached = program.chunks if diverged else chunk
            due = reached in program.marks
            evaluations = self.evaluate(reached) if due else {}
            if due:
                self.measure(reached)
            stopped = job.stopped()
            if due or stopped:
                self.save(reached)

            # --- report, and continue or stop ---
            seconds = time.perf_counter() - began
            self.report(chunk, chunk - done, seconds, metrics, evaluations)
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
        restored = self.folder.restore(like, self.job.say)
        if restored:
            done, arrays = restored
            self.state = sharding.place(arrays.pop("state"), program.devices, self.size)
            histories = jax.tree.map(np.array, arrays)
            self.trained = TrainedStage(self.identity.rows, None, **histories, facts={})
            return done

        # --- or begin ---
        empty = {name: unfilled(shapes) for name, shapes in like.items() if name != "state"}
        self.trained = TrainedStage(self.identity.rows, None, **empty, facts={})
        args = (self.cfgs, self.keys, self.past, self.data)
        init = program.compile(program.init, program.how, shared=1, args=args)
        self.state = init(*args)
        self.evaluate(0)
        return 0

    def note_metrics(self, chunk: int, metrics: dict[str, jax.Array]) -> History:
        """The metrics of a chunk, [U, chunk]; their means go into the history."""
        values = jax.tree.map(lambda x: np.asarray(x)[: self.runs], metrics)
        for name, value in values.items():
            self.trained.metrics[name][:, chunk - 1] = value.mean(axis=1)
        return values

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

        Costly ones are noted at the end alone, and are NaN before it.
        """
        program = self.program
        if not program.measured_after(chunk):
            return
        assert self.compiled_measure is not None
        args = (self.cfgs, self.keys, self.state, self.past, self.held)
        column = program.marks.index(chunk)
        for name, value in self.compiled_measure(*args).items():
            self.trained.health[name][:, column] = np.asarray(value)[: self.runs]

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
            bad=not_finite(metrics, [self.job.seeds[r] for r in self.chosen]),
            chosen=tuple(self.chosen),
        )
        self.job.report(progress)
        check_limits(stage, metrics)

    def finish(self, seconds: float) -> TrainedStage:
        """Put the finished stage into the cache, with what it cost."""
        program = self.program
        self.take_state(program.chunks)
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


def not_finite(metrics: History, seeds: list[int]) -> tuple[str, ...]:
    """Lines like "seed 7: q_loss", one for each run and metric with a number that is not finite."""
    lines = []
    for name, values in metrics.items():
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        lines += [f"seed {seeds[r]}: {name}" for r in broken]
    return tuple(lines)


def nothing_finite(metrics: History) -> bool:
    """Whether every run has diverged for good: no metric of any update of a chunk is a number."""
    return bool(metrics) and not any(np.isfinite(values).any() for values in metrics.values())

"""A group of runs, and the compiled functions of one of its stages."""

import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxomarl.base import FIGURE_ROWS, Dataset, Environment, Past, Spec, Stage, State, System
from jaxomarl.config import stack
from jaxomarl.numerics import pinned, rounded, run_once, training
from jaxomarl.training import evaluation, sharding
from jaxomarl.training.evaluation import Config
from jaxomarl.training.library import Identity, StageCache, TrainedStage

DRAWN = 100
"""Rows of batches between two measurements of figures, for each row that they rest on."""
HEALTH = 2**32 - 1
"""Number of the random stream of figures; no chunk has it, and each measurement has the same."""


@dataclass(frozen=True)
class Progress:
    """What `report` gets after each chunk."""

    stage: str
    step: int
    steps: int
    runs: int
    rate: float
    """Updates per second of one run, while all R train at once."""
    seconds: float
    """Seconds of training so far, without compilation."""
    compile_seconds: float
    metrics: dict[str, np.ndarray]
    """Name -> [R, chunk]."""
    evaluations: dict[str, np.ndarray]
    """Metric -> [R, E]; empty where this chunk was not evaluated."""
    state: Any = None
    """The state on the device, leading with R. The next chunk overwrites it: copy what you keep."""
    bad: tuple[str, ...] = ()
    """Runs and metrics that stopped being finite in this chunk, each once."""
    chosen: tuple[int, ...] = ()
    """Which runs of the group the R rows are: a stage that several share is trained once."""


@dataclass
class Job:
    """One group of runs: a system, R configs that agree in their static fields, and R seeds."""

    system: System
    spec: Spec
    cfgs: list[Config]
    seeds: list[int]
    data: Dataset | None
    stats: Any
    env: Environment | None = None
    """The environment of the evaluations; None: the runs are not evaluated."""
    held: Dataset | None = None
    """Episodes that `data` does not draw; None: no stage's health is measured."""
    episodes: int = 32
    facts: dict[str, Any] = field(default_factory=dict)
    """Names task and data; part of each stage's identity."""
    library: StageCache = field(default_factory=StageCache)
    report: Callable[[Progress], None] = lambda progress: None
    stopped: Callable[[], bool] = lambda: False
    """Whether training is to stop, after it has saved its work."""
    finished: Callable[[int, Stage, TrainedStage], None] = lambda index, stage, trained: None
    say: Callable[[str], None] = print
    swept: list[dict[str, Any]] = field(default_factory=list)
    """The swept values of each run, by field."""
    memory: int = 0
    """Bytes that training may take; 0: what is free."""
    programs: dict[tuple, "Compiled"] = field(default_factory=dict)
    """Compiled programs by stage, function, rows and devices."""
    states: dict[int, Any] = field(default_factory=dict)
    """What `Program.state_shape` has traced, by stage."""
    shapes: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What `Program.shapes` has found, by stage."""

    @cached_property
    def compiler(self) -> ThreadPoolExecutor:
        """The threads that compile its programs."""
        return compiler()

    def name(self, r: int, stage: Stage) -> str:
        """A run's seed, and its swept values that reach a stage."""
        swept = self.swept[r] if self.swept else {}
        reaching = [
            f"{field}={value}"
            for field, value in swept.items()
            if stage.fields is None or field in stage.fields
        ]
        return " ".join([f"seed {self.seeds[r]}", *reaching])

    def make(self, cfg: Config) -> tuple[Stage, ...]:
        """The pipeline for one (possibly traced) config."""
        env = self.env if self.system.online else None
        return self.system.pipeline(self.spec, cfg, env)


@dataclass
class Compiled:
    """A program that a thread compiles."""

    results: Any
    """Shapes of what it returns, which lead with the rows."""
    compilation: Future[tuple[Any, float]]
    """The compiled program and the seconds, once the thread is done."""
    traced: float
    """Seconds that tracing took."""
    counted: bool = False
    """Whether a stage has counted the seconds as its own."""

    @property
    def call(self) -> Any:
        """The compiled program; waits for the thread."""
        call, _ = self.compilation.result()
        return call

    def seconds(self) -> float:
        """The seconds of tracing and compilation, where nobody has counted them yet."""
        _, compiling = self.compilation.result()
        if self.counted:
            return 0.0
        self.counted = True
        return self.traced + compiling


def compiler() -> ThreadPoolExecutor:
    """Threads that compile while others are traced.

    A CPU has one for each core. An accelerator has one, because its compiler times kernels.
    """
    threads = 1
    if jax.default_backend() == "cpu":
        threads = min(4, jax.local_device_count())
    return ThreadPoolExecutor(threads, "compiler")


@pinned()
def compile_timed(lowered: Any, options: dict[str, Any] | None) -> tuple[Any, float]:
    """The compiled program, and the seconds that it took."""
    start = time.perf_counter()
    call = lowered.compile(compiler_options=options)
    return call, time.perf_counter() - start


def one_run(x: Any) -> jax.ShapeDtypeStruct:
    """The shape of one run's part of an array that leads with the runs."""
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def chunking(stage: Stage) -> tuple[int, int]:
    """(updates of a chunk, chunks) of a stage; a chunk is no longer than the stage."""
    chunk = min(stage.chunk, stage.steps)
    return chunk, stage.steps // chunk


def last_step(stage: Stage) -> int:
    """The updates of a finished stage: its full chunks."""
    chunk, chunks = chunking(stage)
    return chunk * chunks


def marks(stage: Stage) -> list[int]:
    """The chunks after which a stage is evaluated and saved: each `every`-th, and the last."""
    _, chunks = chunking(stage)
    return marks_of(chunks, stage.every)


def marks_of(chunks: int, every: int) -> list[int]:
    """Each `every`-th of a number of chunks, and the last."""
    return [c for c in range(1, chunks + 1) if c % every == 0 or c == chunks]


class Program:
    """The compiled functions of one stage for a group: init, advance by a chunk, evaluate."""

    def __init__(self, job: Job, index: int, past: Past) -> None:
        self.job = job
        self.index = index
        self.past = past
        self.stage = job.make(job.cfgs[0])[index]
        self.devices = sharding.mesh(len(job.seeds))
        self.chunk, self.chunks = chunking(self.stage)
        self.marks = marks(self.stage)
        self.evaluates = job.env is not None and self.stage.algorithm.act is not None
        self.measures = job.held is not None and self.stage.health is not None
        self.episodes = self.stage.episodes or job.episodes
        self.compile_seconds = 0.0

    @cached_property
    def measured(self) -> set[int]:
        """The marks at which figures of health are measured: the last, and few enough before it."""
        job = self.job
        health = self.stage.health
        if job.held is None or health is None:
            return set()
        found = {self.chunks}
        if health.at_end:
            return found
        rows = min(FIGURE_ROWS, job.held.starts.shape[0])
        apart = DRAWN * rows / (self.batch_rows * self.chunk)
        last = 0
        for mark in self.marks:
            if mark - last >= apart:
                found.add(mark)
                last = mark
        return found

    # --- which rows ---

    @cached_property
    def identity(self) -> Identity:
        """What the stage is for each run of the group."""
        facts = {**self.job.facts, **rounded(), "episodes": self.episodes}
        return Identity.of(self.stage, self.job.cfgs, self.job.seeds, facts)

    def missing(self) -> list[int]:
        """The first run of each distinct row that is not finished; no array is read for it."""
        finished = self.job.library.finished_rows(self.identity.kind)
        return self.identity.first_runs(finished)

    # --- one run ---

    def key(self, seed: int) -> jax.Array:
        """The stage's own random stream of a seed.

        It depends on the stage's name, and not on its place in the pipeline.
        """
        stage = zlib.crc32(self.stage.name.encode())
        return jax.random.fold_in(jax.random.key(seed), stage)

    def init(self, cfg: Config, key: jax.Array, past: Past, data: Dataset | None) -> State:
        """The state before the first update."""
        algorithm = self.job.make(cfg)[self.index].algorithm
        return algorithm.init(jax.random.fold_in(key, 0), past, data)  # type: ignore

    def advance(
        self,
        state: State,
        cfg: Config,
        key: jax.Array,
        past: Past,
        chunk: jax.Array,
        data: Dataset | None,
    ) -> tuple[State, dict]:
        """One chunk of updates: (state, metrics [chunk])."""
        stage = self.job.make(cfg)[self.index]
        k_fresh, k_scan = jax.random.split(jax.random.fold_in(key, chunk))
        if stage.refresh:
            state = stage.refresh(k_fresh, state, past, data)  # type: ignore
        step = lambda state, key: self.update(state, key, cfg, past, data)
        return jax.lax.scan(step, state, jax.random.split(k_scan, self.chunk))

    def update(
        self,
        state: State,
        key: jax.Array,
        cfg: Config,
        past: Past,
        data: Dataset | None,
    ) -> tuple[State, dict]:
        """One gradient step on a fresh batch."""
        algorithm = self.job.make(cfg)[self.index].algorithm
        k_batch, k_update = jax.random.split(key)
        batch = algorithm.batch(k_batch, state, data)  # type: ignore
        batch = sharding.divided(batch, self.devices)
        return algorithm.update(k_update, state, past, batch)

    def evaluate(
        self,
        cfg: Config,
        state: State,
        past: Past,
        act_keys: jax.Array,
        reset_keys: jax.Array,
    ) -> dict[str, jax.Array]:
        """Episodes of one run."""
        env = self.job.env
        assert env is not None
        return evaluation.evaluate_one(
            env, self.job.make, self.index, cfg, state, past, act_keys, reset_keys
        )

    def measure(
        self, cfg: Config, key: jax.Array, state: State, past: Past, held: Dataset
    ) -> dict[str, jax.Array]:
        """Figures of one run's health."""
        health = self.job.make(cfg)[self.index].health
        assert health is not None
        return health.measure(jax.random.fold_in(key, HEALTH), state, past, held)

    # --- R runs ---

    def rows(self, chosen: list[int]) -> tuple[Config, jax.Array, Past]:
        """Configs, keys and finished stages of some of the group's runs, sharded over devices."""
        size = sharding.padded(len(chosen), self.devices)
        cfgs = stack([self.job.cfgs[r] for r in chosen])
        keys = jnp.stack([self.key(self.job.seeds[r]) for r in chosen])
        past = sharding.rows_of(self.past, chosen, len(self.job.seeds))
        return sharding.place((cfgs, keys, past), self.devices, size)

    @cached_property
    def state_shape(self) -> Any:
        """Shapes of one run's state, by tracing its start alone."""
        if self.index not in self.job.states:
            given = (self.job.cfgs[0], self.key(0), self.first_past(), self.job.data)
            self.job.states[self.index] = jax.eval_shape(self.init, *given)
        return self.job.states[self.index]

    @cached_property
    def shapes(self) -> dict[str, Any]:
        """Shapes of one run's state, and of its metrics, evaluations and health by name."""
        if self.index in self.job.shapes:
            return self.job.shapes[self.index]
        cfg = self.job.cfgs[0]
        key = self.key(0)
        past = self.first_past()
        state = self.state_shape
        number = jax.ShapeDtypeStruct((), jnp.int32)
        given = (state, cfg, key, past, number, self.job.data)
        _, metrics = self.results(self.advance, given)
        evaluations = {}
        if self.evaluates:
            given = (cfg, state, past, *self.some_keys())
            evaluations = self.results(self.evaluate, given)
        health = {}
        if self.measures:
            health = self.results(self.measure, (cfg, key, state, past, self.job.held))
        found = {"state": state, "metrics": metrics, "evaluations": evaluations, "health": health}
        self.job.shapes[self.index] = found
        return found

    def results(self, f: Callable, args: tuple) -> Any:
        """Shapes of what a function returns for one run; it is traced where no program has it."""
        for (index, name, *_), program in self.job.programs.items():
            if (index, name) == (self.index, f.__name__):
                return jax.tree.map(one_run, program.results)
        return jax.eval_shape(f, *args)

    def finished(self, runs: int, every: int | None = None) -> dict[str, Any]:
        """Shapes of the last checkpoint, which holds what the stage keeps.

        Its figures were measured after each `every`-th chunk; None: as this program measures.
        """
        like = self.like(runs)
        if every is not None:
            marked = len(marks_of(self.chunks, every))
            figure = jax.ShapeDtypeStruct((runs, marked), jnp.float32)
            like["health"] = dict.fromkeys(like["health"], figure)
        return {**like, "state": self.stage.kept(like["state"])}

    def like(self, runs: int) -> dict[str, Any]:
        """Shapes of a checkpoint of U rows, before the last."""
        lead = lambda x: jax.ShapeDtypeStruct((runs, *x.shape), x.dtype)
        history = jax.ShapeDtypeStruct((runs, self.chunks), jnp.float32)
        evaluated = (runs, len(self.marks) + 1, self.episodes)
        returns = jax.ShapeDtypeStruct(evaluated, jnp.float32)
        figure = jax.ShapeDtypeStruct((runs, len(self.marks)), jnp.float32)
        return {
            "state": jax.tree.map(lead, self.shapes["state"]),
            "metrics": dict.fromkeys(self.shapes["metrics"], history),
            "evaluations": dict.fromkeys(self.shapes["evaluations"], returns),
            "health": dict.fromkeys(self.shapes["health"], figure),
        }

    def first_past(self) -> Past:
        """Shapes of the finished stages of one run."""
        return jax.tree.map(one_run, self.past)

    def some_keys(self) -> tuple[jax.Array, jax.Array]:
        """Keys of the shapes that an evaluation takes."""
        return evaluation.act_keys(0, 0, self.episodes), evaluation.reset_keys(self.episodes)

    def compile(
        self,
        f: Callable,
        how: str,
        shared: int,
        args: tuple,
        donate: tuple[int, ...] = (),
    ) -> Callable:
        """Lift `f` to R runs, trace it once and compile it; the seconds are counted apart.

        The last `shared` of `args` are the same for all runs; those of `donate` are given away.
        `args` may be shapes. A program that was compiled for as many rows is not compiled again.
        """
        found = self.compiled(f, how, shared, args, donate)
        self.compile_seconds += found.seconds()
        return found.call

    def compiled(
        self,
        f: Callable,
        how: str,
        shared: int,
        args: tuple,
        donate: tuple[int, ...] = (),
    ) -> Compiled:
        """What `compile` returns, while a thread may still compile it."""
        rows = jax.tree.leaves(args)[0].shape[0]
        name = (self.index, f.__name__, how, rows, self.devices)
        if name not in self.job.programs:
            start = time.perf_counter()
            lifted = sharding.sharded(sharding.over_runs(f, how, shared), self.devices, shared)
            lowered = jax.jit(lifted, donate_argnums=donate).lower(*args)
            options = run_once() if self.runs_once(f) else training(how)
            compilation = self.job.compiler.submit(compile_timed, lowered, options)
            traced = time.perf_counter() - start
            self.job.programs[name] = Compiled(lowered.out_info, compilation, traced)
        return self.job.programs[name]

    def runs_once(self, f: Callable) -> bool:
        """Whether to compile a function takes longer than to run it, slow as it may be."""
        if f == self.measure:
            health = self.stage.health
            return len(self.measured) == 1 and health is not None and not health.at_end
        return f == self.init

    def compiled_for(self, rows: int) -> list[Any]:
        """The stage's programs that were compiled for so many rows."""
        names = [name for name in self.job.programs if (name[0], name[3]) == (self.index, rows)]
        return [self.job.programs[name].call for name in names]

    def programs(self, runs: int) -> list[Any]:
        """The compiled functions of the stage for U runs, from shapes alone.

        Their seconds are left for the training that calls them.
        """
        return [program.call for program in self.begin(runs)]

    def begin(self, runs: int) -> list[Compiled]:
        """Trace what `programs` returns, and let threads compile it."""
        size = sharding.padded(runs, self.devices)
        over = NamedSharding(self.devices, PartitionSpec("runs"))
        everywhere = NamedSharding(self.devices, PartitionSpec())

        # --- shapes, and the devices that they lie on ---
        struct = jax.ShapeDtypeStruct
        lead = lambda x: struct((size, *x.shape), x.dtype, sharding=over)
        replicate = lambda x: struct(x.shape, x.dtype, sharding=everywhere)
        cfgs = jax.tree.map(lambda x: lead(one_run(x)), stack(self.job.cfgs[:1]))
        keys = lead(self.key(0))
        state = jax.tree.map(lead, self.state_shape)
        past = jax.tree.map(lead, self.first_past())
        data = jax.tree.map(replicate, self.job.data)
        number = struct((), jnp.int32)

        # --- the functions ---
        how = self.how
        given = (state, cfgs, keys, past, number, data)
        found = [
            self.compiled(self.init, how, 1, (cfgs, keys, past, data)),
            self.compiled(self.advance, how, 2, given, donate=(0,)),
        ]
        if self.evaluates:
            acts, resets = self.some_keys()
            played = (cfgs, state, past, jax.tree.map(lead, acts), replicate(resets))
            found.append(self.compiled(self.evaluate, how, 1, played))
        if self.measures:
            held = jax.tree.map(replicate, self.job.held)
            found.append(self.compiled(self.measure, how, 1, (cfgs, keys, state, past, held)))
        return found

    @cached_property
    def batch_rows(self) -> int:
        """Rows of a batch, by tracing alone."""
        state = self.state_shape
        batch = jax.eval_shape(self.stage.algorithm.batch, self.key(0), state, self.job.data)
        sizes = [x.shape[0] for x in jax.tree.leaves(batch) if x.ndim]
        return max(sizes, default=1)

    @cached_property
    def how(self) -> str:
        """How a device goes through its runs, by the rule of sizes and device."""
        return sharding.mapping(
            platform=jax.default_backend(),
            state=self.state_shape,
            batch=self.batch_rows,
            replay=bool(self.stage.refresh),
        )

    def lay(self, runs: int) -> None:
        """Choose the devices for so many runs, by the rule of sizes and device."""
        there = jax.local_device_count()
        state = self.state_shape
        # tracing a batch needs a mesh itself
        rule = (jax.default_backend(), state, self.batch_rows, there, runs)
        self.devices = sharding.mesh(runs, sharding.shares(*rule))

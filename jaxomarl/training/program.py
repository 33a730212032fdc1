"""A group of runs, and the compiled functions of one of its stages."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Environment, Past, Spec, Stage, State, System
from jaxomarl.config import stack
from jaxomarl.training import evaluation, sharding
from jaxomarl.training.evaluation import Config
from jaxomarl.training.library import StageCache, TrainedStage

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
    """Runs and metrics whose numbers stopped being finite."""
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

    def make(self, cfg: Config) -> tuple[Stage, ...]:
        """The pipeline for one (possibly traced) config."""
        env = self.env if self.system.online else None
        return self.system.pipeline(self.spec, cfg, env)


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
    return [c for c in range(1, chunks + 1) if c % stage.every == 0 or c == chunks]


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

    def measured_after(self, chunk: int) -> bool:
        """Whether figures of health are measured at this mark."""
        health = self.stage.health
        if health is None or not self.measures:
            return False
        return chunk == self.chunks or not health.at_end

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
        index = np.array(chosen)
        cfgs = stack([self.job.cfgs[r] for r in chosen])
        keys = jnp.stack([self.key(self.job.seeds[r]) for r in chosen])
        past = jax.tree.map(lambda x: x[index], self.past)
        return sharding.place((cfgs, keys, past), self.devices, size)

    @cached_property
    def shapes(self) -> dict[str, Any]:
        """Shapes of one run's state, metrics, evaluations and health, by tracing alone."""
        cfg = self.job.cfgs[0]
        key = self.key(0)
        past = self.first_past()
        data = self.job.data
        state = jax.eval_shape(self.init, cfg, key, past, data)
        _, metrics = jax.eval_shape(self.update, state, key, cfg, past, data)
        evaluations = {}
        if self.evaluates:
            evaluations = jax.eval_shape(self.evaluate, cfg, state, past, *self.some_keys())
        health = {}
        if self.measures:
            health = jax.eval_shape(self.measure, cfg, key, state, past, self.job.held)
        return {"state": state, "metrics": metrics, "evaluations": evaluations, "health": health}

    def finished(self, runs: int) -> dict[str, Any]:
        """Shapes of the last checkpoint, which holds what the stage keeps."""
        like = self.like(runs)
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
        one_run = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
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
        """
        start = time.perf_counter()
        lifted = sharding.sharded(sharding.over_runs(f, how, shared), self.devices, shared)
        compiled = jax.jit(lifted, donate_argnums=donate).lower(*args).compile()
        self.compile_seconds += time.perf_counter() - start
        return compiled

    @cached_property
    def how(self) -> str:
        """Whether to "vmap" or "map" over runs, by the rule of sizes and device."""
        state = self.shapes["state"]
        batch = jax.eval_shape(self.stage.algorithm.batch, self.key(0), state, self.job.data)
        sizes = [x.shape[0] for x in jax.tree.leaves(batch) if x.ndim]
        return sharding.mapping(
            platform=jax.default_backend(),
            state=state,
            batch=max(sizes, default=1),
            replay=bool(self.stage.refresh),
        )

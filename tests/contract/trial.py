"""One system on trial: tiny settings derived from its config's fields, runs of it through the runner, and its traces.

Compilation is most of the time here, so a program that was compiled once is kept for the session (`Kept`), and runs
that train the same stage share it through a library, as the commands do.
"""

import contextlib
import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple
from unittest import mock

import choices
import jax
import jax.numpy as jnp
import mixed
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import JaxomarlError, Observation, Spec, Stage, System, Task
from jaxomarl.config import static_fields, traced_fields
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import identity, statistics
from jaxomarl.training import runner, sharding
from jaxomarl.training.library import StageCache, TrainedStage

SMALL = {
    "steps": 6, "chunk": 2, "every": 2, "width": 8, "batch": 8, "embedding": 8, "capacity": 16, "horizon": 1,
    "depth": 1, "blocks": 1, "layers": 1,
}  # fmt: skip
"""The last word of a field's name -> its tiny value; other whole numbers become at most 2."""
OTHERS = {"order": ("2-1-0", "1-0"), "start": ("uniform:0.5",), "thresholds": ("-100",)}
"""Another value of text fields whose refusal does not list the choices."""
SEEDS = (0, 1, 2, 3)
ROWS = 40
MOVED, LEARNING_NOTHING = (
    1,
    2,
)  # rows of the base run: every traced field changed; the last stage's own rates zero


def takes(system: System, spec: Spec) -> bool:
    """Whether a system accepts a task's kind of actions at its default settings."""
    try:
        system.check(spec, system.Config(), None)
    except JaxomarlError as error:
        if error.field != "--task":
            raise
        return False
    return True


def task_for(system: System) -> Task:
    """The task on which a system keeps its contract: the mixed one, or choices if it takes no other."""
    return mixed.TASK if takes(system, mixed.SPEC) else choices.TASK


def tiny(config: type, horizon: int) -> Any:
    """The config at sizes that compile fast; windows fit into episodes of `horizon` steps."""
    changed = {}
    for f in dataclasses.fields(config):
        word = f.name.split("_")[-1]
        if type(f.default) is int:
            most = horizon - 1 if word == "history" else 2
            changed[f.name] = SMALL.get(word, min(f.default, most, 2))
        elif word == "lr":
            changed[f.name] = 0.01
    return config(**changed)


class Kept:
    """What was traced and compiled, kept for the session by all that it depends on."""

    compiled: dict[Any, Callable] = {}  # noqa: RUF012
    shapes: dict[Any, dict[str, Any]] = {}  # noqa: RUF012

    @staticmethod
    @contextlib.contextmanager
    def programs() -> Iterator[None]:
        """Within, programs are compiled quickly, and once; a stage is traced for its shapes once."""
        compile_anew, trace_anew = runner.Program.compile, runner.Program.shapes.func

        def compile_once(self, f, how, shared, args, donate=()):
            key = (*stage_of(self), f.__name__, how, *shapes_of(args), self.devices)
            if key not in Kept.compiled:
                Kept.compiled[key] = compile_anew(self, f, how, shared, args, donate)
            return Kept.compiled[key]

        def trace_once(self):
            given = self.job.cfgs[0], self.first_past(), self.job.data
            key = (*stage_of(self), self.evaluates, self.episodes, *shapes_of(given))
            if key not in Kept.shapes:
                Kept.shapes[key] = trace_anew(self)
            return Kept.shapes[key]

        with (
            mock.patch.object(runner.Program, "compile", compile_once),
            mock.patch.object(runner.Program, "shapes", property(trace_once)),
            quick_compilation(),
        ):
            yield


def stage_of(program: runner.Program) -> tuple:
    """Whose stage of which task a program trains."""
    stage, job = program.stage, program.job
    return stage.owner, stage.name, job.spec, job.system.pipeline_of


def shapes_of(tree: Any) -> tuple:
    """A tree's structure, and the shapes and dtypes of its leaves."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((getattr(x, "shape", ()), getattr(x, "dtype", type(x))) for x in leaves)


def on_host(x: Any) -> Any:
    """An array as numpy's, which JAX would take a millisecond to index; typed keys stay as they are."""
    return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    # newer jaxlib has no older fusions, and no option
    **({"xla_cpu_use_fusion_emitters": False} if jax.__version__.startswith("0.10.") else {}),
}
"""XLA without its slow passes, half the seconds: the programs themselves run for milliseconds."""


def quick_compilation() -> Any:
    original = jax.stages.Lowered.compile
    return mock.patch.object(
        jax.stages.Lowered,
        "compile",
        lambda self, **_: original(self, compiler_options=QUICK),
    )


DATA: dict[str, Any] = {}


def data_of(task: Task) -> Any:
    """A small data set of the task, made once."""
    if task.name not in DATA:
        DATA[task.name] = load(task, rows=ROWS)[0]
    return DATA[task.name]


class Outcome(NamedTuple):
    """What a run left behind."""

    past: dict[str, Any]
    trained: dict[str, TrainedStage]
    when_finished: dict[str, Any]  # each stage's state, copied when it was finished
    progress: list[runner.Progress]
    traces: Counter[str]  # how often each stage's update was traced


class Traced:
    """A function's program."""

    def __init__(self, f: Callable[[dict], Any], given: dict[str, Any]) -> None:
        self.closed, self.out = jax.make_jaxpr(f, return_shape=True)(given)
        self.names = [
            jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(given)[0]
        ]

    @cached_property
    def live(self) -> tuple[Any, list[bool]]:
        """The equations that outputs depend on, and which constants and inputs they read."""
        jaxpr = self.closed.jaxpr
        debug, inputs = jaxpr.debug_info.with_unknown_names(), [*jaxpr.constvars, *jaxpr.invars]
        return dce_jaxpr(
            jaxpr.replace(constvars=[], invars=inputs, debug_info=debug),
            [True] * len(jaxpr.outvars),
        )

    @cached_property
    def reads(self) -> set[str]:
        """Names of the inputs that outputs depend on."""
        return {
            n
            for n, used in zip(self.names, self.live[1][len(self.closed.consts) :], strict=True)
            if used
        }

    @cached_property
    def text(self) -> str:
        """The program, without names of its inputs and without addresses."""
        used = zip(self.closed.consts, self.live[1], strict=False)
        constants = [(x.shape, np.asarray(x).tobytes()) for x, u in used if u]
        return re.sub(r"0x[0-9a-f]+", "", f"{self.live[0]}{constants}")


class Trial:
    """A system, its tiny config and a task."""

    def __init__(self, name: str, system: System, task: Task | None = None) -> None:
        task = task or task_for(system)
        self.name, self.system, self.task, self.spec = name, system, task, task.env.spec
        self.cfg = tiny(system.Config, self.spec.horizon)
        self.players: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        self.raw = None if system.online else data_of(task)
        system.check(self.spec, self.cfg, self.raw)
        self.data = self.prepared(self.cfg)
        self.stats = identity(self.spec) if self.raw is None else statistics(self.raw)
        self.stages = self.make(self.cfg)

    def make(self, cfg: Any) -> tuple[Stage, ...]:
        return self.system.pipeline(self.spec, cfg, self.task.env if self.system.online else None)

    def prepared(self, cfg: Any, raw: Any = None) -> Any:
        """The task's data, or other `raw` data, as the system prepares them; None for an online system."""
        return self.raw and self.system.prepare(self.spec, cfg, raw or self.raw)

    def fields(self, stage: Stage) -> set[str]:
        """The config fields that the stage declares."""
        return (
            {f.name for f in dataclasses.fields(self.cfg)}
            if stage.fields is None
            else set(stage.fields)
        )

    def with_traced(self, change: Callable[[str, float], float]) -> Any:
        return dataclasses.replace(
            self.cfg, **{k: change(k, v) for k, v in traced_fields(self.cfg).items()}
        )

    @cached_property
    def own_rates(self) -> list[str]:
        """Learning rates that reach the last stage and none before it."""
        before = set().union(*(self.fields(s) for s in self.stages[:-1]))
        return [f for f in traced_fields(self.cfg) if f.split("_")[-1] == "lr" and f not in before]

    @cached_property
    def cfgs(self) -> list[Any]:
        """Of the base run: as it is; every traced field changed; nothing learned in the last stage; changed again."""
        nothing = 5e-324  # positive for the check, and zero in float32
        still = dataclasses.replace(self.cfg, **dict.fromkeys(self.own_rates, nothing))
        found = [
            self.cfg,
            self.with_traced(lambda k, v: 0.75 * v),
            still,
            self.with_traced(lambda k, v: 0.9 * v),
        ]
        for cfg in found:
            self.system.check(self.spec, cfg, self.data)
        return found

    # --- running ---

    def run(
        self,
        cfgs: list[Any],
        seeds: tuple[int, ...],
        library: StageCache,
        how: str = "vmap",
        data: Any = None,
        env: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Train through the runner; `data` replaces the trial's, of the same shape."""
        out = Outcome({}, {}, {}, [], Counter())

        def finished(index: int, stage: Stage, trained: TrainedStage) -> None:
            out.trained[stage.name] = trained
            out.when_finished[stage.name] = jax.tree.map(np.array, trained.state)

        job = runner.Job(
            system=self.counting(out.traces),
            spec=self.spec,
            cfgs=cfgs,
            seeds=list(seeds),
            data=self.data if data is None else data,
            stats=self.stats,
            env=self.task.env if env else None,
            episodes=self.task.episodes,
            facts={"task": self.task.name},
            library=library,
            report=out.progress.append,
            stopped=stopped,
            finished=finished,
        )
        with Kept.programs(), mock.patch.object(sharding, "mapping", lambda **sizes: how):
            out.past.update(runner.run(job))
        return out

    def counting(self, traces: Counter[str]) -> System:
        """The system, counting how often each stage's update is traced."""

        def counted(stage: Stage) -> Stage:
            def update(*args):
                traces[stage.name] += 1
                return stage.algorithm.update(*args)

            return stage._replace(algorithm=stage.algorithm._replace(update=update))

        def pipeline(spec, cfg, env):
            return tuple(counted(stage) for stage in self.system.pipeline(spec, cfg, env))

        return Counting(*self.system._replace(pipeline=pipeline), self.system.pipeline)

    @cached_property
    def base(self) -> Outcome:
        """Four runs with different seeds and traced fields, side by side."""
        return self.run(self.cfgs, SEEDS, LIBRARIES["base"])

    @cached_property
    def first_states(self) -> dict[str, Any]:
        """Each stage's states before the first update of the base run."""
        out, system = {}, self.counting(Counter())
        job = runner.Job(system, self.spec, self.cfgs, list(SEEDS), self.data, self.stats)
        for index, stage in enumerate(self.stages):
            past = {
                k: v
                for k, v in self.base.past.items()
                if k in ["stats", *(s.name for s in self.stages[:index])]
            }
            program = runner.Program(job, index, past)
            args = (*program.rows([*range(len(SEEDS))]), self.data)
            with Kept.programs():
                out[stage.name] = program.compile(program.init, "vmap", 1, args)(*args)
        return out

    @cached_property
    def swept(self) -> tuple[str, list[Any]]:
        """A field that reaches the last stage alone, and the config with two values of it."""
        before = set().union(*(self.fields(s) for s in self.stages[:-1]))
        field = next(
            f for f in traced_fields(self.cfg) if f in self.fields(self.stages[-1]) - before
        )
        value = getattr(self.cfg, field)
        return field, [dataclasses.replace(self.cfg, **{field: k * value}) for k in (1.0, 3.0)]

    def sweep(self, library: StageCache, seeds: tuple[int, ...] = SEEDS) -> Outcome:
        """Both values with every seed, in one run."""
        return self.run([c for c in self.swept[1] for _ in seeds], seeds * 2, library, env=False)

    # --- tracing ---

    def trace(self, index: int, cfg: Any) -> dict[str, Traced]:
        """The programs of a stage's functions for a config."""
        stage, make = self.stages[index], lambda x: self.make(x["cfg"])[index]
        given = {
            "cfg": cfg,
            "key": jax.random.key(0),
            "past": self.past_shapes(index),
            "data": self.data,
        }
        out = {
            "init": Traced(lambda x: make(x).algorithm.init(x["key"], x["past"], x["data"]), given)
        }
        given["state"] = out["init"].out
        if stage.refresh:
            out["refresh"] = Traced(
                lambda x: make(x).refresh(x["key"], x["state"], x["past"], x["data"]), given
            )
        out["batch"] = Traced(
            lambda x: make(x).algorithm.batch(x["key"], x["state"], x["data"]), given
        )
        given["batch"] = out["batch"].out
        out["update"] = Traced(
            lambda x: make(x).algorithm.update(x["key"], x["state"], x["past"], x["batch"]), given
        )
        if stage.algorithm.act:
            given |= {"memory": stage.algorithm.memory, "seen": self.seen}
            out["act"] = Traced(
                lambda x: make(x).algorithm.act(
                    x["key"], x["state"], x["past"], x["memory"], x["seen"]
                ),
                given,
            )
        return out

    def trace_update(self, index: int) -> Traced:
        """The program of a stage's update alone, of the shapes that were traced before."""
        known = self.traced[index]
        given = {
            "cfg": self.cfg,
            "key": jax.random.key(0),
            "past": self.past_shapes(index),
            "state": known["init"].out,
            "batch": known["batch"].out,
        }
        return Traced(
            lambda x: self.make(x["cfg"])[index].algorithm.update(
                x["key"], x["state"], x["past"], x["batch"]
            ),
            given,
        )

    @cached_property
    def traced(self) -> list[dict[str, Traced]]:
        """Of every stage, for the tiny config."""
        self._shapes: list[Any] = []
        out = []
        for index in range(len(self.stages)):
            out.append(self.trace(index, self.cfg))
            self._shapes.append(out[-1]["init"].out)
        return out

    def past_shapes(self, index: int) -> dict[str, Any]:
        return {"stats": self.stats} | {
            s.name: x for s, x in zip(self.stages[:index], self._shapes, strict=False)
        }

    @property
    def seen(self) -> Observation:
        return Observation(jnp.zeros(self.spec.obs_mask.shape), jnp.asarray(self.spec.act_mask > 0))

    # --- acting ---

    def player(self, stage: Stage) -> Callable[[np.ndarray], np.ndarray]:
        """obs [T, N, O] -> actions [T, N, A] of the base run's first policy, with its memory."""
        if stage.name not in self.players:
            self.players[stage.name] = self.new_player(stage)
        return self.players[stage.name]

    def new_player(self, stage: Stage) -> Callable[[np.ndarray], np.ndarray]:
        """A player that is compiled at its first call."""
        row = lambda tree: jax.tree.map(lambda x: on_host(x)[0], tree)
        state, past, algorithm = (
            row(self.base.past[stage.name]),
            row(self.base.past),
            stage.algorithm,
        )

        @jax.jit
        def play(state, past, obs):
            def step(memory, now):
                t, seen = now
                action, memory = algorithm.act(
                    jax.random.fold_in(jax.random.key(7), t), state, past, memory, seen
                )
                return memory, action

            available = jnp.broadcast_to(
                self.spec.act_mask > 0, (len(obs), *self.spec.act_mask.shape)
            )
            return jax.lax.scan(
                step, algorithm.memory, (jnp.arange(len(obs)), Observation(obs, available))
            )[1]

        return lambda obs: np.asarray(play(state, past, jnp.asarray(obs)))

    # --- other values ---

    @functools.cache  # noqa: B019 (trials live as long as the session)
    def another(self, field: str) -> Any:
        """A value other than the config's that the system takes; None where there is none."""
        value = getattr(self.cfg, field)
        for candidate in self.candidates(field, value):
            if candidate == value:
                continue
            with contextlib.suppress(JaxomarlError):
                self.system.check(
                    self.spec, dataclasses.replace(self.cfg, **{field: candidate}), self.data
                )
                return candidate
        return None

    @functools.cache  # noqa: B019
    def with_another(self, field: str) -> tuple[Any, tuple[Stage, ...]] | None:
        """The config with another value of one field, and its stages; None where there is no other value."""
        value = self.another(field)
        if value is None:
            return None
        changed = dataclasses.replace(self.cfg, **{field: value})
        whole = (
            type(value) is int
        )  # of steps or chunks; else the stages' names and lengths are as they were
        return changed, self.make(changed) if whole else self.stages

    def candidates(self, field: str, value: Any) -> list[Any]:
        """What might do as another value; AssertionError for a text field of which nothing is known."""
        if isinstance(value, bool):
            return [not value]
        if isinstance(value, int):
            return [2 * value, value // 2, value + 1]
        if isinstance(value, float):
            return [0.5 * value if value else 0.5]
        if field in OTHERS:
            return list(OTHERS[field])
        try:
            self.system.check(self.spec, dataclasses.replace(self.cfg, **{field: "?"}), self.data)
        except JaxomarlError as error:
            listed = re.search(r"expected (?:one of )?(.*?), found", str(error))
            assert listed, (
                f"{field}: the refusal does not list choices; give another value in trial.OTHERS"
            )
            return re.split(r", | or ", listed[1])
        raise AssertionError(f"{field}: check() takes any text; give another value in trial.OTHERS")

    def changed_but(self, kept: set[str]) -> Any:
        """The config with every static field changed that is not in `kept`."""
        others = {f: self.another(f) for f in static_fields(self.cfg) if f not in kept}
        return dataclasses.replace(self.cfg, **{f: v for f, v in others.items() if v is not None})


class Trials(dict[str, Trial]):
    """Trials by the systems' names, each made when it is first asked for, on the task that `task_of` gives it."""

    def __init__(self, task_of: Callable[[System], Task], kind: type[Trial] = Trial) -> None:
        super().__init__()
        self.task_of, self.kind = task_of, kind

    def __missing__(self, name: str) -> Trial:
        system = REGISTRY[name]
        return self.setdefault(name, self.kind(name, system, self.task_of(system)))


TRIALS = Trials(task_for)
"""Those that one session shares; tests are named by their stages before any of them runs."""


class Counting(System):
    """A system whose pipeline counts, told apart by the pipeline it wraps."""

    def __new__(cls, *fields):
        self = super().__new__(cls, *fields[:-1])
        self.pipeline_of = fields[-1]
        return self


LIBRARIES: dict[str, StageCache] = {
    k: StageCache() for k in ("base", "alone", "turned", "obs", "action", "nan")
}
"""What the trials of one session share, as the systems of one command do."""

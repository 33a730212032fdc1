"""Speed and parity of multi-agent MuJoCo's engines: `python -m benchmarks.mamujoco`.

    steps    environment steps per second of engine c, engine mjx, Gymnasium-Robotics in one
             process, and mujoco.batch alone (no observations, rewards or JAX), under random actions
    episodes seconds of full evaluation episodes of half-cheetah
    parity   how far mjx is from c after 1, 10 and 100 steps from the same states under the same
             actions

An episode that has ended is not started again. Its physics continue, so that all do the same work.
What is compared takes turns. On a GPU:

    python -m benchmarks.mamujoco --engines mjx --sizes 64 1024 4096 16384

and again with `--iterations 4 --ls-iterations 8`, whose effect on parity `--parts parity` shows
with the same flags.
"""

import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import mujoco.batch
import numpy as np
import tyro

from benchmarks.report import Line, Written, alone, columns, markdown, report
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.envs import rollout
from jaxomarl.envs.mamujoco import engine_c, engine_mjx
from jaxomarl.envs.mamujoco.environment import environment, noise
from jaxomarl.envs.mamujoco.layout import layout
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot, quiet

TASKS = {
    "2halfcheetah": ("halfcheetah", "2x3", "HalfCheetah"),
    "6halfcheetah": ("halfcheetah", "6x1", "HalfCheetah"),
    "2ant": ("ant", "2x4", "Ant"),
    "4ant": ("ant", "4x2", "Ant"),
    "3hopper": ("hopper", "3x1", "Hopper"),
}


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time the engines, or measure how far they are apart."""

    parts: tuple[str, ...] = ("steps", "episodes")
    """Some of steps, episodes, parity."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks, without their family."""
    engines: tuple[str, ...] = ("c", "mjx", "batch", "gymnasium")
    """Engines that are timed."""
    sizes: tuple[int, ...] = (1, 64, 1024)
    """Numbers of environments at once; Gymnasium-Robotics has one."""
    seconds: float = 0.5
    """Seconds of each sample."""
    rounds: int = 5
    """Samples of each engine."""
    iterations: int = 0
    """Iterations of mjx's solver; 0: the model's own, 100."""
    ls_iterations: int = 0
    """Iterations of its line search; 0: the model's own, 50."""
    parity: bool = False
    """Measure parity alone, as `--parts parity` does."""
    states: int = 32
    """States of each robot, for parity."""


# --- steps ---


def ours(task: str, name: str, size: int, flags: Flags) -> tuple[Callable[[int], Any], float]:
    """A function of a number of steps, which runs them, and the seconds of its compilation."""
    robot, partition, _ = TASKS[task]
    body = ROBOTS[robot]
    env = environment(body, layout(body, partition), _engine(body, name, flags))
    mask = jnp.asarray(env.spec.act_mask)

    def some(key: jax.Array, state: Any, steps: jax.Array) -> Any:
        def step(i: jax.Array, carry: tuple) -> tuple:
            state, total = carry
            keys = jax.random.fold_in(key, i)
            action = mask * jax.random.uniform(keys, (size, *mask.shape), minval=-1.0, maxval=1.0)
            state, now = jax.vmap(env.step, (None, 0, 0))(keys, state, action)
            total = total + now.reward[:, 0] + now.obs[:, 0, 0]
            return state._replace(over=jnp.zeros(size)), total

        return jax.lax.fori_loop(0, steps, step, (state, jnp.zeros(size)))

    key = jax.random.key(0)
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(key, size))
    began = time.perf_counter()
    compiled = jax.jit(some).lower(key, state, jnp.asarray(1)).compile()
    seconds = time.perf_counter() - began

    def run(steps: int) -> Any:
        return jax.block_until_ready(compiled(key, state, jnp.asarray(steps)))

    return run, seconds


def _engine(body: Robot, name: str, flags: Flags) -> engine_c.Engine:
    if name == "c":
        return engine_c.engine(body, old=False)
    return engine_mjx.engine(body, False, flags.iterations, flags.ls_iterations)


def batch(task: str, name: str, size: int, flags: Flags) -> tuple[Callable[[int], Any], float]:
    """MuJoCo's batch from the same starts, with as many threads, and actions drawn in advance."""
    robot = TASKS[task][0]
    body = ROBOTS[robot]
    sim = engine_c.simulator(robot, False)
    simulation = mujoco.batch.Batch(body.model, size, sim.threads)
    control = simulation.bind("ctrl")
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1.0, 1.0, (100, size, body.model.nu))
    keys = jax.random.split(jax.random.key(0), size)
    rows = sim.start(np.asarray(jax.vmap(lambda k: noise(k, body))(keys), np.float64))

    def run(steps: int) -> None:
        simulation.state[:, : sim.width] = rows[:, :-1]
        with quiet():
            for i in range(steps):
                control[:] = drawn[i % 100]
                simulation.step(nstep=body.frame_skip)

    return run, 0.0


def gymnasium(task: str, name: str, size: int, flags: Flags) -> tuple[Callable[[int], Any], float]:
    """Gymnasium-Robotics in this process; ImportError where it is missing."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        from gymnasium_robotics import mamujoco_v1

        _, partition, scenario = TASKS[task]
        env = mamujoco_v1.parallel_env(scenario, partition)
    rng = np.random.default_rng(0)

    def run(steps: int) -> None:
        env.reset(seed=0)
        for i in range(steps):
            if i % 1000 == 999:
                env.reset()
            spaces = {a: env.action_space(a) for a in env.possible_agents}
            env.step({a: rng.uniform(-1, 1, space.shape) for a, space in spaces.items()})

    return run, 0.0


MAKERS = {"c": ours, "mjx": ours, "batch": batch, "gymnasium": gymnasium}


@dataclass
class Rate:
    """An engine's steps per second, sample by sample."""

    run: Callable[[int], Any]
    work: int
    """Environment steps in one step of `run`."""
    compile_seconds: float
    count: int
    """Steps of `run` in a sample."""
    rates: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Add a sample."""
        with alone():
            began = time.perf_counter()
            self.run(self.count)
            self.rates.append(self.count * self.work / (time.perf_counter() - began))


def steps(flags: Flags) -> Iterator[Line]:
    """Lines of steps per second; the engines of one task and size take turns."""
    for task, size in itertools.product(flags.tasks, flags.sizes):
        line = {"benchmark": "robots", "task": task}
        engines = {}
        for name in flags.engines:
            try:
                engines[name] = started(task, name, size, flags)
            except (ImportError, JaxomarlError) as error:
                yield {**line, "engine": name, "size": size, "skipped": str(error)}
        for _ in range(flags.rounds):
            for engine in engines.values():
                engine.sample()

        median = {name: statistics.median(engine.rates) for name, engine in engines.items()}
        for name, engine in engines.items():
            peers = [x for x in ("batch", "gymnasium") if x in median and x != name]
            yield {
                **line,
                "engine": name,
                "size": size,
                "frame_skip": ROBOTS[TASKS[task][0]].frame_skip,  # physics steps in a step
                "steps_per_second": median[name],
                "steps_per_second_low": min(engine.rates),
                "steps_per_second_high": max(engine.rates),
                **{f"over_{peer}": median[name] / median[peer] for peer in peers},
                "compile_seconds": engine.compile_seconds,
                **_solver(name, flags),
            }


def started(task: str, name: str, size: int, flags: Flags) -> Rate:
    """An engine that is compiled, with as many steps in a sample as take `flags.seconds`."""
    run, compile_seconds = MAKERS[name](task, name, size, flags)
    with alone():
        run(1)
        began = time.perf_counter()
        run(2)
        count = max(2, round(2 * flags.seconds / (time.perf_counter() - began)))
    return Rate(run, 1 if name == "gymnasium" else size, compile_seconds, count)


def _solver(name: str, flags: Flags) -> dict[str, int]:
    """The solver's limits of an engine's line."""
    if name != "mjx":
        return {}
    return {"iterations": flags.iterations or 100, "ls_iterations": flags.ls_iterations or 50}


def whole(flags: Flags, count: int = 32) -> Line:
    """Seconds of evaluation episodes of half-cheetah under random actions, engine c."""
    body = ROBOTS["halfcheetah"]
    env = environment(body, layout(body, "2x3"), engine_c.engine(body, old=False))

    def act(key, memory, observation):
        return jax.random.uniform(key, (2, 3), minval=-1.0, maxval=1.0), memory

    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(lambda k: rollout.episodes(env, act, (), k, k)["return"])
    began = time.perf_counter()
    compiled = run.lower(keys).compile()
    compile_seconds = time.perf_counter() - began

    seconds = []
    for _ in range(flags.rounds):
        began = time.perf_counter()
        jax.block_until_ready(compiled(keys))
        seconds.append(time.perf_counter() - began)
    return {
        "benchmark": "robot-episodes",
        "task": "2halfcheetah",
        "episodes": count,
        "seconds": statistics.median(seconds),
        "seconds_low": min(seconds),
        "seconds_high": max(seconds),
        "compile_seconds": compile_seconds,
    }


# --- parity ---


def parity(robot: str, flags: Flags, checks: tuple[int, ...] = (1, 10, 100)) -> Iterator[Line]:
    """Lines of |mjx - c| in joint positions, joint velocities and the reward so far.

    The states are those after 20 random steps on engine c, off the rest pose. Both engines then
    take the same random actions.
    """
    body = ROBOTS[robot]
    sim = engine_c.simulator(robot, False)
    rng = np.random.default_rng(0)
    count = flags.states
    none = np.zeros((count, 0))
    draw = lambda: rng.uniform(-1.0, 1.0, (count, body.model.nu)).astype(np.float32)

    # --- the states ---
    keys = jax.random.split(jax.random.key(0), count)
    rows = sim.start(np.asarray(jax.vmap(lambda k: noise(k, body))(keys), np.float64))
    for _ in range(20):
        rows = sim.advance(rows, draw().astype(np.float64), none).rows
    parts = (sim.qpos, sim.qvel, slice(sim.qvel.stop, sim.width), -1)
    state: Any = engine_mjx.Simulation(*(jnp.asarray(rows[:, part], jnp.float32) for part in parts))

    # --- both engines from there ---
    step = jax.jit(jax.vmap(_engine(body, "mjx", flags).step, (0, 0, None, None)))
    rewards = np.zeros((2, count))
    for t in range(1, max(checks) + 1):
        control = draw()
        moved = sim.advance(rows, control.astype(np.float64), none)
        state, _, reward, _, _ = step(state, control, jnp.zeros(()), jnp.zeros(0))
        rows = moved.rows
        rewards += np.stack([moved.reward, np.asarray(reward, np.float64)])
        if t not in checks:
            continue
        apart = {
            "qpos": np.abs(np.asarray(state.qpos) - rows[:, sim.qpos]).max(axis=1),
            "qvel": np.abs(np.asarray(state.qvel) - rows[:, sim.qvel]).max(axis=1),
            "return": np.abs(rewards[0] - rewards[1]),
        }
        line: Line = {"benchmark": "parity", "robot": robot, "steps": t, "states": count}
        line |= _solver("mjx", flags)
        for name, x in apart.items():
            line[f"{name}_median"] = float(np.median(x))
            line[f"{name}_90"] = float(np.quantile(x, 0.9))
            line[f"{name}_max"] = float(x.max())
        yield line


COLUMNS = {
    "robots": ("task", "engine", "size", "steps_per_second", "steps_per_second_low",
               "steps_per_second_high", "over_batch", "over_gymnasium", "compile_seconds"),
    "robot-episodes": ("task", "episodes", "seconds", "seconds_low", "seconds_high",
                       "compile_seconds"),
}  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """Speeds as Markdown, then parity: median / 90 % / largest of the states' distances."""
    tables = [columns(lines, kind, named) for kind, named in COLUMNS.items()]
    parities = [line for line in lines if line["benchmark"] == "parity"]
    if parities:
        measures = ("qpos", "qvel", "return")
        rows = [("robot", "steps", *measures), ("---",) * 5]
        for line in parities:
            cells = [distances(line, measure) for measure in measures]
            rows.append((line["robot"], str(line["steps"]), *cells))
        tables.append(markdown(rows))
    return "\n\n".join(filter(None, tables))


def distances(line: Line, measure: str) -> str:
    """Median / 90 % / largest of a measure."""
    return " / ".join(f"{line[f'{measure}_{end}']:.1e}" for end in ("median", "90", "max"))


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes; raises JaxomarlError for flags that mean nothing."""
    parts = ("parity",) if flags.parity else flags.parts
    known = ("steps", "episodes", "parity", *MAKERS)
    unknown = [x for x in (*parts, *flags.engines) if x not in known]
    unknown += [x for x in flags.tasks if x not in TASKS]
    if unknown:
        named = "--parts, --engines, --tasks"
        raise refuse(named, "some of those of --help", ", ".join(unknown), "")
    for line in _lines(parts, flags):
        yield {**line, "mujoco": mujoco.__version__}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.mamujoco")
    return report(bench(flags), table, flags.out)


def _lines(parts: tuple[str, ...], flags: Flags) -> Iterator[Line]:
    if "steps" in parts:
        yield from steps(flags)
    if "episodes" in parts:
        yield whole(flags)
    if "parity" in parts:
        for robot in dict.fromkeys(TASKS[task][0] for task in flags.tasks):
            yield from parity(robot, flags)


if __name__ == "__main__":
    sys.exit(main())

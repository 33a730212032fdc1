"""Multi-agent MuJoCo's engines beside one another: `python -m benchmarks.mamujoco`; one JSON line per figure.

    steps    environment steps per second of engine c, engine mjx, Gymnasium-Robotics in one process, and mujoco.batch
             alone (no observations, rewards or JAX), under random actions
    episodes seconds of whole evaluation episodes of half-cheetah
    parity   how far mjx is from c after 1, 10 and 100 steps from the same states under the same actions

An episode that has ended is begun again by nobody: physics of all go on, so that all do the same work. What is compared
takes turns, round after round. On a GPU: `python -m benchmarks.mamujoco --engines mjx --sizes 64 1024 4096 16384`,
and again with `--iterations 4 --ls-iterations 8`, whose effect on parity `--parts parity` shows with the same flags.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import mujoco.batch
import numpy as np
import tyro

from benchmarks.report import alone, columns, markdown, report
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
class Flags:
    """Time the engines, or print how far they are apart."""

    parts: tuple[str, ...] = ("steps", "episodes")
    """Some of steps, episodes, parity."""
    tasks: tuple[str, ...] = tuple(TASKS)
    engines: tuple[str, ...] = ("c", "mjx", "batch", "gymnasium")
    sizes: tuple[int, ...] = (1, 64, 1024)
    """Environments side by side; Gymnasium-Robotics has one."""
    seconds: float = 0.5
    """Of each sample."""
    rounds: int = 5
    iterations: int = 0
    """Of mjx's solver; 0: the model's own, 100."""
    ls_iterations: int = 0
    """Of its line search; 0: the model's own, 50."""
    parity: bool = False
    """As `--parts parity`."""
    states: int = 32
    """Of each robot, for parity."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


# --- steps ---


def ours(task: str, name: str, size: int, flags: Flags) -> tuple[Callable[[int], Any], float]:
    """(steps -> done), compiled for any number of steps, and the seconds that took."""
    robot, partition, _ = TASKS[task]
    body = ROBOTS[robot]
    env = environment(body, layout(body, partition), _engine(body, name, flags))
    mask = jnp.asarray(env.spec.act_mask)

    def some(key: jax.Array, play: Any, steps: jax.Array) -> Any:
        def step(i: jax.Array, carry: tuple) -> tuple:
            play, total = carry
            keys = jax.random.fold_in(key, i)
            action = mask * jax.random.uniform(keys, (size, *mask.shape), minval=-1.0, maxval=1.0)
            play, now = jax.vmap(env.step, (None, 0, 0))(keys, play, action)
            return play._replace(over=jnp.zeros(size)), total + now.reward[:, 0] + now.obs[:, 0, 0]

        return jax.lax.fori_loop(0, steps, step, (play, jnp.zeros(size)))

    key = jax.random.key(0)
    play, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(key, size))
    began = time.perf_counter()
    compiled = jax.jit(some).lower(key, play, jnp.asarray(1)).compile()
    spent = time.perf_counter() - began
    return lambda steps: jax.block_until_ready(compiled(key, play, jnp.asarray(steps))), spent


def _engine(body: Robot, name: str, flags: Flags) -> engine_c.Engine:
    if name == "c":
        return engine_c.engine(body, old=False)
    return engine_mjx.engine(body, False, flags.iterations, flags.ls_iterations)


def batch(task: str, name: str, size: int, flags: Flags) -> tuple[Callable[[int], Any], float]:
    """MuJoCo's batch from the same starts, with as many threads, and actions that are drawn beforehand."""
    body, sim = ROBOTS[TASKS[task][0]], engine_c.simulator(TASKS[task][0], False)
    held = mujoco.batch.Batch(body.model, size, sim.threads)
    control, rng = held.bind("ctrl"), np.random.default_rng(0)
    drawn = rng.uniform(-1.0, 1.0, (100, size, body.model.nu))
    keys = jax.random.split(jax.random.key(0), size)
    rows = sim.start(np.asarray(jax.vmap(lambda k: noise(k, body))(keys), np.float64))

    def run(steps: int) -> None:
        held.state[:, : sim.width] = rows[:, :-1]
        with quiet():
            for i in range(steps):
                control[:] = drawn[i % 100]
                held.step(nstep=body.frame_skip)

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
            env.step(
                {a: rng.uniform(-1, 1, env.action_space(a).shape) for a in env.possible_agents}
            )

    return run, 0.0


MAKERS = {"c": ours, "mjx": ours, "batch": batch, "gymnasium": gymnasium}


def steps(flags: Flags) -> Iterator[dict[str, Any]]:
    """Lines of the parts' rates; contestants of one task and size take turns."""
    for task in flags.tasks:
        for size in flags.sizes:
            cells = {}
            for name in flags.engines:
                try:
                    run, compiling = MAKERS[name](task, name, size, flags)
                except (ImportError, JaxomarlError) as error:
                    yield {
                        "benchmark": "robots",
                        "task": task,
                        "engine": name,
                        "size": size,
                        "skipped": str(error),
                    }
                    continue
                work = 1 if name == "gymnasium" else size
                with alone():
                    run(1)
                    began = time.perf_counter()
                    run(2)
                    many = max(2, round(2 * flags.seconds / (time.perf_counter() - began)))
                cells[name] = (run, many, work, compiling, [])
            for _ in range(flags.rounds):
                for run, many, work, _, rates in cells.values():
                    with alone():
                        began = time.perf_counter()
                        run(many)
                        rates.append(many * work / (time.perf_counter() - began))
            median = {name: statistics.median(cell[-1]) for name, cell in cells.items()}
            for name, (_, _, _, compiling, rates) in cells.items():
                line = {"benchmark": "robots", "task": task, "engine": name, "size": size}
                line["frame_skip"] = ROBOTS[TASKS[task][0]].frame_skip  # physics steps in a step
                line |= {
                    "steps_per_second": median[name],
                    "steps_per_second_low": min(rates),
                    "steps_per_second_high": max(rates),
                }
                line |= {f"over_{peer}": median[name] / median[peer] for peer in ("batch", "gymnasium")
                         if peer in median and peer != name}  # fmt: skip
                yield {**line, "compile_seconds": compiling, **_solver(name, flags)}


def _solver(name: str, flags: Flags) -> dict[str, int]:
    return (
        {"iterations": flags.iterations or 100, "ls_iterations": flags.ls_iterations or 50}
        if name == "mjx"
        else {}
    )


def whole(flags: Flags, count: int = 32) -> dict[str, Any]:
    """Seconds of evaluation episodes of half-cheetah under random actions, engine c."""
    body = ROBOTS["halfcheetah"]
    env = environment(body, layout(body, "2x3"), engine_c.engine(body, old=False))
    act = lambda key, memory, seen: (
        jax.random.uniform(key, (2, 3), minval=-1.0, maxval=1.0),
        memory,
    )
    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(lambda k: rollout.episodes(env, act, (), k, k)["return"])
    began = time.perf_counter()
    compiled = run.lower(keys).compile()
    compiling, spent = time.perf_counter() - began, []
    for _ in range(flags.rounds):
        began = time.perf_counter()
        jax.block_until_ready(compiled(keys))
        spent.append(time.perf_counter() - began)
    line = {
        "benchmark": "robot-episodes",
        "task": "2halfcheetah",
        "episodes": count,
        "seconds": statistics.median(spent),
    }
    return {
        **line,
        "seconds_low": min(spent),
        "seconds_high": max(spent),
        "compile_seconds": compiling,
    }


# --- parity ---


def parity(
    robot: str, flags: Flags, checks: tuple[int, ...] = (1, 10, 100)
) -> Iterator[dict[str, Any]]:
    """Lines of |mjx - c| in joint positions, velocities and the reward so far, over states off the rest pose.

    The states are those after 20 random steps on engine c; both engines then get the same random actions.
    """
    body, sim = ROBOTS[robot], engine_c.simulator(robot, False)
    rng, count, none = np.random.default_rng(0), flags.states, np.zeros((flags.states, 0))
    keys = jax.random.split(jax.random.key(0), count)
    rows = sim.start(np.asarray(jax.vmap(lambda k: noise(k, body))(keys), np.float64))
    draw = lambda: rng.uniform(-1.0, 1.0, (count, body.model.nu)).astype(np.float32)
    for _ in range(20):
        rows = sim.advance(rows, draw().astype(np.float64), none).rows
    parts = (sim.qpos, sim.qvel, slice(sim.qvel.stop, sim.width), -1)
    state: Any = engine_mjx.Simulation(*(jnp.asarray(rows[:, part], jnp.float32) for part in parts))
    step = jax.jit(jax.vmap(_engine(body, "mjx", flags).step, (0, 0, None, None)))
    rewards = np.zeros((2, count))
    for t in range(1, max(checks) + 1):
        control = draw()
        moved = sim.advance(rows, control.astype(np.float64), none)
        state, _, reward, _, _ = step(state, control, jnp.zeros(()), jnp.zeros(0))
        rows = moved.rows
        rewards += np.stack([moved.reward, np.asarray(reward, np.float64)])
        if t in checks:
            apart = {
                "qpos": np.abs(np.asarray(state.qpos) - rows[:, sim.qpos]).max(axis=1),
                "qvel": np.abs(np.asarray(state.qvel) - rows[:, sim.qvel]).max(axis=1),
                "return": np.abs(rewards[0] - rewards[1]),
            }
            line = {
                "benchmark": "parity",
                "robot": robot,
                "steps": t,
                "states": count,
                **_solver("mjx", flags),
            }
            for name, x in apart.items():
                line |= {
                    f"{name}_median": float(np.median(x)),
                    f"{name}_90": float(np.quantile(x, 0.9)),
                }
                line |= {f"{name}_max": float(x.max())}
            yield line


COLUMNS = {
    "robots": ("task", "engine", "size", "steps_per_second", "steps_per_second_low", "steps_per_second_high",
               "over_batch", "over_gymnasium", "compile_seconds"),
    "robot-episodes": ("task", "episodes", "seconds", "seconds_low", "seconds_high", "compile_seconds"),
}  # fmt: skip


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Speeds as Markdown, then parity: median / 90 % / largest of the states' distances."""
    out = [columns(lines, kind, named) for kind, named in COLUMNS.items()]
    rows = [("robot", "steps", "qpos", "qvel", "return"), ("---",) * 5]
    for line in (line for line in lines if line["benchmark"] == "parity"):
        cells = [" / ".join(f"{line[f'{x}_{q}']:.1e}" for q in ("median", "90", "max"))
                 for x in ("qpos", "qvel", "return")]  # fmt: skip
        rows.append((line["robot"], str(line["steps"]), *cells))
    return "\n\n".join(filter(None, (*out, markdown(rows) if len(rows) > 2 else "")))


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes; raises JaxomarlError for flags that mean nothing."""
    parts = ("parity",) if flags.parity else flags.parts
    unknown = [
        x for x in (*parts, *flags.engines) if x not in ("steps", "episodes", "parity", *MAKERS)
    ]
    unknown += [x for x in flags.tasks if x not in TASKS]
    if unknown:
        raise refuse(
            "--parts, --engines, --tasks", "some of those of --help", ", ".join(unknown), ""
        )
    for line in _lines(parts, flags):
        yield {**line, "mujoco": mujoco.__version__}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.mamujoco")
    return report(bench(flags), table, flags.out)


def _lines(parts: tuple[str, ...], flags: Flags) -> Iterator[dict[str, Any]]:
    if "steps" in parts:
        yield from steps(flags)
    if "episodes" in parts:
        yield whole(flags)
    if "parity" in parts:
        for robot in dict.fromkeys(TASKS[task][0] for task in flags.tasks):
            yield from parity(robot, flags)


if __name__ == "__main__":
    sys.exit(main())

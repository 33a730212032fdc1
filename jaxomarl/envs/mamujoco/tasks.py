"""The MuJoCo tasks of the catalog."""

import jax

from jaxomarl.base import Task, refuse
from jaxomarl.envs.mamujoco import behaviours, engine_c, shifts
from jaxomarl.envs.mamujoco.engine_c import Engine
from jaxomarl.envs.mamujoco.environment import environment
from jaxomarl.envs.mamujoco.layout import layout
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot

ROWS = 1_000_000
ENGINES = ("auto", "c", "mjx")


def two_halfcheetah(
    engine: str = "auto", dialect: str = "gymnasium", obsk: int = 1, shift: str = "deterministic"
) -> Task:
    """Half-cheetah's back leg and front leg."""
    return _task("2halfcheetah", "halfcheetah", "2x3", engine, dialect, obsk, shift)


def six_halfcheetah(
    engine: str = "auto", dialect: str = "gymnasium", obsk: int = 1, shift: str = "deterministic"
) -> Task:
    """Half-cheetah, an agent for each joint."""
    return _task("6halfcheetah", "halfcheetah", "6x1", engine, dialect, obsk, shift)


def two_ant(engine: str = "auto", dialect: str = "gymnasium", obsk: int = 1, shift: str = "deterministic") -> Task:
    """Ant's front legs and back legs."""
    return _task("2ant", "ant", "2x4", engine, dialect, obsk, shift)


def four_ant(engine: str = "auto", dialect: str = "gymnasium", obsk: int = 1, shift: str = "deterministic") -> Task:
    """Ant, an agent for each leg."""
    return _task("4ant", "ant", "4x2", engine, dialect, obsk, shift)


def three_hopper(engine: str = "auto", dialect: str = "gymnasium", obsk: int = 1, shift: str = "deterministic") -> Task:
    """Hopper, an agent for each joint."""
    return _task("3hopper", "hopper", "3x1", engine, dialect, obsk, shift)


def halfcheetah(
    partition: str = "2x3",
    engine: str = "auto",
    dialect: str = "gymnasium",
    obsk: int = 1,
    shift: str = "deterministic",
) -> Task:
    """Half-cheetah in any partition."""
    return _task("halfcheetah", "halfcheetah", partition, engine, dialect, obsk, shift)


def ant(
    partition: str = "2x4",
    engine: str = "auto",
    dialect: str = "gymnasium",
    obsk: int = 1,
    shift: str = "deterministic",
) -> Task:
    """Ant in any partition."""
    return _task("ant", "ant", partition, engine, dialect, obsk, shift)


def hopper(
    partition: str = "3x1",
    engine: str = "auto",
    dialect: str = "gymnasium",
    obsk: int = 1,
    shift: str = "deterministic",
) -> Task:
    """Hopper in any partition."""
    return _task("hopper", "hopper", partition, engine, dialect, obsk, shift)


def walker2d(
    partition: str = "2x3",
    engine: str = "auto",
    dialect: str = "gymnasium",
    obsk: int = 1,
    shift: str = "deterministic",
) -> Task:
    """Walker in any partition; Gymnasium-Robotics is its only reference."""
    return _task("walker2d", "walker2d", partition, engine, dialect, obsk, shift)


def _task(name: str, robot: str, partition: str, engine: str, dialect: str, obsk: int, shift: str) -> Task:
    task, body = f"mamujoco/{name}", ROBOTS[robot]
    laid = layout(body, partition, dialect, obsk)
    physics = _engine(task, engine, body, dialect != "gymnasium")
    env = environment(body, laid, physics, shifts.check(task, shift))
    about = f"{robot} in {env.spec.agents} agents: run forward, 1000 steps"
    made = behaviours.recipes(env, name, obsk)
    quality, scale = "medium" if "medium" in made else "random", behaviours.scale(env, name, shift)
    return Task(task, env, made, quality, about=about, rows=ROWS, scale=scale, fields=laid.fields)


def _engine(task: str, name: str, robot: Robot, old: bool) -> Engine:
    if name == "auto":
        name = "c" if jax.default_backend() == "cpu" else "mjx"
    if name == "c":
        return engine_c.engine(robot, old)
    if name == "mjx":
        from jaxomarl.envs.mamujoco import engine_mjx

        return engine_mjx.engine(robot, old)
    if name == "warp":
        way_out = "Its data are shaped by the whole batch, which a state that is vmapped cannot be: take engine=mjx."
        raise refuse(f"{task}, engine", "an engine whose state is arrays of one episode", "mujoco_warp", way_out)
    raise refuse(f"{task}, engine", f"one of {', '.join(ENGINES)}", name, "auto: mjx on GPU and TPU, c on CPU.")

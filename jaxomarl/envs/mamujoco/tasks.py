"""The MuJoCo tasks of the catalog."""

import functools
from collections.abc import Callable

import jax

from jaxomarl.base import Task, refuse
from jaxomarl.envs.mamujoco import behaviours, engine_c, shifts
from jaxomarl.envs.mamujoco.engine_c import Engine
from jaxomarl.envs.mamujoco.environment import environment
from jaxomarl.envs.mamujoco.layout import layout
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot

ROWS = 1_000_000
FINAL = 128  # episodes of a final evaluation: each has up to 1000 steps
ENGINES = ("auto", "c", "mjx")


def _task(
    name: str,
    robot: str,
    partition: str,
    engine: str = "auto",
    dialect: str = "gymnasium",
    obsk: int = 1,
    shift: str = "deterministic",
) -> Task:
    task, body = f"mamujoco/{name}", ROBOTS[robot]
    laid = layout(body, partition, dialect, obsk)
    physics = _engine(task, engine, body, dialect != "gymnasium")
    env = environment(body, laid, physics, shifts.check(task, shift))
    about = f"{robot} in {env.spec.agents} agents: run forward, 1000 steps"
    made = behaviours.recipes(env, name, obsk)
    quality, scale = "medium" if "medium" in made else "random", behaviours.scale(env, name, shift)
    known = {
        "about": about,
        "rows": ROWS,
        "scale": scale,
        "fields": laid.fields,
        "final_episodes": FINAL,
    }
    return Task(task, env, made, quality, behaviours=behaviours.known(env, name, obsk), **known)


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
        raise refuse(
            f"{task}, engine",
            "an engine whose state is arrays of one episode",
            "mujoco_warp",
            way_out,
        )
    raise refuse(
        f"{task}, engine",
        f"one of {', '.join(ENGINES)}",
        name,
        "auto: mjx on GPU and TPU, c on CPU.",
    )


# One robot in one partition: the other arguments are the task's parameters.
two_halfcheetah = functools.partial(_task, "2halfcheetah", "halfcheetah", "2x3")
six_halfcheetah = functools.partial(_task, "6halfcheetah", "halfcheetah", "6x1")
two_ant = functools.partial(_task, "2ant", "ant", "2x4")
four_ant = functools.partial(_task, "4ant", "ant", "4x2")
three_hopper = functools.partial(_task, "3hopper", "hopper", "3x1")


def _any(robot: str, usual: str) -> Callable[..., Task]:
    """A robot in any partition, which is one more parameter; `usual` where it is left out."""

    def task(
        partition: str = usual,
        engine: str = "auto",
        dialect: str = "gymnasium",
        obsk: int = 1,
        shift: str = "deterministic",
    ) -> Task:
        return _task(robot, robot, partition, engine, dialect, obsk, shift)

    return task


halfcheetah = _any("halfcheetah", "2x3")
ant = _any("ant", "2x4")
hopper = _any("hopper", "3x1")
walker2d = _any("walker2d", "2x3")

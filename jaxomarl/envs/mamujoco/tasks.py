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
"""Number of transitions of a data set."""
FINAL = 128
"""Number of episodes of a final evaluation, each of up to 1000 steps."""
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
    task = f"mamujoco/{name}"
    body = ROBOTS[robot]
    own = layout(body, partition, dialect, obsk)
    physics = _engine(task, engine, body, old=dialect != "gymnasium")
    env = environment(body, own, physics, shifts.check(task, shift))
    recipes = behaviours.recipes(env, name, obsk)
    return Task(
        task,
        env,
        recipes,
        quality="medium" if "medium" in recipes else "random",
        about=f"{robot} in {env.spec.agents} agents: run forward, 1000 steps",
        rows=ROWS,
        scale=behaviours.scale(env, name, shift),
        fields=own.fields,
        behaviours=behaviours.known(env, name, obsk),
        final_episodes=FINAL,
    )


def _engine(task: str, name: str, robot: Robot, old: bool) -> Engine:
    """The engine of that name, with the rewards of gym's v2 where `old`."""
    if name == "auto":
        name = "c" if jax.default_backend() == "cpu" else "mjx"
    if name == "c":
        return engine_c.engine(robot, old)
    if name == "mjx":
        from jaxomarl.envs.mamujoco import engine_mjx

        return engine_mjx.engine(robot, old)
    if name == "warp":
        expected = "an engine whose state is arrays of one episode"
        way = (
            "Its data are shaped by the whole batch, which a state that is vmapped cannot be: "
            "take engine=mjx."
        )
        raise refuse(f"{task}, engine", expected, "mujoco_warp", way)
    way = "auto: mjx on GPU and TPU, c on CPU."
    raise refuse(f"{task}, engine", f"one of {', '.join(ENGINES)}", name, way)


# one robot in one partition; the other arguments are the task's parameters
two_halfcheetah = functools.partial(_task, "2halfcheetah", "halfcheetah", "2x3")
six_halfcheetah = functools.partial(_task, "6halfcheetah", "halfcheetah", "6x1")
two_ant = functools.partial(_task, "2ant", "ant", "2x4")
four_ant = functools.partial(_task, "4ant", "ant", "4x2")
three_hopper = functools.partial(_task, "3hopper", "hopper", "3x1")


def _any(robot: str, usual: str) -> Callable[..., Task]:
    """A robot in any partition, which is one more parameter and `usual` by default."""

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

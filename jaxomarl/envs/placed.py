"""Environments put where a row of data says they were, so that one step from there can be played again.

A row holds observations and a state, not the environment's own. Of a game of one step nothing is hidden; of a particle
task positions and velocities follow from what the agents see; of a robot the state lacks the place along the track,
which nothing but the next place depends on, and the solver's warm start, which moves its last digits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxomarl.base import Task
from jaxomarl.envs.mpe import scenarios
from jaxomarl.envs.mpe.physics import Scene

Put = Callable[[Float[np.ndarray, "B N O"], Float[np.ndarray, "B S"]], Any]
"""Observations and states of B rows -> the environment's own states, leading with B."""


class Placed(NamedTuple):
    """How a task is put into a row's state, or why it cannot be."""

    put: Put | None
    why: str = ""


def placed(task: Task) -> Placed:
    """How `task` is put into the state of a row of its data; `put` is None where rows do not determine it."""
    base, _, text = task.name.partition(":")
    family, _, name = base.partition("/")
    given = dict(item.split("=", 1) for item in text.split(",") if item)
    hidden = [k for k in ("shift", "speed_min", "hidden") if k in given]
    if hidden:
        return Placed(
            None, f"{hidden[0]} is drawn anew in each episode, and a row does not hold it"
        )
    own = jax.eval_shape(task.env.reset, jax.random.key(0))[0]
    if not jax.tree.leaves(own):
        return Placed(lambda obs, state: own)
    if family == "mpe":
        return Placed(functools.partial(scenes, getattr(scenarios, name)()))
    if family == "mamujoco" and "dialect" not in given:
        robot = name.lstrip("0123456789")
        return Placed(functools.partial(simulations, robot, words=hasattr(own.sim, "dtype")))
    return Placed(
        None, "its observations and state are not known to hold all that the next step depends on"
    )


def scenes(
    scenario: scenarios.Scenario, obs: Float[np.ndarray, "B N O"], state: Float[np.ndarray, "B S"]
) -> Scene:
    """Particles where the agents' own columns say they are; landmarks and prey where the first agent sees them."""
    n, marks, rows = scenario.learners, scenario.landmarks, len(obs)
    vel, here = obs[:, :, :2], obs[:, :, 2:4]
    seen = obs[:, 0, 4 : 4 + 2 * marks].reshape(rows, marks, 2) + here[:, :1]
    if scenario.prey:
        at = 4 + 2 * marks + 2 * (n - 1)  # after the other predators: the prey, then its velocity
        here = np.concatenate([here, here[:, :1] + obs[:, :1, at : at + 2]], axis=1)
        vel = np.concatenate([vel, obs[:, :1, at + 2 : at + 4]], axis=1)
    speed = np.tile(np.asarray(scenario.bodies.speed, np.float32), (rows, 1))
    whole = np.ones((rows, marks), np.float32)
    scene: Any = Scene(
        np.concatenate([here, seen], axis=1), vel, speed, whole, np.zeros(rows, np.float32)
    )  # type: ignore[arg-type]
    return scene


def simulations(
    name: str, obs: Float[np.ndarray, "B N O"], state: Float[np.ndarray, "B S"], words: bool
) -> Any:
    """Robots in the positions and velocities of `state`, at the start of the track; `words` are engine c's."""
    from jaxomarl.envs.mamujoco.engine_c import simulator
    from jaxomarl.envs.mamujoco.environment import Play
    from jaxomarl.envs.mamujoco.robots import ROBOTS

    robot, rows = ROBOTS[name], len(state)
    nq, nv = robot.model.nq, robot.model.nv
    home = np.asarray(robot.model.qpos0)
    known = nq - robot.skip
    moved = np.concatenate(
        [np.zeros((rows, robot.skip)), state[:, :known] - home[robot.skip :]], axis=1
    )
    noise = np.concatenate([moved, state[:, known : known + nv]], axis=1)
    zero = np.zeros(rows, np.float32)
    if words:
        sim: Any = simulator(name, False).start(noise.astype(np.float64)).view(np.uint32)
    else:
        from jaxomarl.envs.mamujoco.engine_mjx import Simulation

        qpos, qvel = (x.astype(np.float32) for x in (home + noise[:, :nq], noise[:, nq:]))
        sim = Simulation(qpos, qvel, np.zeros((rows, nv), np.float32), qpos[:, 0])  # type: ignore[arg-type]
    play: Any = Play(sim, zero, zero, np.zeros((rows, 0), np.float32))  # type: ignore[arg-type]
    return play

"""Environments put into the state of a row of data, so that one step from there can be repeated.

A row holds observations and a state, which is not the environment's own state:

- In a game of one step nothing is hidden.
- In a particle task, positions and velocities follow from what the agents observe.
- For a robot, the state lacks the place along the track, on which only the next place depends. It
  also lacks the solver's warm start, which changes the last digits alone.
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
    """The function that puts a task into a row's state, or the reason why there is none."""

    put: Put | None
    why: str = ""


def placed(task: Task) -> Placed:
    """The function that puts `task` into the state of a row of its data.

    `put` is None where rows do not determine the state.
    """
    base, _, text = task.name.partition(":")
    family, _, name = base.partition("/")
    given = dict(item.split("=", 1) for item in text.split(",") if item)
    for field in ("shift", "speed_min", "hidden"):
        if field in given:
            why = f"{field} is drawn anew in each episode, and a row does not hold it"
            return Placed(None, why)

    own, _ = jax.eval_shape(task.env.reset, jax.random.key(0))
    if not jax.tree.leaves(own):
        return Placed(lambda obs, state: own)
    if family == "mpe":
        return Placed(functools.partial(scenes, getattr(scenarios, name)()))
    if family == "mamujoco" and "dialect" not in given:
        robot = name.lstrip("0123456789")
        return Placed(functools.partial(simulations, robot, words=hasattr(own.sim, "dtype")))
    why = "its observations and state are not known to hold all that the next step depends on"
    return Placed(None, why)


def scenes(
    scenario: scenarios.Scenario, obs: Float[np.ndarray, "B N O"], state: Float[np.ndarray, "B S"]
) -> Scene:
    """Particle scenes from rows.

    Learners stand where their own columns say; landmarks and prey stand where the first learner
    observes them.
    """
    learners = scenario.learners
    marks = scenario.landmarks
    rows = len(obs)
    vel: Any = obs[:, :, :2]
    agents = obs[:, :, 2:4]
    first = agents[:, :1]
    landmarks = obs[:, 0, 4 : 4 + 2 * marks].reshape(rows, marks, 2) + first
    if scenario.prey:
        # after the other predators: the prey's place, then its velocity
        at = 4 + 2 * marks + 2 * (learners - 1)
        agents = np.concatenate([agents, first + obs[:, :1, at : at + 2]], axis=1)
        vel = np.concatenate([vel, obs[:, :1, at + 2 : at + 4]], axis=1)

    pos: Any = np.concatenate([agents, landmarks], axis=1)
    speed: Any = np.tile(np.asarray(scenario.bodies.speed, np.float32), (rows, 1))
    seen: Any = np.ones((rows, marks), np.float32)
    touches: Any = np.zeros(rows, np.float32)
    return Scene(pos, vel, speed, seen, touches)


def simulations(
    name: str, obs: Float[np.ndarray, "B N O"], state: Float[np.ndarray, "B S"], words: bool
) -> Any:
    """Robots in the positions and velocities of `state`, at the start of the track.

    With `words` the simulations are those of engine c, else those of engine mjx.
    """
    from jaxomarl.envs.mamujoco.engine_c import simulator
    from jaxomarl.envs.mamujoco.environment import EpisodeState
    from jaxomarl.envs.mamujoco.robots import ROBOTS

    # --- each row as noise about the robot's initial state ---
    robot = ROBOTS[name]
    rows = len(state)
    nq = robot.model.nq
    nv = robot.model.nv
    home = np.asarray(robot.model.qpos0)
    known = nq - robot.skip
    unknown = np.zeros((rows, robot.skip))
    moved = np.concatenate([unknown, state[:, :known] - home[robot.skip :]], axis=1)
    noise = np.concatenate([moved, state[:, known : known + nv]], axis=1)

    # --- the engine's simulations ---
    if words:
        sim: Any = simulator(name, False).start(noise.astype(np.float64)).view(np.uint32)
    else:
        from jaxomarl.envs.mamujoco.engine_mjx import Simulation

        qpos: Any = (home + noise[:, :nq]).astype(np.float32)
        qvel: Any = noise[:, nq:].astype(np.float32)
        warm: Any = np.zeros((rows, nv), np.float32)
        sim = Simulation(qpos, qvel, warm, qpos[:, 0])

    zero: Any = np.zeros(rows, np.float32)
    no_ratios: Any = np.zeros((rows, 0), np.float32)
    return EpisodeState(sim, zero, zero, no_ratios)

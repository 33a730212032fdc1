"""A partition of a robot as an environment of 1000 steps, for each engine and dialect."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Spec, TimeStep
from jaxomarl.envs.mamujoco import shifts
from jaxomarl.envs.mamujoco.engine_c import Engine
from jaxomarl.envs.mamujoco.layout import Layout
from jaxomarl.envs.mamujoco.robots import Robot

HORIZON = 1000
SOONEST = 2
"""Fewest steps after which a robot can have fallen.

With motors at their bounds, shifted robots needed 4 or more.
"""


class EpisodeState(NamedTuple):
    """The state of an episode."""

    sim: Any
    """The engine's simulation."""
    over: Float[Array, ""]
    """1.0 once the episode has terminated."""
    nonfinite: Float[Array, ""]
    """Number of times that the simulation diverged."""
    ratios: Float[Array, " X"]
    """The episode's shift."""


def environment(
    robot: Robot, layout: Layout, engine: Engine, shift: str = "deterministic"
) -> Environment:
    """The environment of a robot's layout.

    Actions are clipped to [-1, 1] before anything else. Gymnasium-Robotics does not clip them: it
    charges for the part outside, which the motors do not deliver. After termination an episode
    stands still, with reward 0 and done 1. An episode that diverges terminates with reward 0 at the
    initial state, and `info["nonfinite"]` counts it.
    """
    spec = _spec(robot, layout)
    n = spec.agents

    def timestep(full: Array, reward: Array, episode: EpisodeState) -> TimeStep:
        obs, state = layout.observe(full)
        return TimeStep(
            obs=obs,
            state=state,
            reward=jnp.broadcast_to(reward, (n,)),
            done=episode.over,
            alive=jnp.ones(n),
            available=jnp.asarray(spec.act_mask, bool),
            info={"nonfinite": episode.nonfinite},
        )

    def reset(key: Key[Array, ""]) -> tuple[EpisodeState, TimeStep]:
        k_noise, k_shift = jax.random.split(key)
        sim, full = engine.reset(noise(k_noise, robot))
        ratios = shifts.draw_ratios(k_shift, shift)
        episode = EpisodeState(sim, jnp.zeros(()), jnp.zeros(()), ratios)
        return episode, timestep(full, jnp.zeros(()), episode)

    def step(
        key: Key[Array, ""], episode: EpisodeState, action: Float[Array, "N A"]
    ) -> tuple[EpisodeState, TimeStep]:
        control = layout.control(jnp.clip(action, -1.0, 1.0))
        over = episode.over
        ratios = episode.ratios
        sim, full, reward, ended, diverged = engine.step(episode.sim, control, over, ratios)
        over = jnp.maximum(over, ended)
        nonfinite = episode.nonfinite + diverged
        episode = EpisodeState(sim, over, nonfinite, ratios)
        return episode, timestep(full, reward, episode)

    def render(episode: EpisodeState) -> np.ndarray:
        from jaxomarl.envs.mamujoco.pictures import robot_picture

        return robot_picture(robot, engine.place(episode.sim))

    return Environment(spec, reset, step, render)


def _spec(robot: Robot, layout: Layout) -> Spec:
    state_dim = len(layout.state)
    if layout.standardised:
        state_dim = max(layout.obs_dims)
    falls = robot.healthy is not None
    return Spec(
        obs_dims=layout.obs_dims,
        act_dims=layout.act_dims,
        state_dim=state_dim,
        horizon=HORIZON,
        team="first",
        dialect=layout.dialect,
        terminates="may" if falls else "never",
        earliest=SOONEST if falls else 1,
    )


def noise(key: Key[Array, ""], robot: Robot) -> Float[Array, " N"]:
    """The noise that a reset adds to the initial positions and velocities, side by side."""
    k_pos, k_vel = jax.random.split(key)
    nq = robot.model.nq
    nv = robot.model.nv
    of_qpos = robot.qpos_noise
    of_qvel = robot.qvel_noise
    qpos = jax.random.uniform(k_pos, (nq,), minval=-of_qpos, maxval=of_qpos)
    if robot.normal:
        qvel = of_qvel * jax.random.normal(k_vel, (nv,))
    else:
        qvel = jax.random.uniform(k_vel, (nv,), minval=-of_qvel, maxval=of_qvel)
    return jnp.concatenate([qpos, qvel])

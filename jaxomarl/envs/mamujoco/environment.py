"""A partition of a robot as an environment: 1000 steps, whichever engine and dialect."""

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
"""Fewest steps after which a robot can have fallen: with motors at their bounds, shifted robots needed 4 or more."""


class Play(NamedTuple):
    """An episode: the engine's simulation, whether it has terminated, how often it diverged, and its shift."""

    sim: Any
    over: Float[Array, ""]
    nonfinite: Float[Array, ""]
    ratios: Float[Array, " X"]


def environment(
    robot: Robot, layout: Layout, engine: Engine, shift: str = "deterministic"
) -> Environment:
    """The environment.

    Actions are clipped to [-1, 1] before anything else, which Gymnasium-Robotics does not do: it charges what is
    outside, though the motors do not give it. After it has terminated an episode stands still, with reward 0 and done
    1. One that diverges terminates with reward 0 at the initial state, and `info["nonfinite"]` counts it.
    """
    state_dim = max(layout.obs_dims) if layout.standardised else len(layout.state)
    falls = robot.healthy is not None
    spec = Spec(
        layout.obs_dims,
        layout.act_dims,
        state_dim,
        HORIZON,
        team="first",
        dialect=layout.dialect,
        terminates="may" if falls else "never",
        earliest=SOONEST if falls else 1,
    )
    n = spec.agents

    def timestep(full: Array, reward: Array, play: Play) -> TimeStep:
        obs, state = layout.observe(full)
        return TimeStep(
            obs=obs,
            state=state,
            reward=jnp.broadcast_to(reward, (n,)),
            done=play.over,
            alive=jnp.ones(n),
            available=jnp.asarray(spec.act_mask, bool),
            info={"nonfinite": play.nonfinite},
        )

    def reset(key: Key[Array, ""]) -> tuple[Play, TimeStep]:
        k_noise, k_shift = jax.random.split(key)
        sim, full = engine.reset(noise(k_noise, robot))
        play = Play(sim, jnp.zeros(()), jnp.zeros(()), shifts.draw(k_shift, shift))
        return play, timestep(full, jnp.zeros(()), play)

    def step(key: Key[Array, ""], play: Play, action: Float[Array, "N A"]) -> tuple[Play, TimeStep]:
        control = layout.control(jnp.clip(action, -1.0, 1.0))
        sim, full, reward, ended, diverged = engine.step(play.sim, control, play.over, play.ratios)
        play = Play(sim, jnp.maximum(play.over, ended), play.nonfinite + diverged, play.ratios)
        return play, timestep(full, reward, play)

    def render(play: Play) -> np.ndarray:
        from jaxomarl.envs.mamujoco.pictures import picture

        return picture(robot, engine.place(play.sim))

    return Environment(spec, reset, step, render)


def noise(key: Key[Array, ""], robot: Robot) -> Float[Array, " N"]:
    """What a reset adds to the initial positions and velocities, side by side."""
    k_pos, k_vel = jax.random.split(key)
    nq, nv, wide = robot.model.nq, robot.model.nv, robot.qvel_noise
    qpos = jax.random.uniform(k_pos, (nq,), minval=-robot.qpos_noise, maxval=robot.qpos_noise)
    if robot.normal:
        return jnp.concatenate([qpos, wide * jax.random.normal(k_vel, (nv,))])
    return jnp.concatenate([qpos, jax.random.uniform(k_vel, (nv,), minval=-wide, maxval=wide)])

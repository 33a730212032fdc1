"""Engine mjx: MuJoCo MJX, everything within one compiled program, in float32.

A simulation is qpos, qvel, the solver's warm start and the torso's x. The rest of MJX's data is
created anew in each substep, so that an episode takes hundreds of bytes. The solver is the model's
own (Newton, at most 100 iterations with 50 of its line search), unless `engine` is called with
other numbers.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings bring no types.

import contextlib
import copy
import functools
import io
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.base import refuse
from jaxomarl.envs.mamujoco.engine_c import Engine
from jaxomarl.envs.mamujoco.layout import fill
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot, quiet, reward
from jaxomarl.envs.mamujoco.shifts import torso

HUGE = 1e10
"""MuJoCo itself calls larger values unstable."""
GRID = np.linspace(0.5, 1.5, 257)
"""Densities at which a table has the constants that derive from the masses.

Between them the constants are interpolated.
"""


class Simulation(NamedTuple):
    """The state that is carried from step to step."""

    qpos: Float[Array, " P"]
    qvel: Float[Array, " V"]
    warm: Float[Array, " V"]
    x: Float[Array, ""]


def engine(robot: Robot, old: bool, iterations: int = 0, ls_iterations: int = 0) -> Engine:
    """The engine, with `old` rewards or Gymnasium's; 0 iterations are the model's own number.

    Raises JaxomarlError where MJX is missing.
    """
    mjx, model, base = _model(robot, iterations, ls_iterations)
    size = 6 * robot.model.nbody * robot.contacts
    home = jnp.asarray(robot.model.qpos0, jnp.float32)
    nq = robot.model.nq
    nv = robot.model.nv

    def reset(noise: Float[Array, " N"]) -> tuple[Simulation, Array]:
        qpos = home + noise[:nq]
        sim = Simulation(qpos, noise[nq:], jnp.zeros(nv), qpos[0])
        return sim, fill(robot, jnp, sim.qpos, sim.qvel, jnp.zeros(size))

    def substep(shifted_model: Any, control: Array, sim: Simulation) -> tuple[Simulation, Array]:
        data = base.replace(qpos=sim.qpos, qvel=sim.qvel, qacc_warmstart=sim.warm, ctrl=control)
        data = mjx.step(shifted_model, data)
        x = data.qpos[0]
        cfrc = jnp.zeros(0)
        if robot.contacts:
            # those of the last substep's last stage, as in Gymnasium
            x = data.xpos[1, 0]
            cfrc = mjx.rne_postconstraint(shifted_model, data)._impl.cfrc_ext.reshape(-1)
        return Simulation(data.qpos, data.qvel, data.qacc_warmstart, x), cfrc

    def step(sim: Simulation, control: Array, over: Array, ratios: Array) -> tuple:
        # --- the physics ---
        own_model = shifted(robot, model, ratios) if ratios.shape[-1] else model
        sane = jnp.isfinite(control).all()
        given = jnp.where(sane, control, 0.0)
        with jax.default_matmul_precision("highest"):
            body = lambda carry, _: (substep(own_model, given, carry[0]), None)
            (then, cfrc), _ = jax.lax.scan(body, (sim, jnp.zeros(size)), length=robot.frame_skip)

        # --- a simulation that diverges returns to the initial state ---
        values = jnp.concatenate([then.qpos, then.qvel, then.warm, cfrc, then.x[None]])
        # not a number is not smaller either
        failed = ~(sane & (jnp.abs(values) <= HUGE).all())
        rest = Simulation(home, jnp.zeros(nv), jnp.zeros(nv), home[0])
        then = jax.tree.map(lambda a, b: jnp.where(failed, a, b), rest, then)

        # --- a simulation that is over stands still ---
        then = jax.tree.map(lambda a, b: jnp.where(over > 0, a, b), sim, then)
        cfrc = jnp.where(failed | (over > 0), 0.0, cfrc)

        # --- the reward ---
        full = fill(robot, jnp, then.qpos, then.qvel, cfrc)
        felt = full[full.shape[0] - size :]
        forward = then.x - sim.x
        gained, ended = reward(robot, old, jnp, forward, given, then.qpos, then.qvel, felt)
        dead = failed | (over > 0)
        failed = failed & (over == 0)
        return then, full, jnp.where(dead, 0.0, gained), (ended | dead) * 1.0, failed * 1.0

    def place(sim: Simulation) -> np.ndarray:
        return np.asarray(sim.qpos, np.float64)

    return Engine(reset, step, place)


def _model(robot: Robot, iterations: int, ls_iterations: int) -> tuple[Any, Any, Any]:
    """(the module mjx, the robot's model, data that are empty)."""
    try:
        # it prints that Warp is missing
        with contextlib.redirect_stdout(io.StringIO()):
            from mujoco import mjx
    except ImportError as error:
        way = "pip install mujoco-mjx, or engine=c"
        raise refuse("engine", "MuJoCo MJX installed", str(error), way) from error
    model = mjx.put_model(robot.model, impl="jax")
    if iterations:
        model = model.tree_replace({"opt.iterations": iterations})
    if ls_iterations:
        model = model.tree_replace({"opt.ls_iterations": ls_iterations})
    return mjx, model, mjx.make_data(robot.model, impl="jax")


def shifted(robot: Robot, model: Any, ratios: Float[Array, "3"]) -> Any:
    """MJX's model with these ratios of power, torso density and friction."""
    power, density, friction = ratios
    at = (density - GRID[0]) / (GRID[1] - GRID[0])
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, len(GRID) - 2)
    part = at - low
    changed = {}
    for name, values in _tables(robot.name).items():
        table = jnp.asarray(values, jnp.float32)
        changed[name] = table[low] * (1 - part) + table[low + 1] * part
    return model.replace(
        actuator_gear=model.actuator_gear * power,
        geom_friction=model.geom_friction.at[:, 0].multiply(friction),
        **changed,
    )


@functools.cache
def _tables(name: str) -> dict[str, np.ndarray]:
    """Model fields that depend on the torso's density, at each density of the grid."""
    robot = ROBOTS[name]
    names = ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0")
    rows: dict[str, list] = {name: [] for name in names}
    body = torso(robot.model)
    data = mujoco.MjData(robot.model)
    for density in GRID:
        model = copy.copy(robot.model)
        model.body_mass[body] *= density
        model.body_inertia[body] *= density
        with quiet():
            mujoco.mj_setConst(model, data)
        for name in names:
            rows[name].append(np.array(getattr(model, name)))
    return {name: np.stack(values) for name, values in rows.items()}

"""Engine c: MuJoCo's own batched simulation on a pool of threads, called from compiled programs.

A simulation is its full integration state in float64 (time, qpos, qvel, the solver's warm start)
and the torso's x. JAX carries it as pairs of 32-bit words, so that nothing is lost where JAX has
only 32 bits. A call is a pure function of its inputs: its bits depend neither on the threads nor on
the other simulations of the batch.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings bring no types.

import collections
import functools
import logging
import os
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from jaxomarl.envs.mamujoco.layout import fill, full_columns
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot, quiet, reward
from jaxomarl.envs.mamujoco.shifts import write

CHUNK = {False: 1024, True: 64}
"""Whether there are contact forces -> most simulations that are stepped at once.

With contact forces each simulation keeps an MjData of its own, so there are fewer.
"""
POOLS = 8
"""Number of batches that are kept, each a power of two wide."""
WARNINGS = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
]
"""MuJoCo's warnings of a simulation that diverges."""
LOG = logging.getLogger(__name__)


class Moved(NamedTuple):
    """Simulations after a step, in float64."""

    rows: Float[np.ndarray, "B W"]
    full: Float[np.ndarray, "B F"]
    reward: Float[np.ndarray, " B"]
    ended: Bool[np.ndarray, " B"]
    diverged: Bool[np.ndarray, " B"]


class Engine(NamedTuple):
    """Physics of one robot as pure functions of one simulation, which may be vmapped.

    Both engines have the same functions, with floats in 32 bits:

        reset(noise [P + V]) -> (simulation, full [F])
        step(simulation, control [U], over, ratios [0 or 3])
            -> (simulation, full, reward, ended, diverged)

    A simulation that is over stands still.
    """

    reset: Any
    step: Any
    place: Any
    """simulation -> qpos as NumPy's float64, for pictures."""


class Simulator:
    """Steps rows of one robot's simulations; safe to call from several threads."""

    def __init__(self, robot: Robot, old: bool, threads: int = 0):
        model = robot.model
        self.robot = robot
        self.old = old
        self.model = model
        self.threads = threads or _cores()
        # time, qpos, qvel, warm start
        self.width = 1 + model.nq + 2 * model.nv
        self.qpos = slice(1, 1 + model.nq)
        self.qvel = slice(1 + model.nq, 1 + model.nq + model.nv)
        self.full = len(full_columns(robot).names)

        self.home = np.zeros(self.width + 1)
        self.home[self.qpos] = model.qpos0
        if robot.contacts:
            self.home[-1] = model.qpos0[0]

        self._pools: collections.OrderedDict[int, _Pool] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._data = mujoco.MjData(model)

    # --- in float64 ---

    def start(self, noise: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B W"]:
        """Rows at the initial state plus noise.

        mj_forward would change none of it, and the torso is at its joint.
        """
        rows = np.tile(self.home, (len(noise), 1))
        rows[:, 1 : 1 + noise.shape[1]] += noise
        rows[:, -1] = rows[:, 1]
        return rows

    def seen(
        self, rows: Float[np.ndarray, "B W"], cfrc: np.ndarray | None = None
    ) -> Float[np.ndarray, "B F"]:
        """The vector `full` of rows, whose contact forces are zero unless they are given."""
        if cfrc is None and self.robot.contacts:
            cfrc = np.zeros((len(rows), 6 * self.model.nbody))
        return fill(self.robot, np, rows[:, self.qpos], rows[:, self.qvel], cfrc)

    def advance(
        self,
        rows: Float[np.ndarray, "B W"],
        control: Float[np.ndarray, "B U"],
        ratios: Float[np.ndarray, "B X"],
    ) -> Moved:
        """One environment step of each row.

        A row that diverges is at the initial state afterwards, at rest.
        """
        # --- the physics ---
        sane = np.asarray(np.isfinite(control).all(axis=1))
        given = control
        if not sane.all():
            given = np.where(sane[:, None], control, 0.0)
        after = np.empty_like(rows)
        cfrc = np.zeros((len(rows), 6 * self.model.nbody * self.robot.contacts))
        failed = ~sane
        size = CHUNK[self.robot.contacts]
        with self._lock, quiet():
            for at in range(0, len(rows), size):
                part = slice(at, at + size)
                failed[part] |= self._simulate(
                    rows[part], given[part], ratios[part], after[part], cfrc[part]
                )

        # --- rows that diverged ---
        if not np.isfinite(after).all():
            failed |= ~np.isfinite(after).all(axis=1)
        after[failed] = self.home
        cfrc[failed] = 0.0

        # --- the reward ---
        full = self.seen(after, cfrc)
        felt = full[:, self.full - cfrc.shape[1] :]
        forward = after[:, -1] - rows[:, -1]
        qpos = after[:, self.qpos]
        qvel = after[:, self.qvel]
        gained, ended = reward(self.robot, self.old, np, forward, given, qpos, qvel, felt)
        if failed.any():
            self._warn(failed, rows, control)
            gained[failed] = 0.0
            ended[failed] = True
        return Moved(after, full, gained, ended, failed)

    def _warn(self, failed: np.ndarray, rows: np.ndarray, control: np.ndarray) -> None:
        """Log how many simulations diverged, with the step and action of the first."""
        i = int(failed.argmax())
        step = round(float(rows[i, 0]) / self.robot.dt)
        LOG.warning(
            "%s: %d of %d simulations diverged and end, the first in step %d under the action %s",
            self.robot.name,
            failed.sum(),
            len(rows),
            step,
            control[i].tolist(),
        )

    def _simulate(
        self,
        rows: np.ndarray,
        control: np.ndarray,
        ratios: np.ndarray,
        after: np.ndarray,
        cfrc: np.ndarray,
    ) -> Bool[np.ndarray, " B"]:
        """Step rows and write the results to `after` and `cfrc`; True where MuJoCo gave up."""
        n = len(rows)
        model = self.model
        pool = self._pool(n, ratios.shape[1] > 0)
        batch = pool.batch
        ids = None
        if n < batch.nsim:
            ids = np.arange(n, dtype=np.int32)

        # --- inputs ---
        if ratios.shape[1] and not np.array_equal(pool.ratios[:n], ratios):
            write(batch, ratios)
            pool.ratios[:n] = ratios
        batch.state[:n, : self.width] = rows[:, :-1]
        batch.state[:n, self.width : self.width + model.nu] = control
        batch.warning[:n] = 0

        # --- the step ---
        try:
            batch.step(ids=ids, nstep=self.robot.frame_skip)
            wrong = np.zeros(n, bool)
        except mujoco.batch.SimulationError:
            wrong = batch.status[:n] != 0
        # after such a warning MuJoCo continued from its own initial state
        wrong |= batch.warning[:n, WARNINGS, 1].any(axis=1)

        # --- outputs ---
        after[:, :-1] = batch.state[:n, : self.width]
        if not self.robot.contacts:
            after[:, -1] = after[:, 1]
            return wrong
        # as in Gymnasium: of the last substep's last stage, which a sensor would not give
        after[:, -1] = pool.xpos[:n, 1, 0]
        for i in range(n):
            batch.get_data(i, self._data)
            mujoco.mj_rnePostConstraint(model, self._data)
            cfrc[i] = self._data.cfrc_ext.ravel()
        return wrong

    def _pool(self, n: int, shifted: bool) -> "_Pool":
        """The batch that steps n simulations; the least recently used one is dropped."""
        size = max(1 << (n - 1).bit_length(), 1)
        key = 2 * size + shifted
        if key not in self._pools:
            contacts = self.robot.contacts
            batch = mujoco.batch.Batch(self.model, size, self.threads, persistent=contacts)
            xpos = batch.bind("xpos") if contacts else None
            self._pools[key] = _Pool(batch, xpos, np.ones((size, 3)))
            while len(self._pools) > POOLS:
                self._pools.popitem(last=False)
        self._pools.move_to_end(key)
        return self._pools[key]

    # --- in words ---

    def reset(self, noise: Array | np.ndarray) -> UInt32[np.ndarray, "*B X"]:
        """Callback: noise -> words.

        They are those of the row, and of [full, reward, ended, diverged] in float32, side by side.
        """
        noise = np.asarray(noise)
        rows = self.start(noise.reshape(-1, noise.shape[-1]).astype(np.float64))
        return self._pack(rows, self.seen(rows)).reshape(*noise.shape[:-1], -1)

    def step(self, packed: Array | np.ndarray) -> UInt32[np.ndarray, "*B X"]:
        """Callback: words of [row | control, over, ratios in float32] -> words as in `reset`.

        Rows that are not over are stepped. There is one array in and one out, as each costs a
        callback tens of microseconds.
        """
        # --- unpack ---
        packed = np.asarray(packed)
        lead = packed.shape[:-1]
        packed = packed.reshape(-1, packed.shape[-1])
        words = 2 * (self.width + 1)
        rows = np.ascontiguousarray(packed[:, :words]).view(np.float64)
        floats = packed[:, words:].view(np.float32).astype(np.float64)
        nu = self.model.nu
        control = floats[:, :nu]
        live = floats[:, nu] == 0
        ratios = floats[:, nu + 1 :]

        # --- step the rows that live ---
        if live.all():
            moved = self.advance(rows, control, ratios)
            return self._pack(moved.rows, moved.full, *moved[2:]).reshape(*lead, -1)
        out = self._pack(rows, self.seen(rows), 0.0, 1.0, 0.0)
        if live.any():
            moved = self.advance(rows[live], control[live], ratios[live])
            out[live] = self._pack(moved.rows, moved.full, *moved[2:])
        return out.reshape(*lead, -1)

    def _pack(self, rows: np.ndarray, full: np.ndarray, *scalars: Any) -> UInt32[np.ndarray, "B X"]:
        """Words of rows, and of `full` and scalars in float32."""
        words = 2 * rows.shape[1]
        out = np.zeros((len(rows), words + self.full + 3), np.uint32)
        out[:, :words] = np.ascontiguousarray(rows).view(np.uint32)
        floats = out[:, words:].view(np.float32)
        floats[:, : self.full] = full
        for i, x in enumerate(scalars):
            floats[:, self.full + i] = x
        return out


class _Pool(NamedTuple):
    batch: mujoco.batch.Batch
    xpos: Any
    ratios: Float[np.ndarray, "B 3"]
    """The ratios that the models were last written with."""


def _cores() -> int:
    """Number of the process's cores; 0, which means all to MuJoCo, where they are not known."""
    if not hasattr(os, "sched_getaffinity"):
        return 0
    return len(os.sched_getaffinity(0))


@functools.cache
def simulator(name: str, old: bool) -> Simulator:
    """The process's simulator of a robot; tasks share its threads."""
    return Simulator(ROBOTS[name], old)


def engine(robot: Robot, old: bool, held: Simulator | None = None) -> Engine:
    """The engine, with `old` rewards or Gymnasium's.

    `held` is the simulator to use, such as one with another number of threads.
    """
    sim = held or simulator(robot.name, old)
    words = 2 * (sim.width + 1)
    full = sim.full
    out = jax.ShapeDtypeStruct((words + full + 3,), jnp.uint32)

    def reset(noise: Float[Array, " N"]) -> tuple[Array, Array]:
        packed = jax.pure_callback(sim.reset, out, noise, vmap_method="broadcast_all")
        floats = jax.lax.bitcast_convert_type(packed[words:], jnp.float32)
        return packed[:words], floats[:full]

    def step(
        state: Array,
        control: Float[Array, " U"],
        over: Float[Array, ""],
        ratios: Float[Array, " X"],
    ) -> tuple:
        floats = jnp.concatenate([control, over[None], ratios]).astype(jnp.float32)
        packed = jnp.concatenate([state, jax.lax.bitcast_convert_type(floats, jnp.uint32)])
        after = jax.pure_callback(sim.step, out, packed, vmap_method="broadcast_all")
        floats = jax.lax.bitcast_convert_type(after[words:], jnp.float32)
        return after[:words], floats[:full], floats[full], floats[full + 1], floats[full + 2]

    def place(state: Array) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(state)).view(np.float64)[sim.qpos]

    return Engine(reset, step, place)

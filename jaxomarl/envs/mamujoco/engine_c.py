"""Engine c: MuJoCo's own batched simulation on a pool of threads, called from compiled programs.

A simulation is its full integration state in float64 (time, qpos, qvel, the solver's warm start) and the torso's x,
which JAX carries as pairs of 32-bit words, so that nothing is lost where JAX has 32 bits only. A call is a pure
function of its inputs: the bits do not depend on the threads, nor on what is simulated beside.
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

from jaxomarl.envs.mamujoco.layout import columns, fill
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot, quiet, reward
from jaxomarl.envs.mamujoco.shifts import write

CHUNK = {False: 1024, True: 64}
"""Simulations stepped at once; fewer where each keeps an MjData of its own, as contact forces want."""
POOLS = 8  # batches that are kept, each a power of two wide
WARNINGS = [int(w) for w in (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL,
                             mujoco.mjtWarning.mjWARN_BADQACC)]  # fmt: skip
LOG = logging.getLogger(__name__)


class Moved(NamedTuple):
    """Simulations after a step, in float64."""

    rows: Float[np.ndarray, "B W"]
    full: Float[np.ndarray, "B F"]
    reward: Float[np.ndarray, " B"]
    ended: Bool[np.ndarray, " B"]
    diverged: Bool[np.ndarray, " B"]


class Engine(NamedTuple):
    """Physics of one robot as pure functions of one simulation, which may be vmapped; the same for both engines.

    `reset(noise [P + V]) -> (simulation, full [F])`; `step(simulation, control [U], over, ratios [0 or 3]) ->
    (simulation, full, reward, ended, diverged)`, floats in 32 bits. A simulation that is over stands still.
    """

    reset: Any
    step: Any
    place: Any
    """simulation -> qpos as NumPy's float64, for pictures."""


class Simulator:
    """Steps rows of one robot's simulations; safe to call from several threads."""

    def __init__(self, robot: Robot, old: bool, threads: int = 0):
        self.robot, self.old = robot, old
        cores = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        )  # 0: all, to MuJoCo
        self.threads = threads or cores
        model = robot.model
        self.model, self.width = model, 1 + model.nq + 2 * model.nv  # time, qpos, qvel, warm start
        self.qpos, self.qvel = slice(1, 1 + model.nq), slice(1 + model.nq, 1 + model.nq + model.nv)
        self.full = len(columns(robot).names)
        home = np.zeros(self.width + 1)
        home[self.qpos] = model.qpos0
        home[-1] = 0.0 if not robot.contacts else model.qpos0[0]
        self.home = home
        self._pools: collections.OrderedDict[int, _Pool] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._data = mujoco.MjData(model)

    # --- in float64 ---

    def start(self, noise: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B W"]:
        """Rows at the initial state plus noise; mj_forward would change none of it, and the torso is at its joint."""
        rows = np.tile(self.home, (len(noise), 1))
        rows[:, 1 : 1 + noise.shape[1]] += noise
        rows[:, -1] = rows[:, 1]
        return rows

    def seen(self, rows: Float[np.ndarray, "B W"], cfrc: Any = None) -> Float[np.ndarray, "B F"]:
        """`full` of rows, whose contact forces are zero unless they are given."""
        cfrc = (
            np.zeros((len(rows), 6 * self.model.nbody))
            if cfrc is None and self.robot.contacts
            else cfrc
        )
        return fill(self.robot, np, rows[:, self.qpos], rows[:, self.qvel], cfrc)

    def advance(
        self, rows: Float[np.ndarray, "B W"], control: Float[np.ndarray, "B U"], ratios: Any
    ) -> Moved:
        """One environment step of each row. A row that diverges is at the initial state afterwards, at rest."""
        asked, sane = control, np.asarray(np.isfinite(control).all(axis=1))
        if not sane.all():
            control = np.where(sane[:, None], control, 0.0)
        after, cfrc = (
            np.empty_like(rows),
            np.zeros((len(rows), 6 * self.model.nbody * self.robot.contacts)),
        )
        failed: Any = ~sane
        size = CHUNK[self.robot.contacts]
        with self._lock, quiet():
            for at in range(0, len(rows), size):
                part = slice(at, at + size)
                failed[part] |= self._simulate(
                    rows[part], control[part], ratios[part], after[part], cfrc[part]
                )
        if not np.isfinite(after).all():
            failed |= ~np.isfinite(after).all(axis=1)
        after[failed], cfrc[failed] = self.home, 0.0
        full = self.seen(after, cfrc)
        felt = full[:, self.full - cfrc.shape[1] :]
        forward = after[:, -1] - rows[:, -1]
        got, ended = reward(
            self.robot,
            self.old,
            np,
            forward,
            control,
            after[:, self.qpos],
            after[:, self.qvel],
            felt,
        )
        if failed.any():
            i = int(failed.argmax())
            step = round(float(rows[i, 0]) / self.robot.dt)
            LOG.warning(
                "%s: %d of %d simulations diverged and end, the first in step %d under the action %s",
                self.robot.name, failed.sum(), len(rows), step, asked[i].tolist(),
            )  # fmt: skip
            got[failed], ended[failed] = 0.0, True
        return Moved(after, full, got, ended, failed)

    def _simulate(
        self, rows: Any, control: Any, ratios: Any, after: Any, cfrc: Any
    ) -> Bool[np.ndarray, " B"]:
        """Write what rows become to `after` and `cfrc`; True where MuJoCo gave up."""
        n, robot = len(rows), self.robot
        pool = self._pool(n, ratios.shape[1] > 0)
        batch, ids = pool.batch, None if n == pool.batch.nsim else np.arange(n, dtype=np.int32)
        if ratios.shape[1] and not np.array_equal(pool.ratios[:n], ratios):
            write(batch, ratios)
            pool.ratios[:n] = ratios
        batch.state[:n, : self.width] = rows[:, :-1]
        batch.state[:n, self.width : self.width + self.model.nu] = control
        batch.warning[:n] = 0
        try:
            batch.step(ids=ids, nstep=robot.frame_skip)
            wrong = np.zeros(n, bool)
        except mujoco.batch.SimulationError:
            wrong = batch.status[:n] != 0
        wrong |= batch.warning[:n, WARNINGS, 1].any(
            axis=1
        )  # then MuJoCo went on from its own initial state
        after[:, :-1] = batch.state[:n, : self.width]
        if (
            robot.contacts
        ):  # as Gymnasium: of the last substep's last stage, which a sensor would not give
            after[:, -1] = pool.xpos[:n, 1, 0]
            data = self._data
            for i in range(n):
                batch.get_data(i, data)
                mujoco.mj_rnePostConstraint(self.model, data)
                cfrc[i] = data.cfrc_ext.ravel()
        else:
            after[:, -1] = after[:, 1]
        return wrong

    def _pool(self, n: int, shifted: bool) -> "_Pool":
        size = max(1 << (n - 1).bit_length(), 1)
        key = 2 * size + shifted
        if key not in self._pools:
            batch = mujoco.batch.Batch(
                self.model, size, self.threads, persistent=self.robot.contacts
            )
            self._pools[key] = _Pool(
                batch, batch.bind("xpos") if self.robot.contacts else None, np.ones((size, 3))
            )
            while len(self._pools) > POOLS:
                self._pools.popitem(last=False)
        self._pools.move_to_end(key)
        return self._pools[key]

    # --- in words ---

    def reset(self, noise: Any) -> UInt32[np.ndarray, "*B X"]:
        """Callback: noise -> words of the row and of [full, reward, ended, diverged] in float32, side by side."""
        noise = np.asarray(noise)
        rows = self.start(noise.reshape(-1, noise.shape[-1]).astype(np.float64))
        return self._pack(rows, self.seen(rows)).reshape(*noise.shape[:-1], -1)

    def step(self, packed: Any) -> UInt32[np.ndarray, "*B X"]:
        """Callback: words of [row | control, over, ratios in float32] -> as `reset`, those that are not over stepped.

        One array in and one out, as each costs a callback tens of microseconds.
        """
        packed = np.asarray(packed)
        lead, words, nu = packed.shape[:-1], 2 * (self.width + 1), self.model.nu
        packed = packed.reshape(-1, packed.shape[-1])
        rows = np.ascontiguousarray(packed[:, :words]).view(np.float64)
        floats = packed[:, words:].view(np.float32).astype(np.float64)
        control, live, ratios = floats[:, :nu], floats[:, nu] == 0, floats[:, nu + 1 :]
        if live.all():
            moved = self.advance(rows, control, ratios)
            return self._pack(moved.rows, moved.full, *moved[2:]).reshape(*lead, -1)
        out = self._pack(rows, self.seen(rows), 0.0, 1.0, 0.0)
        if live.any():
            moved = self.advance(rows[live], control[live], ratios[live])
            out[live] = self._pack(moved.rows, moved.full, *moved[2:])
        return out.reshape(*lead, -1)

    def _pack(self, rows: Any, full: Any, *scalars: Any) -> UInt32[np.ndarray, "B X"]:
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
    ratios: Float[np.ndarray, "B 3"]  # what the models were last written with


@functools.cache
def simulator(name: str, old: bool) -> Simulator:
    """The process's simulator of a robot: tasks share its threads."""
    return Simulator(ROBOTS[name], old)


def engine(robot: Robot, old: bool, held: Simulator | None = None) -> Engine:
    """The engine, with `old` rewards or Gymnasium's; `held` is the simulator to use, such as one of other threads."""
    sim = held or simulator(robot.name, old)
    words, full = 2 * (sim.width + 1), sim.full
    out = jax.ShapeDtypeStruct((words + full + 3,), jnp.uint32)

    def reset(noise: Float[Array, " N"]) -> tuple[Array, Array]:
        got = jax.pure_callback(sim.reset, out, noise, vmap_method="broadcast_all")
        return got[:words], jax.lax.bitcast_convert_type(got[words:], jnp.float32)[:full]

    def step(
        state: Array,
        control: Float[Array, " U"],
        over: Float[Array, ""],
        ratios: Float[Array, " X"],
    ) -> tuple:
        floats = jnp.concatenate([control, over[None], ratios]).astype(jnp.float32)
        packed = jnp.concatenate([state, jax.lax.bitcast_convert_type(floats, jnp.uint32)])
        got = jax.pure_callback(sim.step, out, packed, vmap_method="broadcast_all")
        floats = jax.lax.bitcast_convert_type(got[words:], jnp.float32)
        return got[:words], floats[:full], floats[full], floats[full + 1], floats[full + 2]

    def place(state: Array) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(state)).view(np.float64)[sim.qpos]

    return Engine(reset, step, place)

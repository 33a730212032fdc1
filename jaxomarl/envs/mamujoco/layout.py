"""Who sees and moves what: indices into one vector, for each dialect, so that engines need not know of either.

The vector `full` is qpos, qvel, qvel clipped to ±10 (where the robot's state has that), cfrc_ext clipped to ±1 (ant).
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxomarl.base import Fields, refuse
from jaxomarl.envs.mamujoco.robots import Parts, Robot

MAPPED, UNMAPPED = "mapped", "unmapped"
DIALECTS = {
    "gymnasium": "mamujoco-gymnasium-v1",
    "omar": "mamujoco-omar",
    "ogmarl": "mamujoco-ogmarl",
    "omiga": "mamujoco-omiga",
}
OLD = {
    ("halfcheetah", "2x3"): ("omar", "ogmarl"),
    ("halfcheetah", "6x1"): ("omiga",),
    ("ant", "2x4"): ("ogmarl", "omiga"),
    ("ant", "4x2"): ("ogmarl",),
    ("hopper", "3x1"): ("omiga",),
}
"""Dialects beside gymnasium's that a partition has data of."""
WHOLE = "none"
"""The partition of one agent, which sees the whole state."""


class Columns(NamedTuple):
    """Where things lie in `full`, and what its columns are called."""

    qpos: Int[np.ndarray, " P"]
    qvel: Int[np.ndarray, " V"]
    clipped: Int[np.ndarray, " V"]  # the same as qvel where the state has them unclipped
    cfrc: Int[np.ndarray, "bodies 6"]
    names: tuple[str, ...]


class Layout(NamedTuple):
    """A partition under a dialect: observations, state and actions as indices."""

    dialect: str
    obs: Int[np.ndarray, "N O"]
    obs_mask: Float[np.ndarray, "N O"]  # 0 in padding, and where the dialect sees zeros
    constant: Float[np.ndarray, "N O"]  # one-hot ids
    obs_dims: tuple[int, ...]
    state: Int[np.ndarray, " S"]
    state_mask: Float[np.ndarray, " S"]
    action: Int[np.ndarray, " U"]  # of the flat padded joint action, for each actuator
    act_dims: tuple[int, ...]
    fields: Fields
    standardised: bool = False

    def observe(self, full: Any, xp: ModuleType = jnp) -> tuple[Any, Any]:
        """Observations [..., N, O] and state [..., S] from `full` [..., F]."""
        obs = full[..., self.obs] * self.obs_mask.astype(full.dtype) + self.constant.astype(
            full.dtype
        )
        if (
            self.standardised
        ):  # each vector by its own mean and deviation, as OMIGA's data; the id is a part of it
            obs = obs - obs.mean(axis=-1, keepdims=True)
            obs = obs / xp.sqrt((obs * obs).mean(axis=-1, keepdims=True))
            return obs, obs[..., 0, :]
        return obs, full[..., self.state] * self.state_mask.astype(full.dtype)

    def control(self, action: Any) -> Any:
        """The agents' actions [..., N, A] in the order of the actuators [..., U]."""
        return action.reshape(*action.shape[:-2], -1)[..., self.action]


def columns(robot: Robot) -> Columns:
    """The columns of `full`."""
    model = robot.model
    names = [""] * (model.nq + model.nv)
    for j in range(model.njnt):
        joint = model.joint(j)
        q, v = int(joint.qposadr[0]), model.nq + int(joint.dofadr[0])
        if joint.type[0] == 0:  # the free joint
            names[q : q + 7] = [
                f"qpos[{joint.name}.{x}]" for x in ("x", "y", "z", "qw", "qx", "qy", "qz")
            ]
            names[v : v + 6] = [
                f"qvel[{joint.name}.{x}]" for x in ("x", "y", "z", "wx", "wy", "wz")
            ]
        else:
            names[q], names[v] = f"qpos[{joint.name}]", f"qvel[{joint.name}]"
    qpos, qvel = np.arange(model.nq), model.nq + np.arange(model.nv)
    clipped, cfrc = qvel, np.zeros((0, 6), int)
    if robot.clipped[0]:
        clipped = len(names) + np.arange(model.nv)
        names += [names[i] for i in qvel]
    if robot.contacts:
        cfrc = len(names) + np.arange(6 * model.nbody).reshape(-1, 6)
        bodies = [
            model.body(b).name or f"{model.body(model.body_parentid[b]).name}_lower"
            for b in range(model.nbody)
        ]
        names += [
            f"cfrc_ext[{b}.{x}]" for b in bodies for x in ("tx", "ty", "tz", "fx", "fy", "fz")
        ]
    return Columns(qpos, qvel, clipped, cfrc, tuple(names))


def fill(robot: Robot, xp: ModuleType, qpos: Any, qvel: Any, cfrc: Any) -> Any:
    """`full` from its parts; `cfrc` [..., bodies * 6] is clipped here."""
    parts = [qpos, qvel]
    if robot.clipped[0]:
        parts.append(xp.clip(qvel, -10.0, 10.0))
    if robot.contacts:
        parts.append(xp.clip(cfrc, -1.0, 1.0))
    return xp.concatenate(parts, axis=-1)


def at_distance(robot: Robot, part: tuple[str, ...], k: int) -> list[list[str]]:
    """The joints at distance 0, ..., k from a part, each list in the order of the alphabet."""
    seen = set(part)
    rings = [sorted(part)]
    for _ in range(k):
        near = {
            joint for edge in robot.edges if set(edge) & set(rings[-1]) for joint in edge
        } - seen
        seen |= near
        rings.append(sorted(near))
    return rings


def layout(robot: Robot, partition: str, dialect: str = "gymnasium", obsk: int = 1) -> Layout:
    """The layout of a partition, which observes joints up to distance `obsk` (gymnasium only; others have their own).

    Raises JaxomarlError for an unknown partition or dialect, or one that the partition has not.
    """
    field = f"mamujoco/{robot.name}"
    known = [*robot.partitions, WHOLE]
    if partition not in known:
        raise refuse(
            f"{field}, partition",
            f"one of {', '.join(known)}",
            partition,
            "These are Gymnasium-Robotics'.",
        )
    has = ("gymnasium", *OLD.get((robot.name, partition), ()))
    if dialect not in has:
        way_out = (
            "No data are known in another."
            if dialect in DIALECTS
            else f"Dialects: {', '.join(DIALECTS)}."
        )
        raise refuse(f"{field} {partition}, dialect", f"one of {', '.join(has)}", dialect, way_out)
    if not 0 <= obsk <= 5:
        raise refuse(
            f"{field}, obsk", "a distance from 0 to 5", obsk, "1 is that of the published data."
        )
    if dialect != "gymnasium" and obsk != 1:
        raise refuse(
            f"{field}, obsk",
            f"its default, as {dialect}'s distance is its own",
            obsk,
            "Leave it out.",
        )
    parts = robot.partitions.get(partition, (actuated(robot),))
    at = columns(robot)
    state = np.concatenate(
        [at.qpos[robot.skip :], at.clipped, at.cfrc[dialect == "gymnasium" :].ravel()]
    )
    blind = (
        at.cfrc.ravel() if dialect != "gymnasium" else np.zeros(0, int)
    )  # contact forces were never computed
    ids = np.zeros((len(parts), 0))
    if dialect == "omiga":
        seen, ids = [state] * len(parts), np.eye(len(parts))
    elif partition == WHOLE:
        seen = [state]
    else:
        k = {"gymnasium": obsk, "omar": 0, "ogmarl": 1}[dialect]
        seen = [
            np.array([*_near(robot, at, part, k), *_globals(robot, at, dialect)]) for part in parts
        ]
    order = parts if dialect in ("gymnasium", "ogmarl") else _straight(robot, parts)
    if (robot.name, dialect) == ("halfcheetah", "ogmarl"):
        order = tuple(
            part[::-1] for part in parts
        )  # v1.1 lists foot, shin, thigh, and maps by joint
    return _laid(robot, at, dialect, seen, ids, state, blind, order)


def _laid(
    robot: Robot,
    at: Columns,
    dialect: str,
    seen: list,
    ids: Any,
    state: Any,
    blind: Any,
    order: Parts,
) -> Layout:
    dims = tuple(len(x) + ids.shape[1] for x in seen)
    n, width, acts = len(seen), max(dims), max(map(len, order))
    obs, mask, constant = np.zeros((n, width), int), np.zeros((n, width)), np.zeros((n, width))
    for i, x in enumerate(seen):
        obs[i, : len(x)] = x
        mask[i, : len(x)] = ~np.isin(x, blind)
        constant[i, len(x) : dims[i]] = ids[i]
    place = {joint: i * acts + j for i, part in enumerate(order) for j, joint in enumerate(part)}
    names = [
        tuple(at.names[c] for c in x) + tuple(f"id[{j}]" for j in range(ids.shape[1])) for x in seen
    ]
    return Layout(
        DIALECTS[dialect], obs, mask, constant, dims, state, (~np.isin(state, blind)).astype(float),
        np.array([place[joint] for joint in actuated(robot)]), tuple(map(len, order)), Fields(tuple(names), order),
        standardised=dialect == "omiga",
    )  # fmt: skip


def actuated(robot: Robot) -> tuple[str, ...]:
    """The joint of each actuator."""
    model = robot.model
    return tuple(model.joint(int(j)).name for j in model.actuator_trnid[:, 0])


def _straight(robot: Robot, parts: Parts) -> Parts:
    """v1.0: the agents' actions side by side go to the actuators as they are numbered, whoever sees the joints."""
    left = list(actuated(robot))
    return tuple(tuple(left.pop(0) for _ in part) for part in parts)


def _near(robot: Robot, at: Columns, part: tuple[str, ...], k: int) -> list[int]:
    """Positions of all joints near; velocities, and each body's contact forces once, of one's own."""
    model, out, felt = robot.model, [], set()
    velocity = at.clipped if robot.clipped[1] else at.qvel
    for distance, ring in enumerate(at_distance(robot, part, k)):
        for name in ring:
            joint = model.joint(name)
            out.append(int(at.qpos[joint.qposadr[0]]))
            if distance == 0:
                out.append(int(velocity[joint.dofadr[0]]))
                for body in _bodies(robot, name):
                    if body not in felt:
                        out += map(int, at.cfrc[body])
                        felt.add(body)
    return out


def _bodies(robot: Robot, joint: str) -> tuple[int, ...]:
    """The bodies that an ant's joint is said to be attached to."""
    if not robot.contacts:
        return ()
    leg = 3 * int(joint[-1]) - 1
    return (1, leg) if joint.startswith("hip") else (leg, leg + 1, leg + 2)


def _globals(robot: Robot, at: Columns, dialect: str) -> list[int]:
    """What every agent sees of the root."""
    ant = robot.name == "ant"
    if dialect == "omar":
        return []
    if (
        dialect == "ogmarl"
    ):  # v1.1: velocities first, y before z, and the ant's root by its first entries alone
        order = [0] if ant else [0, 2, 1]
        return [int(i) for i in (*at.qvel[order], *at.qpos[order])]
    velocity = at.clipped if robot.clipped[1] else at.qvel
    qpos, qvel = (at.qpos[2:7], at.qvel[:6]) if ant else (at.qpos[1:3], velocity[:3])
    return [int(i) for i in (*qpos, *qvel)]

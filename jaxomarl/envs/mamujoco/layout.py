"""Observations, state and actions of each dialect, as indices into one vector.

Engines need not know of dialects or partitions. The vector `full` is qpos, qvel, then qvel clipped
to ±10 (where the robot's state has that), then cfrc_ext clipped to ±1 (ant).
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxomarl.base import Fields, refuse
from jaxomarl.envs.mamujoco.robots import Parts, Robot, Rows

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
"""Dialects besides gymnasium's in which there are data of a partition."""
WHOLE = "none"
"""The partition of one agent, which observes the full state."""


class Columns(NamedTuple):
    """The columns of `full` by what they hold, and their names."""

    qpos: Int[np.ndarray, " P"]
    qvel: Int[np.ndarray, " V"]
    clipped: Int[np.ndarray, " V"]
    """Columns of the clipped velocities; those of qvel where the state does not clip them."""
    cfrc: Int[np.ndarray, "bodies 6"]
    names: tuple[str, ...]


class Layout(NamedTuple):
    """A partition under a dialect: observations, state and actions as indices."""

    dialect: str
    obs: Int[np.ndarray, "N O"]
    obs_mask: Float[np.ndarray, "N O"]
    """0 in padding, and where the dialect observes zeros."""
    constant: Float[np.ndarray, "N O"]
    """One-hot ids of the agents."""
    obs_dims: tuple[int, ...]
    state: Int[np.ndarray, " S"]
    state_mask: Float[np.ndarray, " S"]
    action: Int[np.ndarray, " U"]
    """Column of the flat padded joint action, for each actuator."""
    act_dims: tuple[int, ...]
    fields: Fields
    standardised: bool = False

    def observe(self, full: Rows, xp: ModuleType = jnp) -> tuple[Any, Any]:
        """Observations [..., N, O] and state [..., S] from `full` [..., F]."""
        dtype = full.dtype
        obs = full[..., self.obs] * self.obs_mask.astype(dtype) + self.constant.astype(dtype)
        if not self.standardised:
            return obs, full[..., self.state] * self.state_mask.astype(dtype)

        # each vector by its own mean and deviation, as in OMIGA's data; the id is a part of it
        obs = obs - obs.mean(axis=-1, keepdims=True)
        obs = obs / xp.sqrt((obs * obs).mean(axis=-1, keepdims=True))
        return obs, obs[..., 0, :]

    def control(self, action: Any) -> Any:
        """The agents' actions [..., N, A] in the order of the actuators [..., U]."""
        return action.reshape(*action.shape[:-2], -1)[..., self.action]


def full_columns(robot: Robot) -> Columns:
    """The columns of `full`."""
    model = robot.model
    names = _joint_names(robot)
    qpos = np.arange(model.nq)
    qvel = model.nq + np.arange(model.nv)
    clipped = qvel
    if robot.clipped[0]:
        clipped = len(names) + np.arange(model.nv)
        names += [names[i] for i in qvel]
    cfrc = np.zeros((0, 6), int)
    if robot.contacts:
        cfrc = len(names) + np.arange(6 * model.nbody).reshape(-1, 6)
        axes = ("tx", "ty", "tz", "fx", "fy", "fz")
        names += [f"cfrc_ext[{body}.{axis}]" for body in _body_names(robot) for axis in axes]
    return Columns(qpos, qvel, clipped, cfrc, tuple(names))


def _joint_names(robot: Robot) -> list[str]:
    """Names of all positions, then of all velocities."""
    model = robot.model
    names = [""] * (model.nq + model.nv)
    for j in range(model.njnt):
        joint = model.joint(j)
        q = int(joint.qposadr[0])
        v = model.nq + int(joint.dofadr[0])
        is_free = joint.type[0] == 0
        if is_free:
            positions = ("x", "y", "z", "qw", "qx", "qy", "qz")
            velocities = ("x", "y", "z", "wx", "wy", "wz")
            names[q : q + 7] = [f"qpos[{joint.name}.{axis}]" for axis in positions]
            names[v : v + 6] = [f"qvel[{joint.name}.{axis}]" for axis in velocities]
        else:
            names[q] = f"qpos[{joint.name}]"
            names[v] = f"qvel[{joint.name}]"
    return names


def _body_names(robot: Robot) -> list[str]:
    """Names of all bodies; one without a name is called after its parent."""
    model = robot.model
    names = []
    for b in range(model.nbody):
        parent = model.body(model.body_parentid[b]).name
        names.append(model.body(b).name or f"{parent}_lower")
    return names


def fill(robot: Robot, xp: ModuleType, qpos: Rows, qvel: Rows, cfrc: Rows | None) -> Any:
    """The vector `full` from its parts; `cfrc` [..., bodies * 6] is clipped here."""
    parts = [qpos, qvel]
    if robot.clipped[0]:
        parts.append(xp.clip(qvel, -10.0, 10.0))
    if robot.contacts:
        parts.append(xp.clip(cfrc, -1.0, 1.0))
    return xp.concatenate(parts, axis=-1)


def at_distance(robot: Robot, part: tuple[str, ...], k: int) -> list[list[str]]:
    """The joints at distance 0, ..., k from a part, each list in alphabetical order."""
    reached = set(part)
    rings = [sorted(part)]
    for _ in range(k):
        last = set(rings[-1])
        touched = {joint for edge in robot.edges if set(edge) & last for joint in edge}
        ring = touched - reached
        reached |= ring
        rings.append(sorted(ring))
    return rings


def layout(robot: Robot, partition: str, dialect: str = "gymnasium", obsk: int = 1) -> Layout:
    """The layout of a partition, whose agents observe joints up to distance `obsk`.

    Only gymnasium's dialect takes another `obsk`, as the others have their own. Raises
    JaxomarlError for an unknown partition or dialect, and for a dialect without the partition.
    """
    _check(robot, partition, dialect, obsk)
    parts = robot.partitions.get(partition, (actuated(robot),))
    at = full_columns(robot)
    # all dialects but gymnasium's have the world's contact forces in the state
    bodies = at.cfrc[dialect == "gymnasium" :]
    state = np.concatenate([at.qpos[robot.skip :], at.clipped, bodies.ravel()])

    # --- what each agent observes ---
    ids = np.zeros((len(parts), 0))
    if dialect == "omiga":
        seen = [state] * len(parts)
        ids = np.eye(len(parts))
    elif partition == WHOLE:
        seen = [state]
    else:
        k = {"gymnasium": obsk, "omar": 0, "ogmarl": 1}[dialect]
        of_root = _globals(robot, at, dialect)
        seen = [np.array([*_near(robot, at, part, k), *of_root]) for part in parts]

    # --- the joints of each agent's action columns ---
    order = parts
    if dialect not in ("gymnasium", "ogmarl"):
        order = _straight(robot, parts)
    if (robot.name, dialect) == ("halfcheetah", "ogmarl"):
        # v1.1 lists foot, shin, thigh, and maps by joint
        order = tuple(part[::-1] for part in parts)
    return _as_indices(robot, at, dialect, seen, ids, state, order)


def _check(robot: Robot, partition: str, dialect: str, obsk: int) -> None:
    """Raise JaxomarlError where a robot has no such partition, dialect or distance."""
    field = f"mamujoco/{robot.name}"
    known = [*robot.partitions, WHOLE]
    if partition not in known:
        way = "These are Gymnasium-Robotics'."
        raise refuse(f"{field}, partition", f"one of {', '.join(known)}", partition, way)
    has = ("gymnasium", *OLD.get((robot.name, partition), ()))
    if dialect not in has:
        way = f"Dialects: {', '.join(DIALECTS)}."
        if dialect in DIALECTS:
            way = "No data are known in another."
        raise refuse(f"{field} {partition}, dialect", f"one of {', '.join(has)}", dialect, way)
    if not 0 <= obsk <= 5:
        way = "1 is that of the published data."
        raise refuse(f"{field}, obsk", "a distance from 0 to 5", obsk, way)
    if dialect != "gymnasium" and obsk != 1:
        expected = f"its default, as {dialect}'s distance is its own"
        raise refuse(f"{field}, obsk", expected, obsk, "Leave it out.")


def _as_indices(
    robot: Robot,
    at: Columns,
    dialect: str,
    seen: list[np.ndarray],
    ids: np.ndarray,
    state: np.ndarray,
    order: Parts,
) -> Layout:
    """The layout of what each agent observes (`seen`, `ids`) and moves (`order`)."""
    # the other dialects' contact forces were never computed
    blind = np.zeros(0, int)
    if dialect != "gymnasium":
        blind = at.cfrc.ravel()

    # --- observations, padded to the widest ---
    dims = tuple(len(x) + ids.shape[1] for x in seen)
    shape = (len(seen), max(dims))
    obs = np.zeros(shape, int)
    mask = np.zeros(shape)
    constant = np.zeros(shape)
    names = []
    for i, x in enumerate(seen):
        obs[i, : len(x)] = x
        mask[i, : len(x)] = ~np.isin(x, blind)
        constant[i, len(x) : dims[i]] = ids[i]
        id_names = [f"id[{j}]" for j in range(ids.shape[1])]
        names.append((*(at.names[c] for c in x), *id_names))

    # --- action columns, padded to the widest ---
    act_dims = tuple(map(len, order))
    width = max(act_dims)
    column = {joint: i * width + j for i, part in enumerate(order) for j, joint in enumerate(part)}
    return Layout(
        dialect=DIALECTS[dialect],
        obs=obs,
        obs_mask=mask,
        constant=constant,
        obs_dims=dims,
        state=state,
        state_mask=(~np.isin(state, blind)).astype(float),
        action=np.array([column[joint] for joint in actuated(robot)]),
        act_dims=act_dims,
        fields=Fields(tuple(names), order),
        standardised=dialect == "omiga",
    )


def actuated(robot: Robot) -> tuple[str, ...]:
    """The joint of each actuator."""
    model = robot.model
    return tuple(model.joint(int(j)).name for j in model.actuator_trnid[:, 0])


def _straight(robot: Robot, parts: Parts) -> Parts:
    """The joints that v1.0 moves: the agents' actions, side by side, go to the actuators in order.

    It does not matter which agent observes a joint.
    """
    left = list(actuated(robot))
    return tuple(tuple(left.pop(0) for _ in part) for part in parts)


def _observed_velocities(robot: Robot, at: Columns) -> Int[np.ndarray, " V"]:
    """Columns of the velocities that agents observe."""
    if robot.clipped[1]:
        return at.clipped
    return at.qvel


def _near(robot: Robot, at: Columns, part: tuple[str, ...], k: int) -> list[int]:
    """The columns of joints up to distance k that an agent observes.

    It observes the positions of all of them. Of its own joints it also observes velocities, and the
    contact forces of each body once.
    """
    model = robot.model
    velocity = _observed_velocities(robot, at)
    own, *others = at_distance(robot, part, k)
    out: list[int] = []
    felt: set[int] = set()
    for name in own:
        joint = model.joint(name)
        out.append(int(at.qpos[joint.qposadr[0]]))
        out.append(int(velocity[joint.dofadr[0]]))
        for body in _bodies(robot, name):
            if body not in felt:
                out += map(int, at.cfrc[body])
                felt.add(body)
    for ring in others:
        out += [int(at.qpos[model.joint(name).qposadr[0]]) for name in ring]
    return out


def _bodies(robot: Robot, joint: str) -> tuple[int, ...]:
    """The bodies that count as attached to an ant's joint."""
    if not robot.contacts:
        return ()
    leg = 3 * int(joint[-1]) - 1
    if joint.startswith("hip"):
        return (1, leg)
    return (leg, leg + 1, leg + 2)


def _globals(robot: Robot, at: Columns, dialect: str) -> list[int]:
    """The columns of the root that every agent observes."""
    is_ant = robot.name == "ant"
    if dialect == "omar":
        return []
    if dialect == "ogmarl":
        # v1.1: velocities first, y before z, and of the ant's root only the first entries
        order = [0] if is_ant else [0, 2, 1]
        return [int(i) for i in (*at.qvel[order], *at.qpos[order])]
    if is_ant:
        return [int(i) for i in (*at.qpos[2:7], *at.qvel[:6])]
    velocity = _observed_velocities(robot, at)
    return [int(i) for i in (*at.qpos[1:3], *velocity[:3])]

"""The four robots: their models, graphs, partitions, rewards and ends, as Gymnasium's v5 environments have them.

Models are the XML files that Gymnasium ships, loaded from there. Joints are called as MuJoCo calls them.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings bring no types.

import contextlib
import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.base import refuse

Parts = tuple[tuple[str, ...], ...]
"""Joints of each agent, in the order of its action columns."""


Rows = Float[Array | np.ndarray, "*B _"]


class Robot(NamedTuple):
    """What a robot's rules need beside its model; positions and velocities lead with any batch axes."""

    name: str
    xml: str
    frame_skip: int
    edges: tuple[tuple[str, ...], ...]
    """Sets of joints that are neighbours of one another."""
    partitions: dict[str, Parts]
    skip: int
    """Leading positions that the state leaves out."""
    qpos_noise: float
    """Half-width of the uniform noise on the first positions."""
    qvel_noise: float
    normal: bool
    """Velocity noise is normal with that deviation, else uniform with that half-width."""
    control_cost: float
    healthy: Callable[[ModuleType, Any, Any], Any] | None = None
    """(numpy or jax.numpy, qpos, qvel) -> bool; None: never ends."""
    clipped: tuple[bool, bool] = (False, False)
    """Velocities are clipped to ±10 in the state; and in observations."""
    contacts: bool = False
    """Contact forces are observed and cost; the forward reward follows the torso's body, not its joint."""

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared: do not write to it."""
        return _model(self.xml)

    @property
    def dt(self) -> float:
        """Seconds of a step."""
        return self.model.opt.timestep * self.frame_skip


@functools.cache
def _model(xml: str) -> mujoco.MjModel:
    found = importlib.util.find_spec("gymnasium")
    if found is None or found.origin is None:
        raise refuse(
            "mamujoco",
            "Gymnasium, whose models these are",
            "no gymnasium",
            "pip install 'gymnasium>=1.2'",
        )
    path = Path(found.origin).parent / "envs" / "mujoco" / "assets" / xml
    if not path.is_file():
        raise refuse("mamujoco", f"Gymnasium's {xml}", f"no {path}", "pip install 'gymnasium>=1.2'")
    with quiet():  # half-cheetah's settotalmass is deprecated, and it is not ours to change
        return mujoco.MjModel.from_xml_path(str(path))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MuJoCo's warnings go nowhere, rather than to MUJOCO_LOG.TXT in the folder at hand; a user's handler is kept."""
    mine = mujoco.get_mju_user_warning() is None
    if mine:
        mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        if mine:
            mujoco.set_mju_user_warning(None)


def _ignore(message: str) -> None:
    """What a warning means for an episode is read from the simulation's counters."""


def _within(xp: ModuleType, z: Any, low: float, high: float, angle: Any, limit: float) -> Any:
    return (low < z) & (z < high) & (xp.abs(angle) < limit)


def _ant(xp: ModuleType, qpos: Rows, qvel: Rows) -> Any:
    finite = xp.isfinite(qpos).all(axis=-1) & xp.isfinite(qvel).all(axis=-1)
    return finite & (qpos[..., 2] >= 0.2) & (qpos[..., 2] <= 1.0)


def _hopper(xp: ModuleType, qpos: Rows, qvel: Rows) -> Any:
    bounded = (xp.abs(qpos[..., 2:]) < 100.0).all(axis=-1) & (xp.abs(qvel) < 100.0).all(axis=-1)
    return bounded & _within(xp, qpos[..., 1], 0.7, float("inf"), qpos[..., 2], 0.2)


def _walker(xp: ModuleType, qpos: Rows, qvel: Rows) -> Any:
    return _within(xp, qpos[..., 1], 0.8, 2.0, qpos[..., 2], 1.0)


_BACK, _FRONT = ("bthigh", "bshin", "bfoot"), ("fthigh", "fshin", "ffoot")
_LEGS = tuple((f"hip_{i}", f"ankle_{i}") for i in (1, 2, 3, 4))
_HOP = ("thigh_joint", "leg_joint", "foot_joint")
_LEFT = ("thigh_left_joint", "leg_left_joint", "foot_left_joint")


def _alone(joints: tuple[str, ...]) -> Parts:
    return tuple((joint,) for joint in joints)


def _chain(*joints: str) -> tuple[tuple[str, ...], ...]:
    return tuple(itertools.pairwise(joints))


ROBOTS = {
    robot.name: robot
    for robot in (
        Robot(
            "halfcheetah", "half_cheetah.xml", 5, _chain(*_BACK[::-1], *_FRONT),
            {"2x3": (_BACK, _FRONT), "6x1": _alone(_BACK + _FRONT)},
            skip=1, qpos_noise=0.1, qvel_noise=0.1, normal=True, control_cost=0.1,
        ),
        Robot(
            "ant", "ant.xml", 5, (*_LEGS, tuple(leg[0] for leg in _LEGS)),
            {
                "2x4": (_LEGS[0] + _LEGS[1], _LEGS[2] + _LEGS[3]),
                "2x4d": (_LEGS[0] + _LEGS[3], _LEGS[1] + _LEGS[2]),
                "4x2": _LEGS,
            },
            skip=2, qpos_noise=0.1, qvel_noise=0.1, normal=True, control_cost=0.5, healthy=_ant, contacts=True,
        ),
        Robot(
            "hopper", "hopper.xml", 4, _chain(*_HOP), {"3x1": _alone(_HOP)},
            skip=1, qpos_noise=0.005, qvel_noise=0.005, normal=False, control_cost=1e-3, healthy=_hopper,
            clipped=(True, True),
        ),
        Robot(
            "walker2d", "walker2d_v5.xml", 4, _chain(*_HOP[::-1], *_LEFT), {"2x3": (_HOP[::-1], _LEFT[::-1])},
            skip=1, qpos_noise=0.005, qvel_noise=0.005, normal=False, control_cost=1e-3, healthy=_walker,
            clipped=(True, False),
        ),
    )
}  # fmt: skip


def reward(
    robot: Robot,
    old: bool,
    xp: ModuleType,
    forward: Any,
    action: Any,
    qpos: Any,
    qvel: Any,
    cfrc: Any,
) -> tuple[Any, Any]:
    """(reward, ended) after a step that moved the robot by `forward` metres under `action` [..., U].

    `cfrc` [..., C] are the clipped contact forces. The old rules (gym's v2) pay an ant and a hopper for being alive
    in the step that ends the episode as well, and do not charge an ant for contacts.
    """
    got = forward / robot.dt - robot.control_cost * (action * action).sum(axis=-1)
    if robot.contacts and not old:
        got = got - 5e-4 * (cfrc * cfrc).sum(axis=-1)
    if robot.healthy is None:
        return got, xp.zeros_like(got, bool)
    well = robot.healthy(xp, qpos, qvel)
    return got + (1.0 if old else xp.where(well, 1.0, 0.0)), ~well

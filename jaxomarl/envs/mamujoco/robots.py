"""The four robots: their models, graphs, partitions, rewards and terminations.

They are those of Gymnasium's v5 environments. Models are the XML files that Gymnasium ships, loaded
from there. Joints have MuJoCo's names.
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
"""Vectors that lead with any batch axes, of NumPy or JAX."""
Scalars = Float[Array | np.ndarray, "*B"]
"""Numbers that lead with any batch axes, of NumPy or JAX."""


class Robot(NamedTuple):
    """A robot's rules and its model; positions and velocities lead with any batch axes."""

    name: str
    xml: str
    frame_skip: int
    edges: tuple[tuple[str, ...], ...]
    """Sets of joints that are neighbours of one another."""
    partitions: dict[str, Parts]
    skip: int
    """Number of leading positions that the state leaves out."""
    qpos_noise: float
    """Half-width of the uniform noise on the first positions."""
    qvel_noise: float
    normal: bool
    """Whether velocity noise is normal with `qvel_noise` as deviation, or uniform within it."""
    control_cost: float
    healthy: Callable[[ModuleType, Any, Any], Any] | None = None
    """(numpy or jax.numpy, qpos, qvel) -> bool; None where episodes never terminate."""
    clipped: tuple[bool, bool] = (False, False)
    """Whether velocities are clipped to ±10 in the state, and in observations."""
    contacts: bool = False
    """Whether contact forces are observed and cost.

    The forward reward then follows the torso's body, not its joint.
    """

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared: do not write to it."""
        return _model(self.xml)

    @property
    def dt(self) -> float:
        """Duration of a step in seconds."""
        return self.model.opt.timestep * self.frame_skip


@functools.cache
def _model(xml: str) -> mujoco.MjModel:
    way = "pip install 'gymnasium>=1.2'"
    found = importlib.util.find_spec("gymnasium")
    if found is None or found.origin is None:
        expected = "Gymnasium, whose models these are"
        raise refuse("mamujoco", expected, "no gymnasium", way)
    path = Path(found.origin).parent / "envs" / "mujoco" / "assets" / xml
    if not path.is_file():
        raise refuse("mamujoco", f"Gymnasium's {xml}", f"no {path}", way)
    # half-cheetah's settotalmass is deprecated, and the file is not ours to change
    with quiet():
        return mujoco.MjModel.from_xml_path(str(path))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop MuJoCo's warnings, which else go to MUJOCO_LOG.TXT in the current folder.

    A user's handler is kept.
    """
    mine = mujoco.get_mju_user_warning() is None
    if mine:
        mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        if mine:
            mujoco.set_mju_user_warning(None)


def _ignore(message: str) -> None:
    """Drop a warning; the simulation's counters say what it means for an episode."""


def _within(
    xp: ModuleType, z: Scalars, low: float, high: float, angle: Scalars, limit: float
) -> Any:
    """Whether a torso's height and angle are within bounds."""
    return (low < z) & (z < high) & (xp.abs(angle) < limit)


def _healthy_ant(xp: ModuleType, qpos: Rows, qvel: Rows) -> Any:
    finite = xp.isfinite(qpos).all(axis=-1) & xp.isfinite(qvel).all(axis=-1)
    return finite & (qpos[..., 2] >= 0.2) & (qpos[..., 2] <= 1.0)


def _healthy_hopper(xp: ModuleType, qpos: Rows, qvel: Rows) -> Any:
    bounded_qpos = (xp.abs(qpos[..., 2:]) < 100.0).all(axis=-1)
    bounded_qvel = (xp.abs(qvel) < 100.0).all(axis=-1)
    bounded = bounded_qpos & bounded_qvel
    return bounded & _within(xp, qpos[..., 1], 0.7, float("inf"), qpos[..., 2], 0.2)


def _healthy_walker(xp: ModuleType, qpos: Rows, qvel: Rows) -> Any:
    return _within(xp, qpos[..., 1], 0.8, 2.0, qpos[..., 2], 1.0)


_BACK = ("bthigh", "bshin", "bfoot")
_FRONT = ("fthigh", "fshin", "ffoot")
_LEGS = tuple((f"hip_{i}", f"ankle_{i}") for i in (1, 2, 3, 4))
_HOP = ("thigh_joint", "leg_joint", "foot_joint")
_LEFT = ("thigh_left_joint", "leg_left_joint", "foot_left_joint")


def _alone(joints: tuple[str, ...]) -> Parts:
    return tuple((joint,) for joint in joints)


def _chain(*joints: str) -> tuple[tuple[str, ...], ...]:
    return tuple(itertools.pairwise(joints))


_HALFCHEETAH = Robot(
    name="halfcheetah",
    xml="half_cheetah.xml",
    frame_skip=5,
    edges=_chain(*_BACK[::-1], *_FRONT),
    partitions={"2x3": (_BACK, _FRONT), "6x1": _alone(_BACK + _FRONT)},
    skip=1,
    qpos_noise=0.1,
    qvel_noise=0.1,
    normal=True,
    control_cost=0.1,
)
_ANT = Robot(
    name="ant",
    xml="ant.xml",
    frame_skip=5,
    edges=(*_LEGS, tuple(leg[0] for leg in _LEGS)),
    partitions={
        "2x4": (_LEGS[0] + _LEGS[1], _LEGS[2] + _LEGS[3]),
        "2x4d": (_LEGS[0] + _LEGS[3], _LEGS[1] + _LEGS[2]),
        "4x2": _LEGS,
    },
    skip=2,
    qpos_noise=0.1,
    qvel_noise=0.1,
    normal=True,
    control_cost=0.5,
    healthy=_healthy_ant,
    contacts=True,
)
_HOPPER = Robot(
    name="hopper",
    xml="hopper.xml",
    frame_skip=4,
    edges=_chain(*_HOP),
    partitions={"3x1": _alone(_HOP)},
    skip=1,
    qpos_noise=0.005,
    qvel_noise=0.005,
    normal=False,
    control_cost=1e-3,
    healthy=_healthy_hopper,
    clipped=(True, True),
)
_WALKER = _HOPPER._replace(
    name="walker2d",
    xml="walker2d_v5.xml",
    edges=_chain(*_HOP[::-1], *_LEFT),
    partitions={"2x3": (_HOP[::-1], _LEFT[::-1])},
    healthy=_healthy_walker,
    clipped=(True, False),
)
ROBOTS = {robot.name: robot for robot in (_HALFCHEETAH, _ANT, _HOPPER, _WALKER)}


def reward(
    robot: Robot,
    old: bool,
    xp: ModuleType,
    forward: Scalars,
    action: Rows,
    qpos: Rows,
    qvel: Rows,
    cfrc: Rows,
) -> tuple[Any, Any]:
    """(reward, ended) of a step that moved the robot by `forward` metres under `action` [..., U].

    `cfrc` [..., C] are the clipped contact forces. The old rules (gym's v2) pay an ant and a hopper
    for being alive in the step that ends the episode as well, and do not charge an ant for
    contacts.
    """
    result = forward / robot.dt - robot.control_cost * (action * action).sum(axis=-1)
    if robot.contacts and not old:
        result = result - 5e-4 * (cfrc * cfrc).sum(axis=-1)
    if robot.healthy is None:
        return result, xp.zeros_like(result, bool)

    healthy = robot.healthy(xp, qpos, qvel)
    if old:
        return result + 1.0, ~healthy
    return result + xp.where(healthy, 1.0, 0.0), ~healthy

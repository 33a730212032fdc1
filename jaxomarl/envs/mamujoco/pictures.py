"""A frame of a robot, by MuJoCo's renderer through EGL, else OSMesa, else as discs from the side.

MuJoCo binds to one graphics library as it is imported, and a library that does not work can abort
the process. So a process of its own renders, one for each robot, and frames come through a pipe.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings bring no types.

import functools
import logging
import os
import subprocess
import sys
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float, UInt8

from jaxomarl.envs.draw import Colour, Disc, agent_colour, scene
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot

SIZE = 360
"""Width and height of a frame in pixels."""
VIEW = 1.6
"""Metres from the middle of a drawing to its edge."""
MARK: Colour = (90, 90, 90)
"""Colour of the marks on the floor."""
LIBRARIES = ("egl", "osmesa")
LOG = logging.getLogger(__name__)


def robot_picture(robot: Robot, qpos: Float[np.ndarray, " P"]) -> UInt8[np.ndarray, "360 360 3"]:
    """The robot at these positions.

    Where MuJoCo cannot render, it is a plain drawing, and one message says so.
    """
    child = _child(robot.name)
    if child is not None:
        try:
            return _ask(child, qpos)
        except (OSError, ValueError):
            LOG.warning("MuJoCo's renderer stopped: this frame is a plain drawing")
    data = mujoco.MjData(robot.model)
    data.qpos[:] = qpos
    mujoco.mj_forward(robot.model, data)
    return drawing(robot, data)


def _ask(child: subprocess.Popen, qpos: Float[np.ndarray, " P"]) -> UInt8[np.ndarray, "P P 3"]:
    child.stdin.write(np.asarray(qpos, np.float64).tobytes())  # type: ignore[union-attr]
    child.stdin.flush()  # type: ignore[union-attr]
    pixels = child.stdout.read(SIZE * SIZE * 3)  # type: ignore[union-attr]
    return np.frombuffer(pixels, np.uint8).reshape(SIZE, SIZE, 3).copy()


@functools.cache
def _child(name: str) -> subprocess.Popen | None:
    """The process that renders a robot; None, with a message, where no library works."""
    libraries = LIBRARIES
    if os.environ.get("MUJOCO_GL"):
        libraries = (os.environ["MUJOCO_GL"],)
    for library in libraries:
        environment = {**os.environ, "MUJOCO_GL": library, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "jaxomarl.envs.mamujoco.pictures", name]
        try:
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            _ask(child, ROBOTS[name].model.qpos0)
            return child
        except (OSError, ValueError):
            # it ended before the frame was complete
            continue
    tried = " and ".join(libraries)
    LOG.warning(
        "MuJoCo cannot render with %s: frames are plain drawings. Try: apt-get install libosmesa6",
        tried,
    )
    return None


def _serve(name: str) -> None:
    """Render the positions that come in, until none do."""
    out = os.fdopen(os.dup(1), "wb")
    # nothing else may be printed between the frames
    os.dup2(2, 1)
    model = ROBOTS[name].model
    renderer = mujoco.Renderer(model, SIZE, SIZE)
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    camera.trackbodyid = 1
    camera.distance = 4.0
    camera.azimuth = 90.0
    camera.elevation = -20.0
    size = 8 * model.nq
    while len(sent := sys.stdin.buffer.read(size)) == size:
        data.qpos[:] = np.frombuffer(sent)
        mujoco.mj_forward(model, data)
        camera.lookat[:] = data.xpos[1]
        renderer.update_scene(data, camera)
        out.write(renderer.render().tobytes())
        out.flush()


def drawing(robot: Robot, data: Any) -> UInt8[np.ndarray, "P P 3"]:
    """Geoms as chains of discs, seen from the side (x to the right, z up); far geoms come first."""
    model = robot.model
    middle = np.array([data.xpos[1, 0], 0.9])

    # --- marks on the floor, a larger one at each metre ---
    discs = []
    first = np.floor(middle[0] - VIEW)
    for x in np.arange(first, first + 2 * VIEW + 1.5, 0.1):
        at_a_metre = abs(x - round(x)) < 0.05
        radius = 0.05 if at_a_metre else 0.03
        discs.append(Disc(x - middle[0], -0.03 - middle[1], radius, MARK))

    # --- the robot ---
    for geom in sorted(range(model.ngeom), key=lambda g: -data.geom_xpos[g, 1]):
        kind = model.geom_type[geom]
        if kind == mujoco.mjtGeom.mjGEOM_PLANE:
            continue
        half = 0.0
        if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
            half = model.geom_size[geom, 1]
        axis = data.geom_xmat[geom].reshape(3, 3)[:, 2]
        radius = model.geom_size[geom, 0]
        colour = agent_colour(int(model.geom_bodyid[geom]) - 1)
        for along in np.linspace(-half, half, 1 + int(np.ceil(half / 0.01))):
            x, y = (data.geom_xpos[geom] + along * axis)[[0, 2]] - middle
            discs.append(Disc(x, y, radius, colour))
    return scene(discs, VIEW, SIZE)


if __name__ == "__main__":
    _serve(sys.argv[1])

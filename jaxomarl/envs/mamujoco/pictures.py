"""A frame of a robot: MuJoCo's renderer through EGL, else OSMesa, else discs seen from the side.

MuJoCo binds to one graphics library as it is imported, and a library that does not work can abort the process. So a
process of its own renders, one for each robot, and frames come through a pipe.
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

from jaxomarl.envs.draw import agent_colour, scene
from jaxomarl.envs.mamujoco.robots import ROBOTS, Robot

SIZE = 360  # pixels
VIEW = 1.6  # metres from the middle of a drawing to its edge
LIBRARIES = ("egl", "osmesa")
LOG = logging.getLogger(__name__)


def picture(robot: Robot, qpos: Float[np.ndarray, " P"]) -> UInt8[np.ndarray, "360 360 3"]:
    """The robot at these positions; a plain drawing, with one message, where MuJoCo cannot render."""
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
    """The process that renders a robot, or None, said once."""
    libraries = (os.environ["MUJOCO_GL"],) if os.environ.get("MUJOCO_GL") else LIBRARIES
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
        except (OSError, ValueError):  # it ended before the frame was whole
            continue
    tried = " and ".join(libraries)
    LOG.warning(
        "MuJoCo cannot render with %s: frames are plain drawings. Try: apt-get install libosmesa6",
        tried,
    )
    return None


def _serve(name: str) -> None:
    """Render what positions come in, until none do."""
    out, model = os.fdopen(os.dup(1), "wb"), ROBOTS[name].model
    os.dup2(2, 1)  # nothing else may be printed between the frames
    renderer, data, camera = (
        mujoco.Renderer(model, SIZE, SIZE),
        mujoco.MjData(model),
        mujoco.MjvCamera(),
    )
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
    camera.distance, camera.azimuth, camera.elevation = 4.0, 90.0, -20.0
    while len(sent := sys.stdin.buffer.read(8 * model.nq)) == 8 * model.nq:
        data.qpos[:] = np.frombuffer(sent)
        mujoco.mj_forward(model, data)
        camera.lookat[:] = data.xpos[1]
        renderer.update_scene(data, camera)
        out.write(renderer.render().tobytes())
        out.flush()


def drawing(robot: Robot, data: Any) -> UInt8[np.ndarray, "P P 3"]:
    """Geoms as chains of discs, seen from the side (x to the right, z up), far ones first; lines on the floor."""
    model, middle = robot.model, np.array([data.xpos[1, 0], 0.9])
    discs = []
    first = np.floor(middle[0] - VIEW)
    for x in np.arange(first, first + 2 * VIEW + 1.5, 0.1):
        mark = abs(x - round(x)) < 0.05
        discs.append(
            (
                x - middle[0],
                -0.03 - middle[1],
                0.05 if mark else 0.03,
                (90, 90, 90),
                1.0,
                (0.0, 0.0),
            )
        )
    for geom in sorted(range(model.ngeom), key=lambda g: -data.geom_xpos[g, 1]):
        kind = model.geom_type[geom]
        if kind == mujoco.mjtGeom.mjGEOM_PLANE:
            continue
        axis = data.geom_xmat[geom].reshape(3, 3)[:, 2]
        half = model.geom_size[geom, 1] if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0
        colour = agent_colour(int(model.geom_bodyid[geom]) - 1)
        for along in np.linspace(-half, half, 1 + int(np.ceil(half / 0.01))):
            at = (data.geom_xpos[geom] + along * axis)[[0, 2]] - middle
            discs.append((at[0], at[1], model.geom_size[geom, 0], colour, 1.0, (0.0, 0.0)))
    return scene(discs, VIEW, SIZE)


if __name__ == "__main__":
    _serve(sys.argv[1])

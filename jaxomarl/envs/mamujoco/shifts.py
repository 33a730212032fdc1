"""DOM2's shifts: power, torso density and joint friction, drawn once for each episode.

Li et al. 2023, Table 5, gives them for half-cheetah: power 1, torso density 1000, sliding friction
0.4. Here they are ratios to the model's own values, so that other robots can have them:

- Power scales all gears.
- Density scales the torso's mass and inertia, after the XML's total mass was set. So a heavier
  torso makes a heavier robot.
- Friction scales the sliding friction of all geoms, floor included, as a contact takes the larger
  of its two.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import refuse

FACTORS = ("power", "density", "friction")
SHIFTS = {
    "deterministic": None,
    "random": (((0.8, 1.2),), ((0.75, 1.25),), ((0.625, 1.375),)),
    "extreme": (
        ((0.6, 0.8), (1.2, 1.4)),
        ((0.5, 0.75), (1.25, 1.5)),
        ((0.25, 0.625), (1.375, 1.75)),
    ),
}
"""Intervals of each factor; where there are two, each is drawn half the time."""


def check(task: str, shift: str) -> str:
    """The shift, or JaxomarlError where there is none of that name."""
    if shift not in SHIFTS:
        expected = f"one of {', '.join(SHIFTS)}"
        raise refuse(f"{task}, shift", expected, shift, "DOM2's Table 5 has these.")
    return shift


def draw_ratios(key: Key[Array, ""], shift: str) -> Float[Array, " X"]:
    """Ratios [3] of power, torso density and friction; [0] where the shift is deterministic."""
    intervals = SHIFTS[shift]
    if intervals is None:
        return jnp.zeros(0)
    which, where = jax.random.split(key)
    side = jax.random.bernoulli(which, shape=(3,)).astype(jnp.int32)
    first_and_last = jnp.array([[x[0], x[-1]] for x in intervals], jnp.float32)
    bounds = first_and_last[jnp.arange(3), side]
    low = bounds[:, 0]
    high = bounds[:, 1]
    return low + jax.random.uniform(where, (3,)) * (high - low)


def torso(model: Any) -> int:
    """The body whose density is shifted."""
    return int(model.body("torso").id)


def write(batch: Any, ratios: Float[np.ndarray, "B 3"]) -> None:
    """Give the first B simulations of a `mujoco.batch.Batch` the models of these ratios.

    Constants that derive from them are updated too.
    """
    n = len(ratios)
    model = batch.model
    body = torso(model)
    power = ratios[:, 0, None]
    density = ratios[:, 1, None]
    friction = ratios[:, 2, None]

    batch.expand("actuator_gear")[:n] = model.actuator_gear * power[..., None]
    batch.expand("body_mass")[:n, body] = model.body_mass[body] * density[:, 0]
    batch.expand("body_inertia")[:n, body] = model.body_inertia[body] * density
    batch.expand("geom_friction")[:n, :, 0] = model.geom_friction[:, 0] * friction
    ids = None
    if n < batch.nsim:
        ids = np.arange(n, dtype=np.int32)
    batch.set_const(ids)

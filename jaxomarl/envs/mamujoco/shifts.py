"""DOM2's shifts: power, torso density and joint friction, drawn once for each episode.

Li et al. 2023, Table 5, gives them for half-cheetah: power 1, torso density 1000, sliding friction 0.4. Here they are
ratios to the model's own values, so that other robots can have them: power scales all gears, density the torso's mass
and inertia (after the XML's total mass was set, so that a heavier torso makes a heavier robot), friction the sliding
friction of all geoms, floor included, as a contact takes the larger of its two.
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
"""Intervals of each factor; of two, each is drawn half the time."""


def check(task: str, shift: str) -> str:
    """The shift, or JaxomarlError where there is none of that name."""
    if shift not in SHIFTS:
        raise refuse(
            f"{task}, shift", f"one of {', '.join(SHIFTS)}", shift, "DOM2's Table 5 has these."
        )
    return shift


def draw(key: Key[Array, ""], shift: str) -> Float[Array, " X"]:
    """Ratios [3] of power, torso density and friction; [0] where the shift is deterministic."""
    intervals = SHIFTS[shift]
    if intervals is None:
        return jnp.zeros(0)
    which, where = jax.random.split(key)
    side = jax.random.bernoulli(which, shape=(3,)).astype(jnp.int32)
    bounds = jnp.array([[x[0], x[-1]] for x in intervals], jnp.float32)[jnp.arange(3), side]
    return bounds[:, 0] + jax.random.uniform(where, (3,)) * (bounds[:, 1] - bounds[:, 0])


def torso(model: Any) -> int:
    """The body whose density is shifted."""
    return int(model.body("torso").id)


def write(batch: Any, ratios: Float[np.ndarray, "B 3"]) -> None:
    """Give the first B simulations of a `mujoco.batch.Batch` the models of these ratios, derived constants included."""
    n, model = len(ratios), batch.model
    body, power, density, friction = torso(model), *(ratios[:, i, None] for i in range(3))
    gear, mass, inertia, slide = (
        batch.expand(x) for x in ("actuator_gear", "body_mass", "body_inertia", "geom_friction")
    )
    gear[:n] = model.actuator_gear * power[..., None]
    mass[:n, body] = model.body_mass[body] * density[:, 0]
    inertia[:n, body] = model.body_inertia[body] * density
    slide[:n, :, 0] = model.geom_friction[:, 0] * friction
    batch.set_const(None if n == batch.nsim else np.arange(n, dtype=np.int32))

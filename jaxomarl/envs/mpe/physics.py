"""The particle world's laws of motion, as OMAR's data were collected.

One step of 0.1 s, with F from the positions before it:

    F_i = gain_i u_i + sum_j 100 (x_i - x_j)/d_ij  k log(1 + exp(-(d_ij - r_i - r_j)/k))
    v  <- 0.75 v + 0.1 F
    v  <- v min(1, speed/|v|)
    x  <- x + 0.1 v

The sum is over the j that collide with i, and k = 1e-3. Masses are 1. The velocity moves first.

Nothing bounds positions. Only the policies clip actions. The rules of PettingZoo and JaxMARL
differ: they move with the old velocity, and square no acceleration (here gains are 5, 3^2 and 4^2).
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

DT = 0.1
DAMPING = 0.25
STIFFNESS = 100.0
MARGIN = 1e-3
TINY = 1e-12
"""Smallest squared distance, so that two bodies on one spot do not push each other."""


class Scene(NamedTuple):
    """Positions and velocities; agents lead the entities."""

    pos: Float[Array, "E 2"]
    vel: Float[Array, "n 2"]
    """Velocities of the agents, prey included; landmarks do not move."""
    speed: Float[Array, " n"]
    """Largest |v| of each agent in this episode; inf where there is none."""
    seen: Float[Array, " L"]
    """1.0 for landmarks that exist in this episode, 0.0 for hidden ones."""
    touches: Float[Array, ""]
    """Number of collisions so far, which `info` reports."""


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Sizes and kinds of a world's entities: agents (prey last), then landmarks."""

    size: tuple[float, ...]
    collide: tuple[bool, ...]
    gain: tuple[float, ...]
    """Force per unit of action, for each agent."""
    speed: tuple[float, ...]
    """Largest speed of each agent; inf where there is none."""

    @property
    def agents(self) -> int:
        """Number of agents, prey included."""
        return len(self.gain)


def move(bodies: Bodies, scene: Scene, action: Float[Array, "n 2"]) -> Scene:
    """The scene after one step; `action` has a row for each agent, prey included."""
    n = bodies.agents
    force = np.asarray(bodies.gain)[:, None] * action + contact(bodies, scene)
    vel = (1.0 - DAMPING) * scene.vel + DT * force
    speed = distance(vel, jnp.zeros_like(vel))
    slower = jnp.where(speed > scene.speed, scene.speed / speed, 1.0)
    vel = vel * slower[:, None]
    return scene._replace(pos=scene.pos.at[:n].add(DT * vel), vel=vel)


def contact(bodies: Bodies, scene: Scene) -> Float[Array, "n 2"]:
    """Force on each agent from all entities with which it collides."""
    n = bodies.agents
    size = np.asarray(bodies.size)
    collide = np.asarray(bodies.collide)
    solid = np.flatnonzero(collide)
    if not len(solid) or not collide[:n].any():
        return jnp.zeros_like(scene.vel)

    not_itself = np.arange(n)[:, None] != solid
    touch = (collide[:n, None] & collide[solid][None, :] & not_itself).astype(float)
    reach = size[:n, None] + size[solid][None, :]
    delta = scene.pos[:n, None] - scene.pos[solid][None, :]
    d = jnp.sqrt(jnp.maximum(jnp.sum(delta**2, axis=-1), TINY))
    push = STIFFNESS * MARGIN * jnp.logaddexp(0.0, -(d - reach) / MARGIN) * touch / d
    return jnp.sum(push[..., None] * delta, axis=1)


def distance(a: Float[Array, "*#A 2"], b: Float[Array, "*#A 2"]) -> Float[Array, "*#A"]:
    """Euclidean distance, with a gradient at zero."""
    return jnp.sqrt(jnp.maximum(jnp.sum((a - b) ** 2, axis=-1), TINY))

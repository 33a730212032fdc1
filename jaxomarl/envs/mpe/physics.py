"""The particle world's laws of motion, as OMAR's data were collected.

One step of 0.1 s, with F from the positions before it:

    F_i = gain_i u_i + sum_j 100 (x_i - x_j)/d_ij  k log(1 + exp(-(d_ij - r_i - r_j)/k)),  k = 1e-3, where both collide
    v  <- 0.75 v + 0.1 F;  v <- v min(1, speed/|v|);  x <- x + 0.1 v          (velocity first, mass 1)

Nothing bounds positions, and nothing clips actions but the policies that make them. PettingZoo's and JaxMARL's rules
differ: they move with the old velocity, and square no acceleration (here gains are 5, 3^2 and 4^2).
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

DT, DAMPING, STIFFNESS, MARGIN = 0.1, 0.25, 100.0, 1e-3
TINY = 1e-12  # of a squared distance: two bodies on one spot push each other nowhere


class Scene(NamedTuple):
    """Where everything is; agents lead the entities."""

    pos: Float[Array, "E 2"]
    vel: Float[Array, "n 2"]  # of the agents, prey included; the rest stands
    speed: Float[Array, " n"]  # largest |v| of each agent in this episode, inf where there is none
    seen: Float[Array, " L"]  # 1.0 for landmarks that exist in this episode, 0.0 for hidden ones
    touches: Float[Array, ""]  # collisions so far: what `info` reports


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Sizes and kinds of a world's entities: agents (prey last), then landmarks."""

    size: tuple[float, ...]
    collide: tuple[bool, ...]
    gain: tuple[float, ...]  # force per unit of action, for each agent
    speed: tuple[float, ...]  # largest speed of each agent, inf where there is none

    @property
    def agents(self) -> int:
        """Agents, prey included."""
        return len(self.gain)


def move(bodies: Bodies, scene: Scene, action: Float[Array, "n 2"]) -> Scene:
    """One step; `action` has a row for each agent, prey included."""
    n = bodies.agents
    force = np.asarray(bodies.gain)[:, None] * action + contact(bodies, scene)
    vel = (1.0 - DAMPING) * scene.vel + DT * force
    fast = distance(vel, jnp.zeros_like(vel))
    vel = vel * jnp.where(fast > scene.speed, scene.speed / fast, 1.0)[:, None]
    return scene._replace(pos=scene.pos.at[:n].add(DT * vel), vel=vel)


def contact(bodies: Bodies, scene: Scene) -> Float[Array, "n 2"]:
    """Force on each agent from every entity that it can touch."""
    n, size = bodies.agents, np.asarray(bodies.size)
    collide = np.asarray(bodies.collide)
    pairs = np.flatnonzero(collide)
    if not len(pairs) or not collide[:n].any():
        return jnp.zeros_like(scene.vel)
    touch = (collide[:n, None] & collide[pairs][None, :] & (np.arange(n)[:, None] != pairs)).astype(
        float
    )
    reach = size[:n, None] + size[pairs][None, :]
    delta = scene.pos[:n, None] - scene.pos[pairs][None, :]
    d = jnp.sqrt(jnp.maximum(jnp.sum(delta**2, axis=-1), TINY))
    push = STIFFNESS * MARGIN * jnp.logaddexp(0.0, -(d - reach) / MARGIN) * touch / d
    return jnp.sum(push[..., None] * delta, axis=1)


def distance(a: Float[Array, "*#A 2"], b: Float[Array, "*#A 2"]) -> Float[Array, "*#A"]:
    """Euclidean distance, with a gradient at zero."""
    return jnp.sqrt(jnp.maximum(jnp.sum((a - b) ** 2, axis=-1), TINY))

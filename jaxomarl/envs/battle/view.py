"""What units see: cones of 120 degrees, own frames, and the four nearest of each side."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

SIGHT = 6.0
"""Distance up to which a unit sees."""
RANGE = 3.0
"""Distance up to which it shoots."""
HEALTH = 3.0
"""Health of a unit at the start."""
SHOWN = 4
"""Units of each side that an observation shows."""
OWN = ("x", "y", "facing x", "facing y", "health", "cooldown", "alive")
"""What an observation has of the observer."""
OTHER = ("ahead", "left", "health", "faces ahead", "faces left", "in reach")
"""What it has of each shown unit."""
WIDTH = len(OWN) + 2 * SHOWN * len(OTHER)
"""Columns of an observation, whatever the number of units."""
SLACK = 1e-6
"""Slack of the cone's edge, so that 60 degrees are inside."""
ANGLES = np.arange(6) * np.pi / 3
FACING = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
"""Unit vector of each of the six headings."""


class Units(NamedTuple):
    """The units of one side."""

    position: Float[Array, "n 2"]
    heading: Int[Array, " n"]
    """0 to 5, in steps of 60 degrees to the left."""
    health: Float[Array, " n"]
    cooldown: Float[Array, " n"]
    """Steps until the weapon may fire."""

    @property
    def alive(self) -> Bool[Array, " n"]:
        """Which units live."""
        return self.health > 0

    @property
    def facing(self) -> Float[Array, "n 2"]:
        """Unit vectors of the headings."""
        return jnp.asarray(FACING)[self.heading]


class Seen(NamedTuple):
    """The units of a side from each observer, nearest first; zero where there are fewer."""

    features: Float[Array, "n K F"]
    """The columns OTHER."""
    nearest: Int[Array, " n"]
    """Number of the nearest one that is seen."""
    any_seen: Bool[Array, " n"]
    in_reach: Bool[Array, " n"]
    """Whether the nearest one can be shot at: it is then the nearest within the cone and reach."""


def in_own_frame(vector: Float[Array, "n m 2"], facing: Float[Array, "n 2"]) -> Array:
    """Vectors as (ahead, left) of each observer."""
    ahead = jnp.einsum("nmd,nd->nm", vector, facing)
    left = vector[..., 1] * facing[:, None, 0] - vector[..., 0] * facing[:, None, 1]
    return jnp.stack([ahead, left], axis=-1)


def look(who: Units, at: Units, same_side: bool) -> Seen:
    """What each unit of a side sees of a side: its own, or the other."""
    n = len(who.health)
    apart = at.position[None] - who.position[:, None]
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1))
    own = in_own_frame(apart, who.facing)
    in_cone = own[..., 0] >= 0.5 * distance - SLACK
    visible = in_cone & (distance <= SIGHT) & who.alive[:, None] & at.alive[None]
    if same_side:
        visible = visible & ~jnp.eye(n, dtype=bool)

    # --- the nearest; equal distances by the lowest number ---
    shown = min(SHOWN, len(at.health))
    rank = jnp.where(visible, -distance, -jnp.inf)
    best, index = jax.lax.top_k(rank, shown)
    is_seen = jnp.isfinite(best)

    # --- their columns ---
    take = lambda x: jnp.take_along_axis(x, index, axis=1)
    facing = jnp.broadcast_to(at.facing[None], (n, *at.facing.shape))
    faces = in_own_frame(facing, who.facing)
    reach = visible & (distance <= RANGE)
    columns = [
        take(own[..., 0]) / SIGHT,
        take(own[..., 1]) / SIGHT,
        at.health[index] / HEALTH,
        take(faces[..., 0]),
        take(faces[..., 1]),
        take(reach.astype(jnp.float32)),
    ]
    features = jnp.stack(columns, axis=-1) * is_seen[..., None]
    features = jnp.pad(features, ((0, 0), (0, SHOWN - shown), (0, 0)))
    nearest = index[:, 0]
    in_reach = jnp.take_along_axis(reach, nearest[:, None], axis=1)[:, 0]
    return Seen(features, nearest, is_seen[:, 0], in_reach & is_seen[:, 0])


def observations(who: Units, foes: Seen, allies: Seen, arena: float) -> Float[Array, "n O"]:
    """The observation of every unit of a side; zeros of a dead one."""
    n = len(who.health)
    own = jnp.concatenate(
        [
            who.position / arena,
            who.facing,
            who.health[:, None] / HEALTH,
            who.cooldown[:, None],
            jnp.ones((n, 1)),
        ],
        axis=-1,
    )
    rows = [own, foes.features.reshape(n, -1), allies.features.reshape(n, -1)]
    return jnp.concatenate(rows, axis=-1) * who.alive[:, None]

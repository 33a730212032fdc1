"""The particle tasks: their entities, observations and rewards.

                agents (radius, gain, speed)           landmarks (radius)
    spread      3 (0.15, 5, none)                      3 (0.05), in +-1
    tag         3 predators (0.075, 9, 1), 1 prey      2 obstacles (0.2), in +-0.9
                (0.05, 16, 1.3)
    world       3 predators (0.075, 9, 1), 1 prey      1 obstacle (0.2), 2 food (0.03),
                (0.045, 16, 1.3)                       2 forests (0.3), in +-0.9
    six         3 (0.1, 5, none), in a disc of 0.1     6 (0.1), on the unit circle

Rewards are those of the new positions. A touch is a distance strictly less than the sum of radii.
All predators have the same reward:

    spread, six    R_i = sum_l min(1 / min_j |x_j - y_l|, 10) - 5 #{j != i that touch i}
    tag            R   = -0.1 sum_p |x_p - x_prey| + 10 #{p that touch the prey}
    world          R   = -0.1 sum_p |x_p - x_prey| +  5 #{p that touch the prey}
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.envs.mpe.physics import Bodies, Scene, distance

NONE = float("inf")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A particle task without its prey's policy."""

    name: str
    bodies: Bodies
    learners: int
    """Number of agents that learn; a prey comes after them."""
    obs_width: int
    prey_width: int
    """Width of the prey's observation; 0 where there is no prey."""
    touch: float
    """Reward of a predator's touch; 0 where there is no prey."""
    team: str
    place: Callable[[Key[Array, ""]], Float[Array, "E 2"]]
    observe: Callable[[Scene], Float[Array, "N O"]]
    """The learners' observations."""
    prey_sees: Callable[[Scene], Float[Array, " P"]]
    """The prey's observation, which is empty where there is no prey."""
    reward: Callable[[Scene], Float[Array, " n"]]
    kinds: tuple[str, ...]
    """The kind of each entity, for pictures."""

    @property
    def landmarks(self) -> int:
        """Number of entities that are not agents."""
        return len(self.bodies.size) - self.bodies.agents

    @property
    def prey(self) -> bool:
        """Whether a prey comes after the learners."""
        return self.bodies.agents > self.learners


def sight(scene: Scene, who: slice) -> Float[Array, "m O"]:
    """The agents' observations of every entity, for the agents `who`.

    They are their own velocity and position, then landmarks and the other agents relative to them.
    """
    n = len(scene.vel)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)])[who]
    here = scene.pos[who]
    marks = (scene.pos[n:] - here[:, None]) * scene.seen[:, None]
    rest = scene.pos[others] - here[:, None]
    flat = (len(others), -1)
    parts = [scene.vel[who], here, marks.reshape(flat), rest.reshape(flat)]
    return jnp.concatenate(parts, axis=1)


def in_squares(key: Key[Array, ""], reach: np.ndarray) -> Float[Array, "E 2"]:
    """Places of entities, each uniform in a square of its own half-width."""
    unit = jax.random.uniform(key, (len(reach), 2), minval=-1.0, maxval=1.0)
    return unit * reach[:, None]


# --- cooperative navigation ---


def spread(landmarks: int = 3, size: float = 0.15, mark: float = 0.05) -> Scenario:
    """Three agents cover the landmarks."""
    n = 3
    bodies = Bodies(
        size=(size,) * n + (mark,) * landmarks,
        collide=(True,) * n + (False,) * landmarks,
        gain=(5.0,) * n,
        speed=(NONE,) * n,
    )

    def place(key: Key[Array, ""]) -> Float[Array, "E 2"]:
        return in_squares(key, np.ones(n + landmarks))

    def observe(scene: Scene) -> Float[Array, "3 O"]:
        # the others could communicate here, and never do
        silence = jnp.zeros((n, 4), scene.pos.dtype)
        return jnp.concatenate([sight(scene, slice(n)), silence], axis=1)

    def reward(scene: Scene) -> Float[Array, " n"]:
        near = distance(scene.pos[n:, None], scene.pos[None, :n]).min(axis=1)
        covered = jnp.sum(scene.seen * jnp.minimum(1.0 / near, 10.0))
        return covered - 5.0 * touching(bodies, scene)

    return Scenario(
        name="spread",
        bodies=bodies,
        learners=n,
        obs_width=4 + 2 * landmarks + 2 * (n - 1) + 4,
        prey_width=0,
        touch=0.0,
        team="mean",
        place=place,
        observe=observe,
        prey_sees=lambda scene: jnp.zeros(0),
        reward=reward,
        kinds=("agent",) * n + ("landmark",) * landmarks,
    )


def six() -> Scenario:
    """Three agents start in the middle of six landmarks (DOM2's task of many good solutions)."""
    base = spread(landmarks=6, size=0.1, mark=0.1)
    angle = 2.0 * np.pi * np.arange(6) / 6
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def place(key: Key[Array, ""]) -> Float[Array, "9 2"]:
        k_radius, k_angle = jax.random.split(key)
        radius = 0.1 * jnp.sqrt(jax.random.uniform(k_radius, (3, 1)))
        turn = 2.0 * np.pi * jax.random.uniform(k_angle, (3, 1))
        middle = radius * jnp.concatenate([jnp.cos(turn), jnp.sin(turn)], axis=1)
        return jnp.concatenate([middle, jnp.asarray(ring)])

    return dataclasses.replace(base, name="six", place=place)


def touching(bodies: Bodies, scene: Scene) -> Float[Array, " n"]:
    """Number of other agents that each agent touches."""
    n = bodies.agents
    size = np.asarray(bodies.size[:n])
    # an agent does not touch itself
    reach = (size[:, None] + size[None, :]) * (1.0 - np.eye(n))
    d = distance(scene.pos[:n, None], scene.pos[None, :n])
    return jnp.sum(d < reach, axis=1).astype(scene.pos.dtype)


# --- predators and prey ---


def tag() -> Scenario:
    """Three predators hunt one prey between two obstacles."""
    bodies = _chase(0.05, (0.2, 0.2), (True, True))

    def observe(scene: Scene) -> Float[Array, "3 16"]:
        return jnp.concatenate([sight(scene, slice(3)), _fleeing(scene)], axis=1)

    def reward(scene: Scene) -> Float[Array, "4"]:
        predator, far, near = _hunt(scene, bodies, 10.0)
        prey = 0.1 * far - 10.0 * near - outside(scene.pos[3]).sum()
        return jnp.append(jnp.broadcast_to(predator, (3,)), prey)

    return Scenario(
        name="tag",
        bodies=bodies,
        learners=3,
        obs_width=16,
        prey_width=14,
        touch=10.0,
        team="first",
        place=lambda key: in_squares(key, np.array([1.0] * 4 + [0.9] * 2)),
        observe=observe,
        prey_sees=lambda scene: sight(scene, slice(3, 4))[0],
        reward=reward,
        kinds=("predator",) * 3 + ("prey",) + ("obstacle",) * 2,
    )


def world() -> Scenario:
    """Tag with one obstacle, food for the prey, and forests that do not hide it."""
    bodies = _chase(0.045, (0.2, 0.03, 0.03, 0.3, 0.3), (True, False, False, False, False))
    reach = np.asarray(bodies.size)

    def inside(scene: Scene) -> Float[Array, "4 2"]:
        d = distance(scene.pos[:4, None], scene.pos[None, 7:9])
        touch = d < reach[:4, None] + reach[7:9]
        return jnp.where(touch, 1.0, -1.0).astype(scene.pos.dtype)

    def observe(scene: Scene) -> Float[Array, "3 24"]:
        parts = [sight(scene, slice(3)), _fleeing(scene), inside(scene)[:3]]
        return jnp.concatenate(parts, axis=1)

    def prey_sees(scene: Scene) -> Float[Array, " 22"]:
        return jnp.concatenate([sight(scene, slice(3, 4))[0], inside(scene)[3]])

    def reward(scene: Scene) -> Float[Array, "4"]:
        predator, far, near = _hunt(scene, bodies, 5.0)
        food = distance(scene.pos[3], scene.pos[5:7])
        eaten = jnp.sum(food < reach[3] + reach[5:7])
        prey = (
            0.1 * far
            - 5.0 * near
            - 2.0 * outside(scene.pos[3]).sum()
            + 2.0 * eaten
            + 0.05 * food.min()
        )
        return jnp.append(jnp.broadcast_to(predator, (3,)), prey)

    return Scenario(
        name="world",
        bodies=bodies,
        learners=3,
        obs_width=24,
        prey_width=22,
        touch=5.0,
        team="first",
        place=lambda key: in_squares(key, np.array([1.0] * 4 + [0.9] * 5)),
        observe=observe,
        prey_sees=prey_sees,
        reward=reward,
        kinds=("predator",) * 3 + ("prey", "obstacle", "food", "food", "forest", "forest"),
    )


def _chase(prey: float, landmarks: tuple[float, ...], collide: tuple[bool, ...]) -> Bodies:
    """Three predators, a prey of that radius, and landmarks."""
    return Bodies(
        size=(0.075,) * 3 + (prey,) + landmarks,
        collide=(True,) * 4 + collide,
        gain=(9.0,) * 3 + (16.0,),
        speed=(1.0,) * 3 + (1.3,),
    )


def _fleeing(scene: Scene) -> Float[Array, "3 2"]:
    """The prey's velocity, which every predator observes."""
    return jnp.broadcast_to(scene.vel[3], (3, 2))


def _hunt(scene: Scene, bodies: Bodies, touch: float) -> tuple[Array, Array, Array]:
    """(reward of every predator, summed distance to the prey, predators that touch it)."""
    d = distance(scene.pos[:3], scene.pos[3])
    near = jnp.sum(d < bodies.size[0] + bodies.size[3]).astype(d.dtype)
    reward = -0.1 * d.sum() + touch * near
    return reward, d.sum(), near


def outside(x: Float[Array, "2"]) -> Float[Array, "2"]:
    """The prey's cost of leaving the arena, for each coordinate."""
    z = jnp.abs(x)
    inside = z < 0.9
    at_the_border = z < 1.0
    border_cost = 10.0 * (z - 0.9)
    outside_cost = jnp.minimum(jnp.exp(2.0 * z - 2.0), 10.0)
    return jnp.where(inside, 0.0, jnp.where(at_the_border, border_cost, outside_cost))

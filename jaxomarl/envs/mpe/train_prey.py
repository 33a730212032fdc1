"""How the package's own prey was made: gradient ascent through the physics.

Half of the episodes meet three chasers, who drive straight at it, half meet uniformly random predators:

    chased      sum_t  0.1 sum_p d_p - 2 sum_p sigmoid((0.2 - d_p) / 0.05) - outside(x) - effort |a|^2
    else        sum_t  -centre |x|^2 - outside(x) - effort |a|^2

The scores of its task hold for OMAR's prey, which is weak; so the training keeps the prey against which random and
chasing predators score nearest to what they score against that one (`REFERENCE`), and refuses one that is more than a
fifth away.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import refuse
from jaxomarl.envs.mpe import prey as preys
from jaxomarl.envs.mpe.environment import HORIZON, advance
from jaxomarl.envs.mpe.physics import Scene, distance
from jaxomarl.envs.mpe.prey import HIDDEN, Prey
from jaxomarl.envs.mpe.scenarios import Scenario, outside
from jaxomarl.optim import clipped_adam

REFERENCE = {"tag": (-4.06, 129.7), "world": (-6.75, 71.0)}
"""Mean returns of (random, chasing) predators against OMAR's prey, over 20,000 episodes."""
TOLERANCE = 0.2
EFFORT, CENTRE, BATCH, LR, STEPS = 0.03, 0.2, 128, 1e-3, 200
EVERY = 10  # updates between looks at the scores


def chase(scene: Scene) -> Float[Array, "3 2"]:
    """Straight at the prey, largest component 1."""
    way = scene.pos[3] - scene.pos[:3]
    return way / jnp.maximum(jnp.abs(way).max(axis=-1, keepdims=True), 1e-6)


def start(scenario: Scenario, key: Key[Array, ""]) -> Scene:
    """The first scene of a standard episode."""
    still = jnp.zeros((scenario.bodies.agents, 2))
    return Scene(
        scenario.place(key),
        still,
        jnp.asarray(scenario.bodies.speed),
        jnp.ones(scenario.landmarks),
        jnp.zeros(()),
    )


def hunted(
    scenario: Scenario, prey: Prey, chased: Array, key: Key[Array, ""]
) -> tuple[Array, Array]:
    """One episode: (what the training ascends, the predators' return); predators chase where `chased` is true."""
    k_start, k_steps = jax.random.split(key)

    def step(scene: Scene, key: Key[Array, ""]) -> tuple[Scene, tuple[Array, Array]]:
        anything = jax.random.uniform(key, (3, 2), minval=-1.0, maxval=1.0)
        predators = jax.lax.stop_gradient(jnp.where(chased, chase(scene), anything))
        own = preys.act(prey, scenario.prey_sees(scene))
        scene = advance(scenario, scene, jnp.concatenate([predators, own[None]]))
        here, d = scene.pos[3], distance(scene.pos[:3], scene.pos[3])
        flee = 0.1 * d.sum() - 2.0 * jax.nn.sigmoid((0.2 - d) / 0.05).sum()
        gain = (
            jnp.where(chased, flee, -CENTRE * jnp.sum(here**2))
            - outside(here).sum()
            - EFFORT * jnp.sum(own**2)
        )
        return scene, (gain, scenario.reward(scene)[0])

    _, (gain, reward) = jax.lax.scan(
        step, start(scenario, k_start), jax.random.split(k_steps, HORIZON)
    )
    return gain.sum(), reward.sum()


@functools.partial(jax.jit, static_argnums=(0, 3))
def scores(
    scenario: Scenario, prey: Prey, key: Key[Array, ""], episodes: int
) -> tuple[Array, Array]:
    """Returns [episodes] of random and of chasing predators."""
    keys = jax.random.split(key, episodes)
    each = lambda chased: jax.vmap(lambda k: hunted(scenario, prey, jnp.asarray(chased), k)[1])(
        keys
    )
    return each(False), each(True)


def first(width: int, key: Key[Array, ""]) -> Prey:
    """A prey before training: hidden layers U(+-1/sqrt(fan in)), biases zero, observations as they are."""
    sizes = (width, HIDDEN, HIDDEN, 2)
    draw = lambda key, i, o: jax.random.uniform(key, (i, o), minval=-(i**-0.5), maxval=i**-0.5)
    kernels = tuple(
        draw(k, *pair)
        for k, pair in zip(jax.random.split(key, 3), itertools.pairwise(sizes), strict=True)
    )
    return Prey(jnp.ones(width), jnp.zeros(width), kernels, tuple(jnp.zeros(o) for o in sizes[1:]))


def apart(found: tuple[Array, Array], name: str) -> float:
    """The larger relative distance of (random, chasing) mean returns from the reference."""
    return max(
        abs(float(x.mean()) - want) / abs(want)
        for x, want in zip(found, REFERENCE[name], strict=True)
    )


def train(scenario: Scenario, seeds: int = 20) -> Prey:
    """The prey of the first seed that comes near enough to the reference; JaxomarlError where none does.

    What is near enough is measured again on fresh episodes, with half the tolerance of the acceptance test.
    """
    for seed in range(seeds):
        prey = attempt(scenario, seed)
        near = apart(scores(scenario, prey, jax.random.key(1000), 20_000), scenario.name)
        print(f"{scenario.name}: seed {seed} came within {near:.0%} of the reference", flush=True)
        if near < TOLERANCE / 2:
            return prey
    raise refuse(
        f"prey of {scenario.name}", f"scores within {TOLERANCE / 2:.0%}", "none", "Try more seeds."
    )


def attempt(scenario: Scenario, seed: int) -> Prey:
    """One training: of every EVERY updates, the prey that came nearest."""
    tx = clipped_adam(LR, clip=1.0)
    prey = first(scenario.prey_width, jax.random.key(seed))
    ones, zeros = prey.scale, prey.shift
    held = lambda p: p._replace(scale=ones, shift=zeros)  # these are no parameters

    @jax.jit
    def update(prey: Prey, opt: Any, key: Key[Array, ""]) -> tuple[Prey, Any]:
        keys, chased = jax.random.split(key, BATCH), jnp.arange(BATCH) % 2 == 0
        loss = lambda p: (
            -jax.vmap(lambda c, k: hunted(scenario, held(p), c, k)[0])(chased, keys).mean()
        )
        updates, opt = tx.update(jax.grad(loss)(prey), opt, prey)
        return optax.apply_updates(prey, updates), opt  # type: ignore[return-value]

    found, opt = [], tx.init(prey)  # type: ignore[arg-type]
    for step in range(1, STEPS + 1):
        prey, opt = update(prey, opt, jax.random.fold_in(jax.random.key(seed), step))
        if step % EVERY == 0:
            now = held(prey)
            found.append(
                (
                    apart(scores(scenario, now, jax.random.key(seed + 2000), 4000), scenario.name),
                    now,
                )
            )
    return jax.tree.map(np.asarray, min(found, key=lambda x: x[0])[1])

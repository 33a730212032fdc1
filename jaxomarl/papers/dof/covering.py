"""Landmark covering from fixed starts: plans of three agents' paths, made together or apart, then walked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.envs.mpe.environment import HORIZON, environment
from jaxomarl.envs.mpe.physics import DAMPING, DT
from jaxomarl.envs.mpe.scenarios import spread
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown
from jaxomarl.papers.dof.models import SAID, Law, compiled, made, model
from jaxomarl.results.clouds import plans

AGENTS, EVERY, AHEAD = 3, 5, 5  # a plan is AHEAD positions, EVERY steps apart
ITERATIONS, EPISODES = 10, 100
KINDS = ("joint", "concat", "pooled")
START, FAR, GAIN, WOBBLE = 0.45, 0.95, 5.0, 0.02
DATA = {"one way": 20.0, "two ways": 0.0}
"""Degrees by which landmarks are turned towards the agents before them: at 0 both neighbours are as near, and half of
the data's teams go one way round, half the other."""


def covering(asked: Asked) -> str:
    """Return and collisions of each model's plans in the environment, first seed."""
    laws = [
        np.stack([places(turned) for turned in DATA.values()]),
        np.array([0.0, 0.5], np.float32),
    ]
    told = {
        "data": [
            np.asarray(draw(jax.random.key(0), EPISODES, law)[0]) for law in zip(*laws, strict=True)
        ]
    }
    for kind in KINDS:
        asked.say(f"covering: {kind}")
        net, y = model(kind, AGENTS, 2 * AHEAD, width=64), jnp.zeros((EPISODES, AGENTS, 0))
        told[kind] = list(
            made(net, draw, laws, y, asked.seeds[:1], asked.updates(2000), 2 * AHEAD).x[:, 0]
        )
    walks, rows, held, marks = compiled(jax.vmap(walk, (0, None))), [], {}, {}
    for k, name in enumerate(DATA):
        for kind, x in told.items():
            pos, score, touches, covered = map(
                np.asarray, walks(x[k].reshape(EPISODES, AGENTS, AHEAD, 2), laws[0][k])
            )
            by_iteration = score.reshape(ITERATIONS, -1).mean(axis=1)
            numbers = (
                f"{score.mean():.1f} ± {by_iteration.std(ddof=1):.1f}",
                f"{touches.mean():.2f}",
            )
            rows.append((name, SAID[kind], *numbers, f"{covered.mean():.0%}"))
            title = f"{name}: {SAID[kind]}"
            held[title], marks[title] = pos, laws[0][k][AGENTS:]
    asked.draw(plans, "covering.png", held, marks)
    head = (
        "data",
        "plans of",
        "return, mean ± std over iterations",
        "collisions",
        "all landmarks covered",
    )
    return (
        f"## Landmark covering\n\n{markdown(head, rows)}\n"
        f"Spread from fixed starts, {ITERATIONS} iterations of {EPISODES // ITERATIONS} plans of one seed; a plan is "
        f"each agent's next {AHEAD} positions, walked in the environment. Collisions are steps in which two agents "
        "touch. The data are ours: teams that go one way round to their nearest landmarks, or half of the teams each "
        "way where both are as near. Plans made apart are as good as joint ones where each agent's part is settled; "
        "where it is not, about one team in four agrees.\n\n![](covering.png)"
    )


def places(turned: float) -> Float[Array, "6 2"]:
    """Agents on a small circle, landmarks on a large one, halfway between two agents and `turned` back from there."""
    agents = jnp.radians(90.0 + 120.0 * jnp.arange(AGENTS))
    marks = agents + jnp.radians(60.0 - turned)
    ring = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return jnp.concatenate([START * ring(agents), FAR * ring(marks)])


def draw(key: Key[Array, ""], rows: int, law: Law) -> tuple[Array, Array]:
    """Positions relative to the start, [B, agents, AHEAD * 2], of teams of which a share goes the other way round."""
    place, other = law
    k_way, k_bow, k_pace, k_wobble = jax.random.split(key, 4)
    back = jax.random.bernoulli(k_way, other, (rows, 1)).astype(int)
    goal = place[AGENTS:][(jnp.arange(AGENTS) - back) % AGENTS] - place[:AGENTS]  # [B, agents, 2]
    pace = 0.5 + 0.1 * jax.random.uniform(k_pace, (rows, AGENTS, 1))
    share = jnp.clip(jnp.arange(1, AHEAD + 1) / (pace * AHEAD), 0.0, 1.0)[..., None]
    bow = 0.06 * jax.random.normal(k_bow, (rows, AGENTS, 1, 1)) * jnp.sin(jnp.pi * share)
    across = jnp.stack([-goal[..., 1], goal[..., 0]], axis=-1)
    path = goal[..., None, :] * share + bow * across[..., None, :]
    path = path + WOBBLE * jax.random.normal(k_wobble, path.shape)
    return path.reshape(rows, AGENTS, 2 * AHEAD), jnp.zeros((rows, AGENTS, 0))


def walk(
    plan: Float[Array, "n P 2"], place: Float[Array, "6 2"]
) -> tuple[Array, Array, Array, Array]:
    """(positions [T + 1, agents, 2], team return, collisions, all landmarks covered at the end) of a plan."""
    way = jnp.concatenate([jnp.zeros((AGENTS, 1, 2)), plan], axis=1) + place[:AGENTS, None]
    ticks = jnp.clip(jnp.arange(1, HORIZON + 1) / EVERY, 0.0, AHEAD)
    low = jnp.clip(jnp.floor(ticks).astype(int), 0, AHEAD - 1)
    goals = way[:, low] + (ticks - low)[:, None] * (way[:, low + 1] - way[:, low])  # [n, T, 2]

    def step(scene, goal):
        wanted = (goal - scene.pos[:AGENTS]) / DT
        action = jnp.clip((wanted - (1.0 - DAMPING) * scene.vel) / (GAIN * DT), -1.0, 1.0)
        scene, then = env.step(jax.random.key(0), scene, action)
        return scene, (scene.pos[:AGENTS], then.reward.mean())

    env = environment(
        dataclasses.replace(spread(), name="covering", place=lambda key: place), "mpe-omar"
    )
    scene, _ = env.reset(jax.random.key(0))
    scene, (pos, reward) = jax.lax.scan(step, scene, jnp.moveaxis(goals, 1, 0))
    near = jnp.linalg.norm(place[AGENTS:, None] - pos[-1][None], axis=-1).min(axis=1)
    pos = jnp.concatenate([place[None, :AGENTS], pos])
    return pos, reward.sum(), scene.touches, jnp.all(near < 0.15)

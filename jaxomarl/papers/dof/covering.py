"""Landmark covering from fixed starts: plans of three agents' paths, sampled jointly or apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.envs.mpe.environment import HORIZON, environment
from jaxomarl.envs.mpe.physics import DAMPING, DT
from jaxomarl.envs.mpe.scenarios import spread
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof.models import (
    MODEL_NAMES,
    Law,
    compiled,
    team_model,
    train_and_sample,
)
from jaxomarl.papers.measured import Measure, Part, of_seeds
from jaxomarl.results.clouds import plans

AGENTS = 3
AHEAD = 5
"""Positions of a plan."""
EVERY = 5
"""Steps from one position of a plan to the next."""
EPISODES = 100
"""Plans of each seed."""
UPDATES = 2000
KINDS = ("joint", "concat", "separate", "pooled")
START = 0.45
"""Distance of the agents' starts from the middle."""
FAR = 0.95
"""Distance of the landmarks from the middle."""
GAIN = 5.0
"""Change of velocity by a full action, in units of the time step."""
WOBBLE = 0.02
BOW = 0.06
DATA = {"one way": 20.0, "two ways": 0.0}
"""Degrees by which landmarks are turned towards the agents before them.

At 0 both neighbours are as near, and half of the data's teams go one way round, half the other.
"""


def covering(asked: Asked) -> Part:
    """Return and collisions of each model's plans in the environment."""
    # --- plans [R, B, N, P, 2] by data and kind ---
    places = np.stack([starts_and_landmarks(turned) for turned in DATA.values()])
    shares = np.array([0.0, 0.5], np.float32)
    plans_of = {}
    for data, *law in zip(DATA, places, shares, strict=True):
        rows, _ = draw_teams(jax.random.key(0), EPISODES, tuple(law))
        plans_of[data, "data"] = np.asarray(rows)[None]
    y = jnp.zeros((EPISODES, AGENTS, 0))
    for kind in KINDS:
        asked.say(f"covering: {kind}")
        model = team_model(kind, AGENTS, 2 * AHEAD, width=64)
        laws = [places, shares]
        steps = asked.updates(UPDATES)
        samples = train_and_sample(model, draw_teams, laws, y, asked.seeds, steps, 2 * AHEAD)
        for data, x in zip(DATA, samples.x, strict=True):
            plans_of[data, kind] = x

    # --- the plans in the environment ---
    walk_all = compiled(jax.vmap(walk, (0, None)))
    table = []
    measures: list[Measure] = []
    paths = {}
    landmarks = {}
    for place, data in zip(places, DATA, strict=True):
        for kind in ("data", *KINDS):
            plan = plans_of[data, kind].reshape(-1, AGENTS, AHEAD, 2)
            pos, *results = map(np.asarray, walk_all(plan, place))
            of_seed = seed_means(*results)
            seeds = [""] if kind == "data" else asked.seeds
            measures += of_seeds(f"covering, {data}", kind, "", seeds, of_seed)
            table.append((data, MODEL_NAMES[kind], *walk_cells(of_seed)))
            title = f"{data}: {MODEL_NAMES[kind]}"
            paths[title] = pos[:EPISODES]
            landmarks[title] = place[AGENTS:]
    asked.draw(plans, "covering.png", paths, landmarks)
    head = ("data", "plans of", "return", "collisions", "all landmarks covered")
    text = (
        f"## Landmark covering\n\n{markdown_table(head, table)}\n"
        f"Spread from fixed starts, {EPISODES} plans of each seed; a plan is each agent's next "
        f"{AHEAD} positions, walked in the environment. Returns and collisions are mean ± std over "
        "seeds. Collisions are steps in which two agents touch. The data are ours: teams that go "
        "one way round to their nearest landmarks, or half of the teams each way where both are "
        "as near. Plans made apart are as good as joint ones where each agent's part is settled; "
        "where it is not, about one team in four agrees.\n\n![](covering.png)"
    )
    return Part(text, measures)


def seed_means(
    returns: np.ndarray, touches: np.ndarray, covered: np.ndarray
) -> dict[str, np.ndarray]:
    """Each seed's mean over its plans: the return, the collisions, the share that covers all."""
    results = {"return": returns, "collisions": touches, "covered": covered}
    return {name: values.reshape(-1, EPISODES).mean(axis=1) for name, values in results.items()}


def walk_cells(of_seed: dict[str, np.ndarray]) -> tuple[str, str, str]:
    """Cells of the return, the collisions, and the share of plans that cover all landmarks."""
    returns = of_seed["return"]
    touches = of_seed["collisions"]
    score = f"{returns.mean():.1f}"
    collisions = f"{touches.mean():.2f}"
    if len(returns) > 1:
        score += f" ± {returns.std(ddof=1):.1f}"
        collisions += f" ± {touches.std(ddof=1):.2f}"
    return score, collisions, f"{of_seed['covered'].mean():.0%}"


def starts_and_landmarks(turned: float) -> Float[Array, "6 2"]:
    """Agents on a small circle, landmarks on a large one.

    A landmark is halfway between two agents and `turned` degrees back from there.
    """
    agents = jnp.radians(90.0 + 120.0 * jnp.arange(AGENTS))
    landmarks = agents + jnp.radians(60.0 - turned)
    circle = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return jnp.concatenate([START * circle(agents), FAR * circle(landmarks)])


def draw_teams(key: Key[Array, ""], rows: int, law: Law) -> tuple[Array, Array]:
    """Positions relative to the start, [B, agents, AHEAD * 2].

    The law is the places, and the share of teams that go the other way round.
    """
    place, other_way = law
    k_way, k_bow, k_pace, k_wobble = jax.random.split(key, 4)

    # --- each agent's landmark, [B, agents, 2] ---
    back = jax.random.bernoulli(k_way, other_way, (rows, 1)).astype(int)
    landmark = (jnp.arange(AGENTS) - back) % AGENTS
    goal = place[AGENTS:][landmark] - place[:AGENTS]

    # --- the share of the path that is done at each position ---
    pace = 0.5 + 0.1 * jax.random.uniform(k_pace, (rows, AGENTS, 1))
    share = jnp.clip(jnp.arange(1, AHEAD + 1) / (pace * AHEAD), 0.0, 1.0)[..., None]

    # --- a bow to the side, and a wobble ---
    bow = BOW * jax.random.normal(k_bow, (rows, AGENTS, 1, 1)) * jnp.sin(jnp.pi * share)
    across = jnp.stack([-goal[..., 1], goal[..., 0]], axis=-1)
    path = goal[..., None, :] * share + bow * across[..., None, :]
    path = path + WOBBLE * jax.random.normal(k_wobble, path.shape)
    return path.reshape(rows, AGENTS, 2 * AHEAD), jnp.zeros((rows, AGENTS, 0))


def walk(
    plan: Float[Array, "n P 2"], place: Float[Array, "6 2"]
) -> tuple[Array, Array, Array, Array]:
    """(positions [T + 1, agents, 2], team return, collisions, all landmarks covered at the end)."""
    # --- goals [n, T, 2], between the plan's positions ---
    start = jnp.zeros((AGENTS, 1, 2))
    positions = jnp.concatenate([start, plan], axis=1) + place[:AGENTS, None]
    ticks = jnp.clip(jnp.arange(1, HORIZON + 1) / EVERY, 0.0, AHEAD)
    low = jnp.clip(jnp.floor(ticks).astype(int), 0, AHEAD - 1)
    done = (ticks - low)[:, None]
    goals = positions[:, low] + done * (positions[:, low + 1] - positions[:, low])

    # --- steps towards them ---
    scenario = dataclasses.replace(spread(), name="covering", place=lambda key: place)
    env = environment(scenario, "mpe-omar")

    def step(scene, goal):
        wanted = (goal - scene.pos[:AGENTS]) / DT
        action = jnp.clip((wanted - (1.0 - DAMPING) * scene.vel) / (GAIN * DT), -1.0, 1.0)
        scene, now = env.step(jax.random.key(0), scene, action)
        return scene, (scene.pos[:AGENTS], now.reward.mean())

    scene, _ = env.reset(jax.random.key(0))
    scene, (pos, reward) = jax.lax.scan(step, scene, jnp.moveaxis(goals, 1, 0))

    # --- the end ---
    to_landmarks = jnp.linalg.norm(place[AGENTS:, None] - pos[-1][None], axis=-1)
    covered = jnp.all(to_landmarks.min(axis=1) < 0.15)
    pos = jnp.concatenate([place[None, :AGENTS], pos])
    return pos, reward.sum(), scene.touches, covered

"""`reproduce dof-games`: DoF's illustrative games, trained small and drawn.

They are four Gaussians and sets of two and of three modes; the samplers; landmark covering,
payoffs, the circle.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.envs import games
from jaxomarl.papers import measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof import circle, covering, payoffs, samplers
from jaxomarl.papers.dof.models import (
    LEVELS,
    MODEL_NAMES,
    UPDATES,
    spread_text,
    team_model,
    train_and_sample,
)
from jaxomarl.papers.measured import Measure, Part
from jaxomarl.results.clouds import clouds
from jaxomarl.results.curves import Point, curves

SEEDS = 8
"""Seeds at most: more of them take hours and tell no more."""
ROWS = 8000
SHOWN = 2000
"""Samples in a picture."""
STD = 0.1
"""Standard deviation of the two-mode set about its modes; its signs are then the modes."""
AGENTS = (2, 3, 4, 5)
THREE = 3
"""Agents of the set with three modes."""
KINDS = ("joint", "concat", "wconcat", "atten", "separate")
THREE_KINDS = {"joint": 3, "concat": 3, "wconcat": 3, "separate": 5}
"""Kinds of model on three modes, and with how many agents they are trained: agents apart are those
of the largest team."""
FOUR_GAUSSIANS = (games.FOUR_MODES, games.FOUR_MASS, games.FOUR_VARIANCE**0.5)
"""Modes, masses and std of the four Gaussians."""

FOUR = "four Gaussians"
TWO = "two modes"
THREE_MODES = "three modes"
DISTANCE = "total variation"

Samples = Mapping[tuple[str, str, int], np.ndarray]
"""(game, kind, agents) -> samples [R, B, N] of each seed."""


def dof_games(asked: Asked) -> str:
    """All games, and their pictures next to the table; two of them are made at a time."""
    asked.check_unused("dof-games", "its games are fixed.")
    asked = dataclasses.replace(asked, seeds=asked.seeds[:SEEDS])
    jobs = (mixtures, covering.covering, sampler_part, payoffs.payoffs, circle.circle)
    # most of the time goes into compiling, which is done in one thread
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda game: game(asked), jobs))
    preface = (
        f"DoF's illustrative games (its section 5.1 and appendix D.2), seeds {asked.seeds} (of "
        f"those asked, the first {SEEDS} at most), {asked.updates(UPDATES)} updates of small "
        f"networks, {LEVELS} steps of DDPM; ± is the largest distance of a seed from the mean. The "
        "paper's figures are pictures, without numbers."
    )
    measures = [measure for part in parts for measure in part.measures]
    measured.save_measures(asked.out, measures)
    return "\n\n".join([preface, *(part.text for part in parts)]) + "\n"


def sampler_part(asked: Asked) -> Part:
    """The samplers' part, whose numbers judge no claim."""
    return Part(samplers.samplers(asked), [])


def mixtures(asked: Asked) -> Part:
    """Four Gaussians and the two-mode sets: what models of each kind sample."""
    agents_of = {"separate": (2, AGENTS[-1]), "pooled": (2,), "atten": ()}
    samples: dict[tuple[str, str, int], np.ndarray] = {}
    for kind in (*KINDS, "dec-atten", "pooled"):
        for n in agents_of.get(kind, AGENTS):
            asked.say(f"four Gaussians and two modes: {n} agents, {kind}")
            samples |= mixture_samples(asked, kind, n)
    # an agent that is trained apart does not depend on how many the others are
    for n in AGENTS[1:-1]:
        samples["two", "separate", n] = samples["two", "separate", AGENTS[-1]][..., :n]
    all_of_three = samples["three", "separate", AGENTS[-1]]
    samples["three", "separate", THREE] = all_of_three[..., :THREE]
    gaussians = four_gaussians(asked, samples)
    two = two_modes(asked, samples)
    three = three_modes(asked, samples)
    text = "\n\n".join([gaussians, two.text, three.text])
    return Part(text, [*quadrant_measures(asked, samples), *two.measures, *three.measures])


def mixture_samples(asked: Asked, kind: str, n: int) -> Samples:
    """Samples of one kind of model for n agents, on each game that it is trained on.

    A model of dec-atten is atten's, sampled as it was trained.
    """
    laws = {}
    if n == 2:
        laws["four"] = FOUR_GAUSSIANS
    if kind != "pooled":
        laws["two"] = agreement(n)
    if kind in THREE_KINDS and n == THREE_KINDS[kind]:
        laws["three"] = agreement_of_three(n)
    stacked = [np.stack(arrays).astype(np.float32) for arrays in zip(*laws.values(), strict=True)]
    y = jnp.zeros((ROWS, n, 0))
    steps = asked.updates(UPDATES)
    trained = train_and_sample(team_model(kind, n), draw_mixture, stacked, y, asked.seeds, steps)
    samples = {}
    for k, game in enumerate(laws):
        samples[game, kind, n] = trained.x[k, ..., 0]
        if kind == "dec-atten":
            samples[game, "atten", n] = trained.as_trained[k, ..., 0]
    return samples


# --- four Gaussians ---


def four_gaussians(asked: Asked, samples: Samples) -> str:
    """Quadrants' shares and total variation from the data's, for each model."""
    truth = games.four_gaussians_joint()
    product = games.product_of_marginals(truth)
    product_distance = games.total_variation(product, truth)
    rows = [
        ("the data's law", *share_cells(truth), "0", ""),
        ("product of its marginals", *share_cells(product), f"{product_distance:.3f}", ""),
    ]
    data, _ = draw_mixture(jax.random.key(0), SHOWN, FOUR_GAUSSIANS)
    shown = {"data": np.asarray(data)[..., 0]}
    for kind in (*KINDS, "dec-atten", "pooled"):
        x = samples["four", kind, 2]
        joints = [quadrants(of_seed) for of_seed in x]
        distances = np.array([games.total_variation(joint, truth) for joint in joints])
        shares = share_cells(np.mean(joints, axis=0))
        rows.append((MODEL_NAMES[kind], *shares, *spread_text(distances)))
        shown[MODEL_NAMES[kind]] = x[0, :SHOWN]
    asked.draw(clouds, "four-gaussians.png", shown, 1.6, shares=True)
    head = ("model", *games.QUADRANTS, "total variation", "±")
    nats = games.mutual_information(truth)
    return (
        f"## Four Gaussians\n\n{markdown_table(head, rows)}\n"
        "Agent 1 makes x, agent 2 makes y. The modes' masses are almost a product (mutual "
        f"information {nats:.4f} nats): a factorised model at its best is 0.02 away, about a "
        "trained model's own error, so this game cannot separate factorised from joint models. "
        "What it shows is that columns of different agents must not be pooled. The two-mode set "
        "below separates them.\n\n![](four-gaussians.png)"
    )


def quadrants(x: Float[np.ndarray, "B 2"]) -> np.ndarray:
    """Frequencies by (agent 1 left, right; agent 2 top, bottom), as `four_gaussians_joint`."""
    sides = np.stack([x[:, 0] > 0, x[:, 1] <= 0], axis=1)
    return games.joint_distribution(sides.astype(int), 2)


def share_cells(joint: np.ndarray) -> Sequence[str]:
    """The cells of the quadrants' shares."""
    return [f"{share:.3f}" for share in joint.T.ravel()]


# --- two modes ---


def two_modes(asked: Asked, samples: Samples) -> Part:
    """Total variation of trained models from the two-mode data, for two to five agents.

    A product of the marginals is at 1 - 2^(1-n).
    """
    panel = "two modes"
    product = "1 - 2^(1-n)"
    kinds = (*KINDS, "dec-atten")
    rows = []
    points = []
    measures = []
    for k, n in enumerate(AGENTS):
        truth = games.consensus_distribution(n, 2)
        limit = games.cms_total_variation(n, 2)
        points.append(Point(panel, product, k, limit, np.nan, np.nan, 0))
        setting = f"agents={n}"
        measures.append(Measure(TWO, "law", setting, "", DISTANCE, limit))
        cells = []
        for kind in kinds:
            distances = pattern_distances(samples["two", kind, n], truth)
            measures += measured.of_seeds(TWO, kind, setting, asked.seeds, {DISTANCE: distances})
            cells.append(" ± ".join(spread_text(distances)))
            interval = (distances.mean(), distances.min(), distances.max())
            points.append(Point(panel, MODEL_NAMES[kind], k, *interval, len(distances)))
        rows.append((str(n), f"{limit:.4f}", *cells))
    data, _ = draw_mixture(jax.random.key(0), SHOWN, agreement(2))
    shown = {"data": np.asarray(data)[..., 0]}
    for kind in kinds:
        shown[MODEL_NAMES[kind]] = samples["two", kind, 2][0, :SHOWN]
    named = {panel: [f"{n} agents" for n in AGENTS]}
    asked.draw(curves, "two-modes.png", points, "agents", "total variation from the data", named)
    asked.draw(clouds, "two-modes-samples.png", shown, 1.6, shares=True)
    head = ("agents", product, *(MODEL_NAMES[kind] for kind in kinds))
    error = (0.25 / ROWS) ** 0.5
    text = (
        f"## Two modes\n\n{markdown_table(head, rows)}\n"
        f"All agents at 0.8 or all at -0.8 (std {STD}), half of the rows each; total variation "
        f"over the 2^n patterns of signs, from {ROWS} samples (standard error {error:.4f} at most, "
        "besides the seeds' spread). Concat and wconcat are products by construction and reach the "
        "product's value, as agents trained apart do: the IGD principle holds for them because "
        "nothing joint is left. Attention may find the agreement or not, by seed; what it finds is "
        "lost where agents act without one another (dec-atten).\n\n"
        "![](two-modes.png)\n\n![](two-modes-samples.png)"
    )
    return Part(text, measures)


# --- three modes ---


def three_modes(asked: Asked, samples: Samples) -> Part:
    """Total variation of trained models from data of three modes, for three agents."""
    truth = games.consensus_distribution(THREE, 3)
    limit = games.cms_total_variation(THREE, 3)
    setting = f"agents={THREE}"
    measures = [Measure(THREE_MODES, "law", setting, "", DISTANCE, limit)]
    cells = []
    for kind in THREE_KINDS:
        distances = pattern_distances(samples["three", kind, THREE], truth)
        measures += measured.of_seeds(
            THREE_MODES, kind, setting, asked.seeds, {DISTANCE: distances}
        )
        cells.append(" ± ".join(spread_text(distances)))
    head = ("agents", "1 - 3^(1-n)", *(MODEL_NAMES[kind] for kind in THREE_KINDS))
    table = markdown_table(head, [(str(THREE), f"{limit:.4f}", *cells)])
    text = (
        f"## Three modes\n\n{table}\n"
        f"All agents at 0.8, all at 0 or all at -0.8 (std {STD}), a third of the rows each; each "
        "action counts as the nearest of the three."
    )
    return Part(text, measures)


def pattern_distances(x: Float[np.ndarray, "R B N"], truth: np.ndarray) -> Float[np.ndarray, " R"]:
    """Total variation of each seed's patterns of levels from the data's.

    The modes, as many as an axis of `truth` has, are the levels.
    """
    modes = len(truth)
    distances = []
    for of_seed in x:
        levels = np.asarray(games.consensus_levels(jnp.asarray(of_seed)[..., None], modes))
        found = games.joint_distribution(levels, modes)
        distances.append(games.total_variation(found, truth))
    return np.array(distances)


def quadrant_measures(asked: Asked, samples: Samples) -> list[Measure]:
    """Total variation of each model's quadrants from those of the four Gaussians."""
    truth = games.four_gaussians_joint()
    product = games.total_variation(games.product_of_marginals(truth), truth)
    measures = [Measure(FOUR, "law", "agents=2", "", DISTANCE, product)]
    for kind in (*KINDS, "dec-atten", "pooled"):
        joints = [quadrants(of_seed) for of_seed in samples["four", kind, 2]]
        distances = np.array([games.total_variation(joint, truth) for joint in joints])
        measures += measured.of_seeds(FOUR, kind, "agents=2", asked.seeds, {DISTANCE: distances})
    return measures


# --- data ---


def agreement(agents: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Modes, masses and std of the two-mode data, as four modes of which two have no mass."""
    side = np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    modes = games.BANDIT_MODE * np.tile(side, (1, agents))
    return modes, np.array([0.5, 0.5, 0.0, 0.0]), STD


def agreement_of_three(agents: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Modes, masses and std of data of three modes, as four modes of which one has no mass."""
    level = np.array([1.0, 0.0, -1.0, 1.0])[:, None]
    modes = games.BANDIT_MODE * np.tile(level, (1, agents))
    return modes, np.array([1.0, 1.0, 1.0, 0.0]) / 3.0, STD


def draw_mixture(
    key: Key[Array, ""], rows: int, law: Any
) -> tuple[Float[Array, "B N 1"], Float[Array, "B N 0"]]:
    """Rows of a mixture (modes [4, N], masses [4], std), not clamped as the bandits' data are."""
    k_mode, k_noise = jax.random.split(key)
    modes, mass, std = (jnp.asarray(v, jnp.float32) for v in law)
    u = jax.random.uniform(k_mode, (rows, 1))
    chosen = jnp.sum(u > jnp.cumsum(mass)[:-1], axis=1)
    x = modes[chosen]
    x = x + std * jax.random.normal(k_noise, x.shape)
    return x[..., None], jnp.zeros((*x.shape, 0))

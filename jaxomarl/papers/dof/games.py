"""`reproduce dof-games`: DoF's illustrative games, trained small and drawn.

They are four Gaussians and the two-mode set; the samplers on it; landmark covering, payoffs, the
circle.
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
from jaxomarl.results.clouds import clouds
from jaxomarl.results.curves import Point, curves

SEEDS = 3
ROWS = 8000
SHOWN = 2000
"""Samples in a picture."""
STD = 0.1
"""Standard deviation of the two-mode set about its modes; its signs are then the modes."""
AGENTS = (2, 3, 4, 5)
KINDS = ("joint", "concat", "wconcat", "atten", "separate")
FOUR_GAUSSIANS = (games.FOUR_MODES, games.FOUR_MASS, games.FOUR_VARIANCE**0.5)
"""Modes, masses and std of the four Gaussians."""

Samples = Mapping[tuple[str, str, int], np.ndarray]
"""(game, kind, agents) -> samples [R, B, N] of each seed."""


def dof_games(asked: Asked) -> str:
    """All games, and their pictures next to the table; two of them are made at a time."""
    asked.check_unused("dof-games", "its games are fixed.")
    asked = dataclasses.replace(asked, seeds=asked.seeds[:SEEDS])
    jobs = (mixtures, covering.covering, samplers.samplers, payoffs.payoffs, circle.circle)
    # most of the time goes into compiling, which is done in one thread
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda game: game(asked), jobs))
    preface = (
        f"DoF's illustrative games (its section 5.1 and appendix D.2), seeds {asked.seeds} (of "
        f"those asked, the first {SEEDS} at most), {asked.updates(UPDATES)} updates of small "
        f"networks, {LEVELS} steps of DDPM; ± is the largest distance of a seed from the mean. The "
        "paper's figures are pictures, without numbers."
    )
    return "\n\n".join([preface, *parts]) + "\n"


def mixtures(asked: Asked) -> str:
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
    return f"{four_gaussians(asked, samples)}\n\n{two_modes(asked, samples)}"


def mixture_samples(asked: Asked, kind: str, n: int) -> Samples:
    """Samples of one kind of model for n agents, on each game that it is trained on.

    A model of dec-atten is atten's, sampled as it was trained.
    """
    laws = {}
    if n == 2:
        laws["four"] = FOUR_GAUSSIANS
    if kind != "pooled":
        laws["two"] = agreement(n)
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


def two_modes(asked: Asked, samples: Samples) -> str:
    """Total variation of trained models from the two-mode data, for two to five agents.

    A product of the marginals is at 1 - 2^(1-n).
    """
    panel = "two modes"
    product = "1 - 2^(1-n)"
    kinds = (*KINDS, "dec-atten")
    rows = []
    points = []
    for k, n in enumerate(AGENTS):
        truth = games.consensus_distribution(n, 2)
        limit = games.cms_total_variation(n, 2)
        points.append(Point(panel, product, k, limit, np.nan, np.nan, 0))
        cells = []
        for kind in kinds:
            distances = sign_distances(samples["two", kind, n], truth)
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
    return (
        f"## Two modes\n\n{markdown_table(head, rows)}\n"
        f"All agents at 0.8 or all at -0.8 (std {STD}), half of the rows each; total variation "
        f"over the 2^n patterns of signs, from {ROWS} samples (standard error {error:.4f} at most, "
        "besides the seeds' spread). Concat and wconcat are products by construction and reach the "
        "product's value, as agents trained apart do: the IGD principle holds for them because "
        "nothing joint is left. Attention may find the agreement or not, by seed; what it finds is "
        "lost where agents act without one another (dec-atten).\n\n"
        "![](two-modes.png)\n\n![](two-modes-samples.png)"
    )


def sign_distances(x: Float[np.ndarray, "R B N"], truth: np.ndarray) -> Float[np.ndarray, " R"]:
    """Total variation of each seed's patterns of signs from the data's."""
    distances = []
    for signs in (x > 0).astype(int):
        distances.append(games.total_variation(games.joint_distribution(signs, 2), truth))
    return np.array(distances)


# --- data ---


def agreement(agents: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Modes, masses and std of the two-mode data, as four modes of which two have no mass."""
    side = np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    modes = games.BANDIT_MODE * np.tile(side, (1, agents))
    return modes, np.array([0.5, 0.5, 0.0, 0.0]), STD


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

"""DoF's illustrative games, trained small and drawn: `reproduce dof-games`.

Four Gaussians and, beside them, the two-mode set; the samplers on it; landmark covering, payoffs, the circle.
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
from jaxomarl.papers.comparison import markdown
from jaxomarl.papers.dof import circle, covering, payoffs, samplers
from jaxomarl.papers.dof.models import LEVELS, SAID, UPDATES, made, model, spread
from jaxomarl.results.clouds import clouds
from jaxomarl.results.curves import Point, curves

SEEDS, ROWS = 3, 8000
STD = 0.1  # of the two-mode set about its modes; its signs are then the modes
AGENTS = (2, 3, 4, 5)
KINDS = ("joint", "concat", "wconcat", "atten", "separate")


def dof_games(asked: Asked) -> str:
    """All games, their pictures beside the table; two of them are made at a time."""
    asked.check_unused("dof-games", "its games are fixed.")
    asked = dataclasses.replace(asked, seeds=asked.seeds[:SEEDS])
    jobs = (mixtures, covering.covering, samplers.samplers, payoffs.payoffs, circle.circle)
    with ThreadPoolExecutor(
        2
    ) as pool:  # most of the time goes into compiling, which is done in one thread
        parts = list(pool.map(lambda game: game(asked), jobs))
    preface = (
        f"DoF's illustrative games (its section 5.1 and appendix D.2), seeds {asked.seeds} (of those asked, the first "
        f"{SEEDS} at most), {asked.updates(UPDATES)} updates of small networks, {LEVELS} steps of DDPM; ± is the "
        "largest distance of a seed from the mean. The paper's figures are pictures, without numbers."
    )
    return "\n\n".join([preface, *parts]) + "\n"


def mixtures(asked: Asked) -> str:
    """Four Gaussians and the two-mode sets: what models of each kind make of them."""
    four = (games.FOUR_MODES, games.FOUR_MASS, games.FOUR_VARIANCE**0.5)
    held: dict[tuple[str, str, int], np.ndarray] = {}  # (game, kind, agents) -> samples [R, B, N]
    for kind in (*KINDS, "dec-atten", "pooled"):
        for n in {"separate": (2, AGENTS[-1]), "pooled": (2,), "atten": ()}.get(kind, AGENTS):
            asked.say(f"four Gaussians and two modes: {n} agents, {kind}")
            pairs = [*([four] if n == 2 else []), *([agreement(n)] if kind != "pooled" else [])]
            laws = [np.stack(column).astype(np.float32) for column in zip(*pairs, strict=True)]
            told = made(
                model(kind, n),
                draw,
                laws,
                jnp.zeros((ROWS, n, 0)),
                asked.seeds,
                asked.updates(UPDATES),
            )
            names = ("four", "two")[: len(pairs)] if n == 2 else ("two",)
            for name, x, whole in zip(names, told.x, told.whole, strict=True):
                held[name, kind, n] = x[..., 0]
                if kind == "dec-atten":
                    held[name, "atten", n] = whole[..., 0]
    for n in AGENTS[1:-1]:  # who is trained apart does not know how many the others are
        held["two", "separate", n] = held["two", "separate", AGENTS[-1]][..., :n]
    return f"{four_gaussians(asked, held)}\n\n{two_modes(asked, held)}"


def four_gaussians(asked: Asked, made: Mapping[tuple[str, str, int], np.ndarray]) -> str:
    """Quadrants' shares and total variation from the data's, for each model."""
    truth = games.four_gaussians_joint()
    product = games.product_of_marginals(truth)
    rows = [("the data's law", *_shares(truth), "0", "")]
    rows.append(
        (
            "product of its marginals",
            *_shares(product),
            f"{games.total_variation(product, truth):.3f}",
            "",
        )
    )
    law = (games.FOUR_MODES, games.FOUR_MASS, games.FOUR_VARIANCE**0.5)
    held = {"data": np.asarray(draw(jax.random.key(0), 2000, law)[0])[..., 0]}
    for kind in (*KINDS, "dec-atten", "pooled"):
        x = made["four", kind, 2]
        found = [_quadrants(one) for one in x]
        tv = np.array([games.total_variation(q, truth) for q in found])
        rows.append((SAID[kind], *_shares(np.mean(found, axis=0)), *spread(tv)))
        held[SAID[kind]] = x[0, :2000]
    asked.draw(clouds, "four-gaussians.png", held, 1.6, shares=True)
    nats = games.mutual_information(truth)
    return (
        f"## Four Gaussians\n\n{markdown(('model', *games.QUADRANTS, 'total variation', '±'), rows)}\n"
        f"Agent 1 makes x, agent 2 makes y. The modes' masses are almost a product (mutual information {nats:.4f} "
        "nats): a factorised model at its best is 0.02 away, about a trained model's own error, so this game cannot "
        "separate factorised from joint models. What it shows is that columns of different agents must not be pooled. "
        "The two-mode set below separates them.\n\n![](four-gaussians.png)"
    )


def two_modes(asked: Asked, made: Mapping[tuple[str, str, int], np.ndarray]) -> str:
    """Total variation of trained models from the two-mode data, for two to five agents, beside 1 - 2^(1-n)."""
    rows, points, kinds = [], [], (*KINDS, "dec-atten")
    for n in AGENTS:
        truth, limit = games.consensus_distribution(n, 2), games.cms_total_variation(n, 2)
        points.append(Point("two modes", "1 - 2^(1-n)", AGENTS.index(n), limit, np.nan, np.nan, 0))
        cells = []
        for kind in kinds:
            signs = (made["two", kind, n] > 0).astype(int)
            tv = np.array(
                [games.total_variation(games.joint_distribution(one, 2), truth) for one in signs]
            )
            cells.append(" ± ".join(spread(tv)))
            points.append(
                Point(
                    "two modes", SAID[kind], AGENTS.index(n), tv.mean(), tv.min(), tv.max(), len(tv)
                )
            )
        rows.append((str(n), f"{limit:.4f}", *cells))
    data = {"data": np.asarray(draw(jax.random.key(0), 2000, agreement(2))[0])[..., 0]}
    held = data | {SAID[kind]: made["two", kind, 2][0, :2000] for kind in kinds}
    named = {"two modes": [f"{n} agents" for n in AGENTS]}
    asked.draw(curves, "two-modes.png", points, "agents", "total variation from the data", named)
    asked.draw(clouds, "two-modes-samples.png", held, 1.6, shares=True)
    head = ("agents", "1 - 2^(1-n)", *(SAID[k] for k in kinds))
    error = (0.25 / ROWS) ** 0.5
    return (
        f"## Two modes\n\n{markdown(head, rows)}\n"
        f"All agents at 0.8 or all at -0.8 (std {STD}), half of the rows each; total variation over the 2^n patterns "
        f"of signs, from {ROWS} samples (standard error {error:.4f} at most, besides the seeds' spread). Concat and "
        "wconcat are products by construction and reach the product's value, as agents trained apart do: the IGD "
        "principle holds for them because nothing joint is left. Attention may find the agreement or not, by seed; "
        "what it finds is lost where agents act without one another (dec-atten).\n\n"
        "![](two-modes.png)\n\n![](two-modes-samples.png)"
    )


def agreement(agents: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Modes, masses and std of the two-mode data, as four modes of which two have no mass."""
    side = np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    return games.BANDIT_MODE * np.tile(side, (1, agents)), np.array([0.5, 0.5, 0.0, 0.0]), STD


def draw(
    key: Key[Array, ""], rows: int, law: Any
) -> tuple[Float[Array, "B N 1"], Float[Array, "B N 0"]]:
    """Rows of a mixture (modes [4, N], masses [4], std), not clamped as the bandits' data are."""
    k_mode, k_noise = jax.random.split(key)
    modes, mass, std = (jnp.asarray(v, jnp.float32) for v in law)
    u = jax.random.uniform(k_mode, (rows, 1))
    x = modes[jnp.sum(u > jnp.cumsum(mass)[:-1], axis=1)]
    x = x + std * jax.random.normal(k_noise, x.shape)
    return x[..., None], jnp.zeros((*x.shape, 0))


def _quadrants(x: Float[np.ndarray, "B 2"]) -> np.ndarray:
    """Frequencies by (agent 1 is left, right; agent 2 is top, bottom), as `four_gaussians_joint`."""
    return games.joint_distribution(np.stack([x[:, 0] > 0, x[:, 1] <= 0], axis=1).astype(int), 2)


def _shares(joint: np.ndarray) -> Sequence[str]:
    return [f"{share:.3f}" for share in joint.T.ravel()]

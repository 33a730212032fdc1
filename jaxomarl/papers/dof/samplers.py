"""Samplers of one trained model against the calls that they take, with a consistency model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxomarl.base import Denoise
from jaxomarl.diffusion import samplers as chains
from jaxomarl.diffusion.consistency import consistency, consistency_loss, consistent
from jaxomarl.envs.games import BANDIT_MODE
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof.models import (
    BATCH,
    SCHEDULE,
    TIME_FEATURES,
    UPDATES,
    Law,
    Params,
    compiled,
    descended,
    fit_model,
    spread_text,
    team_denoiser,
    team_model,
    time_features,
)
from jaxomarl.results.curves import Point, curves

ROWS = 8000
AGENTS = 2
STD = 0.1
REACH = (BANDIT_MODE**2 + STD**2) ** 0.5
"""Standard deviation of an agent's column."""
CALLS = (1, 2, 4, 10, 30)
FEW = CALLS[:3]
"""Calls of the consistency model."""
GRID = 40
HUBER = 0.03
RATE = 4e-3
CHAINS = {
    "DDPM": chains.ddpm,
    "DDIM, DPM-Solver-1": chains.ddim,
    "DPM-Solver-2": lambda schedule, steps: chains.dpm_solver(schedule, steps, order=2),
}
PANEL = "samples of the joint model, two modes"

Trained = tuple[Params, Params]
"""Parameters of the joint model, and of the consistency model that is distilled from it."""
Sample = Callable[[Key[Array, ""], Trained], Array]
"""(key, trained) -> samples [B, N, 1]."""


def samplers(asked: Asked) -> str:
    """Error of each sampler's samples from the joint model of two-mode data, against its calls."""
    asked.say("samplers: the joint model and its consistency model")
    seeds = jnp.asarray(asked.seeds, jnp.uint32)
    trained = train_both(asked, seeds)
    data, _ = draw_two_modes(jax.random.key(0), ROWS)
    data = np.asarray(data)[..., 0]

    # --- samples and their errors ---
    points = []
    cells = {}
    for name, calls, sample in all_samplers():
        if name in CHAINS:
            asked.say(f"samplers: {name}, {calls} calls")
        x = samples_of(sample, seeds, trained)
        errors = np.array([wasserstein(of_seed, data) for of_seed in x])
        disagree = np.mean(x[..., 0] * x[..., 1] < 0)
        interval = (errors.mean(), errors.min(), errors.max())
        points.append(Point(PANEL, name, calls, *interval, len(errors)))
        cells[name, calls] = f"{' ± '.join(spread_text(errors))} ({disagree:.1%})"

    # --- picture and table ---
    axes = ("calls of the network", "Wasserstein-1 to the data")
    asked.draw(curves, "samplers.png", points, *axes, logarithmic=True)
    rows = []
    for name in (*CHAINS, "consistency"):
        rows.append((name, *(cells.get((name, calls), "") for calls in CALLS)))
    head = ("sampler, calls", *map(str, CALLS))
    return (
        f"## Samplers\n\n{markdown_table(head, rows)}\n"
        "Two agents, the two-mode data, one joint model per seed: Wasserstein-1 distance of the "
        f"samples of an agent to {ROWS} rows (whose own std is {REACH:.2f}), and the share of "
        "samples whose agents disagree. DDPM adds noise and the others add none; the consistency "
        "model is distilled from the same network along DDIM's path.\n\n![](samplers.png)"
    )


def train_both(asked: Asked, seeds: Array) -> Trained:
    """Train the joint model and its consistency model for each seed, in one program."""
    joint = team_model("joint", AGENTS)
    net = consistency_network()
    updates = asked.updates(UPDATES)
    y = jnp.zeros((BATCH, AGENTS, 0))

    def train_seed(seed: Array) -> Trained:
        key = jax.random.key(seed)
        params = fit_model(joint, draw_two_modes, (), key, updates)
        teacher = team_denoiser(joint, params, y)
        return params, distil(net, teacher, jax.random.fold_in(key, 1), 2 * updates)

    return compiled(lambda seeds: jax.lax.map(train_seed, seeds))(seeds)


def all_samplers() -> list[tuple[str, int, Sample]]:
    """(name, calls, sampler): chains of the joint model, then the consistency model."""
    result = []
    for name in CHAINS:
        for calls in CALLS[2:]:
            result.append((name, calls, chain_sampler(name, calls)))
    for calls in FEW:
        result.append(("consistency", calls, consistency_sampler(calls)))
    return result


def chain_sampler(name: str, calls: int) -> Sample:
    """A sampler of the joint model."""
    joint = team_model("joint", AGENTS)
    y = jnp.zeros((ROWS, AGENTS, 0))

    def sample(key: Key[Array, ""], trained: Trained) -> Array:
        denoise = team_denoiser(joint, trained[0], y)
        return CHAINS[name](SCHEDULE, calls)(key, denoise, (ROWS, AGENTS, 1))

    return sample


def consistency_sampler(calls: int) -> Sample:
    """A sampler of the consistency model."""
    net = consistency_network()

    def sample(key: Key[Array, ""], trained: Trained) -> Array:
        function = consistency_function(net, trained[1])
        return consistency(SCHEDULE, calls)(key, function, (ROWS, AGENTS, 1))

    return sample


def samples_of(sample: Sample, seeds: Array, trained: Trained) -> np.ndarray:
    """Samples [R, B, N] of each seed's model."""

    def one_seed(seed_and_trained: tuple[Array, Trained]) -> Array:
        seed, own = seed_and_trained
        return sample(jax.random.fold_in(jax.random.key(seed), 2), own)

    program = compiled(lambda seeds, trained: jax.lax.map(one_seed, (seeds, trained)))
    return np.asarray(program(seeds, trained))[..., 0]


def draw_two_modes(key: Key[Array, ""], rows: int, law: Law = ()) -> tuple[Array, Array]:
    """The two-mode data of two agents."""
    k_side, k_noise = jax.random.split(key)
    side = 2.0 * jax.random.bernoulli(k_side, shape=(rows, 1, 1)) - 1.0
    x = BANDIT_MODE * side + STD * jax.random.normal(k_noise, (rows, AGENTS, 1))
    return x, jnp.zeros((rows, AGENTS, 0))


# --- the consistency model ---


def consistency_network() -> Network:
    """F(x, t) of both agents' columns: apply(params, x [..., N, 1], t)."""
    net = mlp(AGENTS + TIME_FEATURES, (64, 64), AGENTS, mish)

    def apply(params: Params, x: Array, t: Array) -> Array:
        flat = x[..., 0]
        inputs = jnp.concatenate([flat, time_features(t, flat)], axis=-1)
        return net.apply(params, inputs)[..., None]

    return Network(net.init, apply)


def consistency_function(net: Network, params: Params) -> Denoise:
    """The consistency function of a network."""
    return consistent(lambda x, t: net.apply(params, x, t), SCHEDULE, REACH)


def distil(net: Network, teacher: Denoise, key: Key[Array, ""], steps: int) -> Params:
    """Parameters of a consistency function, distilled between neighbours of a time grid.

    A pair weighs 1 / (kappa_t - kappa_s), kappa = sigma / alpha: without it the far noise drowns
    the boundary.
    """
    k_init, k_steps = jax.random.split(key)

    def kappa(t: Array) -> Array:
        return SCHEDULE.sigma(t) / SCHEDULE.alpha(t)

    def loss(params: Any, key: Key[Array, ""]) -> Array:
        k_rows, k_time, k_noise = jax.random.split(key, 3)
        x0, _ = draw_two_modes(k_rows, BATCH)
        k = jax.random.randint(k_time, (BATCH,), 0, GRID)
        z = jax.random.normal(k_noise, x0.shape)
        t = (k + 1) / GRID
        s = k / GRID
        weight = 1.0 / (kappa(t) - kappa(s))
        g = consistency_function(net, params)
        return consistency_loss(g, g, SCHEDULE, x0, t, s, z, teacher, weight, huber=HUBER)

    return descended(loss, net.init(k_init), k_steps, steps, RATE)


def wasserstein(x: np.ndarray, data: np.ndarray) -> float:
    """Wasserstein-1 of each agent's column [B, N] to the data's, averaged over agents."""
    return float(np.abs(np.sort(x, axis=0) - np.sort(data, axis=0)).mean())

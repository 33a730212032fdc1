"""Samplers of one trained model against the calls that they take, a distilled consistency model among them."""

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
from jaxomarl.papers.comparison import markdown
from jaxomarl.papers.dof.models import (
    BATCH,
    SCHEDULE,
    UPDATES,
    WAVES,
    Law,
    compiled,
    denoiser,
    descended,
    fit,
    model,
    spread,
    waves,
)
from jaxomarl.results.curves import Point, curves

ROWS, AGENTS, STD = 8000, 2, 0.1
REACH = (BANDIT_MODE**2 + STD**2) ** 0.5  # standard deviation of an agent's column
CALLS = (1, 2, 4, 10, 30)
FEW = CALLS[:3]  # calls of the consistency model
GRID, HUBER, RATE = 40, 0.03, 4e-3
CHAINS = {
    "DDPM": chains.ddpm,
    "DDIM, DPM-Solver-1": chains.ddim,
    "DPM-Solver-2": lambda schedule, steps: chains.dpm_solver(schedule, steps, order=2),
}


def samplers(asked: Asked) -> str:
    """Error of each sampler's samples from the joint model of two-mode data, against its calls."""
    points, cells = [], {}
    asked.say("samplers: the joint model and its consistency model")
    joint, net, updates = model("joint", AGENTS), network(), asked.updates(UPDATES)
    y = jnp.zeros((ROWS, AGENTS, 0))

    def trained(seed: Array) -> tuple[Any, Any]:
        key = jax.random.key(seed)
        params = fit(joint, draw, (), key, updates)
        teacher = denoiser(joint, params, jnp.zeros((BATCH, AGENTS, 0)))
        return params, distil(net, teacher, jax.random.fold_in(key, 1), 2 * updates)

    seeds = jnp.asarray(asked.seeds, jnp.uint32)
    held = compiled(lambda seeds: jax.lax.map(trained, seeds))(seeds)
    data = np.asarray(draw(jax.random.key(0), ROWS, ())[0])[..., 0]
    shape = (ROWS, AGENTS, 1)

    def errors(name: str, sample: Any, calls: int) -> None:
        run = lambda args: sample(jax.random.fold_in(jax.random.key(args[0]), 2), args[1])
        x = np.asarray(compiled(lambda s, h: jax.lax.map(run, (s, h)))(seeds, held))[..., 0]
        off = np.array([distance(one, data) for one in x])
        apart = np.mean(x[..., 0] * x[..., 1] < 0)
        points.append(
            Point(
                "samples of the joint model, two modes",
                name,
                calls,
                off.mean(),
                off.min(),
                off.max(),
                len(off),
            )
        )
        cells[name, calls] = f"{' ± '.join(spread(off))} ({apart:.1%})"

    for name, chain in CHAINS.items():
        for calls in CALLS[2:]:
            asked.say(f"samplers: {name}, {calls} calls")
            errors(
                name,
                lambda key, h, c=chain, k=calls: c(SCHEDULE, k)(
                    key, denoiser(joint, h[0], y), shape
                ),
                calls,
            )
    for calls in FEW:
        errors(
            "consistency",
            lambda key, h, k=calls: consistency(SCHEDULE, k)(key, f(net, h[1]), shape),
            calls,
        )
    asked.draw(
        curves,
        "samplers.png",
        points,
        "calls of the network",
        "Wasserstein-1 to the data",
        logarithmic=True,
    )
    names = [*CHAINS, "consistency"]
    rows = [(name, *(cells.get((name, calls), "") for calls in CALLS)) for name in names]
    return (
        f"## Samplers\n\n{markdown(('sampler, calls', *map(str, CALLS)), rows)}\n"
        "Two agents, the two-mode data, one joint model per seed: Wasserstein-1 distance of the samples of an agent to "
        f"{ROWS} rows (whose own std is {REACH:.2f}), and the share of samples whose agents disagree. DDPM adds noise "
        "and the others add none; the consistency model is distilled from the same network along DDIM's path.\n\n"
        "![](samplers.png)"
    )


def draw(key: Key[Array, ""], rows: int, law: Law = ()) -> tuple[Array, Array]:
    """The two-mode data of two agents."""
    k_side, k_noise = jax.random.split(key)
    side = 2.0 * jax.random.bernoulli(k_side, shape=(rows, 1, 1)) - 1.0
    x = BANDIT_MODE * side + STD * jax.random.normal(k_noise, (rows, AGENTS, 1))
    return x, jnp.zeros((rows, AGENTS, 0))


def network() -> Network:
    """F(x, t) of both agents' columns: apply(params, x [..., N, 1], t)."""
    net = mlp(AGENTS + WAVES, (64, 64), AGENTS, mish)

    def apply(params: Any, x: Array, t: Array) -> Array:
        flat = x[..., 0]
        return net.apply(params, jnp.concatenate([flat, waves(t, flat)], axis=-1))[..., None]

    return Network(net.init, apply)


def f(net: Network, params: Any) -> Denoise:
    """The consistency function."""
    return consistent(lambda x, t: net.apply(params, x, t), SCHEDULE, REACH)


def distil(net: Network, teacher: Denoise, key: Key[Array, ""], steps: int) -> Any:
    """Parameters of a consistency function distilled from `teacher` between neighbours of a grid of times.

    A pair weighs 1 / (kappa_t - kappa_s), kappa = sigma / alpha: without it the far noise drowns the boundary.
    """
    k_init, k_steps = jax.random.split(key)

    def loss(params: Any, key: Key[Array, ""]) -> Array:
        k_rows, k_time, k_noise = jax.random.split(key, 3)
        x0 = draw(k_rows, BATCH, ())[0]
        k, z = jax.random.randint(k_time, (BATCH,), 0, GRID), jax.random.normal(k_noise, x0.shape)
        t, s = (k + 1) / GRID, k / GRID
        kappa = lambda t: SCHEDULE.sigma(t) / SCHEDULE.alpha(t)
        g, weight = f(net, params), 1.0 / (kappa(t) - kappa(s))
        return consistency_loss(g, g, SCHEDULE, x0, t, s, z, teacher, weight, huber=HUBER)

    return descended(loss, net.init(k_init), k_steps, steps, RATE)


def distance(x: np.ndarray, data: np.ndarray) -> float:
    """Wasserstein-1 of each agent's column [B, N] to the data's, averaged over agents."""
    return float(np.abs(np.sort(x, axis=0) - np.sort(data, axis=0)).mean())

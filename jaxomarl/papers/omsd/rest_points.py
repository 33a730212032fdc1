"""Teams made of a data set's own behaviours, with nothing learned: what a regulariser alone would play.

A regulariser of beta 0 moves an action until E_t,z[w(t) (eps(alpha a + sigma z, t | ..) - z)] = 0. With exact scores
(`stages/exact_scores.py`) that rest point is found for each agent in turn at every step, and the team plays it: agents
are told of one another's observations, so that what is lost to decentralised execution and to learning is not in it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Behaviours, Environment, Observation
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs.rollout import episode
from jaxomarl.stages import exact_scores, score_regularised

TIMES = 20  # of the range of t, evenly spaced
PAIRS = 8  # of opposite z, the same at every time
ITERATIONS = 20  # more change 1 % of the actions by more than 0.1
BATCH = 64  # episodes or rows side by side: what a processor's cache holds


class Way(NamedTuple):
    """How a team acts."""

    name: str
    """one, mean or draw, of behaviours; conditional or marginal, the rest points of these scores."""
    cfg: Any = None
    """Of rest points: `weighting`, `t_min` and `t_max` as in OMSD's settings."""


class Team(NamedTuple):
    """Behaviours as arrays."""

    params: dict[str, Array]
    log_shares: Float[Array, " K"]
    std: Float[Array, ""]


def team(known: Behaviours) -> Team:
    """The arrays of known behaviours."""
    shares = jnp.asarray(known.shares, jnp.float32)
    return Team(
        jax.tree.map(jnp.asarray, known.params),
        jnp.log(shares),
        jnp.asarray(known.std, jnp.float32),
    )


def play(
    env: Environment, known: Behaviours, way: Way, episodes: int, seed: int
) -> Float[Array, " E"]:
    """Team returns of that many episodes, from starts that the seed draws and no trained policy meets."""
    k_reset, k_act = jax.random.split(jax.random.key(seed))
    return _player(env, way)(
        team(known), jax.random.split(k_reset, episodes), jax.random.split(k_act, episodes)
    )


def actions(
    known: Behaviours, way: Way, obs: Float[Array, "B N O"], seed: int = 0
) -> Float[Array, "B N A"]:
    """What a team plays at joint observations."""
    return _actor(way)(team(known), jax.random.split(jax.random.key(seed), len(obs)), obs)


@functools.lru_cache(maxsize=32)
def _player(env: Environment, way: Way) -> Callable[..., Float[Array, " E"]]:
    """The compiled player of a way: data sets with equally many behaviours share it."""

    def one(of: Team, keys: tuple[Array, Array]) -> Float[Array, ""]:
        def act(
            key: Key[Array, ""], memory: tuple[()], seen: Observation
        ) -> tuple[Array, tuple[()]]:
            return joint(of, way, key, seen.obs), memory

        return episode(env, act, (), *keys)["return"]

    return jax.jit(
        lambda of, resets, acts: jax.lax.map(
            lambda keys: one(of, keys), (resets, acts), batch_size=BATCH
        )
    )


@functools.lru_cache(maxsize=32)
def _actor(way: Way) -> Callable[..., Float[Array, "B N A"]]:
    """The compiled team on rows of observations."""
    return jax.jit(
        lambda of, keys, obs: jax.lax.map(
            lambda row: joint(of, way, *row), (keys, obs), batch_size=BATCH
        )
    )


def joint(of: Team, way: Way, key: Key[Array, ""], obs: Float[Array, "N O"]) -> Float[Array, "N A"]:
    """A team's joint action."""
    means = exact_scores.team_means(of.params, obs[None])[0]
    if way.name == "one":
        return means[0]
    if way.name == "mean":
        return jnp.einsum("k,kna->na", jnp.exp(of.log_shares), means)
    if way.name == "draw":
        return means[jax.random.categorical(key, of.log_shares)]
    log_weights, chosen = of.log_shares, []
    for i in range(means.shape[1]):
        action = rest(means[:, i], log_weights, of.std, way.cfg)
        chosen.append(action)
        if way.name == "conditional":
            log_weights = (
                log_weights - 0.5 * jnp.sum((action - means[:, i]) ** 2, axis=-1) / of.std**2
            )
    return jnp.stack(chosen)


def rest(
    means: Float[Array, "K A"], log_weights: Float[Array, " K"], std: Float[Array, ""], cfg: Any
) -> Float[Array, " A"]:
    """Where the regulariser leaves one agent's action that starts at zero; it stays in [-1, 1].

    Every step is 1 / L down the field, where L is the slope at a single behaviour's mean. A mixture's slope is nowhere
    larger, so that no step overshoots.
    """
    low, high = (
        (score_regularised.DELTA_T,) * 2 if cfg.weighting == "delta" else (cfg.t_min, cfg.t_max)
    )
    t = low + (high - low) * (jnp.arange(TIMES) + 0.5) / TIMES
    alpha, sigma = (f(t) for f in vp())
    w = score_regularised.weight(cfg, t)
    slope = jnp.mean(w * sigma * alpha / (alpha**2 * std**2 + sigma**2))

    half = jax.random.normal(jax.random.key(0), (PAIRS, means.shape[-1]))
    z = jnp.tile(jnp.concatenate([half, -half]), (TIMES, 1))
    times = jnp.repeat(t, 2 * PAIRS)
    drawn = (
        times,
        w.repeat(2 * PAIRS)[:, None],
        alpha.repeat(2 * PAIRS)[:, None],
        sigma.repeat(2 * PAIRS)[:, None],
    )

    def field(action: Float[Array, " A"]) -> Float[Array, " A"]:
        time, weight, scale, level = drawn
        x = scale * action + level * z
        many = (len(time), *means.shape)
        of = (
            jnp.broadcast_to(means, many)[:, :, None],
            jnp.broadcast_to(log_weights, many[:2])[..., None],
        )
        eps = exact_scores.noise(x[:, None], time[:, None], *of, std)[:, 0]
        return jnp.mean(weight * (eps - z), axis=0)

    def move(_: Any, action: Float[Array, " A"]) -> Float[Array, " A"]:
        return jnp.clip(action - field(action) / slope, -1.0, 1.0)

    return jax.lax.fori_loop(0, ITERATIONS, move, jnp.zeros(means.shape[-1]))

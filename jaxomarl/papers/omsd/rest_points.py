"""Teams made of a data set's own behaviours: what a regulariser alone would do.

Nothing is learned.

A regulariser of beta 0 moves an action until E_t,z[w(t) (eps(alpha a + sigma z, t | ..) - z)] = 0.
With exact scores (`stages/exact_scores.py`) that rest point is computed for each agent in turn at
every step, and the team acts by it. Agents are conditioned on one another's observations. So what
is lost to decentralised execution and to learning is not in it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Behaviours, Environment, Observation
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs.rollout import episode
from jaxomarl.stages import exact_scores, score_regularised
from jaxomarl.stages.score_regularised import Config

TIMES = 20
"""Times of the range of t, evenly spaced."""
PAIRS = 8
"""Pairs of opposite z, the same at every time."""
ITERATIONS = 20
"""Steps to a rest point; more change 1 % of the actions by more than 0.1."""
BATCH = 64
"""Episodes or rows side by side: what a processor's cache holds."""


class TeamRule(NamedTuple):
    """How a team acts."""

    name: str
    """The name: one, mean or draw, of behaviours; conditional or marginal, of rest points."""
    cfg: Config | None = None
    """Settings of rest points: `weighting`, `t_min` and `t_max` as OMSD has them."""


class Team(NamedTuple):
    """Behaviours as arrays."""

    params: dict[str, Array]
    log_shares: Float[Array, " K"]
    std: Float[Array, ""]


def team_of(known: Behaviours) -> Team:
    """The arrays of known behaviours."""
    shares = jnp.asarray(known.shares, jnp.float32)
    params = jax.tree.map(jnp.asarray, known.params)
    return Team(params, jnp.log(shares), jnp.asarray(known.std, jnp.float32))


def team_returns(
    env: Environment, known: Behaviours, rule: TeamRule, episodes: int, seed: int
) -> Float[Array, " E"]:
    """Team returns of that many episodes, from starts of the seed that no trained policy has."""
    k_reset, k_act = jax.random.split(jax.random.key(seed))
    resets = jax.random.split(k_reset, episodes)
    acts = jax.random.split(k_act, episodes)
    return _compiled_returns(env, rule)(team_of(known), resets, acts)


def team_actions(
    known: Behaviours, rule: TeamRule, obs: Float[Array, "B N O"], seed: int = 0
) -> Float[Array, "B N A"]:
    """A team's joint actions at joint observations."""
    keys = jax.random.split(jax.random.key(seed), len(obs))
    return _compiled_actions(rule)(team_of(known), keys, obs)


@functools.lru_cache(maxsize=32)
def _compiled_returns(env: Environment, rule: TeamRule) -> Callable[..., Float[Array, " E"]]:
    """The compiled rollout of a rule: data sets with equally many behaviours share it."""

    def returns(team: Team, resets: Key[Array, " E"], acts: Key[Array, " E"]) -> Array:
        def act(
            key: Key[Array, ""], memory: tuple[()], observation: Observation
        ) -> tuple[Array, tuple[()]]:
            return joint_action(team, rule, key, observation.obs), memory

        def one_return(keys: tuple[Array, Array]) -> Float[Array, ""]:
            return episode(env, act, (), *keys)["return"]

        return jax.lax.map(one_return, (resets, acts), batch_size=BATCH)

    return jax.jit(returns)


@functools.lru_cache(maxsize=32)
def _compiled_actions(rule: TeamRule) -> Callable[..., Float[Array, "B N A"]]:
    """The compiled team on rows of observations."""

    def actions(team: Team, keys: Key[Array, " B"], obs: Float[Array, "B N O"]) -> Array:
        def one_action(row: tuple[Array, Array]) -> Float[Array, "N A"]:
            return joint_action(team, rule, *row)

        return jax.lax.map(one_action, (keys, obs), batch_size=BATCH)

    return jax.jit(actions)


def joint_action(
    team: Team, rule: TeamRule, key: Key[Array, ""], obs: Float[Array, "N O"]
) -> Float[Array, "N A"]:
    """A team's joint action."""
    means = exact_scores.team_means(team.params, obs[None])[0]
    if rule.name == "one":
        return means[0]
    if rule.name == "mean":
        return jnp.einsum("k,kna->na", jnp.exp(team.log_shares), means)
    if rule.name == "draw":
        return means[jax.random.categorical(key, team.log_shares)]
    assert rule.cfg is not None
    log_weights = team.log_shares
    chosen = []
    for i in range(means.shape[1]):
        own_means = means[:, i]
        action = rest_point(own_means, log_weights, team.std, rule.cfg)
        chosen.append(action)
        if rule.name == "conditional":
            # the posterior of the behaviour given the preceding actions
            square = jnp.sum((action - own_means) ** 2, axis=-1)
            log_weights = log_weights - 0.5 * square / team.std**2
    return jnp.stack(chosen)


def rest_point(
    means: Float[Array, "K A"],
    log_weights: Float[Array, " K"],
    std: Float[Array, ""],
    cfg: Config,
) -> Float[Array, " A"]:
    """Where the regulariser leaves one agent's action that starts at zero; it stays in [-1, 1].

    Every step is 1 / L down the field, where L is the slope at a single behaviour's mean. A
    mixture's slope is nowhere larger, so that no step overshoots.
    """
    # --- times and weights ---
    low = cfg.t_min
    high = cfg.t_max
    if cfg.weighting == "delta":
        low = high = score_regularised.DELTA_T
    t = low + (high - low) * (jnp.arange(TIMES) + 0.5) / TIMES
    alpha, sigma = (f(t) for f in vp())
    w = score_regularised.weight(cfg, t)
    slope = jnp.mean(w * sigma * alpha / (alpha**2 * std**2 + sigma**2))

    # --- a draw for each time and z, in the last axis ---
    half = jax.random.normal(jax.random.key(0), (PAIRS, means.shape[-1])).T
    z = jnp.tile(jnp.concatenate([half, -half], axis=1), (1, TIMES))
    alpha, sigma, w = (f.repeat(2 * PAIRS) for f in (alpha, sigma, w))
    variance = alpha**2 * std**2 + sigma**2

    # --- descent, with the noise of exact_scores.noise ---
    # sums over behaviours are written out, for a processor is thirty times faster over draws alone
    def field(action: Float[Array, " A"]) -> Float[Array, " A"]:
        x = alpha * action[:, None] + sigma * z
        away = [x - alpha * mean[:, None] for mean in means]
        square = [jnp.sum(d**2, axis=0) for d in away]
        logit = [w_k - 0.5 * s / variance for w_k, s in zip(log_weights, square, strict=True)]
        top = functools.reduce(jnp.maximum, logit)
        share = [jnp.exp(one - top) for one in logit]
        mean_away = sum(p * d for p, d in zip(share, away, strict=True)) / sum(share)
        return jnp.mean(w * (sigma / variance * mean_away - z), axis=-1)

    def step(_: Array, action: Float[Array, " A"]) -> Float[Array, " A"]:
        return jnp.clip(action - field(action) / slope, -1.0, 1.0)

    return jax.lax.fori_loop(0, ITERATIONS, step, jnp.zeros(means.shape[-1]))

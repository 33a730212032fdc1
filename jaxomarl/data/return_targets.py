"""Which return planners ask for at each step of an episode, as a share (data/returns.py).

    constant     target, at every step: what the papers' code does. Late in an episode few rows of the data reach it.
    remaining    y' = (y - r) / gamma after each reward r, y = target at first: what is left of the return asked for
    quantile     the target quantile of the returns that the data get from that step on; 1 is their largest

`remaining` is held within what the data get from that step on, so that a target that cannot be reached does not grow.
Source: MADiff's code (`use_return_to_go`, off in its settings) and Decision Transformer for `remaining`; the box and
`quantile` are ours.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxomarl.base import Dataset, Spec, refuse, team_reward

KINDS = ("constant", "remaining", "quantile")
QUANTILES = 101


class Goals(NamedTuple):
    """What the data get from each step on, and what a reward is worth."""

    table: Float[Array, "T Q N"]  # quantiles of shares, by step and agent
    unit: Float[Array, "2"]  # the return that counts as 0, and how much more counts as 1


def goals(spec: Spec, cfg: Any, data: Dataset) -> Goals | tuple[()]:
    """What `wanted` reads of the prepared data; nothing where the target is constant."""
    if cfg.target_kind == "constant":
        return ()
    step = jnp.where(data.left > 0, jnp.minimum(data.step, spec.horizon - 1), spec.horizon)
    table = quantiles(data.extra["returns"], step, spec.horizon)
    return Goals(table, data.extra["unit"][0])


def quantiles(y: Float[Array, "M N"], step: Int[Array, " M"], steps: int) -> Float[Array, "T Q N"]:
    """Quantiles 0, 0.01, .., 1 of y among the rows of each step below `steps`; a step without rows has those before."""
    count = jnp.bincount(step, length=steps + 1)[:steps]
    first = jnp.cumsum(count) - count
    offset = jnp.linspace(0.0, 1.0, QUANTILES) * jnp.maximum(count - 1, 0)[:, None]
    below = jnp.floor(offset).astype(jnp.int32)
    share = offset - below
    at = first[:, None] + below
    after = jnp.minimum(at + 1, (first + jnp.maximum(count - 1, 0))[:, None])

    def one(y: Float[Array, " M"]) -> Float[Array, "T Q"]:
        in_order = y[jnp.lexsort((y, step))]
        return in_order[at] * (1.0 - share) + in_order[after] * share

    table = jax.vmap(one, in_axes=1, out_axes=-1)(y)
    return table[jax.lax.cummax(jnp.where(count > 0, jnp.arange(steps), 0))]


def first_goal(spec: Spec, cfg: Any) -> Any:
    """What an acting planner remembers of its target before an episode."""
    return jnp.zeros(spec.agents) if cfg.target_kind == "remaining" else ()


def wanted(
    spec: Spec,
    cfg: Any,
    goals: Any,
    step: Int[Array, ""],
    goal: Any,
    reward: Float[Array, " N"] | None,
) -> Float[Array, " N"]:
    """Shares to ask for at a step, after asking for `goal` and receiving `reward` at the step before.

    Raises JaxomarlError where rewards are needed and not given.
    """
    if cfg.target_kind == "constant":
        return jnp.full(spec.agents, cfg.target)
    here = goals.table[jnp.minimum(step, spec.horizon - 1)]
    if cfg.target_kind == "quantile":
        places = jnp.linspace(0.0, 1.0, QUANTILES)
        return jax.vmap(lambda column: jnp.interp(cfg.target, places, column), in_axes=1)(here)
    if reward is None:
        way = "Pass each agent's last reward: policy.act(obs, reward=...), or take another --cfg.target-kind."
        raise refuse(
            "reward", "the reward of the step before (--cfg.target-kind remaining)", reward, way
        )
    low, span = goals.unit
    paid = jnp.full(spec.agents, team_reward(spec.team, reward)) if cfg.reward == "team" else reward
    left = (goal - (paid - (1.0 - cfg.gamma) * low) / span) / cfg.gamma
    return jnp.clip(jnp.where(step == 0, cfg.target, left), here[0], here[-1])

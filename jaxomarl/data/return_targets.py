"""The return that planners ask for at each step of an episode, as a share (data/returns.py).

| kind | return asked for |
|---|---|
| constant | target, at every step, as in the papers' code; late in an episode few rows reach it |
| remaining | target at first, then y' = (y - r) / gamma after each reward r: what is left of it |
| quantile | the target quantile of the returns in the data from that step on; 1 is their largest |

`remaining` is clipped to what the data get from that step on, so that a target that cannot be
reached does not grow. Source: MADiff's code (`use_return_to_go`, off in its settings) and Decision
Transformer for `remaining`; the clipping and `quantile` are ours.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxomarl.base import Dataset, Spec, refuse, team_reward

KINDS = ("constant", "remaining", "quantile")
QUANTILES = 101
"""Number of quantiles of each step's returns."""

Goal = Float[Array, " N"] | Float[np.ndarray, " N"] | tuple[()]
"""The share that each agent asked for at the step before; () where it is not remembered."""


@runtime_checkable
class TargetSettings(Protocol):
    """The fields of a planner's config that say which return is asked for."""

    @property
    def target_kind(self) -> str:
        """One of `KINDS`."""
        ...

    @property
    def target(self) -> float | Float[Array, ""]:
        """The share to ask for, or its quantile."""
        ...

    @property
    def reward(self) -> str:
        """Whose rewards the returns sum: "own" or "team"."""
        ...

    @property
    def gamma(self) -> float:
        """Discount factor of the returns."""
        ...


class Goals(NamedTuple):
    """What the data get from each step on, and how a reward is converted to a share."""

    table: Float[Array, "T Q N"]
    """Quantiles of the shares, by step and agent."""
    unit: Float[Array, "2"]
    """The return that counts as 0, and how much more counts as 1."""


def goals(spec: Spec, cfg: TargetSettings, data: Dataset) -> Goals | tuple[()]:
    """What `wanted` reads of the prepared data; () where the target is constant."""
    if cfg.target_kind == "constant":
        return ()
    step = jnp.where(data.left > 0, jnp.minimum(data.step, spec.horizon - 1), spec.horizon)
    table = quantiles(data.extra["returns"], step, spec.horizon)
    return Goals(table, data.extra["unit"][0])


def quantiles(y: Float[Array, "M N"], step: Int[Array, " M"], steps: int) -> Float[Array, "T Q N"]:
    """Quantiles 0, 0.01, .., 1 of y among the rows of each step below `steps`.

    A step without rows has those of the step before it.
    """
    count = jnp.bincount(step, length=steps + 1)[:steps]
    first = jnp.cumsum(count) - count
    offset = jnp.linspace(0.0, 1.0, QUANTILES) * jnp.maximum(count - 1, 0)[:, None]
    below = jnp.floor(offset).astype(jnp.int32)
    share = offset - below
    lower = first[:, None] + below
    upper = jnp.minimum(lower + 1, (first + jnp.maximum(count - 1, 0))[:, None])

    def of_agent(y: Float[Array, " M"]) -> Float[Array, "T Q"]:
        """Quantiles of one agent's shares, linear between neighbours."""
        in_order = y[jnp.lexsort((y, step))]
        return in_order[lower] * (1.0 - share) + in_order[upper] * share

    table = jax.vmap(of_agent, in_axes=1, out_axes=-1)(y)
    latest_with_rows = jax.lax.cummax(jnp.where(count > 0, jnp.arange(steps), 0))
    return table[latest_with_rows]


def first_goal(spec: Spec, cfg: TargetSettings) -> Goal:
    """What an acting planner remembers of its target before an episode."""
    if cfg.target_kind == "remaining":
        return jnp.zeros(spec.agents)
    return ()


def wanted(
    spec: Spec,
    cfg: TargetSettings,
    goals: Goals | tuple[()],
    step: Int[Array, ""],
    goal: Goal,
    reward: Float[Array, " N"] | None,
) -> Float[Array, " N"]:
    """Shares to ask for at a step, after asking for `goal` and receiving `reward` before it.

    Raises JaxomarlError where rewards are needed and not given.
    """
    if cfg.target_kind == "constant":
        return jnp.full(spec.agents, cfg.target)
    assert isinstance(goals, Goals), "every other kind has goals"
    here = goals.table[jnp.minimum(step, spec.horizon - 1)]
    if cfg.target_kind == "quantile":
        positions = jnp.linspace(0.0, 1.0, QUANTILES)

        def at_target(column: Float[Array, " Q"]) -> Float[Array, ""]:
            return jnp.interp(cfg.target, positions, column)

        return jax.vmap(at_target, in_axes=1)(here)

    if reward is None:
        expected = "the reward of the step before (--cfg.target-kind remaining)"
        way = (
            "Pass each agent's last reward: policy.act(obs, reward=...), "
            "or take another --cfg.target-kind."
        )
        raise refuse("reward", expected, reward, way)
    assert not isinstance(goal, tuple), "a remaining target is remembered"
    low, span = goals.unit
    received = reward
    if cfg.reward == "team":
        received = jnp.full(spec.agents, team_reward(spec.team, reward))
    left = (goal - (received - (1.0 - cfg.gamma) * low) / span) / cfg.gamma
    return jnp.clip(jnp.where(step == 0, cfg.target, left), here[0], here[-1])

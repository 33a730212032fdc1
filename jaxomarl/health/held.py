"""Held-out transitions as figures take them, evenly spaced over the episodes."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import FIGURE_ROWS, Dataset, Health, Past, State, team_reward
from jaxomarl.health.figures import returns_to_go


class Transitions(NamedTuple):
    """Held-out transitions, in the order of their episodes; raw units."""

    row: Int[Array, " K"]
    """Number of the row in the held-out data set."""
    step: Int[Array, " K"]
    """Position in the episode."""
    obs: Float[Array, "K N O"]
    """What each agent saw."""
    state: Float[Array, "K S"]
    """What a centralised critic may see."""
    action: Float[Array, "K N A"]
    """What the data's agents did."""
    available: Bool[Array, "K N A"]
    """Which actions were legal."""
    alive: Float[Array, "K N"]
    """1.0 where an agent still acts."""


def transitions(held: Dataset, most: int = FIGURE_ROWS) -> Transitions:
    """Up to `most` transitions of a held-out data set; how many is known without its numbers."""
    count = min(most, held.starts.shape[0])
    spaced = jnp.arange(count) * held.starts.shape[0] // count
    row = held.starts[spaced]
    block = held.layout.unpack(held.rows[row])
    return Transitions(
        row=row,
        step=held.step[row],
        obs=block["obs"],
        state=block["state"],
        action=block["action"],
        available=_available(held, row),
        alive=_alive(held, row),
    )


class Successors(NamedTuple):
    """The rows that follow held-out transitions."""

    obs: Float[Array, "K N O"]
    state: Float[Array, "K S"]
    known: Float[Array, " K"]
    """0.0 where a row is a copy, since the file had no successor."""


def successors(held: Dataset, rows: Transitions) -> Successors:
    """The row after each transition."""
    after = held.layout.unpack(held.rows[rows.row + 1])
    known = held.layout.unpack(held.rows[rows.row])["known"]
    return Successors(after["obs"], after["state"], known)


def _alive(held: Dataset, row: Int[Array, " K"]) -> Float[Array, "K N"]:
    """1.0 where an agent still acts; ones where the data do not say."""
    if "alive" in held.extra:
        return held.extra["alive"][row].astype(jnp.float32)
    return jnp.ones((len(row), held.layout.agents))


def _available(held: Dataset, row: Int[Array, " K"]) -> Bool[Array, "K N A"]:
    """Which actions an agent may take; all where the data do not say."""
    if "available" in held.extra:
        return held.extra["available"][row] > 0
    return jnp.ones((len(row), held.layout.agents, held.layout.action), bool)


def own_returns(held: Dataset, gamma: float | Float[Array, ""]) -> Float[Array, "M N"]:
    """Discounted return to go of each agent's own reward, at every row."""
    reward = held.layout.unpack(held.rows)["reward"]
    return returns_to_go(reward, held.left, gamma)


def team_returns(held: Dataset, gamma: float | Float[Array, ""]) -> Float[Array, " M"]:
    """Discounted return to go of the team's reward, at every row."""
    reward = held.layout.unpack(held.rows)["reward"]
    return returns_to_go(team_reward(held.layout.team, reward), held.left, gamma)


def joined(first: Health, second: Health) -> Health:
    """The figures and gates of two parts of one stage, whose figures have different names."""

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        return {**first.measure(key, state, past, held), **second.measure(key, state, past, held)}

    raise_fields = tuple(dict.fromkeys((*first.raise_fields, *second.raise_fields)))
    at_end = first.at_end or second.at_end
    return Health(measure, (*first.gates, *second.gates), raise_fields, at_end)

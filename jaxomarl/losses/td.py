"""Rewards and bootstrap factors of critics, and their regression loss."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Batch, Dataset, Window

TIME_LIMITS = ("bootstrap", "terminal")
"""What a time limit is: a cut beyond which critics bootstrap, or a termination."""
REWARDS = ("team", "own", "first")
"""Whose reward a critic learns: the team's, each agent's own, or the first agent's."""


def continuation_factor(batch: Batch | Dataset, time_limit: str) -> Float[Array, " B"]:
    """The factor of gamma V(s') for sampled transitions, or for all rows.

    It is (1 - done) known, times (1 - last) where a time limit counts as a termination.
    """
    factor = (1.0 - batch.done) * batch.known
    if time_limit == "terminal":
        factor = factor * (1.0 - batch.last)
    return factor


def joint_reward(batch: Batch, reward: str) -> Float[Array, " B"]:
    """The reward of a joint critic: the team's, or agent 1's, which the OMSD authors take (A.3)."""
    if reward == "first":
        return batch.reward[:, 0]
    return batch.team_reward


def joint_target(
    batch: Batch,
    next_value: Float[Array, " B"],
    gamma: float | Float[Array, ""],
    reward: str,
    time_limit: str,
) -> Float[Array, " B"]:
    """What a joint critic regresses to: r + gamma V(s') where the episode continues, else r."""
    r = joint_reward(batch, reward)
    return r + gamma * continuation_factor(batch, time_limit) * next_value


def window_target(
    window: Window,
    next_value: Float[Array, "B H N"],
    gamma: float | Float[Array, ""],
    reward: str,
    time_limit: str,
) -> Float[Array, "B H N"]:
    """What agents' critics regress to in the transitions of a window, as in `joint_target`."""
    r = window.reward if reward == "own" else window.team_reward[..., None]
    ends = window.done
    if time_limit == "terminal":
        ends = jnp.maximum(window.done, window.last)
    return r[:, :-1] + gamma * (1.0 - ends[:, :-1, None]) * next_value


def agents_reward(batch: Batch, reward: str) -> Float[Array, "B N"]:
    """The rewards of the agents' own critics: "own", or the "team"'s for every agent."""
    if reward == "own":
        return batch.reward
    return jnp.broadcast_to(batch.team_reward[:, None], batch.reward.shape)


def ensemble_loss(q: Float[Array, "E B"], y: Float[Array, " B"]) -> Float[Array, ""]:
    """Sum over members of mean_batch (Q^k - y)^2."""
    return jnp.sum(jnp.mean((q - y) ** 2, axis=-1))

"""What is bootstrapped, and what a team is paid."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Batch, Dataset

TIME_LIMITS = ("bootstrap", "terminal")
REWARDS = ("team", "own", "first")


def continues(batch: Batch | Dataset, time_limit: str) -> Float[Array, " B"]:
    """The factor of gamma V(s'), of drawn transitions or of all rows.

    (1 - done) known, and times (1 - last) where a time limit is taken for a termination (design: time limits).
    """
    factor = (1.0 - batch.done) * batch.known
    return factor * (1.0 - batch.last) if time_limit == "terminal" else factor


def joint_reward(batch: Batch, reward: str) -> Float[Array, " B"]:
    """The reward of a joint critic: the team's, or agent 1's as the OMSD authors take it (A.3)."""
    return batch.reward[:, 0] if reward == "first" else batch.team_reward


def agents_reward(batch: Batch, reward: str) -> Float[Array, "B N"]:
    """The rewards of critics of each agent's own: "own", or the "team"'s for every agent."""
    return (
        batch.reward
        if reward == "own"
        else jnp.broadcast_to(batch.team_reward[:, None], batch.reward.shape)
    )


def ensemble_loss(q: Float[Array, "E B"], y: Float[Array, " B"]) -> Float[Array, ""]:
    """Sum over members of mean_batch (Q^k - y)^2."""
    return jnp.sum(jnp.mean((q - y) ** 2, axis=-1))

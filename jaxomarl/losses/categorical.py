"""Categorical policies and values over the legal actions of one-hot rows.

Logits and values of illegal actions count as ILLEGAL. That is far enough below all others that the
probability of an illegal action is exactly zero in float32, and finite, so that no gradient is NaN.
Where no action is legal, which is so in rows that never count, the policy is uniform.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

ILLEGAL = -1e9
"""The logit of an action that is not legal."""

Legal = Float[Array, "..."] | Bool[Array, "..."]
"""1.0, or True, where an action is legal."""


def masked(value: Float[Array, "*B A"], legal: Legal) -> Float[Array, "*B A"]:
    """The values, or logits, with ILLEGAL where an action is not legal."""
    return jnp.where(legal > 0, value, ILLEGAL)


def log_policy(logits: Float[Array, "*B A"], legal: Legal) -> Float[Array, "*B A"]:
    """The log-probability of every action; of illegal ones about ILLEGAL."""
    return jax.nn.log_softmax(masked(logits, legal), axis=-1)


def cross_entropy(
    logits: Float[Array, "*B A"], action: Float[Array, "*B A"], legal: Legal
) -> Float[Array, "*B"]:
    """-log pi(action), where pi is over the legal actions; an action in the data counts as one."""
    # imported here: it takes two seconds, and only discrete tasks need it
    import distrax

    possible = (legal > 0) | (action > 0)
    policy = distrax.OneHotCategorical(logits=masked(logits, possible))
    log_p: Any = policy.log_prob(action)
    return -log_p


def taken(value: Float[Array, "*b A"], action: Float[Array, "*B A"]) -> Float[Array, "*B"]:
    """The value of one-hot actions, which may lead with more axes."""
    return jnp.sum(value * action, axis=-1)


def greedy(value: Float[Array, "*B A"], legal: Legal) -> Float[Array, "*B A"]:
    """The legal action of largest value, one-hot; the first of equal ones."""
    best = jnp.argmax(masked(value, legal), axis=-1)
    return jax.nn.one_hot(best, value.shape[-1])


def soft_maximum(value: Float[Array, "*B A"], legal: Legal) -> Float[Array, "*B"]:
    """log of the sum of exp(value) over the legal actions."""
    return logsumexp(masked(value, legal), axis=-1)


def divergences(
    logits: Float[Array, "B A"], target: Float[Array, "B A"], legal: Legal
) -> Float[Array, " B"]:
    """sum_a pi(a) (log pi(a) - target(a)) of each row, over the legal actions.

    With a log-probability as target it is the Kullback-Leibler divergence from it.
    """
    log_pi = log_policy(logits, legal)
    gap = jnp.where(legal > 0, log_pi - target, 0.0)
    return jnp.sum(jnp.exp(log_pi) * gap, axis=-1)

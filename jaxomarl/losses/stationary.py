"""One agent's correction of the team's stationary distribution, the others' policies fixed.

Lines 5 to 10 of AlberDICE (algorithms/alberdice.py), for the rows of a batch:

    k    = E_{a_-i ~ pi_-i} log [ pi_-i(a_-i) / H_i(a_-i | s, a_i) ]
    rho  = min(pi_-i(a_-i) / H_i(a_-i | s, a_i), 100),  p = rho / sum rho
    e    = r - alpha k + gamma (1 - d) nu(s') - nu(s)
    L_nu = alpha log [ m sum p exp(e / alpha) + 1 - m ] + (1 - gamma) mean nu(s)
    L_e  = sum p [ (e_i(s, a_i) - e)^2
                   + penalty (log sum_a exp e_i(s, a) - sum_a G_i(a) e_i(s, a)) ]
    L_pi = sum p [ alpha KL(pi_i || G_i) - sum_a pi_i(a) e_i(s, a) ]

A team whose episode ended stays in a state without reward, of value 0. In a process that restarts
from the batch's states at rate 1 - gamma, 1 - m is the share of that state, with
m = (1 - gamma) / (1 - gamma + gamma sum p d).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxomarl.losses.categorical import divergences, soft_maximum, taken

MOST = 100.0
"""Largest ratio rho."""

Apply = Callable[..., Array]
"""(params, inputs) -> outputs of a network."""


class Rows(NamedTuple):
    """What an agent learns from: a row for each transition."""

    alpha: Float[Array, ""]
    gamma: Any
    s: Float[Array, "B S"]
    next_s: Float[Array, "B S"]
    go_on: Float[Array, " B"]
    reward: Float[Array, " B"]
    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    legal: Float[Array, "B A"]
    alive: Float[Array, " B"]
    cloned: Float[Array, "B A"]
    """log G_i of every action."""
    k: Float[Array, " B"]
    log_p: Float[Array, " B"]


def row_weights(
    log_pi: Float[Array, "B N A"],
    i: Any,
    action: Float[Array, "B N A"],
    team: tuple[Array, Array],
    log_h: Callable[[Array], Array],
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """(k, log p), without gradients.

    `team` is what `kl_regularised.others_actions` returns, and `log_h` maps joint actions to the
    others' log-probabilities.
    """
    is_other = jnp.arange(action.shape[1]) != i
    joint, weight = team
    joint = jnp.where(is_other[:, None], joint, action)
    gap = lambda joint: jnp.sum(is_other * taken(log_pi - log_h(joint), joint), axis=-1)
    # a joint action of no weight may be an illegal one, whose logarithm has no meaning
    k = jnp.sum(jnp.where(weight > 0, weight * gap(joint), 0.0), axis=0)
    log_rho = jnp.minimum(gap(action), jnp.log(MOST))
    return jax.lax.stop_gradient((k, jax.nn.log_softmax(log_rho)))


def residual(nu: Apply, rows: Rows, params: Any) -> Float[Array, " B"]:
    """e."""
    ahead = rows.gamma * rows.go_on * nu(params, rows.next_s)[..., 0]
    return rows.reward - rows.alpha * rows.k + ahead - nu(params, rows.s)[..., 0]


def nu_loss(nu: Apply, rows: Rows, params: Any) -> Float[Array, ""]:
    """L_nu."""
    ended = jnp.sum(jnp.exp(rows.log_p) * (1.0 - rows.go_on))
    m = (1.0 - rows.gamma) / jnp.maximum(1.0 - rows.gamma + rows.gamma * ended, 1e-8)
    live = jnp.log(m) + logsumexp(residual(nu, rows, params) / rows.alpha + rows.log_p)
    soft = rows.alpha * jnp.logaddexp(live, jnp.log1p(-m))
    return soft + (1.0 - rows.gamma) * nu(params, rows.s).mean()


def e_loss(
    net: Apply, rows: Rows, target: Float[Array, " B"], penalty: Any, params: Any
) -> Float[Array, ""]:
    """L_e, where `target` is e."""
    own = net(params, rows.s)
    error = taken(own, rows.action) - target
    # probabilities of illegal actions are zero
    expected = taken(own, jnp.exp(rows.cloned))
    gap = soft_maximum(own, rows.legal) - expected
    return jnp.sum(jnp.exp(rows.log_p) * (error**2 + penalty * gap))


def pi_loss(pi: Apply, rows: Rows, advantage: Float[Array, "B A"], params: Any) -> Float[Array, ""]:
    """L_pi, where `advantage` is e_i of every action. Rows of dead agents do not count."""
    followed = rows.cloned + advantage / rows.alpha
    gap = divergences(pi(params, rows.obs), followed, rows.legal)
    return rows.alpha * jnp.sum(jnp.exp(rows.log_p) * rows.alive * gap)

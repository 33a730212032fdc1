"""The conservative term of CQL (Kumar et al. 2020), with weights that make its sum an integral.

    log (1/M) sum_m exp(Q(o, a_m) - log p_m(a_m)) - Q(o, a_data),      a_m ~ p_m

It estimates log integral exp Q - Q(data) over the box [-1, 1]^d. Every proposal density p_m lies on
the box and is divided out, so one sum may hold samples of several densities. OMAR's code leaves
out the 1/M, a constant.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp, ndtr, ndtri
from jaxtyping import Array, Float

LOG_ROOT_TWO_PI = 0.9189385332046727
"""log sqrt(2 pi)."""


class Proposals(NamedTuple):
    """Sampled actions and the log density of each over its real columns.

    Actions are zero in padded columns.
    """

    action: Float[Array, "M *B A"]
    log_p: Float[Array, "M *B"]


def uniform_proposals(u: Float[Array, "M *B A"], mask: Float[Array, " A"]) -> Proposals:
    """Actions uniform on the box, from u in [0, 1): p = 2^-d."""
    action = mask * (2.0 * u - 1.0)
    log_p = jnp.full(u.shape[:-1], -jnp.log(2.0) * mask.sum())
    return Proposals(action, log_p)


def normal_proposals(
    centre: Float[Array, "*B A"],
    u: Float[Array, "M *B A"],
    std: float | Float[Array, ""],
    mask: Float[Array, " A"],
) -> Proposals:
    """Actions from N(centre, std^2) truncated to the box, from u in [0, 1).

    `centre` lies in the box. A normal that is clipped to the box has no density at its edges.
    Released codes divide by the density of the noise before the clip: their sum estimates an
    integral over all of space, which does not exist.
    """
    # no library: distrax has no truncated normal
    low = ndtr((-1.0 - centre) / std)
    high = ndtr((1.0 - centre) / std)
    action = jnp.clip(centre + std * ndtri(low + u * (high - low)), -1.0, 1.0)
    z = (action - centre) / std
    log_p = -0.5 * z**2 - jnp.log(std) - LOG_ROOT_TWO_PI - jnp.log(high - low)
    return Proposals(mask * action, jnp.sum(mask * log_p, axis=-1))


def joined_proposals(*groups: Proposals) -> Proposals:
    """The proposals of several groups of equal size, for one sum over all of them."""
    return Proposals(*(jnp.concatenate(blocks) for blocks in zip(*groups, strict=True)))


def conservative(
    q: Float[Array, "*E M B"], log_p: Float[Array, "M B"], q_data: Float[Array, "*E B"]
) -> Float[Array, "*E B"]:
    """The term at the head of this file.

    Its gradient lowers Q at the samples and raises it at the data.
    """
    summed = logsumexp(q - jax.lax.stop_gradient(log_p), axis=-2)
    return summed - jnp.log(q.shape[-2]) - q_data


def replaced(
    action: Float[Array, "*B N A"], i: int | Array, own: Float[Array, "*M A"]
) -> Float[Array, "*M N A"]:
    """The joint action with agent i's action set to `own`, which may have more leading axes."""
    is_agent_i = (jnp.arange(action.shape[-2]) == i)[:, None]
    return jnp.where(is_agent_i, own[..., None, :], action)

"""Flow policies: an action by K steps along a velocity, and policies of one network call.

    g(o, z)    the end of K Euler steps of a velocity v(x, t, o) from the noise z
    f(o, z)    a student of such a g: one call
    z - u(z, 0, 1, o)   a jump by a mean velocity u(x, r, t, o): one call

Each is a map from a given noise z to an action. So a student can be told what its teacher makes of
the same z. Actions are clipped to the box once, at the end: to clip each step's clean sample, as
diffusion policies do, would be another map.

The functions take one agent's rows [..., A], or a team's [..., N, A] with a network of the team.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Spec
from jaxomarl.diffusion import flows
from jaxomarl.networks.agents import DENOISER, joint_denoiser, separate
from jaxomarl.networks.denoisers import plain_mlp, two_time_mlp
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.optim import Params

MEAN_VELOCITY = (-2, None, None, -2)
"""The agents' axis in each input of a mean velocity."""
SAME, FULL = 0.5, 0.1
"""Shares of rows at which a mean velocity is trained at r = t, and at (0, 1), where it acts."""


class Flow(NamedTuple):
    """A flow policy without its parameters."""

    net: Network
    """(params, x [..., A], t, obs [..., O]) -> velocity [..., A]."""
    steps: int
    """K: Euler steps of an action."""


# --- networks ---


def hidden_widths(width: int) -> Sequence[int]:
    """Three hidden layers, as the noise networks of diffusion policies have."""
    return (width,) * 3


def team_velocity(spec: Spec, width: int, model: str) -> Network:
    """The velocity of a team: "separate" networks of each agent's rows, or one of all, "joint"."""
    n = spec.agents
    if model == "joint":
        sizes = (n * spec.act_width, n * spec.obs_width)
        return joint_denoiser(plain_mlp(*sizes, hidden_widths(width)))
    return separate(agent_velocity(spec, width), n, DENOISER)


def agent_velocity(spec: Spec, width: int) -> Network:
    """One agent's velocity, as `team_velocity` has for each agent."""
    return plain_mlp(spec.act_width, spec.obs_width, hidden_widths(width))


def team_mean_velocity(spec: Spec, width: int, model: str) -> Network:
    """The mean velocity of a team (params, x, r, t, obs), by separate networks or a joint one."""
    n = spec.agents
    if model == "joint":
        sizes = (n * spec.act_width, n * spec.obs_width)
        return joint_denoiser(two_time_mlp(*sizes, hidden_widths(width)))
    return separate(agent_mean_velocity(spec, width), n, MEAN_VELOCITY)


def agent_mean_velocity(spec: Spec, width: int) -> Network:
    """One agent's mean velocity."""
    return two_time_mlp(spec.act_width, spec.obs_width, hidden_widths(width))


def student_network(actions: int, noise: int, cond: int, width: int) -> Network:
    """f: (params, z [..., Z], obs [..., O]) -> action [..., A], not clipped."""
    net = mlp(noise + cond, hidden_widths(width), actions, mish)

    def apply(params, z, obs):
        return net.apply(params, jnp.concatenate([z, obs], axis=-1))

    return Network(net.init, apply)


# --- actions ---


def masked_noise(
    key: Key[Array, ""], mask: Float[Array, "*N A"], batch: tuple[int, ...] = ()
) -> Float[Array, "*B A"]:
    """Noise z ~ N(0, I) for a batch of rows, zero in padded columns."""
    return mask * jax.random.normal(key, (*batch, *mask.shape))


def in_box(action: Float[Array, "*B A"], mask: Float[Array, "*N A"]) -> Float[Array, "*B A"]:
    """The action that is played: clipped to the box, zero in padded columns."""
    return mask * jnp.clip(action, -1.0, 1.0)


def flow_end(
    flow: Flow,
    params: Params,
    z: Float[Array, "*B A"],
    obs: Float[Array, "*B O"],
    mask: Float[Array, "*N A"],
) -> Float[Array, "*B A"]:
    """g(o, z): what K Euler steps make of the noise z, clipped to the box at the end."""

    def velocity(x, t):
        return flow.net.apply(params, x, t, obs)

    return in_box(flows.euler(velocity, z, flow.steps, mask), mask)


def jump_end(
    net: Network,
    params: Params,
    z: Float[Array, "*B A"],
    obs: Float[Array, "*B O"],
    mask: Float[Array, "*N A"],
) -> Float[Array, "*B A"]:
    """z - u(z, 0, 1, o): one call of a mean velocity, not clipped, zero in padded columns."""

    def mean_velocity(x, r, t):
        return net.apply(params, x, r, t, obs)

    return mask * flows.jump(mean_velocity)(z * mask, jnp.ones(()))


def shared_noise(z: Float[Array, "*B N A"]) -> Float[Array, "*B N Z"]:
    """The noise of the whole team, given to each of its agents."""
    whole = flat(z)[..., None, :]
    return jnp.broadcast_to(whole, (*z.shape[:-1], whole.shape[-1]))


# --- losses ---


def flow_loss(
    key: Key[Array, ""],
    net: Network,
    params: Params,
    action: Float[Array, "B *N A"],
    obs: Float[Array, "B *N O"],
    mask: Float[Array, "*N A"],
) -> Float[Array, ""]:
    """Flow matching on a batch, per real column; a team's agents share the time of a row.

    t ~ U(0, 1). The least value is not zero: it is pi s / 2 for actions N(m, s^2).
    """
    k_t, k_z = jax.random.split(key)
    t = jax.random.uniform(k_t, action.shape[:1])
    z = masked_noise(k_z, mask, action.shape[:1])

    def velocity(x, t):
        return net.apply(params, x, t, obs)

    return flows.flow_loss(velocity, action, t, z, mask) / mask.sum()


def mean_flow_loss(
    key: Key[Array, ""],
    net: Network,
    params: Params,
    action: Float[Array, "B *N A"],
    obs: Float[Array, "B *N O"],
    mask: Float[Array, "*N A"],
) -> Float[Array, ""]:
    """The loss of a mean velocity on a batch, per real column, at `ordered_times`."""
    k_t, k_z = jax.random.split(key)
    r, t = ordered_times(k_t, len(action))
    z = masked_noise(k_z, mask, action.shape[:1])

    def mean_velocity(x, r, t):
        return net.apply(params, x, r, t, obs)

    return flows.mean_flow_loss(mean_velocity, action, r, t, z, mask) / mask.sum()


def ordered_times(key: Key[Array, ""], rows: int) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Times r <= t, both U(0, 1) and sorted; r = t in half of the rows, (0, 1) in a tenth.

    The former learn the velocity, on which the others build; the latter is where policies act.
    Geng et al. have r = t in 75 % and no row at (0, 1) by design.
    """
    k_pair, k_kind = jax.random.split(key)
    pair = jax.random.uniform(k_pair, (2, rows))
    kind = jax.random.uniform(k_kind, (rows,))
    t = pair.max(axis=0)
    r = jnp.where(kind < SAME, t, pair.min(axis=0))
    full = kind > 1.0 - FULL
    return jnp.where(full, 0.0, r), jnp.where(full, 1.0, t)

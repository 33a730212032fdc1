"""Networks of all agents, built from one agent's network.

There is a copy for each agent, one network that gets the agent's one-hot, or one network of all
agents' rows side by side.

plain       (params, *inputs [..., N, I]) -> [..., N, O]
denoiser    (params, x [..., N, A], t, obs [..., N, O]) -> noise [..., N, A]
plans       (params, x [..., N, W, D], t, told [..., N, 2]) -> [..., N, W, D]

`told` is the condition of a plan: [return, 1.0 where the return is dropped].
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network

DENOISER = (-2, None, -2)
"""The agents' axis in each input of a denoiser."""
PLANS = (-3, None, -2)
"""The agents' axis in each input of a plan network."""


def separate(
    net: Network, agents: int, axes: Sequence[int | None] | None = None, out: int = -2
) -> Network:
    """N independent copies, whose params lead with N.

    `axes` are the agents' axes of the inputs, -2 for all where nothing is given. None is the axis
    of an input that all copies share. `out` is the agents' axis of the output.
    """

    def init(key):
        return jax.vmap(net.init)(jax.random.split(key, agents))

    def apply(params, *inputs):
        input_axes = axes or [-2] * len(inputs)
        each = jax.vmap(net.apply, in_axes=(0, *input_axes), out_axes=out)
        return each(params, *inputs)

    return Network(init, apply)


def with_agent_number(x: Float[Array, "*B N I"], agents: int) -> Float[Array, "*B N J"]:
    """Append each agent's one-hot to its input."""
    who = jnp.broadcast_to(jnp.eye(agents), (*x.shape[:-1], agents))
    return jnp.concatenate([x, who], axis=-1)


def shared(make: Callable[[int], Network], inputs: int, agents: int) -> Network:
    """One parameter set for all agents, which get their one-hots appended to the first input.

    `make(width)` builds the network for a first input of that width.
    """
    net = make(inputs + agents)

    def apply(params, first: Float[Array, "*B N I"], *others):
        return net.apply(params, with_agent_number(first, agents), *others)

    return Network(net.init, apply)


# --- denoisers ---


def shared_denoiser(make: Callable[[int], Network], width: int, agents: int) -> Network:
    """One network for the rows of all agents, which get their one-hots appended to observations.

    `make(width)` builds the network for observations of that width.
    """
    net = pooled_denoiser(make(width + agents))

    def apply(params, x, t, obs):
        return net.apply(params, x, t, with_agent_number(obs, agents))

    return Network(net.init, apply)


def pooled_denoiser(net: Network) -> Network:
    """One network for the rows of all agents, without their one-hots."""

    def apply(params, x, t, obs):
        times = t[..., None] if t.ndim else t
        return net.apply(params, x, times, obs)

    return Network(net.init, apply)


def joint_denoiser(net: Network) -> Network:
    """One network of all agents' rows side by side.

    It takes one time between x and obs, or as many as `net` takes.
    """

    def apply(params, x, *times_and_obs):
        *times, obs = times_and_obs
        return net.apply(params, flat(x), *times, flat(obs)).reshape(x.shape)

    return Network(net.init, apply)


# --- plans ---


def shared_plans(make: Callable[[int], Network], width: int, agents: int) -> Network:
    """One network for every agent's plan, with the agent's one-hot in `agents` further channels.

    `make(width)` builds the network for plans of that width.
    """
    net = make(width + agents)

    def apply(params, x: Float[Array, "*B N W D"], t, told):
        who = jnp.broadcast_to(jnp.eye(agents)[:, None], (*x.shape[:-1], agents))
        out = net.apply(params, jnp.concatenate([x, who], axis=-1), t, told)
        return out[..., :width]

    return Network(net.init, apply)


def joint_plans(net: Network) -> Network:
    """One network of all plans side by side; its condition is the first agent's return."""

    def apply(params, x: Float[Array, "*B N W D"], t, told):
        rows = jnp.moveaxis(x, -3, -2)
        joint = rows.reshape(*rows.shape[:-2], -1)
        out = net.apply(params, joint, t, told[..., 0, :])
        return jnp.moveaxis(out.reshape(rows.shape), -2, -3)

    return Network(net.init, apply)

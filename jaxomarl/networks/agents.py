"""Networks of all agents, made of one agent's: a copy for each, one that is told who it is, or one of all rows joined.

plain       (params, *inputs [..., N, I]) -> [..., N, O]
denoiser    (params, x [..., N, A], t, obs [..., N, O]) -> noise [..., N, A]
plans       (params, x [..., N, W, D], t, told [..., N, 2]) -> [..., N, W, D]; told is [return, 1.0 if dropped]
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network

DENOISER = (-2, None, -2)
"""Agents' axes of a denoiser's inputs."""
PLANS = (-3, None, -2)
"""Agents' axes of a plan network's inputs."""


def separate(
    net: Network, agents: int, axes: Sequence[int | None] | None = None, out: int = -2
) -> Network:
    """N independent copies, whose params lead with N.

    `axes` are the agents' axes of the inputs (None: all copies get the same), where they are not -2 throughout.
    """

    def apply(params, *inputs):
        return jax.vmap(net.apply, in_axes=(0, *(axes or [-2] * len(inputs))), out_axes=out)(
            params, *inputs
        )

    return Network(lambda key: jax.vmap(net.init)(jax.random.split(key, agents)), apply)


def identified(x: Float[Array, "*B N I"], agents: int) -> Float[Array, "*B N J"]:
    """Append each agent's one-hot to its input."""
    return jnp.concatenate([x, jnp.broadcast_to(jnp.eye(agents), (*x.shape[:-1], agents))], axis=-1)


def shared(make: Callable[[int], Network], inputs: int, agents: int) -> Network:
    """One parameter set for all agents; `make(width)` gets room for the agent's one-hot after the first input."""
    net = make(inputs + agents)

    def apply(params, first: Float[Array, "*B N I"], *others):
        return net.apply(params, identified(first, agents), *others)

    return Network(net.init, apply)


# --- denoisers ---


def shared_denoiser(make: Callable[[int], Network], width: int, agents: int) -> Network:
    """One network for every row, told whose it is next to its observation: `make(width)` takes ones that wide."""
    net = pooled_denoiser(make(width + agents))
    return Network(
        net.init, lambda params, x, t, obs: net.apply(params, x, t, identified(obs, agents))
    )


def pooled_denoiser(net: Network) -> Network:
    """One network for every row, which is not told whose it is."""
    return Network(
        net.init, lambda params, x, t, obs: net.apply(params, x, t[..., None] if t.ndim else t, obs)
    )


def joint_denoiser(net: Network) -> Network:
    """One network of all rows side by side."""
    return Network(
        net.init,
        lambda params, x, t, obs: net.apply(params, flat(x), t, flat(obs)).reshape(x.shape),
    )


# --- plans ---


def shared_plans(make: Callable[[int], Network], width: int, agents: int) -> Network:
    """One network for every agent's plan, told whose it is by `agents` channels more than the plan's `width`."""
    net = make(width + agents)

    def apply(params, x: Float[Array, "*B N W D"], t, told):
        who = jnp.broadcast_to(jnp.eye(agents)[:, None], (*x.shape[:-1], agents))
        return net.apply(params, jnp.concatenate([x, who], axis=-1), t, told)[..., :width]

    return Network(net.init, apply)


def joint_plans(net: Network) -> Network:
    """One network of all plans side by side; it is told the first agent's return."""

    def apply(params, x: Float[Array, "*B N W D"], t, told):
        rows = jnp.moveaxis(x, -3, -2)
        out = net.apply(params, rows.reshape(*rows.shape[:-2], -1), t, told[..., 0, :])
        return jnp.moveaxis(out.reshape(rows.shape), -2, -3)

    return Network(net.init, apply)

"""One network per agent, or one network that is told who it is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.networks.mlp import Network


def separate(net: Network, agents: int) -> Network:
    """N independent copies: params lead with N, and each input's axis -2 is the agents' axis."""

    def apply(params, *inputs):
        return jax.vmap(net.apply, in_axes=(0, *(-2 for _ in inputs)), out_axes=-2)(params, *inputs)

    return Network(lambda key: jax.vmap(net.init)(jax.random.split(key, agents)), apply)


def shared(make: Callable[[int], Network], inputs: int, agents: int) -> Network:
    """One parameter set for all agents; `make(width)` gets room for the agent's one-hot after the first input."""
    net = make(inputs + agents)

    def apply(params, first: Float[Array, "*B N I"], *others):
        return net.apply(params, identified(first, agents), *others)

    return Network(net.init, apply)


def identified(x: Float[Array, "*B N I"], agents: int) -> Float[Array, "*B N J"]:
    """Append each agent's one-hot to its input."""
    return jnp.concatenate([x, jnp.broadcast_to(jnp.eye(agents), (*x.shape[:-1], agents))], axis=-1)

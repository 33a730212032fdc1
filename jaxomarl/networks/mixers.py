"""Mixers: they combine the values of the agents to the value of the team."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.networks.mlp import Network, mlp


def linear_mixer(state: int, width: int, agents: int) -> Network:
    """[..., S] -> [..., N + 1]: a weight of at least zero for each agent, then an offset.

    It has one hidden layer.
    """
    net = mlp(state, (width,), agents + 1)

    def apply(params, s):
        out = net.apply(params, s)
        return jnp.concatenate([jnp.abs(out[..., :-1]), out[..., -1:]], axis=-1)

    return Network(net.init, apply)


def monotonic_mixer(state: int, agents: int, width: int, hyper: int) -> Network:
    """(params, state [..., S], value [..., N]) -> [...]: QMIX's mixer, which grows in each value.

        h = elu(q |W_1(s)| + b_1(s)),    Q_tot = h |W_2(s)| + b_2(s)

    with `width` hidden units and hyper-networks of one hidden layer of `hyper` units. Values may
    lead with more axes than the state, whose weights are computed once.
    Source: Rashid et al. 2018 (QMIX), figure 2.
    """
    nets = {
        "w1": mlp(state, (hyper,), agents * width),
        "b1": mlp(state, (), width),
        "w2": mlp(state, (hyper,), width),
        "b2": mlp(state, (width,), 1),
    }

    def init(key):
        keys = jax.random.split(key, len(nets))
        return {name: net.init(k) for (name, net), k in zip(nets.items(), keys, strict=True)}

    def apply(params, s, value):
        first = jnp.abs(nets["w1"].apply(params["w1"], s))
        first = first.reshape(*s.shape[:-1], agents, width)
        h = jnp.einsum("...n,...ne->...e", value, first) + nets["b1"].apply(params["b1"], s)
        second = jnp.abs(nets["w2"].apply(params["w2"], s))
        offset = nets["b2"].apply(params["b2"], s)[..., 0]
        return jnp.sum(jax.nn.elu(h) * second, axis=-1) + offset

    return Network(init, apply)


def mixed(weights: Float[Array, "*B M"], value: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """sum_i w_i value_i + b, with w and b from `linear_mixer`."""
    return jnp.sum(weights[..., :-1] * value, axis=-1) + weights[..., -1]

"""Noise-prediction networks and a mixture density, both conditional."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.networks.mlp import Network, dense, mlp, network

# N(0, 30^2) frequencies, drawn once for every network: constants, out of the optimiser's reach
FREQUENCIES = 30.0 * np.random.default_rng(20240).standard_normal(32).astype(np.float32)


def fourier(t: Float[Array, "*B"], frequencies: int) -> Float[Array, "*B F"]:
    """[sin 2 pi t W, cos 2 pi t W]: twice `frequencies` features of the diffusion time."""
    angles = 2.0 * math.pi * t[..., None] * FREQUENCIES[:frequencies]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ResidualMLP(nn.Module):
    """eps(x, t | cond): OMSD's noise network (its Table 5).

    Time: 16 Fourier frequencies -> 64 -> ReLU -> 64 (`embedding`). Input: [x, cond] -> 32, linear. Then -> width,
    `blocks` times h + Dense(width)(ReLU(Dense(4 width)(LayerNorm(Dropout(h))))), ReLU -> out.
    """

    out: int
    width: int = 512
    blocks: int = 2
    dropout: float = 0.1
    embedding: int = 64

    @nn.compact
    def __call__(self, x, t, cond, train: bool = False):
        """X [..., D], t [...], cond [..., C] -> eps [..., D]; `train` wants an rng named dropout."""
        time = dense(nn.relu(dense(fourier(t, 16), self.embedding)), self.embedding)
        entry = dense(jnp.concatenate([x, cond], axis=-1), 32)
        h = dense(
            jnp.concatenate([entry, jnp.broadcast_to(time, (*entry.shape[:-1], self.embedding))], axis=-1), self.width
        )
        for _ in range(self.blocks):
            kept = nn.Dropout(self.dropout, deterministic=not train)(h)
            h = h + dense(nn.relu(dense(nn.LayerNorm()(kept), 4 * self.width)), self.width)
        return dense(nn.relu(h), self.out, name="out")


def residual_mlp(actions: int, cond: int, width: int, blocks: int, dropout: float, embedding: int) -> Network:
    """`apply(params, x, t, cond, dropout=key)`; without a key the network is in evaluation mode."""
    net = network(ResidualMLP(actions, width, blocks, dropout, embedding), actions, 0, cond)

    def apply(params, x, t, cond, dropout=None):
        if dropout is None:
            return net.apply(params, x, t, cond)
        return net.apply(params, x, t, cond, train=True, rngs={"dropout": dropout})

    return Network(net.init, apply)


def mixture(cond: int, hidden: Sequence[int], actions: int, components: int) -> Network:
    """Log-density of a conditional diagonal Gaussian mixture: `apply(params, x, cond, mask) -> [...]`.

    std = softplus + 1e-4; columns with mask 0 add nothing. Source: the OMSD repository's mixture-density variant.
    """
    net = mlp(cond, hidden, components * (1 + 2 * actions))

    def apply(params, x, cond, mask):
        raw = net.apply(params, cond)
        shape = (*raw.shape[:-1], components, actions)
        logits, mean, scale = jnp.split(raw, [components, components * (1 + actions)], axis=-1)
        std = jax.nn.softplus(scale.reshape(shape)) + 1e-4
        u = (x[..., None, :] - mean.reshape(shape)) / std
        log_normal = -0.5 * u**2 - jnp.log(std) - 0.5 * math.log(2.0 * math.pi)
        parts = jnp.sum(mask[..., None, :] * log_normal, axis=-1)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) + parts, axis=-1)

    return Network(net.init, apply)

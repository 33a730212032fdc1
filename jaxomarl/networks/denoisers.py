"""Noise-prediction networks and a mixture density, both conditional."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.networks.mlp import Network, dense, layer_norm, mish, mlp, network

# N(0, 30^2) frequencies, drawn once for every network: constants, out of the optimiser's reach
FREQUENCIES = 30.0 * np.random.default_rng(20240).standard_normal(32).astype(np.float32)


def fourier(t: Float[Array, "*B"], frequencies: int) -> Float[Array, "*B F"]:
    """[sin 2 pi t W, cos 2 pi t W]: twice `frequencies` features of the diffusion time."""
    angles = 2.0 * math.pi * t[..., None] * FREQUENCIES[:frequencies]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def slow(t: Float[Array, "*B"]) -> Float[Array, "*B 12"]:
    """[sin pi k t, cos pi k t], k = 1, 2, 4, .., 32: sinusoids that few updates learn to read.

    Nearer to the sinusoidal embeddings of Diffusion-QL than `fourier`, which turns 30 times and more over [0, 1] and
    lets a network learn each noise level apart. Networks 16 wide learn faster from that, wider ones on the particle
    tasks from these.
    """
    angles = math.pi * t[..., None] * 2.0 ** jnp.arange(6)
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
            jnp.concatenate(
                [entry, jnp.broadcast_to(time, (*entry.shape[:-1], self.embedding))], axis=-1
            ),
            self.width,
        )
        for _ in range(self.blocks):
            kept = nn.Dropout(self.dropout, deterministic=not train)(h)
            h = h + dense(nn.relu(dense(layer_norm(h.dtype)(kept), 4 * self.width)), self.width)
        return dense(nn.relu(h), self.out, name="out")


class UBlock(nn.Module):
    """H = Dense(SiLU(Dense(x) + Dense(embedding))); then Dropout(h) + Dense(x)."""

    width: int
    dropout: float

    @nn.compact
    def __call__(self, x, embedding, train: bool):
        """X [..., C], embedding [..., E] -> [..., width]."""
        h = dense(nn.silu(dense(x, self.width) + dense(embedding, self.width)), self.width)
        return nn.Dropout(self.dropout, deterministic=not train)(h) + dense(x, self.width)


class ResidualUNet(nn.Module):
    """eps(x, t | cond): DOM2's noise network (its Figure 9, after SfBC's), with dropout in every block.

    Embedding: [16 Fourier frequencies of the time, Dense(32)(cond)] -> `embedding` -> SiLU -> `embedding`. Trunk, of
    blocks that are told it: x -> width -> width / 2 -> width / 4, a middle of width / 4, then back up by
    [middle, width / 4] -> width / 2, [that, width / 2] -> width, and [that, width] -> out.
    """

    out: int
    width: int = 512
    embedding: int = 128
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x, t, cond, train: bool = False):
        """X [..., D], t [...] or of fewer axes, cond [..., C] -> eps [..., D]; `train` wants an rng named dropout."""
        time = jnp.broadcast_to(fourier(t, 16), (*x.shape[:-1], 32))
        told = dense(jnp.concatenate([time, dense(cond, 32)], axis=-1), self.embedding)
        told = dense(nn.silu(told), self.embedding)
        block = lambda h, width: UBlock(width, self.dropout)(h, told, train)
        join = lambda h, skip: jnp.concatenate([skip, h], axis=-1)
        top = block(x, self.width)
        half = block(top, self.width // 2)
        quarter = block(half, self.width // 4)
        h = block(join(block(quarter, self.width // 4), quarter), self.width // 2)
        h = block(join(h, half), self.width)
        return dense(join(h, top), self.out, name="out")


def residual_mlp(
    actions: int, cond: int, width: int, blocks: int, dropout: float, embedding: int
) -> Network:
    """`apply(params, x, t, cond, dropout=key)`; without a key the network is in evaluation mode."""
    return _dropping(
        network(ResidualMLP(actions, width, blocks, dropout, embedding), actions, 0, cond)
    )


def residual_unet(actions: int, cond: int, width: int, embedding: int, dropout: float) -> Network:
    """`apply(params, x, t, cond, dropout=key)`; without a key the network is in evaluation mode."""
    return _dropping(network(ResidualUNet(actions, width, embedding, dropout), actions, 0, cond))


def plain_mlp(actions: int, cond: int, hidden: Sequence[int]) -> Network:
    """The same call for a Mish perceptron of [x, slow sinusoids of the time, cond], which drops nothing."""
    net = mlp(actions + 12 + cond, hidden, actions, mish)

    def apply(params, x, t, cond, dropout=None):
        time = jnp.broadcast_to(slow(jnp.asarray(t)), (*x.shape[:-1], 12))
        return net.apply(params, jnp.concatenate([x, time, cond], axis=-1))

    return Network(net.init, apply)


def _dropping(net: Network) -> Network:
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

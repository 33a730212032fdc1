"""Noise-prediction networks and a mixture density, both conditional."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.networks.mlp import Network, dense, layer_norm, mish, mlp, network

FREQUENCIES = 30.0 * np.random.default_rng(20240).standard_normal(32).astype(np.float32)
"""Frequencies from N(0, 30^2), the same for all networks; they are constants, never trained."""

# --- features of the diffusion time ---

SIN = np.array([(-1) ** k / math.factorial(2 * k + 1) for k in range(6)], np.float32)[::-1]
"""Coefficients of sin(x) / x in x^2, highest power first: the rest is below 6e-8 to pi / 2."""
COS = np.array([(-1) ** k / math.factorial(2 * k) for k in range(7)], np.float32)[::-1]
"""Coefficients of cos(x) in x^2: the rest is below 7e-9 to pi / 2."""


def fourier(t: Float[Array, "*B"], frequencies: int) -> Float[Array, "*B F"]:
    """[sin 2 pi t W, cos 2 pi t W]: twice `frequencies` features of the diffusion time."""
    return jnp.concatenate(circle(t[..., None] * FREQUENCIES[:frequencies]), axis=-1)


def circle(turns: Float[Array, "*B F"]) -> tuple[Float[Array, "*B F"], Float[Array, "*B F"]]:
    """(sin, cos) of 2 pi `turns`, to within 1e-6 of what `turns` says.

    By the series of half the angle, which is at most pi / 2 once whole turns are taken off. XLA's
    own functions take any angle, and take longer (benchmarks/NOTES.md).
    """
    half = math.pi * (turns - jax.lax.stop_gradient(jnp.round(turns)))
    square = half * half
    sin = half * jnp.polyval(SIN, square)
    cos = jnp.polyval(COS, square)
    return 2.0 * sin * cos, 1.0 - 2.0 * sin * sin


def slow(t: Float[Array, "*B"]) -> Float[Array, "*B 12"]:
    """[sin pi k t, cos pi k t], k = 1, 2, 4, .., 32: slow sinusoids of the diffusion time.

    They are nearer to the embeddings of Diffusion-QL than `fourier` is. `fourier` turns 30 times
    and more over [0, 1], and lets a network learn each noise level separately. Networks of width
    16 learn faster with it, wider ones on the particle tasks with these.
    """
    angles = math.pi * t[..., None] * 2.0 ** jnp.arange(6)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


# --- modules ---


class ResidualMLP(nn.Module):
    """eps(x, t | cond): OMSD's noise network (its Table 5).

    - Time: 16 Fourier frequencies -> 64 -> ReLU -> 64 (`embedding`).
    - Input: [x, cond] -> 32, linear.
    - Trunk: both -> width, then `blocks` residual blocks
      h + Dense(width)(ReLU(Dense(4 width)(LayerNorm(Dropout(h))))), then ReLU -> out.
    """

    out: int
    width: int = 512
    blocks: int = 2
    dropout: float = 0.1
    embedding: int = 64

    @nn.compact
    def __call__(self, x, t, cond, train: bool = False):
        """x [..., D], t [...], cond [..., C] -> eps [..., D].

        `train` needs an rng named dropout.
        """
        # --- time and input ---
        time = dense(nn.relu(dense(fourier(t, 16), self.embedding)), self.embedding)
        entry = dense(jnp.concatenate([x, cond], axis=-1), 32)
        time = jnp.broadcast_to(time, (*entry.shape[:-1], self.embedding))
        h = dense(jnp.concatenate([entry, time], axis=-1), self.width)

        # --- residual blocks ---
        for _ in range(self.blocks):
            kept = nn.Dropout(self.dropout, deterministic=not train)(h)
            inner = nn.relu(dense(layer_norm(h.dtype)(kept), 4 * self.width))
            h = h + dense(inner, self.width)
        return dense(nn.relu(h), self.out, name="out")


class UBlock(nn.Module):
    """h = Dense(SiLU(Dense(x) + Dense(embedding))), then Dropout(h) + Dense(x)."""

    width: int
    dropout: float

    @nn.compact
    def __call__(self, x, embedding, train: bool):
        """x [..., C], embedding [..., E] -> [..., width]."""
        inner = nn.silu(dense(x, self.width) + dense(embedding, self.width))
        h = dense(inner, self.width)
        kept = nn.Dropout(self.dropout, deterministic=not train)(h)
        return kept + dense(x, self.width)


class ResidualUNet(nn.Module):
    """eps(x, t | cond): DOM2's noise network (its Figure 9, after SfBC's).

    Every block has dropout.

    - Embedding: [16 Fourier frequencies of the time, Dense(32)(cond)] -> `embedding` -> SiLU
      -> `embedding`. Every block gets it.
    - Down: x -> width -> width / 2 -> width / 4, then a middle block of width / 4.
    - Up: [middle, width / 4] -> width / 2, [that, width / 2] -> width, [that, width] -> out.
    """

    out: int
    width: int = 512
    embedding: int = 128
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x, t, cond, train: bool = False):
        """x [..., D], t [...] or fewer axes, cond [..., C] -> eps [..., D].

        `train` needs an rng named dropout.
        """
        time = jnp.broadcast_to(fourier(t, 16), (*x.shape[:-1], 32))
        embedding = dense(jnp.concatenate([time, dense(cond, 32)], axis=-1), self.embedding)
        embedding = dense(nn.silu(embedding), self.embedding)

        def block(h, width):
            return UBlock(width, self.dropout)(h, embedding, train)

        def join(h, skip):
            return jnp.concatenate([skip, h], axis=-1)

        # --- down ---
        top = block(x, self.width)
        half = block(top, self.width // 2)
        quarter = block(half, self.width // 4)

        # --- middle and up ---
        middle = block(quarter, self.width // 4)
        h = block(join(middle, quarter), self.width // 2)
        h = block(join(h, half), self.width)
        return dense(join(h, top), self.out, name="out")


# --- networks ---


def residual_mlp(
    actions: int, cond: int, width: int, blocks: int, dropout: float, embedding: int
) -> Network:
    """`apply(params, x, t, cond, dropout=key)`; without a key the network is in evaluation mode."""
    module = ResidualMLP(actions, width, blocks, dropout, embedding)
    return _dropping(network(module, actions, 0, cond))


def residual_unet(actions: int, cond: int, width: int, embedding: int, dropout: float) -> Network:
    """`apply(params, x, t, cond, dropout=key)`; without a key the network is in evaluation mode."""
    module = ResidualUNet(actions, width, embedding, dropout)
    return _dropping(network(module, actions, 0, cond))


def plain_mlp(actions: int, cond: int, hidden: Sequence[int]) -> Network:
    """The same call for a Mish perceptron of [x, slow sinusoids of the time, cond].

    It has no dropout.
    """
    net = mlp(actions + 12 + cond, hidden, actions, mish)

    def apply(params, x, t, cond, dropout=None):
        time = jnp.broadcast_to(slow(jnp.asarray(t)), (*x.shape[:-1], 12))
        return net.apply(params, jnp.concatenate([x, time, cond], axis=-1))

    return Network(net.init, apply)


def two_time_mlp(actions: int, cond: int, hidden: Sequence[int]) -> Network:
    """A mean velocity's `apply(params, x, r, t, cond)`: a Mish perceptron of [x, t, t - r, cond].

    The times are inputs as they are. Training differentiates the network in t, and the derivatives
    of fast sinusoids are large: with those of `plain_mlp` the samples of two modes were 0.4 to 12
    away from the data (Wasserstein-1; 1500 updates, width 32, four seeds), with the times 0.1 to
    0.2.
    """
    net = mlp(actions + 2 + cond, hidden, actions, mish)

    def apply(params, x, r, t, cond):
        t = jnp.asarray(t)
        times = jnp.broadcast_to(jnp.stack([t, t - r], axis=-1), (*x.shape[:-1], 2))
        return net.apply(params, jnp.concatenate([x, times, cond], axis=-1))

    return Network(net.init, apply)


def _dropping(net: Network) -> Network:
    def apply(params, x, t, cond, dropout=None):
        if dropout is None:
            return net.apply(params, x, t, cond)
        return net.apply(params, x, t, cond, train=True, rngs={"dropout": dropout})

    return Network(net.init, apply)


def mixture(cond: int, hidden: Sequence[int], actions: int, components: int) -> Network:
    """The log density of a Gaussian mixture: `apply(params, x, cond, mask) -> [...]`.

    The network outputs logits, means and deviations of diagonal components given cond, with
    std = softplus + 1e-4. Columns with mask 0 add nothing.
    Source: the OMSD repository's mixture-density variant.
    """
    net = mlp(cond, hidden, components * (1 + 2 * actions))

    def apply(params, x, cond, mask) -> Any:
        # imported here: it takes two seconds, and only mixtures need it
        import distrax

        out = net.apply(params, cond)
        logits, mean, scale = jnp.split(out, [components, components * (1 + actions)], axis=-1)
        shape = (*out.shape[:-1], components, actions)
        std = jax.nn.softplus(scale.reshape(shape)) + 1e-4

        # a padded column becomes N(x, 1 / (2 pi)), whose density at x is 1
        real = mask[..., None, :] > 0
        mean = jnp.where(real, mean.reshape(shape), x[..., None, :])
        std = jnp.where(real, std, (2.0 * math.pi) ** -0.5)

        columns = distrax.Independent(distrax.Normal(mean, std), reinterpreted_batch_ndims=1)
        shares = distrax.Categorical(logits=logits)
        return distrax.MixtureSameFamily(shares, columns).log_prob(x)

    return Network(net.init, apply)

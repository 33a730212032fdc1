"""A U-Net over time, from sequences to sequences.

Every block gets an embedding e of the noise level and of a condition.

    block(h, e) = act(norm(conv(act(norm(conv(h))) + dense(act(e))))) + dense(h)
    down:   blocks; h is kept for the way up; then the maximum over pairs of rows
    middle: two blocks
    up:     every row twice, next to the h that was kept; then blocks
    end:    a convolution and a dense layer

Convolutions are unfold + matmul. They give the numbers of `lax.conv`, which inside a scan on a CPU
is many times slower.

Source: Janner et al. 2022 (Diffuser), figure A1; attention over agents: Zhu et al. 2024 (MADiff),
section 4.1.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxomarl.base import refuse
from jaxomarl.networks.mlp import Network, dense, mish, parameters

HEADS = 4
"""Attention heads."""


def temporal_unet(
    channels: int,
    cond: int,
    width: int,
    multipliers: tuple[int, ...] = (1, 4, 8),
    kernel: int = 5,
    groups: int = 8,
    agents: int = 0,
    pools: bool = True,
    blocks: int = 2,
    activation: Callable[[Array], Array] = mish,
) -> Network:
    """`apply(params, x [..., T, C], t, cond [..., Y], drop=None) -> [..., T, C]`.

    The params are the same for every T.

    - t and drop have leading axes of x, or none. Where drop is 1.0, the condition's embedding is
      zero for every cond. With `cond` = 0 there is no condition, and cond is not read.
    - Levels of the U are width * multipliers wide, with `blocks` blocks each way. An odd T is
      halved to (T + 1) / 2; T = 1 and `pools=False` halve nothing.
    - Normalisation is over T and groups of channels: at most `groups`, of at least four channels.
    - With `agents` > 0, axis -3 of x is the agents'. They attend to one another in the middle and
      in every h that is kept, row by row of the sequence: h + gain * attention. The gain is one
      number that starts at 0, so at the start the agents are independent.

    Raises where the kernel is even, a size is below one, or agents attend in a width that is no
    multiple of four.
    """
    widths = tuple(width * m for m in multipliers)
    if min(channels, width, blocks, kernel, *multipliers) < 1 or not multipliers:
        given = (channels, width, multipliers, kernel, blocks)
        raise refuse("temporal_unet", "sizes of at least 1", given, "Raise the smallest.")
    if kernel % 2 == 0:
        way_out = "Rows keep their places only about a middle one."
        raise refuse("temporal_unet.kernel", "an odd number", kernel, way_out)
    if agents and any(w % HEADS for w in widths):
        expected = f"multiples of {HEADS} in every level"
        raise refuse("temporal_unet.width", expected, widths, f"Take {HEADS} or 16.")

    net = TemporalUNet(
        channels, cond, width, widths, kernel, groups, agents, pools, blocks, activation
    )
    team = (agents,) if agents else ()

    def init(key):
        x = jnp.zeros((*team, 1, channels))
        t = jnp.zeros(())
        return parameters(key, net, x, t, jnp.zeros((*team, cond)))

    def apply(params, x, t, cond=None, drop=None) -> Any:
        return net.apply({"params": params}, x, t, cond, drop)

    return Network(init, apply)


class TemporalUNet(nn.Module):
    """The U-Net of `temporal_unet`."""

    out: int
    cond: int
    embedding: int
    widths: tuple[int, ...]
    kernel: int
    groups: int
    agents: int
    pools: bool
    blocks: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x, t, cond, drop=None):
        """x [..., T, C], t and drop [...] or fewer axes, cond [..., Y] -> [..., T, C]."""
        embedding, time = self.embedded(x, t, cond, drop)

        def block(h, width):
            return Block(width, self.kernel, self.groups, self.activation)(h, embedding)

        def attend(h, name):
            if not self.agents:
                return h
            return AgentAttention(self.activation, name=name)(h, time)

        # --- down ---
        h = x
        kept = []
        for level, width in enumerate(self.widths):
            if level and self.pools:
                h = halved(h)
            for _ in range(self.blocks):
                h = block(h, width)
            kept.append(attend(h, f"attend_{level}"))

        # --- middle ---
        h = block(h, self.widths[-1])
        h = attend(h, "attend_middle")
        h = block(h, self.widths[-1])

        # --- up ---
        for level in reversed(range(len(self.widths))):
            h = jnp.concatenate([h, kept[level]], axis=-1)
            for _ in range(self.blocks):
                h = block(h, self.widths[max(level - 1, 0)])
            if level and self.pools:
                h = doubled(h, kept[level - 1].shape[-2])

        # --- end ---
        h = dense(unfolded(h, self.kernel), self.widths[0])
        h = self.activation(Norm(self.groups)(h))
        return dense(h, self.out, name="out")

    def embedded(self, x, t, cond, drop) -> tuple[Array, Array]:
        """The embedding [..., 1, E] of time and condition, and the embedding of time alone."""
        lead = x.shape[:-2]
        inner = self.activation(dense(features(per_sample(t, lead)), 4 * self.embedding))
        time = dense(inner, self.embedding)
        if not self.cond:
            return time[..., None, :], time[..., None, :]

        inner = self.activation(dense(cond, 4 * self.embedding))
        y = dense(inner, self.embedding)
        if drop is not None:
            y = jnp.where(per_sample(drop, lead)[..., None] > 0, 0.0, y)
        y = jnp.broadcast_to(y, time.shape)
        both = jnp.concatenate([time, y], axis=-1)
        return both[..., None, :], time[..., None, :]


class Block(nn.Module):
    """Two convolutions with an embedding added between them, and a linear path around them."""

    width: int
    kernel: int
    groups: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x, embedding):
        """x [..., T, C], embedding [..., 1, E] -> [..., T, width]."""

        def convolved(h):
            h = dense(unfolded(h, self.kernel), self.width)
            return self.activation(Norm(self.groups)(h))

        h = convolved(x)
        h = h + dense(self.activation(embedding), self.width)
        h = convolved(h)
        if x.shape[-1] != self.width:
            x = dense(x, self.width)
        return h + x


class AgentAttention(nn.Module):
    """h + gain * attention over axis -3 with four heads.

    In each head, queries and keys are C / 16 wide, and values are C / 4 wide.
    """

    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, h, time):
        """h [..., N, T, C], time [..., N, 1, E] -> [..., N, T, C]."""
        width = h.shape[-1]
        inputs = h + dense(self.activation(time), width)

        def heads(outputs):
            x = dense(inputs, outputs)
            return x.reshape(*x.shape[:-1], HEADS, -1)

        q = heads(HEADS * max(width // 16, 1))
        k = heads(HEADS * max(width // 16, 1))
        v = heads(width)
        # ours and not `jax.nn.dot_product_attention`, which wants values as wide as queries: with
        # padded queries its gradient took 1.5 to 1.8 times as long (64 plans of 3 agents, on a CPU)
        logits = jnp.einsum("...itec,...jtec->...teij", q, k) / math.sqrt(q.shape[-1])
        weights = nn.softmax(logits.astype(jnp.float32)).astype(v.dtype)
        attended = jnp.einsum("...teij,...jtec->...itec", weights, v)
        gain = self.param("gain", nn.initializers.zeros, ()).astype(h.dtype)
        return h + gain * attended.reshape(h.shape)


class Norm(nn.Module):
    """Group normalisation over T and groups of channels.

    Each channel has a scale and a shift.
    """

    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "*B T C"]) -> Float[Array, "*B T C"]:
        """Normalise each sequence by itself."""
        width = x.shape[-1]
        groups = 1
        for count in range(2, self.groups + 1):
            if width % count == 0 and width // count >= 4:
                groups = count

        normalise = nn.GroupNorm(
            groups,
            epsilon=1e-5,
            use_bias=False,
            reduction_axes=(-2, -1),
            use_fast_variance=False,
        )
        # the parameters are "scale" and "shift" in one scope, as in stored runs; flax names the
        # latter "bias"
        nn.share_scope(self, normalise)
        shift = self.param("shift", nn.initializers.zeros, (width,))
        h = normalise(x.astype(jnp.float32)) + shift
        return h.astype(x.dtype)


def unfolded(x: Float[Array, "*B T C"], kernel: int) -> Float[Array, "*B T KC"]:
    """Each row next to its neighbours, with zeros past the ends.

    A dense layer of the result is a convolution with that kernel.
    """
    reach = kernel // 2
    rows = x.shape[-2]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach), (0, 0)])
    shifted = [padded[..., i : i + rows, :] for i in range(kernel)]
    return jnp.concatenate(shifted, axis=-1)


def halved(x: Float[Array, "*B T C"]) -> Float[Array, "*B H C"]:
    """The maximum of each pair of rows; the last row of an odd number stays as it is."""
    *lead, rows, channels = x.shape
    if rows == 1:
        return x
    if rows % 2:
        x = jnp.concatenate([x, x[..., -1:, :]], axis=-2)
    pairs = x.reshape(*lead, x.shape[-2] // 2, 2, channels)
    return pairs.max(axis=-2)


def doubled(x: Float[Array, "*B H C"], rows: int) -> Float[Array, "*B T C"]:
    """Every row twice, cut to `rows`."""
    return jnp.repeat(x, 2, axis=-2)[..., :rows, :]


def features(t: Float[Array, "*B"]) -> Float[Array, "*B 14"]:
    """[sin, cos](pi t 2^k / 2), k = 0..6.

    They are unique over an interval of 4, which holds times in [0, 1] and log sigma / 4.
    """
    angles = 0.5 * math.pi * t[..., None] * 2.0 ** jnp.arange(7)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def per_sample(x: ArrayLike, lead: tuple[int, ...]) -> Array:
    """A number for each sample, from one number for all or for the leading axes."""
    x = jnp.asarray(x, jnp.float32)
    x = x.reshape(x.shape + (1,) * (len(lead) - x.ndim))
    return jnp.broadcast_to(x, lead)

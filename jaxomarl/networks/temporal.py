"""A U-Net over time: sequences in, sequences out, told a noise level and a condition in every block.

    block(h, e) = act(norm(conv(act(norm(conv(h))) + dense(act(e))))) + dense(h)
    down: blocks, keep h for the way up, max over pairs of rows; middle: two blocks;
    up: every row twice, beside what was kept, blocks; at last a convolution and a dense layer.

Convolutions are unfold + matmul: the same numbers as `lax.conv`, which within a scan on a CPU is many times slower.
Source: Janner et al. 2022 (Diffuser), figure A1; attention over agents: Zhu et al. 2024 (MADiff), section 4.1.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import refuse
from jaxomarl.networks.mlp import Network, dense, mish, parameters

HEADS = 4


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
    """`apply(params, x [..., T, C], t, cond [..., Y], drop=None) -> [..., T, C]`; params are the same for every T.

    t and drop have leading axes of x, or none. Where drop is 1.0 the condition's embedding is zero, whatever cond is;
    with `cond` = 0 there is no condition, and cond is not read. Levels of the U are width * multipliers wide, with
    `blocks` blocks each way. A T that is odd is halved to (T + 1) / 2; T = 1 and `pools=False` halve nothing.
    Normalisation is over T and groups of channels, at most `groups` of them with at least four channels each.

    With `agents` > 0 axis -3 of x is the agents', who attend to one another in the middle and in all that is kept, row
    by row of the sequence: h + gain * attention, gain one number that starts at 0, so that at the start they do not.
    Raises where the kernel is even, a size is below one, or agents attend in a width that is no multiple of four.
    """
    if min(channels, width, blocks, kernel, *multipliers) < 1 or not multipliers:
        found = (channels, width, multipliers, kernel, blocks)
        raise refuse("temporal_unet", "sizes of at least 1", found, "Raise the smallest.")
    if kernel % 2 == 0:
        raise refuse(
            "temporal_unet.kernel",
            "an odd number",
            kernel,
            "Rows keep their places only about a middle one.",
        )
    if agents and any((width * m) % HEADS for m in multipliers):
        found = tuple(width * m for m in multipliers)
        raise refuse(
            "temporal_unet.width",
            f"multiples of {HEADS} in every level",
            found,
            f"Take {HEADS} or 16.",
        )
    widths = tuple(width * m for m in multipliers)
    net = TemporalUNet(
        channels, cond, width, widths, kernel, groups, agents, pools, blocks, activation
    )
    team = (agents,) if agents else ()

    def init(key):
        return parameters(
            key, net, jnp.zeros((*team, 1, channels)), jnp.zeros(()), jnp.zeros((*team, cond))
        )

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
        """X [..., T, C], t and drop [...] or of fewer axes, cond [..., Y] -> [..., T, C]."""
        told, time = self.told(x, t, cond, drop)

        def several(h, width):
            for _ in range(self.blocks):
                h = Block(width, self.kernel, self.groups, self.activation)(h, told)
            return h

        def attend(h, name):
            return AgentAttention(self.activation, name=name)(h, time) if self.agents else h

        h, kept = x, []
        for level, width in enumerate(self.widths):
            h = several(halved(h) if level and self.pools else h, width)
            kept.append(attend(h, f"attend_{level}"))
        h = Block(self.widths[-1], self.kernel, self.groups, self.activation)(h, told)
        h = attend(h, "attend_middle")
        h = Block(self.widths[-1], self.kernel, self.groups, self.activation)(h, told)
        for level in reversed(range(len(self.widths))):
            h = several(jnp.concatenate([h, kept[level]], axis=-1), self.widths[max(level - 1, 0)])
            h = doubled(h, kept[level - 1].shape[-2]) if level and self.pools else h
        h = self.activation(Norm(self.groups)(dense(unfolded(h, self.kernel), self.widths[0])))
        return dense(h, self.out, name="out")

    def told(self, x, t, cond, drop) -> tuple[Array, Array]:
        """What blocks are told [..., 1, E], of time and condition, and the part of it that is time's."""
        lead = x.shape[:-2]
        time = dense(
            self.activation(dense(features(spread(t, lead)), 4 * self.embedding)), self.embedding
        )
        if not self.cond:
            return time[..., None, :], time[..., None, :]
        y = dense(self.activation(dense(cond, 4 * self.embedding)), self.embedding)
        if drop is not None:
            y = jnp.where(spread(drop, lead)[..., None] > 0, 0.0, y)
        y = jnp.broadcast_to(y, time.shape)
        return jnp.concatenate([time, y], axis=-1)[..., None, :], time[..., None, :]


class Block(nn.Module):
    """Two convolutions, with what the block is told added between them, beside a linear path."""

    width: int
    kernel: int
    groups: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x, told):
        """X [..., T, C], told [..., 1, E] -> [..., T, width]."""
        h = self.activation(Norm(self.groups)(dense(unfolded(x, self.kernel), self.width)))
        h = h + dense(self.activation(told), self.width)
        h = self.activation(Norm(self.groups)(dense(unfolded(h, self.kernel), self.width)))
        return h + (x if x.shape[-1] == self.width else dense(x, self.width))


class AgentAttention(nn.Module):
    """H + gain * attention over axis -3, in four heads: queries and keys C / 16 wide, values C / 4."""

    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, h, time):
        """H [..., N, T, C], time [..., N, 1, E] -> [..., N, T, C]."""
        width = h.shape[-1]
        seen = h + dense(self.activation(time), width)
        heads = lambda x: x.reshape(*x.shape[:-1], HEADS, -1)
        q, k = (heads(dense(seen, HEADS * max(width // 16, 1))) for _ in range(2))
        v = heads(dense(seen, width))
        logits = jnp.einsum("...itec,...jtec->...teij", q, k) / math.sqrt(q.shape[-1])
        weights = nn.softmax(logits.astype(jnp.float32)).astype(v.dtype)
        heard = jnp.einsum("...teij,...jtec->...itec", weights, v)
        return h + self.param("gain", nn.initializers.zeros, ()).astype(h.dtype) * heard.reshape(
            h.shape
        )


class Norm(nn.Module):
    """Mean 0 and variance 1 over T and each group of channels, then a scale and a shift of each channel."""

    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "*B T C"]) -> Float[Array, "*B T C"]:
        """Normalise each sequence by itself."""
        width = x.shape[-1]
        groups = max(
            g for g in range(1, self.groups + 1) if width % g == 0 and (g == 1 or width // g >= 4)
        )
        h = x.reshape(*x.shape[:-1], groups, width // groups).astype(jnp.float32)
        mean = h.mean(axis=(-3, -1), keepdims=True)
        h = (h - mean) * jnp.reciprocal(
            jnp.sqrt(jnp.square(h - mean).mean(axis=(-3, -1), keepdims=True) + 1e-5)
        )
        scale = self.param("scale", nn.initializers.ones, (width,))
        h = h.reshape(x.shape) * scale + self.param("shift", nn.initializers.zeros, (width,))
        return h.astype(x.dtype)


def unfolded(x: Float[Array, "*B T C"], kernel: int) -> Float[Array, "*B T KC"]:
    """Each row beside its neighbours, zeros past the ends: a dense layer of it is a convolution of that kernel."""
    reach, rows = kernel // 2, x.shape[-2]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach), (0, 0)])
    return jnp.concatenate([padded[..., i : i + rows, :] for i in range(kernel)], axis=-1)


def halved(x: Float[Array, "*B T C"]) -> Float[Array, "*B H C"]:
    """The larger of each pair of rows; the last of an odd number stands alone."""
    if x.shape[-2] == 1:
        return x
    even = jnp.concatenate([x, x[..., -1:, :]], axis=-2) if x.shape[-2] % 2 else x
    return even.reshape(*x.shape[:-2], even.shape[-2] // 2, 2, x.shape[-1]).max(axis=-2)


def doubled(x: Float[Array, "*B H C"], rows: int) -> Float[Array, "*B T C"]:
    """Every row twice, cut to `rows`."""
    return jnp.repeat(x, 2, axis=-2)[..., :rows, :]


def features(t: Float[Array, "*B"]) -> Float[Array, "*B 14"]:
    """[sin, cos](pi t 2^k / 2), k = 0..6: told apart over an interval of 4, for times in [0, 1] and log sigma / 4."""
    angles = 0.5 * math.pi * t[..., None] * 2.0 ** jnp.arange(7)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def spread(x: Any, lead: tuple[int, ...]) -> Array:
    """A number for each sample, from one for all or for its leading axes."""
    x = jnp.asarray(x, jnp.float32)
    return jnp.broadcast_to(x.reshape(x.shape + (1,) * (len(lead) - x.ndim)), lead)

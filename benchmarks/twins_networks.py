"""Networks of the PyTorch twins, their layers named as flax names ours.

M networks of one shape are one module, [M, B, in] -> [M, B, out]. M = 0 is a lone network,
[B, in] -> [B, out].
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaxomarl.networks.denoisers import FREQUENCIES

Drop = bool | Sequence[Tensor]
"""Dropout: drawn (True), off (False), or the factors of each layer, in order."""


class Dense(nn.Module):
    """M linear layers as one batched product; kernels [M, in, out]."""

    def __init__(self, models: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = zeros(models, inputs, outputs)
        self.bias = zeros(models, 1, outputs) if models else zeros(0, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The layer: x [M, B, in] -> [M, B, out]."""
        product = torch.baddbmm if self.kernel.dim() == 3 else torch.addmm
        return product(self.bias, x, self.kernel)


def zeros(models: int, *shape: int) -> nn.Parameter:
    """Parameters of M models, or of a lone one, that start at zero."""
    if models:
        shape = (models, *shape)
    return nn.Parameter(torch.zeros(shape))


class Norm(nn.Module):
    """M layer normalisations over the last axis."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        shape = (models, 1, width) if models else (width,)
        self.scale = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """The layer: x [M, B, width] -> the same shape."""
        if self.scale.dim() == 1:
            return functional.layer_norm(x, x.shape[-1:], self.scale, self.bias, eps=1e-5)
        normalised = functional.layer_norm(x, x.shape[-1:], eps=1e-5)
        return torch.addcmul(self.bias, normalised, self.scale)


def perceptron(
    models: int, widths: Sequence[int], activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Hidden layers of `widths[1:-1]` with an activation, then a linear one, named as ours."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for k in range(len(widths) - 2):
        layers[f"Dense_{k}"] = Dense(models, widths[k], widths[k + 1])
        layers[f"activation_{k}"] = activation()
    layers["out"] = Dense(models, widths[-2], widths[-1])
    return nn.Sequential(layers)


class ResidualMLP(nn.Module):
    """OMSD's noise network, eps(x, t | cond)."""

    def __init__(
        self,
        models: int,
        out: int,
        cond: int,
        width: int,
        blocks: int,
        dropout: float,
        embedding: int,
    ) -> None:
        super().__init__()
        shapes = [
            (32, embedding),
            (embedding, embedding),
            (out + cond, 32),
            (32 + embedding, width),
        ]
        shapes += [(width, 4 * width), (4 * width, width)] * blocks
        self.dense = named(self, "Dense", [Dense(models, *shape) for shape in shapes])
        self.norms = named(self, "LayerNorm", [Norm(models, width) for _ in range(blocks)])
        self.out = Dense(models, width, out)
        self.dropout = dropout

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, drop: Drop) -> Tensor:
        """The noise: x [M, B, D], t [M, B], cond [M, B, C] -> eps [M, B, D]."""
        first, second, entry, to_width, *rest = self.dense
        time = second(functional.relu(first(fourier(t))))
        h = to_width(torch.cat([entry(torch.cat([x, cond], -1)), time], -1))
        for k, norm in enumerate(self.norms):
            up = rest[2 * k]
            down = rest[2 * k + 1]
            h = h + down(functional.relu(up(norm(dropped(h, self.dropout, drop, k)))))
        return self.out(functional.relu(h))


class UBlock(nn.Module):
    """A block of DOM2's noise network, conditioned on the embedding of time and observation."""

    def __init__(
        self, models: int, inputs: int, width: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        shapes = [(inputs, width), (embedding, width), (width, width), (inputs, width)]
        self.dense = named(self, "Dense", [Dense(models, *shape) for shape in shapes])
        self.dropout = dropout

    def forward(self, x: Tensor, cond: Tensor, drop: Drop, k: int) -> Tensor:
        """The block: x [M, B, in], cond [M, B, embedding] -> [M, B, width]; k is its dropout."""
        of_x, of_cond, inner, skip = self.dense
        h = inner(functional.silu(of_x(x) + of_cond(cond)))
        return dropped(h, self.dropout, drop, k) + skip(x)


class ResidualUNet(nn.Module):
    """DOM2's noise network, eps(x, t | cond)."""

    def __init__(
        self, models: int, out: int, cond: int, width: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        shapes = [(cond, 32), (64, embedding), (embedding, embedding)]
        self.dense = named(self, "Dense", [Dense(models, *shape) for shape in shapes])
        half = width // 2
        quarter = width // 4
        widths = [(out, width), (width, half), (half, quarter), (quarter, quarter)]
        widths += [(2 * quarter, half), (2 * half, width)]
        blocks = [UBlock(models, *pair, embedding, dropout) for pair in widths]
        self.blocks = named(self, "UBlock", blocks)
        self.out = Dense(models, 2 * width, out)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, drop: Drop) -> Tensor:
        """The noise: x [M, B, D], t [M, B] or a scalar, cond [M, B, C] -> eps [M, B, D]."""
        of_cond, mixed, to_embedding = self.dense
        time = fourier(t).expand(*x.shape[:-1], 32)
        joined = torch.cat([time, of_cond(cond)], -1)
        embedding = to_embedding(functional.silu(mixed(joined)))

        h = x
        skips = []
        for k in range(3):
            h = self.blocks[k](h, embedding, drop, k)
            skips.append(h)
        h = self.blocks[3](h, embedding, drop, 3)
        h = self.blocks[4](torch.cat([skips[2], h], -1), embedding, drop, 4)
        h = self.blocks[5](torch.cat([skips[1], h], -1), embedding, drop, 5)
        return self.out(torch.cat([skips[0], h], -1))


def named(owner: nn.Module, name: str, modules: Sequence[nn.Module]) -> list[Any]:
    """The modules, which `owner` now has under flax's names name_0, name_1, ..."""
    for k, module in enumerate(modules):
        owner.add_module(f"{name}_{k}", module)
    return list(modules)


def dropped(x: Tensor, rate: float, drop: Drop, k: int) -> Tensor:
    """Dropout layer number `k` of a network."""
    if drop is False or not rate:
        return x
    if drop is True:
        return functional.dropout(x, rate)
    return x * drop[k]


W = torch.from_numpy(FREQUENCIES[:16].copy())
"""Frequencies of the embedding of time."""


def fourier(t: Tensor) -> Tensor:
    """The embedding of times: t [...] -> [..., 32]."""
    angles = 2.0 * math.pi * t[..., None] * W
    return torch.cat([angles.sin(), angles.cos()], -1)

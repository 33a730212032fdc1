"""Networks of the PyTorch twins, their layers named as flax names ours.

M of one shape are one module, [M, B, in] -> [M, B, out]; M = 0 is a lone one, [B, in] -> [B, out].
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
"""Dropout: drawn (True), off (False), or what each of the layers multiplies by, in order."""


class Dense(nn.Module):
    """M linear layers as one batched product; kernels [M, in, out]."""

    def __init__(self, models: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(
            torch.zeros((models, inputs, outputs) if models else (inputs, outputs))
        )
        self.bias = nn.Parameter(torch.zeros((models, 1, outputs) if models else outputs))

    def forward(self, x: Tensor) -> Tensor:
        """X [M, B, in] -> [M, B, out]."""
        return (torch.baddbmm if self.kernel.dim() == 3 else torch.addmm)(self.bias, x, self.kernel)


class Norm(nn.Module):
    """M layer normalisations over the last axis."""

    def __init__(self, models: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((models, 1, width) if models else width))
        self.bias = nn.Parameter(torch.zeros((models, 1, width) if models else width))

    def forward(self, x: Tensor) -> Tensor:
        """X [M, B, width] -> the same shape."""
        if self.scale.dim() == 1:
            return functional.layer_norm(x, x.shape[-1:], self.scale, self.bias, eps=1e-5)
        return torch.addcmul(
            self.bias, functional.layer_norm(x, x.shape[-1:], eps=1e-5), self.scale
        )


def perceptron(
    models: int, widths: Sequence[int], activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Hidden layers of `widths[1:-1]` with an activation, then a linear one; layers are named as ours."""
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
        self.out, self.dropout = Dense(models, width, out), dropout

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, drop: Drop) -> Tensor:
        """X [M, B, D], t [M, B], cond [M, B, C] -> eps [M, B, D]."""
        first, second, entry, to_width, *rest = self.dense
        time = second(functional.relu(first(fourier(t))))
        h = to_width(torch.cat([entry(torch.cat([x, cond], -1)), time], -1))
        for k, norm in enumerate(self.norms):
            up, down = rest[2 * k], rest[2 * k + 1]
            h = h + down(functional.relu(up(norm(dropped(h, self.dropout, drop, k)))))
        return self.out(functional.relu(h))


class UBlock(nn.Module):
    """A block of DOM2's noise network, which is told the embedding of time and observation."""

    def __init__(
        self, models: int, inputs: int, width: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        shapes = [(inputs, width), (embedding, width), (width, width), (inputs, width)]
        self.dense, self.dropout = (
            named(self, "Dense", [Dense(models, *shape) for shape in shapes]),
            dropout,
        )

    def forward(self, x: Tensor, told: Tensor, drop: Drop, k: int) -> Tensor:
        """X [M, B, in], told [M, B, embedding] -> [M, B, width]; this is dropout layer `k`."""
        own, other, inner, skip = self.dense
        return dropped(inner(functional.silu(own(x) + other(told))), self.dropout, drop, k) + skip(
            x
        )


class ResidualUNet(nn.Module):
    """DOM2's noise network, eps(x, t | cond)."""

    def __init__(
        self, models: int, out: int, cond: int, width: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        shapes = [(cond, 32), (64, embedding), (embedding, embedding)]
        self.dense = named(self, "Dense", [Dense(models, *shape) for shape in shapes])
        half, quarter = width // 2, width // 4
        widths = [(out, width), (width, half), (half, quarter), (quarter, quarter)]
        widths += [(2 * quarter, half), (2 * half, width)]
        self.blocks = named(
            self, "UBlock", [UBlock(models, *pair, embedding, dropout) for pair in widths]
        )
        self.out = Dense(models, 2 * width, out)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, drop: Drop) -> Tensor:
        """X [M, B, D], t [M, B] or a scalar, cond [M, B, C] -> eps [M, B, D]."""
        seen, mixed, told = self.dense
        time = fourier(t).expand(*x.shape[:-1], 32)
        told = told(functional.silu(mixed(torch.cat([time, seen(cond)], -1))))
        down, sides = x, []
        for k in range(3):
            down = self.blocks[k](down, told, drop, k)
            sides.append(down)
        h = self.blocks[3](down, told, drop, 3)
        h = self.blocks[4](torch.cat([sides[2], h], -1), told, drop, 4)
        h = self.blocks[5](torch.cat([sides[1], h], -1), told, drop, 5)
        return self.out(torch.cat([sides[0], h], -1))


def named(owner: nn.Module, name: str, modules: Sequence[nn.Module]) -> list[Any]:
    """The modules, which `owner` now has as name_0, name_1, ...: what flax calls them."""
    for k, module in enumerate(modules):
        owner.add_module(f"{name}_{k}", module)
    return list(modules)


def dropped(x: Tensor, rate: float, drop: Drop, k: int) -> Tensor:
    """Dropout layer number `k` of a network."""
    if drop is False or not rate:
        return x
    return functional.dropout(x, rate) if drop is True else x * drop[k]


W = torch.from_numpy(FREQUENCIES[:16].copy())


def fourier(t: Tensor) -> Tensor:
    """T [...] -> [..., 32]."""
    angles = 2.0 * math.pi * t[..., None] * W
    return torch.cat([angles.sin(), angles.cos()], -1)

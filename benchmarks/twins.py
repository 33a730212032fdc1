"""Blocks of the PyTorch twins of our systems: minibatches, optimisers, and places of parameters.

A twin (twins_omsd.py, twins_dom2.py) is one stage's update for one seed, as one writes it by hand
in PyTorch: modules, `backward`, a fused Adam. It is written to be fast. Networks of one shape are
one batched product. Data are one table of ready transitions, which is z-scored once, where ours are
at every update. Statistics are not gathered, and nothing is computed twice. In exact arithmetic it
is our update; `benchmarks.peers` checks that before it times anything.

This file needs PyTorch: `pip install -e '.[bench]'`.
"""

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor, nn

from jaxomarl.base import Dataset, refuse

# --- data ---


class Table:
    """Ready transitions in named columns; each start of the data set is one row."""

    def __init__(self, data: Dataset, columns: Mapping[str, np.ndarray]) -> None:
        """`columns` are float blocks [M, ...]; those named next_* are read one row later."""
        starts = np.asarray(data.starts)
        flat = {}
        for name, x in columns.items():
            rows = starts + name.startswith("next_")
            flat[name] = x.reshape(len(x), -1)[rows]
        self.rows = torch.from_numpy(np.concatenate(list(flat.values()), axis=1).astype(np.float32))
        self.widths = [x.shape[1] for x in flat.values()]

    def take(self, index: Tensor) -> tuple[Tensor, ...]:
        """The columns [B, width] of some rows."""
        return self.rows.index_select(0, index).split(self.widths, 1)

    def at(self, index: np.ndarray) -> tuple[Tensor, ...]:
        """The same for a NumPy array of positions."""
        return self.take(torch.from_numpy(index.astype(np.int64)))


# --- what every twin has ---


class Place(NamedTuple):
    """The modules of a twin that have the parameters of a part of our state."""

    modules: Sequence[nn.Module]
    """One for each entry of `axis`; a lone module has all entries, with the leading axes as one."""
    axis: int = 0

    def load(self, tree: Any) -> None:
        """Set the parameters to ours."""
        for name, leaf in leaves(tree).items():
            each = [leaf]
            if len(self.modules) > 1:
                each = list(np.moveaxis(leaf, self.axis, 0))
            for module, x in zip(self.modules, each, strict=True):
                parameter = module.get_parameter(name)
                parameter.data.copy_(torch.from_numpy(np.array(x)).reshape(parameter.shape))

    def read(self, tree: Any) -> dict[str, np.ndarray]:
        """The parameters in the shapes of ours."""
        out = {}
        for name, leaf in leaves(tree).items():
            each = [module.get_parameter(name).detach().numpy() for module in self.modules]
            if len(each) == 1:
                out[name] = each[0].reshape(leaf.shape).copy()
            else:
                shape = np.moveaxis(leaf, self.axis, 0).shape[1:]
                out[name] = np.stack([x.reshape(shape) for x in each], axis=self.axis)
        return out


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """A flax tree as {"Dense_0.kernel": array}."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(step.key for step in path): np.asarray(x) for path, x in found}


def place(root: Any, path: str) -> Any:
    """The part at a path such as "critic.q.target" in our `past` or state.

    The path names keys of dictionaries and fields of named tuples.
    """
    for name in path.split("."):
        root = root[name] if isinstance(root, dict) else getattr(root, name)
    return root


class Twin(abc.ABC):
    """One stage's update for one seed; subclasses have the attributes, `noise` and `update`."""

    table: Table
    batch: int
    learned: Mapping[str, Place]
    """Path in our stage's state -> the twin's modules."""
    given: Mapping[str, Place]
    """Path in `past` -> the twin's modules."""
    compiled: Sequence[str]
    """Methods that torch.compile takes."""

    def load(self, state: Any, past: Any) -> None:
        """Start from our state and our finished stages."""
        for root, parts in ((past, self.given), (state, self.learned)):
            for path, part in parts.items():
                part.load(place(root, path))

    def compile(self) -> None:
        """Hand the arithmetic to torch.compile."""
        for name in self.compiled:
            setattr(self, name, torch.compile(getattr(self, name)))

    def noise(self) -> Any:
        """Draw the random numbers of one update; here none."""
        return None

    @abc.abstractmethod
    def update(self, rows: tuple[Tensor, ...], noise: Any) -> dict[str, Tensor]:
        """One gradient step on `table.take(...)`; losses by the names of our metrics."""

    def step(self) -> None:
        """One update on a minibatch of its own."""
        index = torch.randint(len(self.table.rows), (self.batch,))
        self.update(self.table.take(index), self.noise())


def adam(modules: Iterable[nn.Module], lr: float, decay: float = 0.0) -> torch.optim.Optimizer:
    """Adam, or with a decay AdamW, over all parameters; fused."""
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)


def frozen(module: nn.Module) -> nn.Module:
    """The same module, whose parameters get no gradients."""
    return module.requires_grad_(False)


def annealed(lr: float, count: int, steps: int, end: float = 0.0) -> float:
    """The rate at update `count`, from `lr` to `end` by a cosine over `steps`."""
    return end + (lr - end) * 0.5 * (1.0 + math.cos(math.pi * min(count, steps) / max(steps, 1)))


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Let the next step be of size `lr`."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def covers(cfg: Any, **only: Any) -> None:
    """Raise JaxomarlError where a setting is not the one that the twin was written for."""
    for name, value in only.items():
        if getattr(cfg, name) != value:
            way = "The PyTorch twin has no other."
            raise refuse(f"--cfg.{name}", repr(value), getattr(cfg, name), way)

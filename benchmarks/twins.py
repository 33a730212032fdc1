"""What the PyTorch twins of our systems are made of: minibatches, optimisers, and how parameters are carried over.

A twin (twins_omsd.py, twins_dom2.py) is one stage's update for one seed as it is written by hand in PyTorch: modules,
`backward`, a fused Adam. It is there to be fast: networks of one shape are one batched product, data are one table of
ready transitions (z-scored once, ours at every update), statistics are not gathered, and nothing is computed twice. In
exact arithmetic it is our update; `benchmarks.peers` checks that before it times anything.

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
    """Ready transitions, one per row, in named columns side by side; each start of the data set is one row."""

    def __init__(self, data: Dataset, columns: Mapping[str, np.ndarray]) -> None:
        """`columns` are float blocks [M, ...], over the data set's rows; those named next_* are read one row later."""
        starts = np.asarray(data.starts)
        flat = {
            k: x.reshape(len(x), -1)[starts + k.startswith("next_")] for k, x in columns.items()
        }
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
    """Where a part of our state stands in a twin."""

    modules: Sequence[
        nn.Module
    ]  # several: one for each entry of `axis`; one: the whole, its leading axes as one
    axis: int = 0

    def load(self, tree: Any) -> None:
        """Set the parameters to ours."""
        for name, leaf in leaves(tree).items():
            each = np.moveaxis(leaf, self.axis, 0) if len(self.modules) > 1 else [leaf]
            for module, x in zip(self.modules, each, strict=True):
                held = module.get_parameter(name)
                held.data.copy_(torch.from_numpy(np.array(x)).reshape(held.shape))

    def read(self, tree: Any) -> dict[str, np.ndarray]:
        """The parameters in the shapes of ours."""
        out = {}
        for name, leaf in leaves(tree).items():
            found = [module.get_parameter(name).detach().numpy() for module in self.modules]
            shape = leaf.shape if len(found) == 1 else np.moveaxis(leaf, self.axis, 0).shape[1:]
            each = [x.reshape(shape) for x in found]
            out[name] = each[0].copy() if len(found) == 1 else np.stack(each, axis=self.axis)
        return out


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """A flax tree as {"Dense_0.kernel": array}."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(step.key for step in path): np.asarray(x) for path, x in found}


def place(root: Any, path: str) -> Any:
    """What stands at "critic.q.target" in our `past` or state: keys of a dictionary, fields of a named tuple."""
    for name in path.split("."):
        root = root[name] if isinstance(root, dict) else getattr(root, name)
    return root


class Twin(abc.ABC):
    """One stage's update for one seed. Subclasses fill in the attributes and `noise` and `update`."""

    table: Table
    batch: int
    learned: Mapping[str, Place]  # by the place in our stage's state
    given: Mapping[str, Place]  # by the place in `past`
    compiled: Sequence[str]  # methods that torch.compile takes

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
        """Draw what one update draws: here nothing."""
        return None

    @abc.abstractmethod
    def update(self, rows: tuple[Tensor, ...], noise: Any) -> dict[str, Tensor]:
        """One gradient step on `table.take(...)`; losses by the names of our metrics."""

    def step(self) -> None:
        """One update on a minibatch of its own."""
        self.update(
            self.table.take(torch.randint(len(self.table.rows), (self.batch,))), self.noise()
        )


def adam(modules: Iterable[nn.Module], lr: float, decay: float = 0.0) -> torch.optim.Optimizer:
    """Adam, or with a decay AdamW, over all parameters; fused."""
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)


def frozen(module: nn.Module) -> nn.Module:
    """The same module, whose parameters no gradient is asked for."""
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
            raise refuse(
                f"--cfg.{name}", repr(value), getattr(cfg, name), "The PyTorch twin has no other."
            )

"""How the runs axis R is laid over devices, and whether a device vmaps or maps its share."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# numbers in one run's state (moments and targets too) times rows of a batch, above which a CPU maps over runs: below it
# vmap wins by up to a third, above it map by a few per cent, a fifth at R = 16 (python -m benchmarks.updates --mapping)
WIDE = 40_000_000


def mapping(platform: str, state: Any, batch: int, replay: bool = False) -> str:
    """Whether to "vmap" or "map" over a device's runs: a pure rule of sizes and device, recorded in run.json.

    Accelerators vmap. A CPU maps over wide runs, whose matrix products fill it already, and vmaps narrow ones, whose
    cost is the number of operations; a stage with a replay in its state vmaps: a map would hold that state twice.
    """
    if platform != "cpu" or replay:
        return "vmap"
    weights = sum(
        math.prod(x.shape) for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)
    )
    return "map" if weights * batch > WIDE else "vmap"


def over_runs(f: Callable, how: str, shared: int) -> Callable:
    """Lift a function of one run to R runs; the last `shared` arguments are the same for all."""

    def vmapped(*args):
        own = len(args) - shared
        return jax.vmap(f, in_axes=(0,) * own + (None,) * shared)(*args)

    def mapped(*args):
        return jax.lax.map(
            lambda own: f(*own, *args[len(args) - shared :]), args[: len(args) - shared]
        )

    return vmapped if how == "vmap" else mapped


def mesh(runs: int) -> Mesh:
    """As many devices as there are runs to lay on them, on one axis, `runs`."""
    devices = jax.devices()[: max(1, min(runs, jax.device_count()))]
    return Mesh(np.array(devices), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))


def sharded(f: Callable, devices: Mesh, shared: int) -> Callable:
    """`f` on each device's own runs; the last `shared` arguments are replicated. No communication."""
    if devices.size == 1:
        return f
    runs, same = PartitionSpec("runs"), PartitionSpec()

    def lifted(*args):
        specs = (runs,) * (len(args) - shared) + (same,) * shared
        return jax.shard_map(f, mesh=devices, in_specs=specs, out_specs=runs, check_vma=False)(
            *args
        )

    return lifted


def padded(runs: int, devices: Mesh) -> int:
    """R rounded up to a multiple of the devices."""
    return -(-runs // devices.size) * devices.size


def place(tree: Any, devices: Mesh, size: int) -> Any:
    """Lay a tree that leads with R over the devices, its last run repeated up to `size`."""

    def lay(x):
        if x.shape[0] < size:
            x = jnp.concatenate([x, jnp.repeat(x[-1:], size - x.shape[0], axis=0)])
        return jax.device_put(x, NamedSharding(devices, PartitionSpec("runs")))

    return jax.tree.map(lay, tree)


def replicate(tree: Any, devices: Mesh) -> Any:
    """The same arrays on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))

"""How the runs axis R is sharded over devices, and whether a device vmaps or maps its share."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

WIDE = 40_000_000
"""Numbers in one run's state times rows of a batch, above which a CPU maps over its runs.

Moments and targets count too. Below it vmap is faster by up to a third. Above it map is faster by a
few per cent, and by a fifth at R = 16 (`python -m benchmarks.updates --mapping`).
"""


def mapping(platform: str, state: PyTree, batch: int, replay: bool = False) -> str:
    """Whether to "vmap" or "map" over a device's runs: a pure rule, recorded in run.json.

    - Accelerators vmap.
    - A CPU maps over wide runs, whose matrix products fill it already.
    - A CPU vmaps narrow runs, whose cost is the number of operations.
    - A stage with a replay in its state vmaps, because a map would hold that state twice.
    """
    if platform != "cpu" or replay:
        return "vmap"
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    weights = sum(math.prod(x.shape) for x in floats)
    if weights * batch > WIDE:
        return "map"
    return "vmap"


def over_runs(f: Callable, how: str, shared: int) -> Callable:
    """Lift a function of one run to R runs; the last `shared` arguments are the same for all."""

    def over_all(*args):
        own = len(args) - shared
        if how == "vmap":
            return jax.vmap(f, in_axes=(0,) * own + (None,) * shared)(*args)
        return jax.lax.map(lambda of_run: f(*of_run, *args[own:]), args[:own])

    return over_all


def mesh(runs: int) -> Mesh:
    """A mesh with one axis, `runs`, of this host's devices: as many as there are runs for them."""
    devices = jax.local_devices()[: max(1, min(runs, jax.local_device_count()))]
    return Mesh(np.array(devices), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))


def sharded(f: Callable, devices: Mesh, shared: int) -> Callable:
    """`f` on each device's own runs; the last `shared` arguments are replicated.

    Devices do not communicate.
    """
    if devices.size == 1:
        return f
    over_devices = PartitionSpec("runs")
    replicated = PartitionSpec()

    def lifted(*args):
        own = len(args) - shared
        specs = (over_devices,) * own + (replicated,) * shared
        shard = jax.shard_map(
            f, mesh=devices, in_specs=specs, out_specs=over_devices, check_vma=False
        )
        return shard(*args)

    return lifted


def padded(runs: int, devices: Mesh) -> int:
    """R rounded up to a multiple of the number of devices."""
    return -(-runs // devices.size) * devices.size


def place(tree: PyTree, devices: Mesh, size: int) -> PyTree:
    """Shard a tree that leads with R over the devices; its last run is repeated up to `size`."""

    def shard(x: Array) -> Array:
        if x.shape[0] < size:
            filling = jnp.repeat(x[-1:], size - x.shape[0], axis=0)
            x = jnp.concatenate([x, filling])
        return jax.device_put(x, NamedSharding(devices, PartitionSpec("runs")))

    return jax.tree.map(shard, tree)


def replicate(tree: PyTree, devices: Mesh) -> PyTree:
    """The same arrays on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))

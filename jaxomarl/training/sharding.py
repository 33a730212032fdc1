"""How runs, and the batches of large ones, are laid over devices.

The mesh has two axes. Over `runs` devices exchange nothing. Where a run is large, and there are
fewer runs than devices, each run's batches are sharded over `data`, and the compiler averages their
gradients.
"""

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


def weights(state: PyTree) -> int:
    """Floating-point numbers in one run's state."""
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(math.prod(x.shape) for x in floats)


def mapping(platform: str, state: PyTree, batch: int, replay: bool = False) -> str:
    """Whether to "vmap" or "map" over a device's runs: a pure rule, recorded in run.json.

    - Accelerators vmap.
    - A CPU maps over wide runs, whose matrix products fill it already.
    - A CPU vmaps narrow runs, whose cost is the number of operations.
    - A stage with a replay in its state vmaps, because a map would hold that state twice.
    """
    if platform != "cpu" or replay:
        return "vmap"
    if weights(state) * batch > WIDE:
        return "map"
    return "vmap"


def shares(platform: str, state: PyTree, batch: int, devices: int, runs: int) -> int:
    """Among how many devices each run's batch is divided: a pure rule, recorded in run.json.

    It is 1 for narrow runs, and on a CPU, whose cores share a matrix product anyway. Else it is the
    largest number of devices that are there for each run and that divides the batch.
    """
    if platform == "cpu" or weights(state) * batch <= WIDE:
        return 1
    there = max(1, devices // runs)
    return max(d for d in range(1, there + 1) if batch % d == 0)


def united(tree: PyTree) -> PyTree:
    """The arrays on the same devices, as one program takes them: the first one where they differ.

    Stages that were trained lie on a mesh, and those from files on one device.
    """
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and x.committed]
    if len({frozenset(x.devices()) for x in arrays}) < 2:
        return tree
    return jax.device_put(tree, jax.local_devices()[0])


def over_runs(f: Callable, how: str, shared: int) -> Callable:
    """Lift a function of one run to R runs; the last `shared` arguments are the same for all."""

    def over_all(*args):
        own = len(args) - shared
        if how == "vmap":
            return jax.vmap(f, in_axes=(0,) * own + (None,) * shared)(*args)
        return jax.lax.map(lambda of_run: f(*of_run, *args[own:]), args[:own])

    return over_all


def mesh(runs: int, data: int = 1) -> Mesh:
    """A mesh of this host's devices: as many over `runs` as there are runs, times `data`."""
    there = jax.local_devices()
    over = max(1, min(runs, len(there) // data))
    devices = np.array(there[: over * data]).reshape(over, data)
    return Mesh(devices, ("runs", "data"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def divided(batch: PyTree, devices: Mesh) -> PyTree:
    """A run's batch, whose arrays lead with its rows, laid over the devices of `data`."""
    shares = devices.shape["data"]
    if shares == 1:
        return batch

    def lay(x: Array) -> Array:
        if x.ndim == 0 or x.shape[0] % shares:
            return x
        return jax.lax.with_sharding_constraint(x, PartitionSpec("data"))

    return jax.tree.map(lay, batch)


def sharded(f: Callable, devices: Mesh, shared: int) -> Callable:
    """`f` on each device's own runs; the last `shared` arguments are replicated.

    Devices of different runs do not communicate.
    """
    if devices.size == 1:
        return f
    over_devices = PartitionSpec("runs")
    replicated = PartitionSpec()
    by_hand = {"runs"}
    if devices.shape["data"] == 1:
        # JAX calls the host, as a simulation in C does, only where no axis is the compiler's
        by_hand.add("data")

    def lifted(*args):
        own = len(args) - shared
        specs = (over_devices,) * own + (replicated,) * shared
        shard = jax.shard_map(
            f,
            mesh=devices,
            in_specs=specs,
            out_specs=over_devices,
            axis_names=by_hand,
            check_vma=False,
        )
        return shard(*args)

    return lifted


def padded(runs: int, devices: Mesh) -> int:
    """R rounded up to a multiple of the number of devices over which runs are laid."""
    over = devices.shape["runs"]
    return -(-runs // over) * over


def place(tree: PyTree, devices: Mesh, size: int) -> PyTree:
    """Shard a tree that leads with R over the devices; its last run is repeated up to `size`."""

    def shard(x: Array) -> Array:
        if x.shape[0] < size:
            filling = jnp.repeat(x[-1:], size - x.shape[0], axis=0)
            x = jnp.concatenate([x, filling])
        return jax.device_put(x, NamedSharding(devices, PartitionSpec("runs")))

    return jax.tree.map(shard, tree)


def rows_of(tree: PyTree, chosen: list[int], runs: int) -> PyTree:
    """The chosen rows of a tree that leads with R; the tree itself where these are all, in order.

    Rows of arrays of many shapes are as many programs to compile.
    """
    if chosen == list(range(runs)):
        return tree
    index = np.array(chosen)
    return jax.tree.map(lambda x: x[index], tree)


def replicate(tree: PyTree, devices: Mesh) -> PyTree:
    """The same arrays on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))

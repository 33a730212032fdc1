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

Moments and targets count too. Below it several runs at once are faster by up to a third. Above it
one after another is, by a few per cent, and by a fifth at R = 16 (`python -m benchmarks.updates
--mapping`).
"""
BLOCK = 8
"""Most runs of a block: so many of a CPU device's narrow runs are updated at once.

A block's arrays stay in the core's cache during a chunk. Four, eight and sixteen are equally fast
to a tenth, and 128 at once take 1.4 to 1.7 times as long (benchmarks/NOTES.md).
"""


def weights(state: PyTree) -> int:
    """Floating-point numbers in one run's state."""
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(math.prod(x.shape) for x in floats)


def mapping(platform: str, state: PyTree, batch: int, replay: bool = False) -> str:
    """How a device goes through its runs: a pure rule, recorded in run.json.

    - Accelerators vmap.
    - A CPU maps over wide runs, whose matrix products fill it already.
    - A CPU maps over blocks of narrow runs and vmaps those of a block. A run's cost is the number
      of operations, and a block stays in the cache.
    - A stage with a replay in its state vmaps, because a map would hold that state twice.
    """
    if platform != "cpu" or replay:
        return "vmap"
    if weights(state) * batch > WIDE:
        return "map"
    return "blocks"


def at_once(how: str, runs: int) -> int:
    """How many of a device's runs are updated at once, by its mapping.

    A block has more than half of BLOCK, so that the fewest runs are repeated to fill the last one.
    Fewer runs than two blocks are one.
    """
    if how == "map":
        return 1
    if how == "vmap" or runs < 2 * BLOCK:
        return runs
    sizes = range(BLOCK, BLOCK // 2, -1)
    return min(sizes, key=lambda size: -(-runs // size) * size)


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
        runs = jax.tree.leaves(args[:own])[0].shape[0]
        size = at_once(how, runs)
        together = jax.vmap(f, in_axes=(0,) * own + (None,) * shared)
        if how == "map":
            return jax.lax.map(lambda of_run: f(*of_run, *args[own:]), args[:own])
        if size == runs:
            return together(*args)
        return in_blocks(lambda block: together(*block, *args[own:]), args[:own], size)

    return over_all


def in_blocks(f: Callable, tree: PyTree, size: int) -> PyTree:
    """Map a function of `size` runs over blocks of a tree that leads with R; it returns R rows.

    The last run is repeated to fill the last block.
    """
    runs = jax.tree.leaves(tree)[0].shape[0]
    blocks = -(-runs // size)

    def split(x: Array) -> Array:
        return filled(x, blocks * size).reshape(blocks, size, *x.shape[1:])

    found = jax.lax.map(f, jax.tree.map(split, tree))
    return jax.tree.map(lambda x: x.reshape(blocks * size, *x.shape[2:])[:runs], found)


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


def filled(x: Array, size: int) -> Array:
    """An array whose last row is repeated, so that it has `size` rows."""
    if x.shape[0] >= size:
        return x
    return jnp.concatenate([x, jnp.repeat(x[-1:], size - x.shape[0], axis=0)])


def place(tree: PyTree, devices: Mesh, size: int) -> PyTree:
    """Shard a tree that leads with R over the devices; its last run is repeated up to `size`."""
    over = NamedSharding(devices, PartitionSpec("runs"))
    return jax.tree.map(lambda x: jax.device_put(filled(x, size), over), tree)


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

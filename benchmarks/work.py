"""What a program takes: operations by XLA's count, memory, and the most that the machine gives.

The ceiling is measured through XLA on the devices that are used: a large matrix product on each at
once, and a large copy. A floor follows from it. It is the time of the operations at the ceiling,
and of moving the optimiser's numbers once in and once out:

    floor = operations / ceiling of products + 2 bytes of the state / ceiling of copies
"""

import contextlib
import re
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp

from benchmarks.report import alone
from benchmarks.sizes import Size
from jaxomarl.base import Past
from jaxomarl.training import sharding
from jaxomarl.training.runner import Program

GIB = 2**30
ROUNDS = 5
"""Rounds of a ceiling. The best one counts: it is the most that the machine gave."""


class Ceiling(NamedTuple):
    """The most that some devices gave together."""

    devices: int
    flops: float
    """Floating-point operations per second of a matrix product, 32 bit by default."""
    bytes: float
    """Bytes that a copy reads and writes per second."""


@cache
def ceiling(
    devices: int = 1, side: int = 0, dtype: str = "float32", precision: str | None = None
) -> Ceiling:
    """What so many devices give at once, each with square matrices of its own.

    `side` is the matrices' size; 0 takes 1024 on a CPU and 8192 elsewhere.
    """
    on_cpu = jax.default_backend() == "cpu"
    side = side or (1024 if on_cpu else 8192)
    mesh = sharding.mesh(devices)

    # products of equal numbers may be faster, so these are random
    random = jax.random.normal(jax.random.key(0), (mesh.size, side, side), dtype)
    many = sharding.place(random, mesh, mesh.size)
    # 64 MiB or 1 GiB, which no cache holds
    numbers = 2**24 if on_cpu else 2**28
    long = sharding.place(jnp.ones((mesh.size, numbers)), mesh, mesh.size)

    # Several turns in one call: the cost of a call is no part of what the machine gives.
    # The number that is added keeps XLA from folding the turns away.
    turns = 4

    def product(x):
        again = lambda y, _: (jnp.matmul(y, x[0], precision=precision) * side**-0.5, None)
        return jax.lax.scan(again, x[0], None, length=turns)[0][None]

    def copy(x):
        # in a scan a card copies the carry too
        for k in range(turns):
            x = jax.lax.optimization_barrier(x + (k + 1.0))
        return x

    def seconds(function, x):
        compiled = jax.jit(sharding.sharded(lambda x, _: function(x), mesh, 1))
        return best(lambda: compiled(x, jnp.zeros(())))

    flops = 2.0 * side**3 * turns * mesh.size / seconds(product, many)
    return Ceiling(mesh.size, flops, 2.0 * long.nbytes * turns / seconds(copy, long))


def best(call: Callable[[], Any]) -> float:
    """Least seconds of a call, after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(ROUNDS):
        with alone():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - began)
    return min(seconds)


def operations(size: Size, index: int, past: Past) -> float | None:
    """Operations of one run's update, batch and optimiser; None where XLA does not count."""
    program = Program(size.job(1), index, jax.tree.map(lambda x: x[None], past))
    args = (program.shapes["state"], program.key(0), size.cfg, past, size.data)
    traced = jax.make_jaxpr(program.update)(*args)
    total = counted(traced)
    if total is None:
        return None
    return total + repeated(traced.jaxpr)


def counted(closed: Any) -> float | None:
    """XLA's count on a CPU, in which the body of a loop counts once.

    Other backends do not count what is not compiled.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        cost = jax.jit(jax.extend.core.jaxpr_as_fun(closed)).lower(*closed.in_avals).cost_analysis()
    if not isinstance(cost, dict):
        return None
    return cost.get("flops")


def repeated(jaxpr: Any) -> float:
    """What a program's scans, such as OMSD's over agents, add to that count after a first turn."""
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            inner = eqn.params["jaxpr"]
            length = eqn.params["length"]
            total += (length - 1) * (counted(inner) or 0.0) + length * repeated(inner.jaxpr)
        else:
            bodies = [getattr(v, "jaxpr", None) for v in eqn.params.values()]
            total += sum(repeated(body) for body in bodies if hasattr(body, "eqns"))
    return total


def weigh(tree: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def program_bytes(compiled_program: Any) -> int:
    """Bytes of a program by XLA's count: arguments, results that alias none, temporaries."""
    memory = compiled_program.memory_analysis()
    if memory is None:
        return 0
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


def reset_peak() -> None:
    """Start the count of peak memory afresh, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak() -> int:
    """Highest resident bytes of the process since the last reset, or since its start.

    On a card they are bytes of the card's memory.
    """
    if jax.default_backend() != "cpu":
        stats = jax.local_devices()[0].memory_stats()
        if stats:
            return stats.get("peak_bytes_in_use", 0)
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found:
            return int(found[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, others count KiB
    return largest if sys.platform == "darwin" else 1024 * largest

"""What a program takes: floating-point operations by XLA's count, memory, and the most that the machine gives.

The ceiling is measured, through XLA and on the devices that are used: one large matrix product on each at once, and one
large copy. A floor follows from it, of the operations at the ceiling and of moving the optimiser's numbers once in and
once out:

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
ROUNDS = 5  # of a ceiling, of which the best counts: it is the most that the machine gave


class Ceiling(NamedTuple):
    """The most that some devices gave together."""

    devices: int
    flops: float
    """Floating-point operations per second of a product of matrices, 32 bit unless said otherwise."""
    bytes: float
    """Read and written per second by a copy."""


@cache
def ceiling(
    devices: int = 1, side: int = 0, dtype: str = "float32", precision: str | None = None
) -> Ceiling:
    """What `devices` of them give at once, each with matrices of its own, `side` square (0: 1024, 8192 off the CPU)."""
    side = side or (1024 if jax.default_backend() == "cpu" else 8192)
    mesh = sharding.mesh(devices)
    random = jax.random.normal(
        jax.random.key(0), (mesh.size, side, side), dtype
    )  # of equal numbers it may be faster
    many = sharding.place(random, mesh, mesh.size)
    numbers = (
        2**24 if jax.default_backend() == "cpu" else 2**28
    )  # 64 MiB, 1 GiB: no cache holds them
    long = sharding.place(jnp.ones((mesh.size, numbers)), mesh, mesh.size)
    # Several in one call: what it costs to call is no part of what the machine gives. What is added is not folded away.
    turns = 4

    def product(x):
        again = lambda y, _: (jnp.matmul(y, x[0], precision=precision) * side**-0.5, None)
        return jax.lax.scan(again, x[0], None, length=turns)[0][None]

    def copy(x):
        for k in range(turns):  # in a scan a card copies what is carried besides
            x = jax.lax.optimization_barrier(x + (k + 1.0))
        return x

    made = [jax.jit(sharding.sharded(lambda x, _, f=f: f(x), mesh, 1)) for f in (product, copy)]
    multiply, move = (
        best(lambda f=f, x=x: f(x, jnp.zeros(()))) for f, x in zip(made, (many, long), strict=True)
    )
    flops = 2.0 * side**3 * turns * mesh.size / multiply
    return Ceiling(mesh.size, flops, 2.0 * long.nbytes * turns / move)


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
    """Floating-point operations of one run's update, batch and optimiser included; None where XLA does not count."""
    program = Program(size.job(1), index, jax.tree.map(lambda x: x[None], past))
    args = (program.shapes["state"], program.key(0), size.cfg, past, size.data)
    traced = jax.make_jaxpr(program.update)(*args)
    total = counted(traced)
    return None if total is None else total + repeated(traced.jaxpr)


def counted(closed: Any) -> float | None:
    """XLA's count, in which the body of a loop counts once. A CPU's: others do not count what is not compiled."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        cost = jax.jit(jax.extend.core.jaxpr_as_fun(closed)).lower(*closed.in_avals).cost_analysis()
    return cost.get("flops") if isinstance(cost, dict) else None


def repeated(jaxpr: Any) -> float:
    """What the scans in a program (OMSD's over its agents) add to that count from their second turn on."""
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            inner, length = eqn.params["jaxpr"], eqn.params["length"]
            total += (length - 1) * (counted(inner) or 0.0) + length * repeated(inner.jaxpr)
        else:
            bodies = [getattr(v, "jaxpr", None) for v in eqn.params.values()]
            total += sum(repeated(body) for body in bodies if hasattr(body, "eqns"))
    return total


def weigh(tree: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def reset_peak() -> None:
    """Start the count of peak memory afresh, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak() -> int:
    """Highest resident bytes of the process since the last reset, or since its start; of a card's memory on one."""
    told = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if told:
        return told.get("peak_bytes_in_use", 0)
    with contextlib.suppress(OSError):
        found = re.search(
            r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8")
        )
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )

"""What every benchmark says of its machine, and how its lines are written."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxomarl.base import JaxomarlError
from jaxomarl.numerics import rounded

Line = dict[str, Any]
TURN = "JAXOMARL_BENCH_TURN"
"""A file in the environment: processes that compile beside one another lock it to measure."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While a program is timed: no other process of the same `python -m benchmarks --beside N` times one."""
    if TURN not in os.environ:
        yield
        return
    import fcntl  # no such thing on Windows, where parts run one after another

    with open(os.environ[TURN], "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def report(lines: Iterable[Line], table: Callable[[Sequence[Line]], str], out: Path | None) -> int:
    """Write each line as JSON as it comes, with the load and the machine, then all as a table; the exit code.

    Lines go to `out`, or to the standard output; everything else goes to the standard error. What a compiler took is
    part of the lines, so the compile cache is off.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    print(machine(), file=sys.stderr)
    seen = []
    try:
        with out.open("w") if out else contextlib.nullcontext(sys.stdout) as file:
            for line in lines:
                seen.append({**line, **rounded(), "load": os.getloadavg()[0], "machine": machine()})
                print(json.dumps(seen[-1]), file=file, flush=True)
    except (JaxomarlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{machine()}\n\n{table(seen)}", file=sys.stderr)
    return 0


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table: its header, its rule and what stands under them."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def columns(lines: Sequence[Line], kind: str, named: Sequence[str]) -> str:
    """The lines of one benchmark with some of their fields as columns; nothing where there are none."""
    rows = [[c.replace("_", " ") for c in named], ["---"] * len(named)]
    for line in (line for line in lines if line["benchmark"] == kind):
        cells = [line.get(c, "") for c in named]
        rows.append([short(x) if x is None or isinstance(x, float) else str(x) for x in cells])
        if "skipped" in line:
            rows[-1][-1] = f"skipped: {line['skipped']}"
    return markdown(rows) if len(rows) > 2 else ""


def machine() -> str:
    """What the numbers were measured on, in one line."""
    devices = (
        f"{jax.device_count()} {jax.default_backend()} device(s), {jax.devices()[0].device_kind}"
    )
    return f"{devices}; {cores()} cores; jax {jax.__version__}, Python {platform.python_version()}"


def short(x: float | None) -> str:
    """Three digits, or nothing."""
    return "" if x is None else f"{x:.0f}" if abs(x) >= 100 else f"{x:#.3g}"


def cores() -> int:
    """Processor cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

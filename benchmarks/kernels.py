"""An update's time, kernel by kernel: `python -m benchmarks.kernels --system dom2 --runs 16`.

One compiled chunk of a stage runs under the profiler, after others that warm up. Kernels whose
names differ only in a number are one row, the longest first. The device's time outside all kernels
is `idle`: launches, and waiting for the host. The time without the profiler stands below the table.

`--hlo FILE` keeps the compiled program, which has the kernels' names. The profiler may show the
kernels of a CUDA graph as one: XLA_FLAGS=--xla_gpu_enable_command_buffer= runs them one by one.
"""

import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from benchmarks.report import Line, Written, columns, command, short
from benchmarks.sizes import size
from benchmarks.updates import Cell, untrained
from jaxomarl.base import refuse

COLUMNS = ("kernel", "calls", "milliseconds", "share")


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Profile the updates of one stage: one JSON line per kernel, then a table."""

    system: str = "omsd"
    """System of the stage."""
    stage: str = ""
    """Stage that is profiled; empty: the last."""
    size: str = "mpe"
    """Size, as in benchmarks.updates."""
    runs: int = 16
    """Number R of runs at once."""
    chunk: int = 10
    """Updates under the profiler."""
    top: int = 20
    """Number of rows; one more has the sum of the rest."""
    hlo: Path | None = None
    """File of the compiled chunk as text; empty: nowhere."""


def kind(name: str) -> str:
    """A kernel's name without its number, so that fusions of one kind are one row."""
    return re.sub(r"(\.|_)\d+(?=$|\.|_)", "", name)


def kernels(folder: Path) -> dict[str, list[float]]:
    """Kernel -> the seconds of its calls on all devices, or on all threads of a CPU."""
    (path,) = folder.rglob("*.xplane.pb")
    found: dict[str, list[float]] = defaultdict(list)
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    cards = [plane for plane in planes if plane.name.startswith("/device:")]
    timeline = "Stream"
    if not cards:
        cards = [plane for plane in planes if plane.name == "/host:CPU"]
        timeline = "tf_XLA"
    lines = [line for plane in cards for line in plane.lines if line.name.startswith(timeline)]
    for line in lines:
        for event in line.events:
            # a CPU's marks around what it runs
            if not re.search("^end: |^ThunkExecutor", event.name):
                found[event.name].append(event.duration_ns / 1e9)
    return found


def measure(flags: Flags) -> Iterator[Line]:
    """The rows of a stage's profile."""
    of = size(flags.size, flags.system)
    of = of._replace(cfg=replace(of.cfg, chunk=flags.chunk))
    stage = flags.stage or of.stages[-1]
    if stage not in of.stages:
        raise refuse("--stage", f"one of {', '.join(of.stages)}", stage, "")
    index = of.stages.index(stage)
    cell = Cell.of(of, index, flags.runs, untrained(of, index))
    cell.start()
    if flags.hlo:
        flags.hlo.write_text(cell.step.as_text(), encoding="utf-8")

    unprofiled = cell.lasts / cell.calls / flags.chunk
    cell.calls = 1
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            began = time.perf_counter()
            cell.sample()
            total = time.perf_counter() - began
        found = kernels(Path(folder))

    rows: dict[str, list[float]] = defaultdict(list)
    for name, seconds in found.items():
        rows[kind(name)] += seconds
    busy = sum(map(sum, rows.values()))
    ordered = sorted(rows.items(), key=lambda row: -sum(row[1]))
    rest = [s for _, seconds in ordered[flags.top :] for s in seconds]
    idle = [max(0.0, total - busy)]
    for name, seconds in [*ordered[: flags.top], ("the rest", rest), ("idle", idle)]:
        yield {
            "benchmark": "kernels",
            "size": flags.size,
            "system": flags.system,
            "stage": stage,
            "runs": flags.runs,
            "kernel": name,
            "calls": len(seconds) / flags.chunk,
            "milliseconds": 1e3 * sum(seconds) / flags.chunk,
            "share": sum(seconds) / total,
            "update_milliseconds": 1e3 * unprofiled,
        }


def table(lines: Sequence[Line]) -> str:
    """Calls and milliseconds of every kernel per update."""
    rows = columns(lines, "kernels", COLUMNS)
    if not lines:
        return rows
    unprofiled = short(lines[0]["update_milliseconds"])
    return f"{rows}\n\nWithout the profiler: {unprofiled} ms per update."


def main(argv: Sequence[str] | None = None) -> int:
    """Profile and print; the exit code."""
    return command("kernels", Flags, measure, table, argv)


if __name__ == "__main__":
    sys.exit(main())

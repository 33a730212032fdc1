"""Updates per second of any system's stages for R runs at once: `python -m benchmarks.updates`, or `make bench`.

What is timed is what training runs: the runner's compiled chunk, on its devices, under its mapping rule, and the
metrics brought to the host after each chunk. All R of one stage take turns, round after round, so that a disturbance of
the machine falls on all of them alike; medians are reported beside their range, and the cost of R runs against R times
the cost of one:

    cost(R) = seconds per update of all R runs,   ratio = cost(R) / (R cost(1)),   share = floor / cost(R)

with the floor of `benchmarks.work`: what the operations and the optimiser's numbers take at the machine's ceiling,
which is measured in the same run.

Stages before the timed one are initialised and not trained: an update's cost does not depend on values.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.report import alone, markdown, report, short
from benchmarks.sizes import Size, size
from benchmarks.work import GIB, ceiling, operations, peak, reset_peak, weigh
from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import runtime
from jaxomarl.base import JaxomarlError, Past, refuse
from jaxomarl.numerics import precision
from jaxomarl.training import sharding
from jaxomarl.training.library import Identity
from jaxomarl.training.runner import Program

MAPPINGS = ("rule", "vmap", "map")
SAMPLE = 0.25  # seconds that one timed sample lasts at least
ROUNDS = 3  # samples of every cell at least, whatever --seconds says


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time the updates of systems' stages: one JSON line per cell (size, system, stage, agents, runs), then a table."""

    systems: tuple[str, ...] = ("omsd",)
    """Names as in the README, +coda and its like too; all: every system."""
    sizes: tuple[str, ...] = ("game", "mpe")
    """game: width 32, batch 64 (preset mode-seeking). mpe: the paper's sizes. WIDTHxBATCH: on mpe's shapes."""
    stages: tuple[str, ...] = ()
    """Empty: all."""
    agents: tuple[int, ...] = (0,)
    """How many agents of spread; 0: the size's own number."""
    runs: tuple[int, ...] = (1, 4, 16)
    """R; a ratio needs 1 among them."""
    seconds: float = 3.0
    """Timed seconds per cell; slow cells take three samples all the same."""
    patience: float = 20.0
    """Seconds that one sample may take; a cell whose smaller one says that it would take longer is skipped."""
    mapping: str = "rule"
    """The runner's own rule, or vmap, or map: how a device goes through its runs."""
    devices: int = 0
    """CPU devices; 0: one per core, as in training."""
    max_gib: float = 12.0
    """Memory that a cell may take by estimate; one that needs more is skipped, with the reason on its line."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


def untrained(size: Size, index: int) -> Past:
    """Statistics and first states of the stages before `index`, for one run."""
    past = size.past
    for i in range(index):
        program = Program(size.job(1), i, {})
        past[program.stage.name] = jax.jit(program.init)(size.cfg, program.key(0), past, size.data)
    return past


# --- one cell ---


@dataclass
class Cell:
    """R runs of one stage at one size: compiled once, then timed sample by sample."""

    size: Size
    program: Program
    how: str
    need: int  # bytes, by estimate
    seconds: list[float] = field(
        default_factory=list
    )  # per update of all R runs, one entry per sample
    calls: int = 1  # chunks in a sample
    chunk: int = 0  # chunks done
    peak: int = 0
    skipped: str = ""
    lasts: float = 0.0  # seconds of a sample

    @classmethod
    def of(cls, size: Size, index: int, runs: int, past: Past, mapping: str = "rule") -> "Cell":
        """The cell, nothing of it compiled yet; `past` is one run's and is repeated."""
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), past)
        program = Program(size.job(runs), index, many)
        # The finished stages are held twice for a moment, the state thrice at most: a map copies it.
        need = runs * (3 * weigh(program.shapes["state"]) + 2 * weigh(past))
        return cls(size, program, program.how if mapping == "rule" else mapping, need)

    @property
    def runs(self) -> int:
        """R."""
        return len(self.program.job.seeds)

    def beyond(self, planned: float, most: float) -> bool:
        """Whether it needs more than is left of `most` GiB beside `planned`: then it is skipped, with the reason."""
        need = self.need / GIB
        if planned + need > most:
            self.skipped = f"needs about {need:.1f} GiB beside {planned:.1f}; --max-gib is {most:g}"
        return bool(self.skipped)

    def start(self) -> None:
        """Compile, make the first states, warm up, and choose how many chunks make a sample."""
        program = self.program
        reset_peak()
        self.data = sharding.replicate(self.size.data, program.devices)
        self.rows = program.rows(list(range(self.runs)))
        program.past = {}  # `rows` holds a copy
        args = (*self.rows, self.data)
        self.state = program.compile(program.init, self.how, 1, args)(*args)
        args = (self.state, *self.rows, jnp.asarray(1, jnp.int32), self.data)
        self.step = program.compile(program.advance, self.how, 2, args, donate=(0,))
        taken = self.sample()
        if taken * program.chunk < SAMPLE:
            taken = min(self.sample() for _ in range(2))
        self.calls = max(1, round(SAMPLE / (taken * program.chunk)))
        self.lasts = taken * program.chunk * self.calls
        self.peak = peak()

    def sample(self) -> float:
        """Seconds per update over `calls` chunks, the metrics brought to the host after each, as training does."""
        with alone():
            began = time.perf_counter()
            for _ in range(self.calls):
                self.chunk += 1
                self.state, metrics = self.step(
                    self.state, *self.rows, jnp.asarray(self.chunk, jnp.int32), self.data
                )
                jax.tree.map(np.asarray, metrics)
            jax.block_until_ready(self.state)
            return (time.perf_counter() - began) / (self.calls * self.program.chunk)

    def held(self) -> int:
        """Bytes of the compiled chunk by XLA's count: arguments, results that alias none, temporaries."""
        m = self.step.memory_analysis()
        if m is None:
            return 0
        one = (
            m.argument_size_in_bytes
            + m.output_size_in_bytes
            - m.alias_size_in_bytes
            + m.temp_size_in_bytes
        )
        return one * self.program.devices.size

    def line(self, single: "Cell | None", work: float | None) -> dict[str, Any]:
        """What is reported; `single` is the same with one run, `work` one update's floating-point operations."""
        of = self.size
        line = {
            "benchmark": "updates",
            "size": of.name,
            "system": of.system,
            "stage": self.program.stage.name,
        }
        line |= {"agents": of.spec.agents, "runs": self.runs}
        if self.skipped:
            return {**line, "skipped": self.skipped}
        cost, best = statistics.median(self.seconds), min(self.seconds)
        alone = single.seconds if single else []
        dtype = "bfloat16" if precision() == "bfloat16" else "float32"
        most, state = (
            ceiling(self.program.devices.size, dtype=dtype),
            weigh(self.program.shapes["state"]),
        )
        floor = self.runs * (work / most.flops + 2 * state / most.bytes) if work else None
        return {
            **line,
            "mapping": self.how,
            "devices": self.program.devices.size,
            "updates_per_second": 1 / cost,  # of all R at once
            "updates_per_second_low": 1 / max(self.seconds),
            "updates_per_second_high": 1 / best,
            "seconds_per_update": cost,
            "ratio": cost / (self.runs * statistics.median(alone)) if alone else None,
            "ratio_of_best": best / (self.runs * min(alone)) if alone else None,
            "flop_per_update": work,  # of one run
            "gflop_per_second": work * self.runs / cost / 1e9 if work else None,
            "ceiling_gflop_per_second": most.flops / 1e9,
            "ceiling_gb_per_second": most.bytes / 1e9,
            "ceiling_share": work * self.runs / cost / most.flops if work else None,
            "floor_share": floor / cost if floor else None,
            "state_mib": state / 2**20,  # of one run
            "compile_seconds": self.program.compile_seconds,
            "samples": len(self.seconds),
            "updates_per_sample": self.calls * self.program.chunk,
            "program_gib": self.held() / GIB,
            "peak_gib": self.peak / GIB,  # of the process, with the cells of fewer runs in it
        }


def measure(
    size: Size,
    index: int,
    runs: Sequence[int],
    seconds: float,
    mapping: str = "rule",
    max_gib: float = 12.0,
    patience: float = 20.0,
) -> list[dict[str, Any]]:
    """The stage `index` of a size for several R, timed by turns: their lines, in the order of R."""
    past = untrained(size, index)
    work = operations(size, index, past)
    cells, planned = [Cell.of(size, index, r, past, mapping) for r in sorted(set(runs))], 0.0
    timed: list[Cell] = []
    for cell in cells:
        need, ahead = (
            cell.need / GIB,
            timed[-1].lasts * cell.runs / timed[-1].runs if timed else 0.0,
        )
        if cell.beyond(planned, max_gib):
            continue
        if ahead > patience:
            cell.skipped = f"a sample would take about {ahead:.0f} s; --patience is {patience:g}"
        else:
            planned += need
            cell.start()
            timed.append(cell)
    end = time.perf_counter() + seconds * len(timed)
    while timed and (len(timed[0].seconds) < ROUNDS or time.perf_counter() < end):
        for cell in timed:
            cell.seconds.append(cell.sample())
    single = next((cell for cell in timed if cell.runs == 1), None)
    return [cell.line(single, work) for cell in cells]


# --- what is printed ---


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    header = (
        "size", "system", "stage", "n", "R", "mapping", "updates/s", "range", "ms/update", "cost(R)/(R cost(1))",
        "GFLOP/s", "of the ceiling", "floor/cost", "compile s", "peak GiB",
    )  # fmt: skip
    rows = [header, (*["---"] * 3, "---:", "---:", "---", *["---:"] * 9)]
    for x in lines:
        name = (
            x["size"],
            x["system"],
            x["stage"],
            str(x.get("agents", "")),
            str(x.get("runs", "")),
        )
        if "skipped" in x:
            rows.append((*name, f"skipped: {x['skipped']}", *[""] * 9))
            continue
        low, high = short(x["updates_per_second_low"]), short(x["updates_per_second_high"])
        numbers = (
            1e3 * x["seconds_per_update"], x["ratio"], x["gflop_per_second"], x["ceiling_share"], x["floor_share"],
            x["compile_seconds"], x["peak_gib"],
        )  # fmt: skip
        rows.append(
            (
                *name,
                x["mapping"],
                short(x["updates_per_second"]),
                f"{low} to {high}",
                *map(short, numbers),
            )
        )
    return markdown(rows)


def checked(flags: Flags) -> list[str]:
    """The systems that were asked for; raises JaxomarlError for flags that mean nothing."""
    if flags.mapping not in MAPPINGS:
        raise refuse("--mapping", f"one of {', '.join(MAPPINGS)}", flags.mapping, "")
    if not flags.runs or min(flags.runs) < 1 or min(flags.agents) < 0 or flags.devices < 0:
        found = (flags.runs, flags.agents, flags.devices)
        raise refuse(
            "--runs, --agents, --devices", "positive counts", found, "For example --runs 1 4 16."
        )
    systems = list(REGISTRY) if flags.systems == ("all",) else list(flags.systems)
    if flags.stages:
        known = {
            stage
            for system in systems
            for name in flags.sizes
            for stage in size(name, system).stages
        }
        for stage in set(flags.stages) - known:
            raise refuse("--stages", f"some of {', '.join(sorted(known))}", stage, "")
    return systems


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes. A stage that several systems share, settings and all, is timed once."""
    systems, seen = checked(flags), set()
    for name in flags.sizes:
        for system in systems:
            for agents in flags.agents:
                try:
                    one = size(name, system, agents)
                except JaxomarlError as error:
                    if len(systems) == 1:
                        raise
                    yield {
                        "benchmark": "updates",
                        "size": name,
                        "system": system,
                        "stage": "",
                        "skipped": str(error),
                    }
                    continue
                for index, stage in enumerate(one.made.pipeline(one.spec, one.cfg, one.env)):
                    kind = name, agents, Identity.of(stage, [one.cfg], [0], {}).kind
                    if kind in seen or (flags.stages and stage.name not in flags.stages):
                        continue
                    seen.add(kind)
                    limits = flags.mapping, flags.max_gib, flags.patience
                    yield from measure(one, index, flags.runs, flags.seconds, *limits)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.updates")
    if flags.devices:
        jax.config.update("jax_num_cpu_devices", flags.devices)
    else:
        runtime.use_cores()
    return report(bench(flags), table, flags.out)


if __name__ == "__main__":
    sys.exit(main())

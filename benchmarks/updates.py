"""Updates per second of any system's stages for R runs at once: `python -m benchmarks.updates`.

Timed is what training runs: the runner's compiled chunk, on its devices, under its mapping rule.
The metrics are brought to the host after each chunk. All R of one stage take turns, so that a
disturbance of the machine falls on all alike. A line has the median and the range, and the cost of
R runs over R times the cost of one:

    cost(R) = seconds per update of all R runs
    ratio   = cost(R) / (R cost(1))
    share   = floor / cost(R)

The floor is that of `benchmarks.work`: the time of the operations and of the optimiser's numbers at
the machine's ceiling, which is measured in the same run.

Stages before the timed one are initialised and not trained: an update's cost does not depend on
values.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.report import Line, Written, alone, line_of, machine, markdown, report, short
from benchmarks.sizes import Size, size
from benchmarks.work import GIB, ceiling, operations, peak, program_bytes, reset_peak, weigh
from jaxomarl import documents
from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import runtime
from jaxomarl.base import JaxomarlError, Past, refuse
from jaxomarl.numerics import precision, rounded
from jaxomarl.paths import read_file
from jaxomarl.training import sharding
from jaxomarl.training.library import Identity
from jaxomarl.training.runner import Program

NAMED: documents.Kind = {"size": str, "system": str, "stage": str, "runs": int}
"""What a line has that an earlier command left."""
MAPPINGS = ("rule", "vmap", "map", "blocks")
SAMPLE = 0.25
"""Shortest seconds of a timed sample."""
ROUNDS = 3
"""Fewest samples of a cell, for any --seconds."""


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time updates: one JSON line per size, system, stage, agents and runs, then a table."""

    systems: tuple[str, ...] = ("omsd",)
    """Names from docs/systems.md, also with +coda and its like; all: every system."""
    sizes: tuple[str, ...] = ("game", "mpe")
    """game: width 32, batch 64. mpe: the paper's sizes. WIDTHxBATCH: these on mpe's shapes."""
    stages: tuple[str, ...] = ()
    """Stages that are timed; empty: all."""
    agents: tuple[int, ...] = (0,)
    """Numbers of agents of spread; 0: the size's own number."""
    runs: tuple[int, ...] = (1, 4, 16)
    """Numbers R of runs at once; a ratio needs 1 among them."""
    seconds: float = 3.0
    """Timed seconds per cell; slow cells take three samples in any case."""
    patience: float = 20.0
    """Most seconds of a sample; a cell is skipped where a smaller one foretells more."""
    mapping: str = "rule"
    """How a device goes through its runs: rule (the runner's own), vmap, map or blocks."""
    devices: int = 0
    """Number of CPU devices; 0: one per core, as in training."""
    max_gib: float = 12.0
    """Most estimated memory of a cell; one that needs more is skipped, and its line says so."""
    resume: bool = False
    """Keep the lines that --out has of this machine, and time the stages that it lacks."""


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
    """vmap, map or blocks."""
    need: int
    """Estimated bytes."""
    seconds: list[float] = field(default_factory=list)
    """Seconds per update of all R runs, one entry per sample."""
    calls: int = 1
    """Chunks in a sample."""
    chunk: int = 0
    """Chunks that are done."""
    peak: int = 0
    skipped: str = ""
    lasts: float = 0.0
    """Seconds of a sample."""

    @classmethod
    def of(cls, size: Size, index: int, runs: int, past: Past, mapping: str = "rule") -> "Cell":
        """The cell, of which nothing is compiled yet; `past` is one run's and is repeated."""
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), past)
        program = Program(size.job(runs), index, many)
        # for a moment the finished stages are stored twice, and a map stores the state three times
        need = runs * (3 * weigh(program.shapes["state"]) + 2 * weigh(past))
        how = program.how if mapping == "rule" else mapping
        return cls(size, program, how, need)

    @property
    def runs(self) -> int:
        """The number R of runs."""
        return len(self.program.job.seeds)

    def beyond(self, planned: float, most: float) -> bool:
        """Whether it needs more than `most` GiB next to `planned`; then it is skipped."""
        need = self.need / GIB
        if planned + need > most:
            self.skipped = f"needs about {need:.1f} GiB beside {planned:.1f}; --max-gib is {most:g}"
        return bool(self.skipped)

    def start(self) -> None:
        """Compile, initialise, warm up, and choose how many chunks are a sample."""
        program = self.program
        reset_peak()
        self.data = sharding.replicate(self.size.data, program.devices)
        self.rows = program.rows(list(range(self.runs)))
        # `rows` has a copy
        program.past = {}
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
        """Seconds per update over `calls` chunks, with metrics brought to the host after each."""
        with alone():
            began = time.perf_counter()
            for _ in range(self.calls):
                self.chunk += 1
                chunk = jnp.asarray(self.chunk, jnp.int32)
                self.state, metrics = self.step(self.state, *self.rows, chunk, self.data)
                jax.tree.map(np.asarray, metrics)
            jax.block_until_ready(self.state)
            return (time.perf_counter() - began) / (self.calls * self.program.chunk)

    def program_size(self) -> int:
        """Bytes of the compiled chunk on all devices, by XLA's count."""
        return program_bytes(self.step) * self.program.devices.size

    def line(self, single: "Cell | None", work: float | None) -> Line:
        """The cell's line.

        `single` is the same cell with one run, `work` the operations of one run's update.
        """
        line = {
            "benchmark": "updates",
            "size": self.size.name,
            "system": self.size.system,
            "stage": self.program.stage.name,
            "agents": self.size.spec.agents,
            "runs": self.runs,
        }
        if self.skipped:
            return {**line, "skipped": self.skipped}

        cost = statistics.median(self.seconds)
        best = min(self.seconds)
        ratio = ratio_of_best = None
        if single:
            ratio = cost / (self.runs * statistics.median(single.seconds))
            ratio_of_best = best / (self.runs * min(single.seconds))
        return {
            **line,
            "mapping": self.how,
            "devices": self.program.devices.size,
            "updates_per_second": 1 / cost,  # of all R at once
            "updates_per_second_low": 1 / max(self.seconds),
            "updates_per_second_high": 1 / best,
            "seconds_per_update": cost,
            "seconds_per_update_low": best,
            "seconds_per_update_high": max(self.seconds),
            "ratio": ratio,
            "ratio_of_best": ratio_of_best,
            **self.shares(cost, work),
            "compile_seconds": self.program.compile_seconds,
            "samples": len(self.seconds),
            "updates_per_sample": self.calls * self.program.chunk,
            "program_gib": self.program_size() / GIB,
            "peak_gib": self.peak / GIB,  # of the process, with the cells of fewer runs in it
        }

    def shares(self, cost: float, work: float | None) -> Line:
        """The cost relative to the machine's ceiling; None where XLA counts no operations."""
        dtype = "bfloat16" if precision() == "bfloat16" else "float32"
        most = ceiling(self.program.devices.size, dtype=dtype)
        state = weigh(self.program.shapes["state"])
        rate = floor = None
        if work:
            rate = work * self.runs / cost
            floor = self.runs * (work / most.flops + 2 * state / most.bytes)
        return {
            "flop_per_update": work,  # of one run
            "gflop_per_second": rate and rate / 1e9,
            "ceiling_gflop_per_second": most.flops / 1e9,
            "ceiling_gb_per_second": most.bytes / 1e9,
            "ceiling_share": rate and rate / most.flops,
            "floor_share": floor and floor / cost,
            "state_mib": state / 2**20,  # of one run
        }


def measure(
    size: Size,
    index: int,
    runs: Sequence[int],
    seconds: float,
    mapping: str = "rule",
    max_gib: float = 12.0,
    patience: float = 20.0,
) -> list[Line]:
    """The lines of the stage `index` of a size for several R, which take turns."""
    past = untrained(size, index)
    work = operations(size, index, past)
    cells = [Cell.of(size, index, r, past, mapping) for r in sorted(set(runs))]
    planned = 0.0
    timed: list[Cell] = []
    for cell in cells:
        if cell.beyond(planned, max_gib):
            continue
        ahead = 0.0
        if timed:
            ahead = timed[-1].lasts * cell.runs / timed[-1].runs
        if ahead > patience:
            cell.skipped = f"a sample would take about {ahead:.0f} s; --patience is {patience:g}"
            continue
        planned += cell.need / GIB
        cell.start()
        timed.append(cell)

    end = time.perf_counter() + seconds * len(timed)
    while timed and (len(timed[0].seconds) < ROUNDS or time.perf_counter() < end):
        for cell in timed:
            cell.seconds.append(cell.sample())
    single = next((cell for cell in timed if cell.runs == 1), None)
    return [cell.line(single, work) for cell in cells]


# --- what is printed ---


COLUMNS = (
    "size", "system", "stage", "n", "R", "mapping", "updates/s", "range", "ms/update",
    "cost(R)/(R cost(1))", "GFLOP/s", "of the ceiling", "floor/cost", "compile s", "peak GiB",
)  # fmt: skip
NUMBERS = (
    "ratio", "gflop_per_second", "ceiling_share", "floor_share", "compile_seconds", "peak_gib",
)  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [COLUMNS, (*["---"] * 3, "---:", "---:", "---", *["---:"] * 9)]
    for x in lines:
        counts = (str(x.get("agents", "")), str(x.get("runs", "")))
        name = (x["size"], x["system"], x["stage"], *counts)
        if "skipped" in x:
            rows.append((*name, f"skipped: {x['skipped']}", *[""] * 9))
            continue
        low = short(x["updates_per_second_low"])
        high = short(x["updates_per_second_high"])
        rate = (x["mapping"], short(x["updates_per_second"]), f"{low} to {high}")
        numbers = (short(x[field]) for field in NUMBERS)
        rows.append((*name, *rate, short(1e3 * x["seconds_per_update"]), *numbers))
    return markdown(rows)


def checked(flags: Flags) -> list[str]:
    """The systems that were asked for; raises JaxomarlError for flags that mean nothing."""
    if flags.mapping not in MAPPINGS:
        raise refuse("--mapping", f"one of {', '.join(MAPPINGS)}", flags.mapping, "")
    if not flags.runs or min(flags.runs) < 1 or min(flags.agents) < 0 or flags.devices < 0:
        found = (flags.runs, flags.agents, flags.devices)
        way = "For example --runs 1 4 16."
        raise refuse("--runs, --agents, --devices", "positive counts", found, way)
    systems = list(flags.systems)
    if systems == ["all"]:
        systems = list(REGISTRY)
    if flags.stages:
        sizes = [size(name, system) for system in systems for name in flags.sizes]
        known = {stage for one in sizes for stage in one.stages}
        for stage in set(flags.stages) - known:
            raise refuse("--stages", f"some of {', '.join(sorted(known))}", stage, "")
    return systems


def kept_lines(flags: Flags) -> list[Line]:
    """The lines of a stopped command that --resume keeps: this machine's, and full stages."""
    if not (flags.resume and flags.out and flags.out.exists()):
        return []
    stages: dict[tuple, list[Line]] = {}
    for text in read_file(flags.out).decode(errors="replace").splitlines():
        try:
            line = line_of(text)
        except ValueError:
            # the last line of a command that was killed
            continue
        if not documents.is_of(line, NAMED) or not documents.is_of(line.get("agents"), (int, None)):
            continue
        here = line.get("machine") == machine()
        if here and line.get("precision") == rounded().get("precision"):
            stages.setdefault(stage_of(line), []).append(line)
    runs = set(flags.runs)
    full = [own for own in stages.values() if {line["runs"] for line in own} >= runs]
    return [line for own in full for line in own]


def stage_of(line: Line) -> tuple:
    """What a line's stage is called."""
    return line["size"], line["system"], line["stage"], line.get("agents")


def bench(flags: Flags, kept: Sequence[Line] = ()) -> Iterator[Line]:
    """Every line, as it comes; a stage that systems share, settings and all, is timed once.

    Stages that `kept` lines have are left out.
    """
    systems = checked(flags)
    done = {stage_of(line) for line in kept}
    timed: set[tuple] = set()
    for name, system, agents in itertools.product(flags.sizes, systems, flags.agents):
        try:
            one = size(name, system, agents)
        except JaxomarlError as error:
            if len(systems) == 1:
                raise
            line = {"benchmark": "updates", "size": name, "system": system, "stage": ""}
            yield {**line, "skipped": str(error)}
            continue
        for index, stage in enumerate(one.definition.pipeline(one.spec, one.cfg, one.env)):
            kind = name, agents, Identity.of(stage, [one.cfg], [0], {}).kind
            if kind in timed or (flags.stages and stage.name not in flags.stages):
                continue
            timed.add(kind)
            if (name, system, stage.name, one.spec.agents) in done:
                continue
            limits = flags.mapping, flags.max_gib, flags.patience
            yield from measure(one, index, flags.runs, flags.seconds, *limits)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.updates")
    if flags.devices:
        jax.config.update("jax_num_cpu_devices", flags.devices)
    else:
        runtime.use_cores()
    kept = kept_lines(flags)
    return report(bench(flags, kept), table, flags.out, kept)


if __name__ == "__main__":
    sys.exit(main())

"""Updates per second of OMSD's stages for R runs at once: `python -m benchmarks.updates`, or `make bench`.

What is timed is what training runs: the runner's compiled chunk, on its devices, under its mapping rule, and the
metrics brought to the host after each chunk. All R of one stage take turns, round after round, so that a disturbance of
the machine falls on all of them alike; medians are reported beside their range, and the cost of R runs against R times
the cost of one:

    cost(R) = seconds per update of all R runs,   ratio = cost(R) / (R cost(1))

Stages before the timed one are initialised and not trained: an update's cost does not depend on values.
"""

import contextlib
import re
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.report import report, short
from jaxomarl.algorithms import omsd
from jaxomarl.base import Dataset, Episodes, Past, Spec, refuse
from jaxomarl.cli import runtime
from jaxomarl.data import catalog as data_catalog
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import statistics as data_statistics
from jaxomarl.envs import catalog
from jaxomarl.presets import PRESETS
from jaxomarl.training import sharding
from jaxomarl.training.runner import Job, Program

STAGES = ("critic", "scores-conditional", "policy")
MAPPINGS = ("rule", "vmap", "map")
SPREAD = Spec(obs_dims=(18,) * 3, act_dims=(2,) * 3, state_dim=54, horizon=25)  # three agents in MPE's spread
SAMPLE = 0.25  # seconds that one timed sample lasts at least
ROUNDS = 3  # samples of every cell at least, whatever --seconds says
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time the updates of OMSD's stages: one JSON line per cell (size, stage, runs), then a table."""

    sizes: tuple[str, ...] = ("game", "mpe")
    """game: width 32, batch 64 (preset mode-seeking). mpe: the paper's sizes. WIDTHxBATCH: on mpe's shapes."""
    stages: tuple[str, ...] = STAGES
    runs: tuple[int, ...] = (1, 4, 16)
    """R; a ratio needs 1 among them."""
    seconds: float = 3.0
    """Timed seconds per cell; slow cells take three samples all the same."""
    mapping: str = "rule"
    """The runner's own rule, or vmap, or map: how a device goes through its runs."""
    devices: int = 0
    """CPU devices; 0: one per core, as in training."""
    max_gib: float = 12.0
    """Memory that a cell may take by estimate; one that needs more is skipped, with the reason on its line."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


# --- what is timed ---


class Size(NamedTuple):
    """A task's shapes, OMSD's settings on it, and data to draw from."""

    name: str
    spec: Spec
    cfg: omsd.Config
    data: Dataset

    def job(self, runs: int) -> Job:
        """R runs that differ in their seed."""
        return Job(omsd.OMSD, self.spec, [self.cfg] * runs, list(range(runs)), self.data, data_statistics(self.data))


def size(name: str) -> Size:
    """`game`, `mpe`, or WIDTHxBATCH: every width and batch of the mpe size replaced."""
    if name == "game":
        task, preset = catalog.make("games/bandit"), PRESETS["mode-seeking"]
        data, _ = data_catalog.load(task, preset.data[task.name])
        return Size(name, task.env.spec, omsd.Config(**preset.cfg), data)  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    if name != "mpe":
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", name):
            raise refuse("--sizes", "game, mpe or WIDTHxBATCH", name, "For example 128x512.")
        width, batch = map(int, name.split("x"))
        changed = {
            f"{part}_{what}": n
            for part in ("critic", "score", "policy")
            for what, n in (("width", width), ("batch", batch))
        }
    # An update takes a tenth of a second: four to a chunk, not a thousand. A map copies a run's state once per chunk,
    # which four updates hide less well; and a chunk of one would be another program, for XLA drops a loop of one.
    return Size(name, SPREAD, omsd.Config(**{**changed, "chunk": 4}), random_data(SPREAD, episodes=800))


def random_data(spec: Spec, episodes: int, seed: int = 0) -> Dataset:
    """Whole episodes of normal numbers, actions clipped to [-1, 1]."""
    rng, n, length = np.random.default_rng(seed), spec.agents, spec.horizon + 1
    normal = lambda *shape: rng.standard_normal((episodes * length, *shape), np.float32)
    step = np.tile(np.arange(length, dtype=np.int32), episodes)
    left = spec.horizon - step
    action = np.clip(normal(n, spec.act_width), -1, 1) * spec.act_mask * (left > 0)[:, None, None]
    obs, state = normal(n, spec.obs_width) * spec.obs_mask, normal(spec.state_dim)
    none = np.zeros_like(step)
    return pack(Episodes(obs, state, action, normal(n), none.astype(np.float32), step, left, none), spec)


def untrained(size: Size, index: int) -> Past:
    """Statistics and first states of the stages before `index`, for one run."""
    past: Past = {"stats": data_statistics(size.data)}
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
    seconds: list[float] = field(default_factory=list)  # per update of all R runs, one entry per sample
    calls: int = 1  # chunks in a sample
    chunk: int = 0  # chunks done
    rss: int = 0
    skipped: str = ""

    @classmethod
    def of(cls, size: Size, index: int, runs: int, past: Past, mapping: str = "rule") -> "Cell":
        """The cell, nothing of it compiled yet; `past` is one run's and is repeated."""
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), past)
        program = Program(size.job(runs), index, many)
        weigh = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
        # The finished stages are held twice for a moment, the state thrice at most: a map copies it.
        need = runs * (3 * weigh(program.shapes["state"]) + 2 * weigh(past))
        return cls(size, program, program.how if mapping == "rule" else mapping, need)

    @property
    def runs(self) -> int:
        """R."""
        return len(self.program.job.seeds)

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
        self.rss = peak()

    def sample(self) -> float:
        """Seconds per update over `calls` chunks, the metrics brought to the host after each, as training does."""
        began = time.perf_counter()
        for _ in range(self.calls):
            self.chunk += 1
            self.state, metrics = self.step(self.state, *self.rows, jnp.asarray(self.chunk, jnp.int32), self.data)
            jax.tree.map(np.asarray, metrics)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / (self.calls * self.program.chunk)

    def held(self) -> int:
        """Bytes of the compiled chunk by XLA's count: arguments, results that alias none, temporaries."""
        m = self.step.memory_analysis()
        if m is None:
            return 0
        one = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
        return one * self.program.devices.size

    def line(self, single: "Cell | None", work: float | None) -> dict[str, Any]:
        """What is reported; `single` is the same with one run, `work` one update's floating-point operations."""
        line = {"benchmark": "updates", "size": self.size.name, "stage": self.program.stage.name, "runs": self.runs}
        if self.skipped:
            return {**line, "skipped": self.skipped}
        cost, best = statistics.median(self.seconds), min(self.seconds)
        alone = single.seconds if single else []
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
            "compile_seconds": self.program.compile_seconds,
            "samples": len(self.seconds),
            "updates_per_sample": self.calls * self.program.chunk,
            "program_gib": self.held() / GIB,
            "peak_rss_gib": self.rss / GIB,  # of the process, with the cells of fewer runs in it
        }


def measure(
    size: Size, stage: str, runs: Sequence[int], seconds: float, mapping: str = "rule", max_gib: float = 12.0
) -> list[dict[str, Any]]:
    """One stage at one size for several R, timed by turns: their lines, in the order of R."""
    index = STAGES.index(stage)
    past = untrained(size, index)
    work = operations(size, index, past)
    cells, planned = [Cell.of(size, index, r, past, mapping) for r in sorted(set(runs))], 0.0
    for cell in cells:
        need = cell.need / GIB
        if planned + need > max_gib:
            cell.skipped = f"needs about {need:.1f} GiB beside {planned:.1f}; --max-gib is {max_gib:g}"
            continue
        planned += need
        cell.start()
    timed = [cell for cell in cells if not cell.skipped]
    end = time.perf_counter() + seconds * len(timed)
    while timed and (len(timed[0].seconds) < ROUNDS or time.perf_counter() < end):
        for cell in timed:
            cell.seconds.append(cell.sample())
    single = next((cell for cell in timed if cell.runs == 1), None)
    return [cell.line(single, work) for cell in cells]


# --- work and memory ---


def operations(size: Size, index: int, past: Past) -> float | None:
    """Floating-point operations of one run's update, batch and optimiser included; None where XLA does not count."""
    program = Program(size.job(1), index, jax.tree.map(lambda x: x[None], past))
    args = (program.shapes["state"], program.key(0), size.cfg, past, size.data)
    traced = jax.make_jaxpr(program.update)(*args)
    total = counted(traced)
    return None if total is None else total + repeated(traced.jaxpr)


def counted(closed: Any) -> float | None:
    """XLA's count, in which the body of a loop counts once."""
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


def reset_peak() -> None:
    """Start the count of peak memory afresh, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Highest resident bytes of the process since the last reset, or since its start."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# --- what is printed ---


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    header = (
        "size", "stage", "R", "mapping", "updates/s", "range", "ms/update", "cost(R)/(R cost(1))", "GFLOP/s",
        "compile s", "peak GiB",
    )  # fmt: skip
    rows = [header, ("---", "---", "---:", "---", *["---:"] * 7)]
    for x in lines:
        name = (x["size"], x["stage"], str(x["runs"]))
        if "skipped" in x:
            rows.append((*name, f"skipped: {x['skipped']}", *[""] * 7))
            continue
        low, high = short(x["updates_per_second_low"]), short(x["updates_per_second_high"])
        numbers = (
            1e3 * x["seconds_per_update"],
            x["ratio"],
            x["gflop_per_second"],
            x["compile_seconds"],
            x["peak_rss_gib"],
        )
        rows.append((*name, x["mapping"], short(x["updates_per_second"]), f"{low} to {high}", *map(short, numbers)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def checked(flags: Flags) -> list[Size]:
    """The sizes that were asked for; raises JaxomarlError for flags that mean nothing."""
    for stage in flags.stages:
        if stage not in STAGES:
            raise refuse("--stages", f"some of {', '.join(STAGES)}", stage, "")
    if flags.mapping not in MAPPINGS:
        raise refuse("--mapping", f"one of {', '.join(MAPPINGS)}", flags.mapping, "")
    if not flags.runs or min(flags.runs) < 1 or flags.devices < 0:
        raise refuse("--runs, --devices", "positive counts", (flags.runs, flags.devices), "For example --runs 1 4 16.")
    return [size(name) for name in flags.sizes]


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes."""
    for one in checked(flags):
        for stage in flags.stages:
            yield from measure(one, stage, flags.runs, flags.seconds, flags.mapping, flags.max_gib)


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

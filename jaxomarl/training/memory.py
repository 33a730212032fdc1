"""How many runs of a group the memory of a device holds at once, known before the first update.

What a stage needs is asked of its compiled programs, which say how many bytes their arguments,
results and intermediate arrays take. Next to them lie the finished stages, and what is written to
disk. The programs are kept on the job: training compiles none of them a second time.

Where a group does not fit, its runs are trained in portions, one after another. Every random key is
counted, so a portion's run is the run that it would be among all.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxomarl.base import JaxomarlError, Past, refuse
from jaxomarl.optim import Net
from jaxomarl.training import sharding
from jaxomarl.training.program import Job, Program

SHARE = 0.9
"""Share of the free memory that training may take; the rest is for compilation and tables."""
UNITS = {"": 1, "B": 1, **{f"{k}iB": 1024**i for i, k in enumerate("KMGT", 1)}}
"""Bytes of each unit in a text such as "8GiB"."""
SMALLER = (
    "Take smaller networks or batches (the settings that end in width and batch), or a device "
    "with more memory; --memory says how much may be taken."
)
"""What to do where not even one run fits."""


class MemoryTooSmallError(JaxomarlError):
    """Not even one run fits into the memory."""


class Plan(NamedTuple):
    """How the R runs of a group are trained."""

    runs: int
    """Runs at once."""
    portions: int
    """How many times so many."""
    needed: int
    """Bytes that all R runs at once need, in the most demanding stage."""
    taken: int
    """Bytes that the runs at once need."""
    limit: int
    """Bytes that may be taken."""
    kept: int
    """Bytes of the finished stages of all R runs."""


# --- what there is ---


def parse_bytes(text: str) -> int:
    """The bytes of a text such as "8GiB" or "500MiB"; 0 of an empty one.

    Raises JaxomarlError for another text.
    """
    if not text:
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]iB|B?)", text.strip())
    if not found or not float(found[1]) * UNITS[found[2]] >= 1:
        way = f"Units: {', '.join(filter(None, UNITS))}. Leave it out for what is free."
        raise refuse("--memory", "an amount of memory such as 8GiB", text, way)
    return int(float(found[1]) * UNITS[found[2]])


def words(count: int) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.1f} {unit}"
    return f"{count} B"


def limit(asked: int = 0) -> int:
    """Bytes that training may take: those asked for, or a share of what is free now.

    On an accelerator they are one device's, on a CPU they are the machine's.
    """
    if asked:
        return asked
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            free.append(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return int(SHARE * (min(free) if free else host_memory()))


def host_memory(root: Path = Path("/")) -> int:
    """Free bytes of the machine, or of this process's control group where that has fewer.

    A machine that does not say is taken as one without a limit.
    """
    free = []
    with contextlib.suppress(OSError, StopIteration):
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        line = next(x for x in lines if x.startswith("MemAvailable:"))
        free.append(int(line.split()[1]) * 1024)
    free += list(_control_groups(root))
    return max(0, min(free, default=1 << 62))


def _control_groups(root: Path) -> Iterator[int]:
    """Free bytes of this process's control group, and of the groups above it."""
    kinds = {
        # of version 2, then of version 1
        "": ("", "memory.max", "memory.current", "inactive_file"),
        "memory": (
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kind, path = line.split(":", 2)
        if kind not in kinds:
            continue
        below, most, used, idle = kinds[kind]
        top = root / "sys/fs/cgroup" / below
        folder = top / path.strip("/")
        for group in (folder, *folder.parents):
            # a group without a limit says "max", or has no file
            with contextlib.suppress(OSError, ValueError):
                allowed = int((group / most).read_text(encoding="utf-8"))
                taken = int((group / used).read_text(encoding="utf-8"))
                stat = (group / "memory.stat").read_text(encoding="utf-8").split()
                # pages of files that are given back when memory is asked for
                given_back = dict(zip(stat[::2], stat[1::2], strict=False)).get(idle, 0)
                yield allowed - taken + int(given_back)
            if group == top:
                break


# --- what is needed ---


def size(tree: PyTree) -> int:
    """Bytes of a tree's arrays or shapes."""
    sizes = []
    for x in jax.tree.leaves(tree):
        # a typed key is two numbers of 32 bits
        keys = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        sizes.append(x.size * (8 if keys else np.dtype(x.dtype).itemsize))
    return sum(sizes)


def plan(job: Job, at_most: int = 0) -> Plan:
    """How many of a job's runs are trained at once; nothing is trained for it.

    `at_most` is the size of the portions in which a sweep began: it continues in them, if they fit.
    Raises MemoryTooSmallError where not even one run fits.
    """
    most = limit(job.memory)
    count = len(job.seeds)
    fit = count
    needed = 0
    past: Past = {}
    stages: list[Needs] = []
    for program, finished in traced(job):
        past = finished
        needs = Needs(program, size(program.past), len(program.missing()))
        # the states alone may say so before anything is compiled
        needs.check(needs.least(1), most)
        stages.append(needs)
    for needs in stages:
        # threads compile one stage while the next is traced
        needs.begin(count, most)
    for needs in stages:
        needed = max(needed, needs.of(count, most))
        fit = needs.fitting(fit, most)

    # the last stage's state is finished too
    kept_bytes = size(past)
    if kept_bytes * fit > most:
        fit = most // kept_bytes

    if at_most:
        runs = max(1, min(fit, at_most))
    else:
        # portions of equal size
        runs = _whole(-(-count // -(-count // max(1, fit))), fit)
    # fewer runs may be updated in larger blocks, which need more
    while max(needs.of(runs, most) for needs in stages) > most:
        runs = min(needs.fitting(max(1, runs - 1), most) for needs in stages)
    return Plan(
        runs=runs,
        portions=-(-count // runs),
        needed=max(needed, kept_bytes * count),
        taken=max(kept_bytes * runs, *(needs.of(runs, most) for needs in stages)),
        limit=most,
        kept=kept_bytes * count,
    )


def traced(job: Job) -> Iterator[tuple[Program, Past]]:
    """Each stage's program, of shapes alone, and what is finished after it."""
    past: Past = {"stats": jax.tree.map(_leading, job.stats)}
    for index, stage in enumerate(job.make(job.cfgs[0])):
        program = Program(job, index, dict(past))
        kept = jax.eval_shape(stage.kept, program.state_shape)
        past = {**past, stage.name: jax.tree.map(_leading, kept)}
        yield program, past


def parameters(job: Job) -> int:
    """Numbers in the networks of one run; targets and the optimiser's numbers are not counted."""
    is_net = lambda x: isinstance(x, Net)
    count = 0
    for program, _ in traced(job):
        nets = jax.tree.leaves(program.state_shape, is_leaf=is_net)
        params = [net.params for net in nets if is_net(net)]
        count += sum(x.size for x in jax.tree.leaves(params))
    return count


def _whole(runs: int, fit: int) -> int:
    """So many runs, rounded up to fill the devices where that fits."""
    return min(sharding.padded(runs, sharding.mesh(runs)), max(fit, runs))


def _leading(x: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array of one run, leading with R = 1."""
    return jax.ShapeDtypeStruct((1, *x.shape), x.dtype)


class Needs:
    """Bytes that a stage needs, by the number of runs at once."""

    def __init__(self, program: Program, past: int, missing: int) -> None:
        """`past` are the bytes of one run's finished stages, `missing` the rows to be trained."""
        self.program = program
        self.past = past
        self.missing = missing
        self.state = size(program.state_shape)
        self.known: dict[int, int] = {}

    def least(self, runs: int) -> int:
        """What the states alone take, and copies of those that are being written."""
        return runs * self.past + 2 * min(runs, self.missing) * self.state

    def begin(self, runs: int, most: int) -> None:
        """Begin to compile the programs that `of` asks."""
        if self.missing and self.least(runs) <= most:
            rows = min(runs, self.missing)
            self.program.lay(rows)
            self.program.begin(rows)

    def of(self, runs: int, most: int) -> int:
        """What so many runs need; where their states alone are more than `most`, these."""
        if not self.missing or self.least(runs) > most:
            return self.least(runs)
        if runs not in self.known:
            rows = min(runs, self.missing)
            # a copy for the disk, and what its writer buffers
            saved = 2 * rows * self.state
            self.known[runs] = runs * self.past + saved + self.compiled(rows)
        return self.known[runs]

    def compiled(self, rows: int) -> int:
        """What the stage's programs take for so many rows, by their compiled forms."""
        program = self.program
        program.lay(rows)
        on_one = max(map(program_bytes, program.programs(rows)))
        shared = size((program.job.data, program.job.held))
        devices = program.devices.size
        if jax.default_backend() != "cpu":
            devices = 1
        # the data are there already, on one device
        return devices * on_one - shared

    def check(self, one: int, most: int) -> None:
        """Raise MemoryTooSmallError where one run needs `one` bytes, which is more than `most`."""
        if one <= most:
            return
        field = f"memory for one run of stage {self.program.stage.name}"
        found = f"{words(most)} that may be taken"
        error = MemoryTooSmallError(str(refuse(field, f"at least {words(one)}", found, SMALLER)))
        error.field = "--memory"
        raise error

    def fitting(self, runs: int, most: int) -> int:
        """The largest number of runs, up to `runs`, that needs no more than `most`."""
        while self.of(runs, most) > most:
            one = self.of(1, most)
            self.check(one, most)
            each = max(1, (self.of(runs, most) - one) // (runs - 1))
            runs = max(1, min(1 + (most - one) // each, runs - 1))
        return runs


def program_bytes(compiled: Any) -> int:
    """The bytes on one device that a compiled program needs, its arguments and results included."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    given = found.argument_size_in_bytes + found.temp_size_in_bytes
    return given + found.output_size_in_bytes - found.alias_size_in_bytes


def facts(programs: Sequence[Any]) -> dict[str, int]:
    """What a finished stage says of the memory of each device, in bytes.

    `program_bytes` are those of the most demanding of its compiled programs. A device that counts
    adds `peak_bytes`: the most that this process has had in use so far.
    """
    found = {"program_bytes": max(map(program_bytes, programs), default=0)}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [of["peak_bytes_in_use"] for of in stats if "peak_bytes_in_use" in of]
    if peaks:
        found["peak_bytes"] = max(peaks)
    return found


def portions(count: int, runs: int) -> Sequence[range]:
    """The numbers 0 to count - 1, so many at a time."""
    return [range(first, min(first + runs, count)) for first in range(0, count, runs)]


def told(found: Plan, count: int) -> str:
    """A line about a group that is trained in portions, or of what it takes."""
    if found.portions == 1:
        return f"{count} runs at once take {words(found.taken)} of {words(found.limit)}"
    all_of_it = f"{count} runs at once need {words(found.needed)} of memory"
    some = f"{found.runs} at a time take {words(found.taken)}"
    return f"{all_of_it}, and {words(found.limit)} may be taken: {found.portions} portions, {some}"

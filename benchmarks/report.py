"""The lines of every benchmark: their machine, their file and their tables."""

import contextlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import tyro

from jaxomarl.api import provenance, runtime
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.numerics import rounded
from jaxomarl.paths import replace_file
from jaxomarl.results import store

Line = dict[str, Any]
TURN = "JAXOMARL_BENCH_TURN"
"""A file in the environment: processes that compile at the same time lock it to measure."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The flag that every benchmark has."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of the JSON lines; empty: the standard output."""


Asked = TypeVar("Asked", bound=Written)
"""The flags of one benchmark."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A lock while a program is timed, against other parts of `python -m benchmarks --beside N`."""
    if TURN not in os.environ:
        yield
        return
    # Windows has no fcntl; parts run one after another there
    import fcntl

    with open(os.environ[TURN], "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def command(
    name: str,
    flags_class: type[Asked],
    measure: Callable[[Asked], Iterable[Line]],
    table: Callable[[Sequence[Line]], str],
    argv: Sequence[str] | None,
) -> int:
    """Run `python -m benchmarks.NAME` on all cores: measure and report; the exit code."""
    flags = tyro.cli(flags_class, args=argv, prog=f"python -m benchmarks.{name}")
    runtime.use_cores()
    return report(measure(flags), table, flags.out)


def check_parts(parts: Iterable[str], known: Collection[str]) -> None:
    """Raise JaxomarlError where `--parts` has a name that is not known."""
    for part in parts:
        if part not in known:
            raise refuse("--parts", f"some of {', '.join(known)}", part, "")


def report(
    lines: Iterable[Line],
    table: Callable[[Sequence[Line]], str],
    out: Path | None,
    kept: Sequence[Line] = (),
) -> int:
    """Write each line as JSON as it comes, then all lines as a table; the exit code.

    Lines that are `kept` of an earlier command stand before the new ones.

    A line has the load and the machine added. Lines go to `out`, or to the standard output, and
    everything else to the standard error. Compile times are part of the lines, so the compile
    cache is off. Next to `out` goes its provenance, with which `jaxomarl keep` takes the lines.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    print(machine(), file=sys.stderr)
    written = [*kept]
    try:
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            before = "".join(f"{json.dumps(line)}\n" for line in kept)
            replace_file(out, before.encode())
            facts = provenance.facts(typed(), seeds=[], scale=1.0)
            store.write_json(provenance.of_lines(out), facts)
        with out.open("a", encoding="utf-8") if out else contextlib.nullcontext(sys.stdout) as file:
            for line in lines:
                load = os.getloadavg()[0]
                written.append({**line, **rounded(), "load": load, "machine": machine()})
                print(json.dumps(written[-1]), file=file, flush=True)
    except (JaxomarlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{machine()}\n\n{table(written)}", file=sys.stderr)
    return 0


def line_of(text: str) -> Line:
    """A line from its text; ValueError where it is no JSON object."""
    try:
        line = json.loads(text)
    except RecursionError:
        raise ValueError("lists nested too deep") from None
    if not isinstance(line, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    return line


def typed() -> str:
    """The command line of this process as one types it."""
    name = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first two rows are its header and its rule."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def columns(lines: Sequence[Line], kind: str, named: Sequence[str]) -> str:
    """A table of one benchmark's lines, some of their fields as columns; empty without lines."""
    rows = []
    for line in lines:
        if line["benchmark"] == kind:
            rows.append([cell(line.get(name, "")) for name in named])
            if "skipped" in line:
                rows[-1][-1] = f"skipped: {line['skipped']}"
    if not rows:
        return ""
    header = [name.replace("_", " ") for name in named]
    return markdown([header, ["---"] * len(named), *rows])


def cell(value: object) -> str:
    """A field as a table shows it."""
    if value is None or isinstance(value, float):
        return short(value)
    return str(value)


def machine() -> str:
    """The machine of the numbers, in one line."""
    devices = (
        f"{jax.device_count()} {jax.default_backend()} device(s), {jax.devices()[0].device_kind}"
    )
    return f"{devices}; {cores()} cores; jax {jax.__version__}, Python {platform.python_version()}"


def short(x: float | None) -> str:
    """Three digits, or nothing."""
    if x is None:
        return ""
    if abs(x) >= 100:
        return f"{x:.0f}"
    return f"{x:#.3g}"


def cores() -> int:
    """Processor cores that the process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

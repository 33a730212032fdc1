"""Compare two files of lines, or two commits: `python -m benchmarks.compare OLD NEW`.

Lines that measure the same are compared; a ratio over 1 is slower. A ratio is flagged where it is
over --slower and the spread of the samples does not explain it: the newer's best is over the
older's median.

With `--run "updates --sizes game"` OLD and NEW are commits. Each is checked out into a folder of
its own, with the benchmarks of this one; what did not exist then is not measured there. The two
take turns, so that a disturbance of the machine falls on both. A line's median over the turns
counts.
"""

import json
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.report import Line, line_of, markdown, short
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.paths import read_file

ROOT = Path(__file__).parents[1]
NO_NAME = {"load", "machine", "samples", "updates_per_sample", "steps_per_sample", "skipped"}
"""Fields that are neither a measurement nor the name of one."""
ENDS = ("_low", "_high")

Name = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare two measurements; the exit code is 1 where something got slower."""

    old: tyro.conf.Positional[str]
    """A file of JSON lines, or with --run a commit."""
    new: tyro.conf.Positional[str]
    """The same of the newer measurement."""
    slower: float = 1.1
    """Ratio over which a line is flagged."""
    run: str = ""
    """A benchmark and its flags, such as "updates --sizes game --runs 1 16"."""
    turns: int = 3
    """How often each commit is measured."""
    keep: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder where the lines of --run are kept; empty: nowhere."""


def costs(line: Line) -> dict[str, tuple[float, float]]:
    """Measure -> (its value, the best of its samples), as costs: a rate becomes its inverse."""
    out = {}
    for name, value in line.items():
        if not is_positive(value):
            continue
        if name.endswith(ENDS) or name.startswith(("ceiling", "gflop")):
            continue
        if name.endswith("_per_second"):
            best = line.get(f"{name}_high")
            out[name] = 1 / value, 1 / (best if is_positive(best) else value)
        elif any(word.endswith("seconds") for word in name.split("_")):
            best = line.get(f"{name}_low")
            out[name] = value, best if is_positive(best) else value
    # the same number
    if "updates_per_second" in out:
        out.pop("seconds_per_update", None)
    return out


def is_positive(value: Any) -> bool:
    """Whether a value is a positive number with a positive inverse."""
    return isinstance(value, float) and 0.0 < value < math.inf and 1.0 / value < math.inf


def name(line: Line) -> Name:
    """What a line measures."""
    named = {field: value for field, value in line.items() if field not in NO_NAME}
    return tuple(sorted((k, v) for k, v in named.items() if isinstance(v, str | int | bool)))


def read(path: Path) -> list[Line]:
    """The lines of a file; raises JaxomarlError where it has no such lines."""
    try:
        texts = read_file(path).decode().splitlines()
        return [line_of(text) for text in texts if text.strip()]
    except (OSError, ValueError) as error:
        way = "Benchmarks write it with --out; two commits are compared with --run."
        raise refuse("OLD, NEW", "a file of JSON lines", f"{path}: {error}", way) from None


def gathered(lines: Sequence[Line]) -> dict[tuple[Name, str], tuple[float, float]]:
    """(what, measure) -> (median, best) over all lines that measure the same."""
    found: dict[tuple[Name, str], list[tuple[float, float]]] = {}
    for line in lines:
        if "skipped" not in line:
            for measure, pair in costs(line).items():
                found.setdefault((name(line), measure), []).append(pair)
    return {
        key: (statistics.median(value for value, _ in pairs), min(best for _, best in pairs))
        for key, pairs in found.items()
    }


def compared(
    old: Sequence[Line], new: Sequence[Line], slower: float
) -> list[tuple[Name, str, float, float, bool]]:
    """(what, measure, old cost, new cost, whether it is flagged), the worst ratio first."""
    older = gathered(old)
    newer = gathered(new)
    rows = []
    for key in older.keys() & newer.keys():
        what, measure = key
        a, _ = older[key]
        b, best = newer[key]
        flagged = b / a > slower and best > a and "compile" not in measure
        rows.append((what, measure, a, b, flagged))
    return sorted(rows, key=lambda row: -row[3] / row[2])


def table(rows: Sequence[tuple[Name, str, float, float, bool]]) -> str:
    """The rows as Markdown; fields that all of them share are left out of their names."""
    common = set()
    if len(rows) > 1:
        common = set.intersection(*(set(row[0]) for row in rows))
    cells = [
        ("what", "measure", "old", "new", "new / old", ""),
        ("---", "---", "---:", "---:", "---:", "---"),
    ]
    for what, measure, a, b, flagged in rows:
        called = ", ".join(f"{k} {v}" for k, v in what if (k, v) not in common)
        shown = (a, b)
        if measure.endswith("_per_second"):
            shown = (1 / a, 1 / b)
        mark = "slower" if flagged else ""
        cells.append((called, measure, *map(short, shown), f"{b / a:.2f}", mark))
    return markdown(cells)


def git(*arguments: str) -> str:
    """The output of git at the repository's root."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        way = "With --run both are commits."
        raise refuse("OLD, NEW", "commits of this repository", done.stderr.strip(), way)
    return done.stdout.strip()


def measured(flags: Flags, folder: Path) -> tuple[list[Line], list[Line]]:
    """The lines of two commits, measured by turns."""
    module, *rest = shlex.split(flags.run)
    places = []
    for side, commit in (("old", flags.old), ("new", flags.new)):
        place = folder / side
        exact = git("rev-parse", "--verify", f"{commit}^{{commit}}")
        git("worktree", "add", "--detach", "--force", str(place), exact)
        shutil.rmtree(place / "benchmarks", ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "benchmarks", place / "benchmarks", ignore=ignored)
        places.append(place)
    lines: tuple[list[Line], list[Line]] = [], []
    for turn in range(flags.turns):
        for side, place in enumerate(places):
            out = folder / f"{place.name}-{turn}.jsonl"
            ask = [sys.executable, "-m", f"benchmarks.{module}", *rest, "--out", str(out)]
            environment = {**os.environ, "PYTHONPATH": str(place)}
            done = subprocess.run(ask, cwd=place, env=environment, capture_output=True)
            if done.returncode:
                printed = done.stderr.decode().strip().splitlines()
                ended = f"benchmarks.{module} ended with {done.returncode}"
                raise JaxomarlError(f"{place.name}: {ended}: {printed[-1:]}")
            measured_lines = read(out)
            lines[side].extend(measured_lines)
            counted = f"turn {turn + 1} of {flags.turns}, {place.name}"
            print(f"{counted}: {len(measured_lines)} lines", file=sys.stderr)
    return lines


def both(flags: Flags) -> Iterator[list[Line]]:
    """The two sides' lines."""
    if not flags.run:
        yield from (read(Path(flags.old)), read(Path(flags.new)))
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            sides = measured(flags, Path(folder))
        finally:
            for side in ("old", "new"):
                place = Path(folder) / side
                if place.exists():
                    git("worktree", "remove", "--force", str(place))
    for side, lines in zip(("old", "new"), sides, strict=True):
        if flags.keep:
            flags.keep.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (flags.keep / f"{side}.jsonl").write_text(text, encoding="utf-8")
        yield lines


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; 0, 1 where something got slower, 2 for what cannot be compared."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.compare")
    try:
        if flags.turns < 1 or flags.slower <= 0:
            given = (flags.turns, flags.slower)
            raise refuse("--turns, --slower", "positive numbers", given, "Leave them out.")
        rows = compared(*both(flags), flags.slower)
        if not rows:
            way = "Give both the same flags."
            raise refuse("OLD, NEW", "lines that measure the same", "none in common", way)
    except JaxomarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    return int(any(row[-1] for row in rows))


if __name__ == "__main__":
    sys.exit(main())

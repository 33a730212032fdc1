"""Whether something got slower: `python -m benchmarks.compare OLD NEW`, two files of lines or two commits.

Lines of the two that measure the same are set beside one another; a ratio over 1 is slower. It is flagged where it is
over --slower and the spread of the samples does not explain it: the newer's best is over the older's median.

With `--run "updates --sizes game"` OLD and NEW are commits: each is checked out into a folder of its own, with the
benchmarks of this one (what did not exist then is not measured there), and the benchmark is run on both by turns, so
that a disturbance of the machine falls on both; of the turns each line's median counts.
"""

import json
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

from benchmarks.report import markdown, short
from jaxomarl.base import JaxomarlError, refuse

ROOT = Path(__file__).parents[1]
NO_NAME = {"load", "machine", "samples", "updates_per_sample", "steps_per_sample", "skipped"}
"""Fields that are neither measured nor say what is."""
ENDS = ("_low", "_high")

Line = dict[str, Any]
Name = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Set two measurements beside one another; the exit code is 1 where something got slower."""

    old: tyro.conf.Positional[str]
    """A file of JSON lines, or with --run a commit."""
    new: tyro.conf.Positional[str]
    slower: float = 1.1
    """Ratio over which something is flagged."""
    run: str = ""
    """A benchmark and its flags, such as "updates --sizes game --runs 1 16"."""
    turns: int = 3
    """How often each commit is measured."""
    keep: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where the lines of --run are kept; empty: nowhere."""


def costs(line: Line) -> dict[str, tuple[float, float]]:
    """Measure -> (its value, the best of its samples), all as costs: a rate is turned over."""
    out = {}
    for name, value in line.items():
        if (
            not isinstance(value, float)
            or name.endswith(ENDS)
            or name.startswith(("ceiling", "gflop"))
            or value <= 0
        ):
            continue
        if name.endswith("_per_second"):
            out[name] = 1 / value, 1 / (line.get(f"{name}_high") or value)
        elif any(word.endswith("seconds") for word in name.split("_")):
            out[name] = value, line.get(f"{name}_low") or value
    if "updates_per_second" in out:  # the same number
        out.pop("seconds_per_update", None)
    return out


def name(line: Line) -> Name:
    """What a line measures."""
    return tuple(
        sorted(
            (k, v) for k, v in line.items() if k not in NO_NAME and isinstance(v, str | int | bool)
        )
    )


def read(path: Path) -> list[Line]:
    """The lines of a file; raises JaxomarlError for what is none."""
    try:
        return [
            json.loads(text)
            for text in path.read_text(encoding="utf-8").splitlines()
            if text.strip()
        ]
    except (OSError, ValueError) as error:
        way = "Benchmarks write it with --out; two commits are compared with --run."
        raise refuse("OLD, NEW", "a file of JSON lines", f"{path}: {error}", way) from None


def gathered(lines: Sequence[Line]) -> dict[tuple[Name, str], tuple[float, float]]:
    """(what, measure) -> (median, best) over all lines that measure the same."""
    seen: dict[tuple[Name, str], list[tuple[float, float]]] = {}
    for line in lines:
        for measure, pair in costs(line).items() if "skipped" not in line else ():
            seen.setdefault((name(line), measure), []).append(pair)
    return {
        k: (statistics.median(v for v, _ in pairs), min(b for _, b in pairs))
        for k, pairs in seen.items()
    }


def compared(
    old: Sequence[Line], new: Sequence[Line], slower: float
) -> list[tuple[Name, str, float, float, bool]]:
    """(what, measure, old cost, new cost, whether it is flagged), the worst ratio first."""
    first, second = gathered(old), gathered(new)
    rows = []
    for key in first.keys() & second.keys():
        (a, _), (b, best) = first[key], second[key]
        rows.append((*key, a, b, b / a > slower and best > a and "compile" not in key[1]))
    return sorted(rows, key=lambda row: -row[3] / row[2])


def table(rows: Sequence[tuple[Name, str, float, float, bool]]) -> str:
    """The rows as Markdown; what all of them have in common is left out of their names."""
    common = set.intersection(*(set(row[0]) for row in rows)) if len(rows) > 1 else set()
    cells = [
        ("what", "measure", "old", "new", "new / old", ""),
        ("---", "---", "---:", "---:", "---:", "---"),
    ]
    for what, measure, a, b, flagged in rows:
        called = ", ".join(f"{k} {v}" for k, v in what if (k, v) not in common)
        shown = (1 / a, 1 / b) if measure.endswith("_per_second") else (a, b)
        cells.append(
            (called, measure, *map(short, shown), f"{b / a:.2f}", "slower" if flagged else "")
        )
    return markdown(cells)


def git(*arguments: str) -> str:
    """What git says at the repository's root."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise refuse(
            "OLD, NEW",
            "commits of this repository",
            done.stderr.strip(),
            "With --run both are commits.",
        )
    return done.stdout.strip()


def measured(flags: Flags, folder: Path) -> tuple[list[Line], list[Line]]:
    """The lines of two commits, measured by turns."""
    module, *rest = shlex.split(flags.run)
    places = []
    for side, commit in (("old", flags.old), ("new", flags.new)):
        place = folder / side
        git(
            "worktree",
            "add",
            "--detach",
            "--force",
            str(place),
            git("rev-parse", "--verify", f"{commit}^{{commit}}"),
        )
        shutil.rmtree(place / "benchmarks", ignore_errors=True)
        shutil.copytree(
            ROOT / "benchmarks", place / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
        )
        places.append(place)
    lines: tuple[list[Line], list[Line]] = [], []
    for turn in range(flags.turns):
        for side, place in enumerate(places):
            out = folder / f"{place.name}-{turn}.jsonl"
            ask = [sys.executable, "-m", f"benchmarks.{module}", *rest, "--out", str(out)]
            done = subprocess.run(
                ask, cwd=place, env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True
            )
            if done.returncode:
                said = done.stderr.decode().strip().splitlines()
                raise JaxomarlError(
                    f"{place.name}: benchmarks.{module} ended with {done.returncode}: {said[-1:]}"
                )
            lines[side].extend(read(out))
            print(
                f"turn {turn + 1} of {flags.turns}, {place.name}: {len(read(out))} lines",
                file=sys.stderr,
            )
    return lines


def both(flags: Flags) -> Iterator[list[Line]]:
    """The two sides' lines."""
    if not flags.run:
        yield from (read(Path(flags.old)), read(Path(flags.new)))
        return
    with tempfile.TemporaryDirectory() as made:
        try:
            sides = measured(flags, Path(made))
        finally:
            for side in ("old", "new"):
                if (Path(made) / side).exists():
                    git("worktree", "remove", "--force", str(Path(made) / side))
    for side, lines in zip(("old", "new"), sides, strict=True):
        if flags.keep:
            flags.keep.mkdir(parents=True, exist_ok=True)
            (flags.keep / f"{side}.jsonl").write_text(
                "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
            )
        yield lines


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; 0, 1 where something got slower, 2 for what cannot be compared."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.compare")
    try:
        if flags.turns < 1 or flags.slower <= 0:
            raise refuse(
                "--turns, --slower",
                "positive numbers",
                (flags.turns, flags.slower),
                "Leave them out.",
            )
        rows = compared(*both(flags), flags.slower)
        if not rows:
            raise refuse(
                "OLD, NEW",
                "lines that measure the same",
                "none in common",
                "Give both the same flags.",
            )
    except JaxomarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    return int(any(row[-1] for row in rows))


if __name__ == "__main__":
    sys.exit(main())

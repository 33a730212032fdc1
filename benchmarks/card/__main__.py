"""The card's queue: `make card`, or `python -m benchmarks.card`.

It runs the cells of `benchmarks.card.cells` on an accelerator, one after another. A call ends after
--minutes: the cell that runs then saves, and the next call continues there, with the compiled
programs of the first. Finished cells are not run again. A cell that fails is named, the others
continue, and later calls try it last.

    OUT/queue.json         the state of each cell
    OUT/cells/, OUT/logs/  what the cells' commands write and print
    OUT/programs/          compiled programs
    OUT/take/              what to take away, within --max-files and --max-mib

The exit code is 0 where the call did what it could in its minutes, 1 where a cell failed, 2 for a
mistake in what was asked, 130 or 75 after Ctrl-C or SIGTERM, and 74 where a file cannot be written.
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.card import queue
from benchmarks.card.cells import CELLS, Cell
from benchmarks.card.takeaway import Bounds
from jaxomarl.base import JaxomarlError, nearest, refuse
from jaxomarl.paths import user_path


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Run the tables that only an accelerator can train, cell by cell, within some minutes."""

    minutes: float = 9.0
    """Minutes of this call; 0: until all cells have ended."""
    max_files: int = 8
    """Most files that are left in OUT/take."""
    max_mib: float = 60.0
    """Most MiB of these files together; each is at most its equal share."""
    only: tuple[str, ...] = ()
    """Cells that are run, and those that they need; empty: all."""
    show: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print the cells with their state and expected seconds, and stop."""
    toy: bool = False
    """Take tiny sizes, also without an accelerator: they show whether it runs, nothing else."""
    out: Path | None = None
    """Folder of the queue (OUT), with which the next call continues; empty: runs/card, or
    runs/card-toy."""


def check(flags: Flags, cells: Sequence[Cell]) -> None:
    """Raise JaxomarlError for flags that mean nothing."""
    if not 0.0 <= flags.minutes < math.inf:
        raise refuse("--minutes", "0 or more", flags.minutes, "0 has no end.")
    if flags.max_files < 2:
        raise refuse("--max-files", "at least 2", flags.max_files, "A list, and an archive.")
    if not 1.0 <= flags.max_mib < math.inf:
        raise refuse("--max-mib", "at least 1", flags.max_mib, "Leave it out for 60.")
    names = [cell.name for cell in cells]
    for name in flags.only:
        if name not in names:
            raise refuse("--only", f"some of {', '.join(names)}", name, nearest(name, names))


def main(argv: Sequence[str] | None = None, cells: Sequence[Cell] = CELLS) -> int:
    """Run the queue, or list it; the exit code."""
    began = time.monotonic()
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.card")
    out = user_path(flags.out or Path("runs") / ("card-toy" if flags.toy else "card"))
    try:
        check(flags, cells)
        if flags.show:
            state = queue.read(out, flags.toy)
            print(queue.listed(cells, state, flags.toy, queue.in_use(out)))
            return 0
        bounds = Bounds(flags.max_files, flags.max_mib)
        limits = queue.Limits.of(began, flags.minutes)
        return queue.call(cells, flags.only, out, flags.toy, limits, bounds)
    except JaxomarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        kept = "What was finished is kept; the same command continues once that is fixed."
        print(f"error: {error}. {kept}", file=sys.stderr)
        return 74
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Malformed inputs, read one after another: `python malformed.py FOLDER SEED READER=FIRST:END ...`.

Prints a line before and a line after each, so that whoever started it sees which one ended the process. Input K of a
reader is the same whatever was read before it.
"""

import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import damage  # noqa: F401 (before the limit)
from readers import READERS, TIMES

from jaxomarl.base import JaxomarlError

MAYBE = ("arrays", "flags", "more flags", "card and benchmarks")
"""Readers of which an undamaged sample may be refused: arrays and flags are chosen as it is read."""
SECONDS, BYTES = 10, 1 << 30
BUSY = 6
MESSAGE = 4000
"""Most characters of a refusal."""


def limit():
    """From here on the process may have BYTES more than it has."""
    now = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, hard))


def watched(read):
    """How a read ends, as ("read", what it holds) or ("refused", None); a stall ends the process.

    Its seconds are of processors: the machine may be busy. What waits has BUSY times as many.
    """
    # the default of both signals is to end the process
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(BUSY * SECONDS)
    try:
        end = "read", read()
    except JaxomarlError as error:
        assert len(str(error)) < MESSAGE, str(error)[:200]
        end = "refused", None
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return end


def one(row, good, path, rng):
    """Damage a copy of a good sample and read it: (what was done, a function that tells how the read ends)."""
    copied(good, path)
    done = [row.harm(path, rng) for _ in range(rng.choice(TIMES))]
    told = "; ".join(filter(None, done))
    # one slight damage: what was written is known
    known = (
        row.exact
        and len(done) == 1
        and told.partition(" ")[0] in ("flip", "cut", "fill", "digits", "grow")
    )

    def read():
        state = rng.getstate()
        end, found = watched(lambda: row.read(path, rng))
        if known and end == "read":
            rng.setstate(state)
            text = lambda value, where: str(value).replace(str(where.parent), "")
            if text(found, path) != text(row.read(good, rng), good):
                return "OTHER"
        return end

    return told, read


def blamed(error):
    """An error in a line: its kind, its message, and the last of our own lines that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/jaxomarl/" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"FAILED {type(error).__name__} in {place}: {' '.join(str(error).split())[:200]}"


def copied(good, path):
    """A copy of a good sample, with what its reader compares it with beside it."""
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    shutil.copytree(good, path) if good.is_dir() else shutil.copy(good, path)
    if (good / "sweep.json").exists():
        shutil.copy(good / "sweep.json", path.parent / "good-sweep.json")
    return path


def main(folder, seed, *wanted):
    """Damage and read inputs, each of `wanted` like "omar=0:100"."""
    folder = Path(folder).absolute() / f"process-{os.getpid()}"
    failed = 0
    for name, ends in (word.split("=") for word in wanted):
        row = READERS[name]
        home = folder / name.replace(" ", "-")
        home.mkdir(parents=True)
        good = row.make(home)
        copied(good, folder / "good-stage" / "out") if name == "stage" else None
        # so that everything that is loaded lazily is there before the limit
        for k in range(row.warm):
            try:
                row.read(copied(good, folder / "damaged" / good.name), random.Random(k))
            except JaxomarlError as error:
                assert name in MAYBE, f"a good {name} is refused: {error}"
        for k in range(*map(int, ends.split(":"))):
            rng = random.Random(f"{seed}, {name}, {k}")
            limit()
            told, read = one(row, good, folder / "damaged" / good.name, rng)
            print(k, name, told, sep=", ", flush=True)
            began = time.perf_counter()
            try:
                end = read()
            except Exception as error:
                end = blamed(error)
            failed += end not in ("read", "refused")
            print(end, f"{time.perf_counter() - began:.3f}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

"""One cell's process: it is told to save in time, and ends with the queue, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxomarl.cli.signals import CODES

LOOK = 0.05
"""Seconds between two looks at a process."""
LAST = 4096
"""Bytes at the end of a log in which the reason of a failure is looked for."""
WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Becomes another command of Python, to which Linux sends SIGTERM when its parent dies."""
AGAIN = 75
"""Exit code of a command that was stopped and has saved."""


class Ended(NamedTuple):
    """How a process ended."""

    state: str
    """done, stopped or failed."""
    seconds: float
    reason: str = ""


class Signals:
    """Counts Ctrl-C, SIGTERM and SIGUSR1 in place of ending the queue."""

    def __init__(self) -> None:
        self.count = 0
        self.code = 0

    def __enter__(self) -> "Signals":
        self.before = {number: signal.signal(number, self.note) for number in CODES}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: object) -> None:
        """Remember the signal."""
        self.count += 1
        self.code = CODES[signal.Signals(number)]
        said = {
            1: "stopping: the cell saves what it has; once more stops it at once",
            2: "stopping at once; everything up to the last checkpoint is kept",
        }
        print(f"\n{said.get(self.count, 'killing the cell')}", file=sys.stderr, flush=True)


def command(words: Sequence[str]) -> list[str]:
    """`python -m WORDS`, which saves and ends when the queue is killed."""
    if sys.platform != "linux":
        return [sys.executable, "-m", *words]
    return [sys.executable, "-S", "-c", WITH_PARENT, "-m", *words]


def run(
    words: Sequence[str],
    log: Path,
    environment: dict[str, str],
    signals: Signals,
    stop_at: float,
    kill_at: float,
    lock: int,
    clock: Callable[[], float] = time.monotonic,
) -> Ended:
    """Run `python -m WORDS` until it ends, or until `stop_at`, where it is told to save.

    What it prints goes to the end of `log`. It gets SIGTERM at `stop_at` or after the first signal,
    again after the second signal, and SIGKILL at `kill_at` or after the third. It holds the file
    descriptor `lock`, so the folder stays locked while a cell saves whose queue was killed.
    """
    began = clock()
    told = 0
    with open(log, "ab") as file:
        start = file.tell()
        process = subprocess.Popen(
            command(words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            # a terminal's Ctrl-C is for the queue alone; the session stays the same
            process_group=0,
        )
        while process.poll() is None:
            wanted = signals.count
            if clock() >= stop_at:
                wanted = max(wanted, 1)
            if wanted > 2 or clock() >= kill_at:
                send(process, signal.SIGKILL)
                process.wait()
            elif wanted > told:
                told += 1
                send(process, signal.SIGTERM)
            time.sleep(LOOK)
    seconds = clock() - began
    if process.returncode == 0:
        return Ended("done", seconds)
    stopped = signals.count > 0 or clock() >= stop_at
    if process.returncode == AGAIN or (stopped and process.returncode < 0):
        return Ended("stopped", seconds)
    return Ended("failed", seconds, reason(log, start, process.returncode))


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and to those that it has started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        # it has just ended
        return


def reason(log: Path, start: int, code: int) -> str:
    """Why a process failed: the last error that it printed, or its exit code."""
    size = log.stat().st_size
    with open(log, "rb") as file:
        file.seek(max(start, size - LAST))
        lines = file.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    said = [line for line in lines if line.strip()]
    ended = f"exit code {code}"
    if code < 0:
        ended = f"signal {-code}"
    return " ".join([f"{ended}:", *(errors or said)[-1:]])[:300]

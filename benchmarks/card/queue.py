"""The queue's state in a folder, and one call that runs it."""

import contextlib
import fcntl
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.card import process, takeaway
from benchmarks.card.cells import ACCURACY, Cell
from benchmarks.card.expected import PAGE, expected, measured_speeds
from benchmarks.card.takeaway import Bounds
from jaxomarl import documents
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.paths import open_own, replace_file
from jaxomarl.results import store, tabular

STATE = "queue.json"
LOCK = ".lock"
DAMAGED = "Take another --out; what the cells have finished is below cells/."
KINDS: dict[str, documents.Kind] = {
    "toy": bool,
    "machine": str,
    "half": (bool, None),
    "cells": dict,
    "packed": dict,
}
"""What queue.json holds."""
RECORD: dict[str, documents.Kind] = {
    "state": str,
    "command": str,
    "seconds": float,
    "calls": int,
    "reason": str,
}
"""What it holds of a cell."""
STATES = ("running", "stopped", "done", "failed")
SCORES = ("mean_low", "mean_high", "coordinated", "seeds")
"""Columns of a summary from which bfloat16 is judged."""
STOPPING, PACKING = 60.0, 15.0
"""Most seconds that are left for a cell to save, and for the archives."""
PLATFORM = """
import jax
device = jax.devices()[0]
print(device.platform, device.device_kind, sep=": ")
"""
"""Asked in a process of its own, which gives the memory of a card back."""


class Limits(NamedTuple):
    """When a call ends, by time.monotonic()."""

    stop_at: float
    """The running cell is told to save, and no other begins."""
    kill_at: float
    """It has to have saved."""

    @classmethod
    def of(cls, began: float, minutes: float) -> "Limits":
        """The limits of a call of so many minutes; 0 is no end."""
        if minutes == 0.0:
            return cls(float("inf"), float("inf"))
        seconds = 60.0 * minutes
        kill_at = began + seconds - min(PACKING, 0.05 * seconds)
        return cls(kill_at - min(STOPPING, 0.15 * seconds), kill_at)

    @property
    def left(self) -> float:
        """Seconds until the running cell is told to save."""
        return self.stop_at - time.monotonic()


# --- the state ---


def fresh(toy: bool) -> dict[str, Any]:
    """The state of a queue that has run nothing."""
    return {"toy": toy, "machine": "", "half": None, "cells": {}, "packed": {}}


def read(out: Path, toy: bool) -> dict[str, Any]:
    """The state in a folder, or a fresh one.

    Raises JaxomarlError where the folder holds something else, or a queue of the other size.
    """
    path = out / STATE
    if not path.exists():
        check_free(out)
        return fresh(toy)
    state = documents.read_sealed(path, DAMAGED, **KINDS)
    for name, record in state["cells"].items():
        if not isinstance(record, dict):
            raise refuse(f"{path}, {name}", "an object", record, DAMAGED)
        documents.check(f"{path}, {name}", record, DAMAGED, **RECORD)
        if record["state"] not in STATES:
            expected = f"one of {', '.join(STATES)}"
            raise refuse(f"{path}, {name}, state", expected, record["state"], DAMAGED)
    if state["toy"] != toy:
        sizes = ("full size", "toy size")
        way = "Take another --out: results of two sizes stay apart."
        raise refuse(f"--out {out}", f"a queue of {sizes[toy]}", sizes[not toy], way)
    return state


def check_free(out: Path) -> None:
    """Raise JaxomarlError where a folder without a state is not empty."""
    if not out.exists():
        return
    if not out.is_dir() or any(path.name != LOCK for path in out.iterdir()):
        expected_folder = "an empty folder or one of this command"
        raise refuse("--out", expected_folder, str(out), "Name another; nothing was touched.")


def write(out: Path, state: dict[str, Any]) -> None:
    """Replace the state in one step."""
    documents.write_sealed(out / STATE, state)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[int]:
    """Lock a folder for this call and its cell; the file descriptor that holds the lock."""
    out.mkdir(parents=True, exist_ok=True)
    with open_own(out / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            way = "Wait, or name another: a cell may be saving."
            raise refuse("--out", "a folder of this call alone", f"{out}, in use", way) from None
        yield file.fileno()


def in_use(out: Path) -> bool:
    """Whether a call or its cell holds the lock of a folder."""
    if not (out / LOCK).exists():
        return False
    try:
        with locked(out):
            return False
    except JaxomarlError:
        return True


def state_of(cell: Cell, state: dict[str, Any], command: str) -> str:
    """waiting, stopped, done or failed; a cell whose command has changed is waiting."""
    record = state["cells"].get(cell.name)
    if record is None or record["command"] != command:
        return "waiting"
    # a queue that was killed could not say how its cell ended
    return "stopped" if record["state"] == "running" else record["state"]


def command_of(cell: Cell, state: dict[str, Any]) -> str:
    """A cell's command as its state names it, whatever the folder."""
    return " ".join(cell.words("OUT", state["toy"], bool(state["half"])))


# --- bfloat16 ---


def judge_half(out: Path, state: dict[str, Any], cells: Sequence[Cell]) -> None:
    """Decide once whether bfloat16 is as accurate: its intervals on the bandit meet the default's.

    Nothing is decided before both cells are done.
    """
    named = {cell.name: cell for cell in cells}
    known = state["half"] is not None or not all(name in named for name in ACCURACY)
    if known or any(not is_done(named[name], state) for name in ACCURACY):
        return
    scores = []
    for name in ACCURACY:
        path = out / "cells" / name / "summary.csv"
        try:
            scores.append(scores_of(path))
        except (JaxomarlError, OSError) as error:
            # its command makes the table again
            del state["cells"][name]
            say(f"{name}: is run again: {error}")
    if len(scores) < len(ACCURACY):
        return
    state["half"] = agree(*scores)
    verdict = "passed" if state["half"] else "not passed: the device's own precision is taken"
    say(f"bfloat16: accuracy test {verdict}")


def scores_of(path: Path) -> dict[str, float]:
    """The mean return, its interval and the share of coordinated seeds of the one system.

    Raises JaxomarlError where the table is no such table, and OSError where it is not there.
    """
    try:
        (row,) = store.read_table(path)
        scores = {name: float(row[name]) for name in SCORES}
    except (ValueError, KeyError) as error:
        found = str(error)[:200]
        raise refuse(str(path), f"a row with {', '.join(SCORES)}", found, "") from None
    if not all(map(math.isfinite, scores.values())) or scores["seeds"] < 1:
        raise refuse(str(path), "finite scores", scores, "")
    return scores


def agree(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether the intervals of two means meet, and at most one seed more coordinates in one."""
    meet = one["mean_low"] <= other["mean_high"] and other["mean_low"] <= one["mean_high"]
    apart = abs(one["coordinated"] - other["coordinated"])
    return meet and apart <= 1.0 / one["seeds"]


def is_done(cell: Cell, state: dict[str, Any]) -> bool:
    """Whether a cell has finished."""
    return state_of(cell, state, command_of(cell, state)) == "done"


# --- one call ---


def call(
    cells: Sequence[Cell], only: Sequence[str], out: Path, toy: bool, limits: Limits, bounds: Bounds
) -> int:
    """Run what is left of the queue until the limits, and pack the results; the exit code."""
    read(out, toy)
    machine = platform(toy)
    with locked(out) as lock, process.Signals() as signals:
        state = read(out, toy)
        state["machine"] = machine
        write(out, state)
        (out / "logs").mkdir(exist_ok=True)
        before = dict(state["packed"])
        failed: list[str] = []
        packed = pack(out, state, cells, bounds, before)
        started = False
        for cell in order(cells, only, state):
            if signals.count or limits.left <= 0.0:
                break
            if not ready(cell, cells, state, limits, started):
                continue
            started = True
            ended = run_cell(cell, out, state, signals, limits, lock)
            if ended.state == "failed":
                failed.append(cell.name)
            judge_half(out, state, cells)
            write(out, state)
            packed = pack(out, state, cells, bounds, before)
        state["packed"] = {**before, **packed.digests}
        write(out, state)
    say("")
    print((out / takeaway.TAKE / takeaway.LISTED).read_text(encoding="utf-8"))
    say(f"to take away: {out / takeaway.TAKE}")
    return signals.code or int(bool(failed))


def order(cells: Sequence[Cell], only: Sequence[str], state: dict[str, Any]) -> list[Cell]:
    """What a call runs, in order: cells that failed before come last."""
    wanted = set(only or [cell.name for cell in cells])
    for cell in reversed(cells):
        if cell.name in wanted:
            wanted.update(cell.needs)
    left = [cell for cell in cells if cell.name in wanted and not is_done(cell, state)]

    def failed(cell: Cell) -> bool:
        return state_of(cell, state, command_of(cell, state)) == "failed"

    return sorted(left, key=failed)


def ready(
    cell: Cell, cells: Sequence[Cell], state: dict[str, Any], limits: Limits, started: bool
) -> bool:
    """Whether a cell can begin now; a line says why not."""
    if is_done(cell, state):
        return False
    missing = [one.name for one in cells if one.name in cell.needs and not is_done(one, state)]
    if missing:
        say(f"{cell.name}: waits for {', '.join(missing)}")
        return False
    seconds = expected(cell, bool(state["half"]), {}).seconds
    if started and not cell.continues and not state["toy"] and seconds > limits.left:
        say(f"{cell.name}: waits for a call that has {seconds:.0f} s; it cannot be interrupted")
        return False
    return True


def run_cell(
    cell: Cell,
    out: Path,
    state: dict[str, Any],
    signals: process.Signals,
    limits: Limits,
    lock: int,
) -> process.Ended:
    """Run a cell until it ends or has to, and note how it ended."""
    command = command_of(cell, state)
    words = cell.words(str(out / "cells"), state["toy"], bool(state["half"]))
    log = out / "logs" / f"{cell.name}.log"
    was = state["cells"].get(cell.name, {})
    record = {
        "state": "running",
        "command": command,
        "seconds": was.get("seconds", 0.0),
        "calls": was.get("calls", 0) + 1,
        "reason": "",
    }
    state["cells"][cell.name] = record
    write(out, state)
    say(f"{cell.name}: python -m {' '.join(words)}")
    say(f"{cell.name}: prints into {log}")
    variables = environment(out, state["toy"])
    ended = process.run(words, log, variables, signals, limits.stop_at, limits.kill_at, lock)
    record["state"] = ended.state
    record["reason"] = ended.reason
    record["seconds"] = round(record["seconds"] + ended.seconds, 1)
    say(f"{cell.name}: {ended.state} after {ended.seconds:.0f} s {ended.reason}".rstrip())
    return ended


def environment(out: Path, toy: bool) -> dict[str, str]:
    """The environment of a cell's process, whose compiled programs are kept below OUT."""
    variables = {**os.environ, "JAXOMARL_CACHE": str((out / "programs").absolute())}
    if toy:
        # what a trial compiles runs once
        variables.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    return variables


def platform(toy: bool) -> str:
    """The device that JAX takes; JaxomarlError where it is no accelerator, unless for a trial."""
    if toy:
        return "a trial"
    asked = subprocess.run(
        [sys.executable, "-c", PLATFORM], capture_output=True, text=True, check=False
    )
    lines = asked.stdout.splitlines() or asked.stderr.splitlines() or ["nothing"]
    if asked.returncode or lines[-1].startswith("cpu"):
        way = "--toy tries every cell at a tiny size on a CPU; --list shows the cells."
        raise refuse("make card", "an accelerator that JAX sees", lines[-1], way)
    return lines[-1]


def pack(
    out: Path,
    state: dict[str, Any],
    cells: Sequence[Cell],
    bounds: Bounds,
    before: dict[str, str],
) -> takeaway.Packed:
    """Write the archives and their list."""
    folders = [cell.folder or cell.name for cell in cells]
    packed = takeaway.pack(out, takeaway.items(out, folders, before), bounds)
    text = listed(cells, state, state["toy"])
    text += "\n" + "\n".join(["## Left out", "", *(takeaway.left_out(packed.left) or ["Nothing."])])
    content = f"{text}\n".encode()[: bounds.each]
    replace_file(out / takeaway.TAKE / takeaway.LISTED, content)
    return packed


# --- what is printed ---


def listed(cells: Sequence[Cell], state: dict[str, Any], toy: bool, busy: bool = False) -> str:
    """The cells with their state and their seconds, as Markdown.

    `busy` says that a call runs, so that a cell whose state is running does run.
    """
    speeds = {}
    if PAGE.exists():
        speeds = measured_speeds(PAGE.read_text(encoding="utf-8"))
    half = state["half"] is not False
    head = ("cell", "state", "spent s", "expected s", "of it measured", "claims", "why not")
    rows = []
    for cell in cells:
        record = state["cells"].get(cell.name, {})
        seconds = expected(cell, half, speeds)
        numbers = (f"{seconds.seconds:.0f}", f"{seconds.share:.0%}")
        if toy:
            numbers = ("", "")
        spent = f"{record['seconds']:.0f}" if record else ""
        own = state_of(cell, state, command_of(cell, state))
        if busy and record.get("state") == "running":
            own = "running"
        claims = ", ".join(cell.claims)
        reason = str(record.get("reason", ""))
        rows.append((cell.name, own, spent, *numbers, claims, reason))
    lines = ["# The card's queue", ""]
    if toy:
        lines += ["A trial at tiny sizes: no result counts.", ""]
    lines += [
        f"Machine: {state['machine'] or 'none yet'}.",
        "",
        tabular.markdown(tabular.table(head, rows)),
    ]
    if toy:
        return "\n".join(lines)
    lines += [
        "Expected seconds are those of the full size on an H200. The measured share follows from",
        "the speeds in docs/speed/card.md. The rest is estimated: other updates, compilation, data",
        "and evaluations.",
        "",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Print a line on stderr at once."""
    print(text, file=sys.stderr, flush=True)

"""`sweep --launcher`: cells of a sweep as jobs of their own, by submitit, here or on Slurm.

A cell is a task and its data, with all systems, seeds and settings of the sweep: what shares
stages, and one program. Each job runs the same command for its cell in OUT/CELL with `--resume`. A
job that is stopped by its cluster (SIGUSR2, submitit's signal) lets the sweep save at its next
chunk, and is queued again, at most TRIES times. So is one that ran out of time.

Jobs here have no time limit unless one is given. Where the launcher is stopped, it begins no other
cell, and ends once the running ones have saved.
"""

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxomarl.api.evaluate import found_runs
from jaxomarl.base import refuse
from jaxomarl.paths import folder_name
from jaxomarl.results import store, tables
from jaxomarl.training.runner import Interrupted

LAUNCHERS = ("local", "slurm")
JOBS = "jobs"
"""Folder of OUT with the jobs' logs and submitit's files."""
OUT = Path("runs") / "launched"
"""Where cells are trained if nobody says where."""
OWN = ("--launcher", "--tries", "--at-once", "--slurm")
"""Flags of the launcher, which its jobs do not get."""
REPLACED = ("--tasks", "--data", "--out", "--resume", "--dry-run")
"""Flags that each job gets its own of."""
STOP = "stop"
"""File next to the logs: while it is there, jobs here let their sweeps save, and end."""
PATIENCE = 600.0
"""Seconds that a sweep has to save once it is told to stop."""
YEAR = 60 * 24 * 365
"""Minutes that a job here has where none are given; submitit's default are two of them."""
DEVICES = "CUDA_VISIBLE_DEVICES"
"""The GPUs that a process sees; submitit hides all of them from local jobs that ask for none."""
WATCH = 1.0
"""Seconds between two looks at a job."""


class Cell(NamedTuple):
    """A task and its data; "" is the preset's."""

    task: str
    data: str

    @property
    def name(self) -> str:
        """The cell's folder below OUT."""
        return folder_name(*filter(None, self))


class CellJob:
    """A cell's command, as a function that submitit calls, stops and calls again."""

    def __init__(
        self,
        command: Sequence[str],
        tries: int,
        stop: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        """The command and its tries, a file that stops it, and variables that it gets as they are.

        A variable that is None is not set.
        """
        self.command = list(command)
        self.tries = tries
        self.stop = stop
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the command to its end, or until it has saved; RuntimeError where it fails."""
        variables = {**os.environ, **self.environment}
        given = {name: value for name, value in variables.items() if value is not None}
        # a terminal's Ctrl-C, or a cluster's signal to a whole job, is not for the command: it
        # would take a second signal as a wish to end at once
        self.process = subprocess.Popen(self.command, env=given, start_new_session=True)
        asked = False
        # a signal's handler cannot wait for the process while a `wait` is interrupted by it
        while (code := self.process.poll()) is None:
            if self.stop is not None and self.stop.exists() and not asked:
                self.process.send_signal(signal.SIGTERM)
                asked = True
            time.sleep(WATCH)
        if code:
            raise RuntimeError(f"exit code {code} of {self.command}")
        return code

    def checkpoint(self) -> Any:
        """Stop the command so that it saves, and give what is to be queued; None after the last.

        submitit calls it when the cluster is about to end the job.
        """
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            self.process.wait(PATIENCE)
        if self.tries <= 1:
            return None
        again = CellJob(self.command, self.tries - 1, self.stop, self.environment)
        return DelayedSubmission(again)


def run(
    asked: Any, again: str, say: Callable[[str], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train each cell of a sweep in a job of its own; print the table once all have ended here.

    `asked` are the flags of `sweep`, and `again` is its command. Raises JaxomarlError where a job
    here fails in the end, and Interrupted once `stopped()` says so and jobs here have saved.
    """
    check(asked.tries, asked.at_once)
    cells = cells_of(asked.tasks, asked.data)
    out = asked.out or OUT
    # the program, its -m and its name are the jobs' own
    words = [w for w in shlex.split(again)[1:] if w not in ("-m", "experiments.sweep", "sweep")]
    given = parameters(asked.slurm)
    if asked.dry_run:
        print(plan_text(cells, words, out))
        return
    launch(asked.launcher, cells, words, out, asked.tries, asked.at_once, given, say, stopped)
    if asked.launcher == "slurm":
        say(f"queued; once they are done: jaxomarl report {out}")
        return
    runs = found_runs([out])
    final = store.load_final(runs)
    print(f"\n{tables.text(tables.summary(store.load_returns(runs), runs, final))}")


# --- the plan ---


def cells_of(tasks: Sequence[str], data: Sequence[str]) -> list[Cell]:
    """Every task with every quality of data."""
    return [Cell(task, quality) for task, quality in itertools.product(tasks, data or ("",))]


def command_of(cell: Cell, words: Sequence[str], out: Path) -> list[str]:
    """The command of a cell's job; `words` are those of the sweep, after its name."""
    kept = without(words, (*OWN, *REPLACED))
    own = ["--tasks", cell.task, "--out", str(out / cell.name), "--resume"]
    if cell.data:
        own += ["--data", cell.data]
    return [sys.executable, "-m", "jaxomarl", "sweep", *kept, *own]


def without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """A command's words without some flags and the values that follow them."""
    kept = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in flags
        if not dropping:
            kept.append(word)
    return kept


def parameters(given: Sequence[str]) -> dict[str, Any]:
    """submitit's parameters from KEY=VALUE; numbers are read as such."""
    found: dict[str, Any] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            way = "For example --slurm partition=gpu gpus_per_node=1 timeout_min=240."
            raise refuse("--slurm", "KEY=VALUE", word, way)
        found[key] = int(value) if value.isdecimal() else value
    return found


def plan_text(cells: Sequence[Cell], words: Sequence[str], out: Path) -> str:
    """What would be submitted, a line for each job."""
    lines = [f"{len(cells)} jobs, logs in {out / JOBS}"]
    lines += [f"  {subprocess.list2cmdline(command_of(cell, words, out))}" for cell in cells]
    return "\n".join(lines)


# --- submitting ---


def executor_of(
    launcher: str, folder: Path, tries: int, given: dict[str, Any], at_once: int
) -> Any:
    """submitit's executor; JaxomarlError where the package or the cluster is not there."""
    if launcher not in LAUNCHERS:
        raise refuse("--launcher", " or ".join(LAUNCHERS), launcher, "Take one of these.")
    try:
        import submitit
    except ImportError:
        way = "pip install 'jaxomarl[slurm]'"
        raise refuse("--launcher", "the package submitit", "none", way) from None
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=launcher, **{f"{launcher}_max_num_timeout": tries - 1}
        )
        if launcher == "slurm":
            given = {"slurm_array_parallelism": at_once, **given}
        else:
            given = {"timeout_min": YEAR, **given}
        executor.update_parameters(name="jaxomarl", **given)
    except (RuntimeError, TypeError, NameError, ValueError) as error:
        way = "See submitit's AutoExecutor.update_parameters for their names."
        raise refuse(
            "--launcher, --slurm", "a cluster and its parameters", str(error), way
        ) from None
    return executor


def launch(
    launcher: str,
    cells: Sequence[Cell],
    words: Sequence[str],
    out: Path,
    tries: int,
    at_once: int,
    given: dict[str, Any],
    say: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Submit a job for each cell; local ones are waited for, `at_once` at a time.

    Raises JaxomarlError where a local job fails in the end; the others are run all the same. Raises
    Interrupted once `stopped()` says so and the local jobs that ran have saved.
    """
    executor = executor_of(launcher, out / JOBS, tries, given, at_once)
    if launcher == "slurm":
        jobs = [CellJob(command_of(cell, words, out), tries) for cell in cells]
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        for cell, job in zip(cells, submitted, strict=True):
            say(f"{cell.name}: job {job.job_id}")
        return

    # --- here ---
    stop = (out / JOBS / STOP).absolute()
    stop.parent.mkdir(parents=True, exist_ok=True)
    stop.unlink(missing_ok=True)
    seen = {} if "gpus_per_node" in given else {DEVICES: os.environ.get(DEVICES)}
    failed = []
    waiting = list(cells)
    running: list[tuple[Cell, Any]] = []
    while waiting or running:
        if stopped() and not stop.exists():
            stop.touch()
            waiting.clear()
        while waiting and len(running) < at_once:
            cell = waiting.pop(0)
            job = CellJob(command_of(cell, words, out), tries, stop, seen)
            with no_ctrl_c():
                running.append((cell, executor.submit(job)))
            say(f"{cell.name}: job {running[-1][1].job_id}")
        for cell, error in ended(running):
            word = "stopped" if stop.exists() and error else error or "done"
            say(f"{cell.name}: {word}")
            if error:
                failed.append(cell.name)
        time.sleep(WATCH)
    if stop.exists():
        stop.unlink()
        raise Interrupted
    if failed:
        way = "The same command goes on with what is left."
        raise refuse("--launcher", "every job to finish", f"{', '.join(failed)} did not", way)


@contextlib.contextmanager
def no_ctrl_c() -> Iterator[None]:
    """Let processes that start here not hear a terminal's Ctrl-C: the launcher does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ended(running: list[tuple[Cell, Any]]) -> Iterator[tuple[Cell, str]]:
    """Jobs that have ended, with their error or ""; they leave the list."""
    for cell, job in list(running):
        if job.done():
            running.remove((cell, job))
            yield cell, "" if job.exception() is None else what_failed(job)


def what_failed(job: Any) -> str:
    """What a failed job's sweep said last, and where its log is."""
    said = [line for line in (job.stderr() or "").splitlines() if line.startswith("error:")]
    return f"{said[-1] if said else 'failed'} ({job.paths.stderr})"


def check(tries: int, at_once: int) -> None:
    """Raise JaxomarlError for numbers below 1."""
    for flag, count in (("--tries", tries), ("--at-once", at_once)):
        if count < 1:
            raise refuse(flag, "at least 1", count, "Leave it out for its default.")

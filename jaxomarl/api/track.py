"""Loggers next to training: what they are told, and when.

A chunk's means are told when it ends. Once a stage has ended, they are told what they have not
heard: stages that were reused, runs that share one, chunks of an earlier process, and health.
Files are written before. A logger that fails is left out from then on, and training continues.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results import loggers
from jaxomarl.results.loggers import Logged, Logger
from jaxomarl.results.store import Row, Run
from jaxomarl.training.runner import Progress

Choice = str | Logger
"""A logger, or the name of one that comes with the package."""


class Tracker:
    """The loggers of a command, over all its groups."""

    def __init__(
        self, chosen: Sequence[object], out: Path | None, say: Callable[[str], None]
    ) -> None:
        """Open the loggers.

        Raises JaxomarlError for an unknown name, a missing package, an object without the methods
        of `Logger`, and a name where no folder keeps the results.
        """
        self.say = say
        self.loggers = [_opened(one, out) for one in chosen]
        self.runs: list[Logged] = []
        self.told: set[tuple[str, str, int]] = set()

    def begin(self, runs: Sequence[Run], out: Path | None) -> None:
        """Take the runs of the next group."""
        self.runs = [Logged(_name(run.path, out), _cell(run), run.info) for run in runs]
        for run in self.runs:
            self._each(lambda logger, run=run: logger.start(run))

    def live(self, p: Progress) -> None:
        """Tell what a chunk measured: means over its updates, and over the episodes."""
        for row, r in enumerate(p.chosen):
            values = {name: _mean(of[row]) for name, of in p.metrics.items()}
            values |= {name: _mean(of[row]) for name, of in p.evaluations.items()}
            self._tell(r, p.step, {f"{p.stage}/{name}": x for name, x in values.items()})

    def finished(self, rows: Mapping[str, Sequence[Sequence[Row]]], stage: str) -> None:
        """Tell what nobody has told of a stage that has ended; `rows` are those of its files."""
        for r in range(len(self.runs)):
            own = [row for of_kind in rows.values() for row in of_kind[r] if row.stage == stage]
            self._tell_rows(r, own, stage)

    def final(self, rows: Sequence[Row]) -> None:
        """Tell the final evaluations, as of a stage of their own."""
        for r, run in enumerate(self.runs):
            key = (run.info["config"], run.info["seed"])
            self._tell_rows(r, [row for row in rows if (row.config, row.seed) == key], "final")

    def close(self) -> None:
        """Close the loggers."""
        self._each(lambda logger: logger.close())

    def _tell_rows(self, r: int, rows: Sequence[Row], stage: str) -> None:
        """Tell rows by step, means over episodes."""
        by_step: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            by_step[row.step][f"{stage}/{row.metric}"].append(row.value)
        for step, values in sorted(by_step.items()):
            self._tell(r, step, {name: _mean(np.array(x)) for name, x in values.items()})

    def _tell(self, r: int, step: int, values: Mapping[str, float]) -> None:
        """Tell the values of a run that were not told before."""
        run = self.runs[r]
        fresh = {n: x for n, x in values.items() if (run.name, n, step) not in self.told}
        if fresh:
            self.told.update((run.name, name, step) for name in fresh)
            self._each(lambda logger: logger.log(run, step, fresh))

    def _each(self, act: Callable[[Logger], None]) -> None:
        """Let every logger act; one that fails is left out from then on."""
        for logger in list(self.loggers):
            try:
                act(logger)
            # whatever a logger raises, the training is worth more
            except Exception as error:
                self.loggers.remove(logger)
                kind = type(logger).__name__
                self.say(f"  ! {kind} is left out from here on: {type(error).__name__}: {error}")


@contextlib.contextmanager
def tracking(
    chosen: Sequence[Choice], out: Path | None, say: Callable[[str], None]
) -> Iterator[Tracker | None]:
    """A tracker that is closed at the end, however that comes; None where nothing was chosen."""
    if not chosen:
        yield None
        return
    tracker = Tracker(chosen, out, say)
    try:
        yield tracker
    finally:
        tracker.close()


def _opened(one: object, out: Path | None) -> Logger:
    """A logger, opened where it is named."""
    if not isinstance(one, str):
        if not isinstance(one, Logger):
            wanted = "a name, or an object with start, log and close"
            raise refuse("log", wanted, type(one).__name__, "docs/running.md has an example.")
        return one
    if out is None:
        raise refuse("log", "a folder of results, out", None, "Name it, or give an own logger.")
    return loggers.made(one, out)


def _name(path: Path, out: Path | None) -> str:
    """A run's folder below the results."""
    return path.relative_to(out or Path()).as_posix()


def _cell(run: Run) -> str:
    swept = [f"{name}={value}" for name, value in sorted(run.info["swept"].items())]
    return " ".join([run.info["system"], run.info["task"], run.info["data"], *swept])


def _mean(values: np.ndarray) -> float:
    """The mean; NaN and infinities are told as they are."""
    with np.errstate(invalid="ignore"):
        return float(np.mean(values))

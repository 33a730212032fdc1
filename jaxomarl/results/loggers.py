"""Where training is shown besides its files: TensorBoard, Weights and Biases, or a CSV that grows.

A logger has three methods. It gets what metrics.csv, returns.csv, health.csv and final.csv hold,
while training goes on: means over chunks, and over episodes. A name of a value is
"stage/metric", and its step counts the updates of that stage. A point may come twice where a run
is resumed; both are equal.

tensorboardX and wandb are imported when they are asked for.
"""

import csv
import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxomarl.base import nearest, refuse
from jaxomarl.paths import open_own, replace_file

NAMES = ("tensorboard", "wandb", "csv")
"""Names of the loggers that come with the package."""
WAY = "pip install 'jaxomarl[track]'"


class Logged(NamedTuple):
    """A run as a logger is told of it."""

    name: str
    """The run's folder below the results, which no other run has."""
    cell: str
    """What runs share that differ in their seed alone: system, task, data and swept values."""
    info: Mapping[str, Any]
    """What run.json says before training."""


@runtime_checkable
class Logger(Protocol):
    """What `jaxomarl.train(log=...)` takes: any object with these methods."""

    def start(self, run: Logged) -> None:
        """A run begins."""

    def log(self, run: Logged, step: int, values: Mapping[str, float]) -> None:
        """Values of a run at a step: "stage/metric" -> number."""

    def close(self) -> None:
        """Nothing follows."""


def made(name: str, folder: Path) -> Logger:
    """The logger of a name, which keeps its files below a folder.

    Raises JaxomarlError for another name, and where its package is missing.
    """
    if name == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    if name == "wandb":
        return WandB(folder)
    if name == "csv":
        return Csv(folder / "log")
    raise refuse("--log", f"one of {', '.join(NAMES)}", name, nearest(name, NAMES))


def _package(name: str) -> Any:
    """An optional package; JaxomarlError where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise refuse("--log", name, "no such package", WAY) from error


class Csv:
    """A file log/RUN.csv for each run, whose rows (step, name, value) are there at once."""

    def __init__(self, folder: Path) -> None:
        """Keep the files in a folder."""
        self.folder = folder

    def start(self, run: Logged) -> None:
        """Begin the run's file; a resumed run continues it."""
        path = self._path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            replace_file(path, b"step,name,value\n")

    def log(self, run: Logged, step: int, values: Mapping[str, float]) -> None:
        """Write a row for each value."""
        rows = [(step, name, repr(float(value))) for name, value in values.items()]
        with open_own(self._path(run), os.O_APPEND) as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, run: Logged) -> Path:
        return self.folder / f"{run.name}.csv"


class TensorBoard:
    """A folder tensorboard/RUN for each run, for `tensorboard --logdir OUT/tensorboard`."""

    def __init__(self, folder: Path) -> None:
        """Keep the folders in a folder; JaxomarlError where tensorboardX is missing."""
        self.folder = folder
        self.open = _package("tensorboardX").SummaryWriter
        self.writers: dict[str, Any] = {}

    def start(self, run: Logged) -> None:
        """Open the run's folder, and note its settings as text."""
        writer = self.open(str(self.folder / run.name))
        self.writers[run.name] = writer
        lines = [f"    {name}: {value}" for name, value in sorted(run.info["cfg"].items())]
        writer.add_text("run", "\n".join([run.cell, "", *lines]), 0)

    def log(self, run: Logged, step: int, values: Mapping[str, float]) -> None:
        """Write a scalar for each value."""
        writer = self.writers[run.name]
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def close(self) -> None:
        """Close all folders."""
        for writer in self.writers.values():
            writer.close()


class WandB:
    """A run of Weights and Biases for each run, grouped by cell.

    $WANDB_MODE, $WANDB_PROJECT and its other variables count; `WANDB_MODE=offline` sends nothing.
    A resumed run is the same run there.
    """

    def __init__(self, folder: Path) -> None:
        """Keep its files in folder/wandb; JaxomarlError where wandb is missing."""
        self.wandb = _package("wandb")
        self.folder = folder
        self.runs: dict[str, Any] = {}

    def start(self, run: Logged) -> None:
        """Begin a run with its settings; each stage has its own axis of steps."""
        info = run.info
        self.folder.mkdir(parents=True, exist_ok=True)
        begun = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "jaxomarl"),
            id=re.sub(r"[^\w-]", "-", f"{self.folder.resolve().name}-{run.name}")[-128:],
            name=f"{run.cell} seed {info['seed']}",
            group=run.cell,
            tags=[info["system"], info["task"]],
            config={**info["cfg"], "seed": info["seed"], "data": info["data"]},
            dir=str(self.folder),
            resume="allow",
            reinit="create_new",
        )
        begun.define_metric("*", step_metric="updates")
        self.runs[run.name] = begun

    def log(self, run: Logged, step: int, values: Mapping[str, float]) -> None:
        """Log the values, with the stage's updates as their axis."""
        self.runs[run.name].log({"updates": step, **values})

    def close(self) -> None:
        """Finish all runs."""
        for run in self.runs.values():
            run.finish()

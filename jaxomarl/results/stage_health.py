"""The health of trained stages as text: their figures, what failed, and what to raise.

A figure is a stage's on held-out episodes at its end. Figures that need no training, for a
comparison, say in their names whose they are: "mean_", "linear_", "state_", "shuffled_", "still_",
"pca_", "real_" or "commonest_".
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.health.verdict import DIVERGED, LEARNED, SHORT, UNJUDGED
from jaxomarl.results.store import Run, health_of

WIDTH = 100
"""Columns of a terminal that the text keeps to."""


class StageHealth(NamedTuple):
    """One stage of the runs that differ in their seed."""

    cell: tuple[str, str, str, str]
    """System, task, data and swept values."""
    stage: str
    words: tuple[str, ...]
    """Each run's verdict."""
    figures: dict[str, Float[np.ndarray, " R"]]
    """Figure -> each run's number."""
    failed: tuple[str, ...]
    """Sentences on the gates that a run did not pass, those of the first such run."""
    raise_fields: tuple[str, ...]
    """Settings to raise where the stage has not learned."""


def stages_of(runs: Iterable[Run]) -> list[StageHealth]:
    """The stages of runs, in the order of systems and of training; older runs have none."""
    found: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        swept = " ".join(f"{name}={value}" for name, value in sorted(run.info["swept"].items()))
        cell = (run.info["system"], run.info["task"], run.info["data"], swept)
        for health in health_of(run):
            found[cell, health["stage"]].append(health)
    return [_joined(cell, stage, of_runs) for (cell, stage), of_runs in found.items()]


def _joined(cell: tuple, stage: str, runs: Sequence[dict[str, Any]]) -> StageHealth:
    names = dict.fromkeys(name for run in runs for name in run["figures"])
    figures = {
        name: np.array([float(run["figures"].get(name, "nan")) for run in runs]) for name in names
    }
    failed = next((tuple(run["failed"]) for run in runs if run["failed"]), ())
    words = tuple(run["verdict"] for run in runs)
    return StageHealth(cell, stage, words, figures, failed, tuple(runs[0]["raise"]))


def text(stages: Sequence[StageHealth]) -> str:
    """A block for each system and data set, a paragraph for each of its stages."""
    lines = []
    cell = None
    for stage in stages:
        if stage.cell != cell:
            cell = stage.cell
            system, task, data, swept = cell
            heading = " ".join(filter(None, (f"{system} on {task}/{data}", swept)))
            lines += ["", f"{heading}, {len(stage.words)} seeds"]
        lines += _paragraph(stage)
    return "\n".join(lines[1:]) + "\n"


def _paragraph(stage: StageHealth) -> list[str]:
    """A stage's verdict and figures; where it has not learned, the gates and what to raise."""
    lines = [f"  {stage.stage}: {verdict(stage.words)}"]
    figures = ", ".join(f"{name} {_range(values)}" for name, values in stage.figures.items())
    wrapped = [figures, *stage.failed]
    if stage.failed and stage.raise_fields:
        flags = ", ".join(f"--cfg.{name.replace('_', '-')}" for name in stage.raise_fields)
        wrapped.append(f"raise or change {flags}")
    for words in filter(None, wrapped):
        indent = " " * 6
        lines.append(
            textwrap.fill(words, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
        )
    return lines


def verdict(words: Sequence[str]) -> str:
    """The verdicts of all runs in words: "learned", or "short in 3 of 4, learned in 1"."""
    counts = {word: list(words).count(word) for word in (DIVERGED, SHORT, LEARNED, UNJUDGED)}
    present = {word: count for word, count in counts.items() if count}
    if len(present) == 1:
        return next(iter(present))
    parts = [f"{word} in {count}" for word, count in present.items()]
    return f"{', '.join(parts)} of {len(words)}"


def _range(values: Float[np.ndarray, " R"]) -> str:
    """A figure's mean over runs, with its smallest and largest."""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(values.mean())} ({_number(values.min())} to {_number(values.max())})"


def _number(x: float) -> str:
    """Three digits; what is nothing but rounding is 0."""
    return "0" if abs(x) < 1e-6 else f"{x:.3g}"

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

from jaxomarl.health.verdict import UNJUDGED, WORDS
from jaxomarl.results.store import Run, health_of

WIDTH = 100
"""Columns of a terminal that the text keeps to."""


class StageHealth(NamedTuple):
    """One stage of the runs that differ in their seed."""

    stage: str
    words: tuple[str, ...]
    """Each run's verdict."""
    figures: dict[str, Float[np.ndarray, " R"]]
    """Figure -> each run's number."""
    failed: dict[int, tuple[str, ...]]
    """Seed -> sentences on the gates that it did not pass."""
    raise_fields: tuple[str, ...]
    """Settings to raise where the stage has not learned."""


class CellHealth(NamedTuple):
    """The stages of runs that differ in their seed."""

    name: str
    """System, task, data and swept values."""
    system: str
    seeds: int
    unfinished: int
    """Runs whose last stage has not ended."""
    held_out: str
    """Number of held-out episodes, of all; "" where nobody says."""
    stages: tuple[StageHealth, ...]


def cells_of(runs: Iterable[Run]) -> list[CellHealth]:
    """The cells of runs with measured stages; those of older runs, and without data, are not."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if health_of(run):
            found[_name(run)].append(run)
    return [_cell(name, of_cell) for name, of_cell in found.items()]


def _name(run: Run) -> str:
    info = run.info
    swept = [f"{name}={value}" for name, value in sorted(info["swept"].items())]
    return " ".join([f"{info['system']} on {info['task']}/{info['data']}", *swept])


def _cell(name: str, runs: Sequence[Run]) -> CellHealth:
    by_stage: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        for health in health_of(run):
            by_stage[health["stage"]][int(run.info["seed"])] = health
    ended = [run.info["final_stage"] in by_stage for run in runs]
    held = runs[0].info.get("held_out")
    held_out = ""
    if isinstance(held, dict) and {"episodes", "of"} <= held.keys():
        held_out = f"{held['episodes']} of {held['of']}"
    return CellHealth(
        name=name,
        system=runs[0].info["system"],
        seeds=len(runs),
        unfinished=ended.count(False),
        held_out=held_out,
        stages=tuple(_joined(stage, of_seeds) for stage, of_seeds in by_stage.items()),
    )


def _joined(stage: str, seeds: dict[int, dict[str, Any]]) -> StageHealth:
    """One stage of several seeds."""
    names = dict.fromkeys(name for health in seeds.values() for name in health["figures"])
    of_all = lambda name: [float(health["figures"].get(name, "nan")) for health in seeds.values()]
    failed = {seed: tuple(health["failed"]) for seed, health in seeds.items() if health["failed"]}
    raised = [field for health in seeds.values() for field in health["raise"]]
    return StageHealth(
        stage=stage,
        words=tuple(health["verdict"] for health in seeds.values()),
        figures={name: np.array(of_all(name)) for name in names},
        failed=failed,
        raise_fields=tuple(dict.fromkeys(raised)),
    )


def text(cells: Sequence[CellHealth]) -> str:
    """A block for each system and data set, a paragraph for each of its stages."""
    return "\n".join(map(_block, cells))


def _block(cell: CellHealth) -> str:
    facts = [cell.name, f"{cell.seeds} seed{'s' * (cell.seeds != 1)}"]
    if cell.unfinished:
        facts.append(f"{cell.unfinished} not finished")
    if cell.held_out:
        facts.append(f"on {cell.held_out} episodes, held out")
    lines = _wrapped(", ".join(facts), 0)
    for stage in cell.stages:
        lines += _paragraph(stage)
    return "\n".join(lines) + "\n"


def _paragraph(stage: StageHealth) -> list[str]:
    """A stage's verdict and figures; where it has not learned, the gates and what to raise."""
    lines = [f"  {stage.stage}: {verdict(stage)}"]
    figures = ", ".join(f"{name} {_range(values)}" for name, values in stage.figures.items())
    if figures:
        lines += _wrapped(figures, 6)
    for seed, sentences in stage.failed.items():
        for sentence in sentences:
            lines += _wrapped(f"seed {seed}: {sentence}", 6)
    if stage.failed and stage.raise_fields:
        flags = [f"--cfg.{name.replace('_', '-')}" for name in stage.raise_fields]
        lines += _wrapped(f"raise or change {', '.join(flags)}", 6)
    return lines


def _wrapped(words: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(words, WIDTH, initial_indent=space, subsequent_indent=space + "  ")


def verdict(stage: StageHealth) -> str:
    """The verdicts of all runs in words: "learned", or "short in 3, learned in 1 of 4"."""
    counts = {word: stage.words.count(word) for word in WORDS}
    present = {word: count for word, count in counts.items() if count}
    if len(present) > 1:
        parts = [f"{word} in {count}" for word, count in present.items()]
        return f"{', '.join(parts)} of {len(stage.words)}"
    (word,) = present
    if word != UNJUDGED:
        return word
    reason = "nothing is asked of it" if stage.figures else "it has no figures"
    return f"{word}, {reason}"


def _range(values: Float[np.ndarray, " R"]) -> str:
    """A figure's mean over runs, with its smallest and largest."""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(values.mean())} ({_number(values.min())} to {_number(values.max())})"


def _number(x: float) -> str:
    """Three digits; what is nothing but rounding is 0."""
    if abs(x) < 1e-6:
        return "0"
    return f"{x:.3g}"

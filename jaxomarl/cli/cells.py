"""Cells of a paper's table: trained one task and quality at a time, then set beside what is printed."""

import csv
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jaxomarl.algorithms import dom2
from jaxomarl.base import JaxomarlError, Task
from jaxomarl.cli import api, session
from jaxomarl.cli.plan import Group, Overrides
from jaxomarl.cli.progress import Lines
from jaxomarl.data.catalog import load
from jaxomarl.data.reweight import trajectories
from jaxomarl.envs.catalog import make
from jaxomarl.presets import find
from jaxomarl.results import tables

Published = Mapping[tuple[str, str, str], tuple[float, float]]
"""(task, data, system) -> printed mean and spread."""

HEAD = ("task", "data", "system", "return, mean ± std", "95 % of the IQM", "share of the data's mean", "normalised")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a table is made of."""

    seeds: list[int]
    scale: float
    out: Path
    stopped: Callable[[], bool]
    systems: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    episodes: int = 0
    rows: int = 0
    overrides: Overrides = dataclasses.field(default_factory=dict)
    source: Path | None = None

    @functools.cached_property
    def lines(self) -> Lines:
        """Where progress is shown."""
        return Lines()


class Cell(NamedTuple):
    """What is kept of a task and a quality once systems were trained on them; the data are let go."""

    task: Task
    quality: str
    manifest: dict
    records: list[tables.Record]
    note: str = ""


def folder_name(*parts: object) -> str:
    """A folder's name from a task, a quality and what else tells two cells apart."""
    return "-".join(map(str, parts)).translate(str.maketrans("/:=, ", "-----"))


def train(
    asked: Asked, systems: Sequence[str], task: str, quality: str, preset: str = "", name: str = ""
) -> tuple[Cell, session.Results]:
    """Train systems on one data set into `asked.out/name`, or find them trained there.

    The results hold the data set: drop them before the next cell is trained. `preset` "" gives each system the first
    preset made for it and the task. Raises JaxomarlError where the folder holds results of other settings.
    """
    groups, asked, note = resolve(asked, systems, task, quality, preset)
    name = name or folder_name(task, quality)
    folder, sources = asked.out / name, [asked.source / name] if asked.source else []
    with session.locked(folder):
        settings = session.asked(preset, asked.overrides, asked.rows, asked.episodes, asked.scale)
        session.open_folder(folder, settings, resume=(folder / "sweep.json").exists(), overwrite=False)
        lines = asked.lines
        done = session.train_groups(groups, folder, sources, report=lines, stopped=asked.stopped, say=lines.say)
    first = groups[0]
    return Cell(first.task, first.quality, first.manifest, done.records, note), done


def resolve(
    asked: Asked, systems: Sequence[str], task: str, quality: str, preset: str
) -> tuple[list[Group], Asked, str]:
    """(groups, what was asked, a note). DOM2's printed thresholds that no trajectory here reaches are left out."""

    def groups(chosen: Asked) -> list[Group]:
        return api.resolve(
            systems, [task], [quality], chosen.seeds, preset, chosen.overrides, chosen.rows, chosen.episodes,
            chosen.scale,
        )  # fmt: skip

    try:
        return groups(asked), asked, ""
    except JaxomarlError as error:
        if not str(error).startswith("--cfg.thresholds") or "thresholds" in asked.overrides:
            raise
    named = make(task)
    data, manifest = load(named, quality, asked.rows)
    given = find(preset, named.name, "dom2").at(named.name, manifest["quality"])
    top = trajectories(data)[1].max()
    wanted = dom2.bounds(str(given["thresholds"]))
    kept = ",".join(f"{x:g}" for x in wanted if x <= top)
    asked = dataclasses.replace(asked, overrides={**asked.overrides, "thresholds": [kept]})
    lost = ", ".join(f"{x:g}" for x in wanted if x > top)
    return groups(asked), asked, f"; DOM2's thresholds {lost} are above every return here, {top:.1f} at most"


def published(name: str, number: str = "") -> Published:
    """Printed scores that ship as `assets/published/NAME.csv`; where a file holds several tables, those of one.

    A spread that is not printed is NaN.
    """
    text = resources.files("jaxomarl").joinpath("assets", "published", f"{name}.csv").read_text()
    return {
        (r["task"], r["data"], r["system"]): (float(r["mean"]), float(r["spread"] or math.nan))
        for r in csv.DictReader(text.splitlines())
        if r.get("table", "") == number
    }


def table(
    asked: Asked,
    default: tuple[Sequence[str], Sequence[str], Sequence[str]],
    printed: Published,
    spread: str,
    differences: Sequence[str],
    theirs: str,
    preset: str = "",
    alone: bool = False,
) -> str:
    """Train every cell that was asked for, a task and quality at a time, and set it beside what is printed.

    `default` are systems, tasks and data where none are asked for. Cells are kept under `out`, so that the same command
    goes on where it was stopped.
    """
    systems, tasks, data = (
        mine or its for mine, its in zip((asked.systems, asked.tasks, asked.data), default, strict=True)
    )
    made = [train(asked, systems, task, quality, preset)[0] for task in tasks for quality in data]
    records = [record for cell in made for record in cell.records]
    return beside(asked, made, records, printed, spread, differences, theirs, alone=alone)


def means(made: Sequence[Cell]) -> dict[tuple[str, str], float]:
    """(task, data) -> the data's mean return."""
    return {(c.task.name, c.quality): c.manifest["return"]["mean"] for c in made}


def beside(
    asked: Asked,
    made: Sequence[Cell],
    records: Sequence[tables.Record],
    printed: Published,
    spread: str,
    differences: Sequence[str],
    theirs: str,
    key: Callable[[str], str] = lambda task: task.partition(":")[0],
    alone: bool = False,
) -> str:
    """Preface and body of a table of cells; arguments as theirs."""
    rows = body(records, means(made), printed, key, spread, alone)
    return f"{preface(asked, made, differences, theirs)}\n{rows}"


def preface(asked: Asked, cells: Sequence[Cell], differences: Sequence[str], seeds: str) -> str:
    """What has to be known before ours and the published numbers are compared: the paper's `differences`, then ours."""
    changed = ", ".join(f"{k} = {v[0] if len(v) == 1 else list(v)}" for k, v in asked.overrides.items())
    lines = [
        "Ours and the published scores differ in more than the code:",
        "",
        *(f"- {line}" for line in differences),
        f"- Scale: {tables.reduced(asked.scale) if asked.scale != 1.0 else 'the preset of the paper.'}"
        + (f" Besides: {changed}." if changed else ""),
        f"- Seeds: ours {len(asked.seeds)}, last evaluation; {seeds}",
        "",
    ]
    for cell in cells:
        held, scale = cell.manifest, cell.task.scale
        mean = held["return"]["mean"]
        normal = f", normalised {scale.normalise(mean):.1f}" if scale else ""
        lines.append(
            f"- {cell.task.name} {cell.quality}: {held['transitions']} transitions of {held['behaviours']} behaviours, "
            f"mean return {mean:.1f}{normal}, content {held['sha256'][:12]}, dialect {held['dialect']}{cell.note}"
        )
    return "\n".join(lines) + "\n"


def body(
    records: Sequence[tables.Record],
    means: Mapping[tuple[str, str], float],
    printed: Published,
    key: Callable[[str], str],
    spread: str,
    alone: bool = False,
) -> str:
    """The table, a row for each record, with the published score where the paper prints one.

    `means` holds the data's mean return by (task, data), and `key` turns a record's task into the paper's. With
    `alone`, systems that only the paper has get a row below ours of the same task and data.
    """
    out = []
    for r, after in zip(records, [*records[1:], None], strict=True):
        theirs = (printed.get((key(r.task), r.data, name)) for name in called(r))
        out.append(row(r, means.get((r.task, r.data)), next(filter(None, theirs), None)))
        if alone and (after is None or (after.task, after.data) != (r.task, r.data)):
            ours = {name for x in records if (x.task, x.data) == (r.task, r.data) for name in called(x)}
            theirs = [s for t, d, s in printed if (t, d) == (key(r.task), r.data) and s not in ours]
            out += [
                (r.task, r.data, s, *[""] * (len(HEAD) - 3), paper(printed[key(r.task), r.data, s])) for s in theirs
            ]
    return markdown((*HEAD, f"published ± {spread}"), out)


def row(r: tables.Record, data: float | None, published: tuple[float, float] | None) -> tuple[str, ...]:
    """One record's cells under `HEAD` and the published score."""
    return (
        r.task,
        r.data,
        named(r),
        f"{r.mean:.1f}" + ("" if r.std is None else f" ± {r.std:.1f}"),
        "" if r.low is None else f"{r.low:.1f} to {r.high:.1f}",
        f"{r.mean / data:.0%}" if data and data > 0 else "",
        "" if r.normalised is None else f"{r.normalised:.1f}",
        paper(published),
    )


def called(r: tables.Record) -> tuple[str, ...]:
    """What a printed row of this system may be called: with what was swept first."""
    return (f"{r.system} {r.swept}", r.system) if r.swept else (r.system,)


def named(r: tables.Record) -> str:
    """The system, what was swept, and what its numbers lack."""
    lost = [f"{r.nonfinite} of {r.seeds} diverged"] * (r.nonfinite > 0)
    lost += [f"{r.unfinished} unfinished"] * (r.unfinished > 0) + ["not converged"] * (r.converged is False)
    return " ".join(filter(None, (r.system, r.swept))) + (f" ({', '.join(lost)})" if lost else "")


def paper(published: tuple[float, float] | None) -> str:
    """A printed score."""
    return "" if published is None else f"{published[0]:.1f} ± {published[1]:.1f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))

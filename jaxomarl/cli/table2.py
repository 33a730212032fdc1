"""OMSD's Table 2 on the particle tasks: ours beside the published normalised scores."""

import csv
import dataclasses
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from jaxomarl.cli import api, session
from jaxomarl.cli.plan import Overrides
from jaxomarl.cli.progress import Lines
from jaxomarl.results import tables

SYSTEMS = ("bc", "iql", "brpo-ind", "brpo-ctde", "omsd")
TASKS = ("mpe/spread", "mpe/tag", "mpe/world")
DATA = ("expert", "medium", "random")

Published = dict[tuple[str, str, str], tuple[float, float]]


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


def published() -> Published:
    """(task, data, system) -> mean and standard error of the printed normalised score."""
    text = resources.files("jaxomarl").joinpath("assets", "published", "omsd_table2.csv").read_text()
    return {
        (r["task"], r["data"], r["system"]): (float(r["mean"]), float(r["spread"]))
        for r in csv.DictReader(text.splitlines())
    }


def omsd_table2(asked: Asked) -> str:
    """Train every cell that was asked for, a task and quality at a time, and set it beside the paper's.

    Cells are kept under `out`, so that the same command goes on where it was stopped.
    """
    systems, tasks, data = asked.systems or SYSTEMS, asked.tasks or TASKS, asked.data or DATA
    lines, records, groups = Lines(), [], []
    for task in tasks:
        for quality in data:
            cell = api.resolve(
                systems, [task], [quality], asked.seeds, "particle", asked.overrides, asked.rows, asked.episodes,
                asked.scale,
            )  # fmt: skip
            name = f"{task}-{quality}".translate(str.maketrans("/:=,", "----"))
            folder, sources = asked.out / name, [asked.source / name] if asked.source else []
            with session.locked(folder):
                settings = session.asked("particle", asked.overrides, asked.rows, asked.episodes, asked.scale)
                session.open_folder(folder, settings, resume=(folder / "sweep.json").exists(), overwrite=False)
                done = session.train_groups(cell, folder, sources, report=lines, stopped=asked.stopped, say=lines.say)
            records += done.records
            groups += [(g.task.name, g.quality, g.manifest, g.task.scale) for g in cell[:1]]
    return f"{preface(asked, groups)}\n{body(records, groups)}"


def preface(asked: Asked, groups: list[tuple]) -> str:
    """What has to be known before the two columns are compared."""
    changed = ", ".join(f"{k} = {v[0] if len(v) == 1 else list(v)}" for k, v in asked.overrides.items())
    lines = [
        "Ours and the published scores differ in more than the code:",
        "",
        "- Data: ours are made by this package's own behaviours (four MATD3 seeds mixed in medium and in expert); the "
        "paper's are OMAR's files, of which its authors choose one of five data seeds for each task.",
        "- Prey (tag, world): ours is this package's own, and scores are normalised by this package's references under "
        "it; the paper's prey came with OMAR's data. `--tasks mpe/tag:prey=FILE` plays against a copy of that one.",
        f"- Scale: {tables.reduced(asked.scale) if asked.scale != 1.0 else 'the preset of the paper.'}"
        + (f" Besides: {changed}." if changed else ""),
        f"- Seeds: ours {len(asked.seeds)}, last evaluation; the paper's 5, with critic checkpoint and beta chosen by "
        "task.",
        "",
    ]
    for task, quality, manifest, scale in groups:
        mean = manifest["return"]["mean"]
        normal = f", normalised {scale.normalise(mean):.1f}" if scale else ""
        lines.append(
            f"- {task} {quality}: {manifest['transitions']} transitions of {manifest['behaviours']} behaviours, mean "
            f"return {mean:.1f}{normal}, content {manifest['sha256'][:12]}, dialect {manifest['dialect']}"
        )
    return "\n".join(lines) + "\n"


def body(records: list[tables.Record], groups: list[tuple]) -> str:
    """The table, a row for each record, with the published score where the paper prints one."""
    printed, means = published(), {(t, q): m["return"]["mean"] for t, q, m, _ in groups}
    head = ("task", "data", "system", "return, mean ± std", "95 % of the IQM", "share of the data's mean", "normalised")
    out = [(*head, "published ± s.e."), ("---",) * (len(head) + 1)]
    for r in records:
        paper = printed.get((r.task.partition(":")[0], r.data, r.system))
        low = "" if r.low is None else f"{r.low:.1f} to {r.high:.1f}"
        std = "" if r.std is None else f" ± {r.std:.1f}"
        mark = "" if r.converged is not False else " (not converged)"
        out.append(
            (
                r.task,
                r.data,
                " ".join(filter(None, (r.system, r.swept))) + mark,
                f"{r.mean:.1f}{std}",
                low,
                f"{r.mean / means[r.task, r.data]:.0%}",
                "" if r.normalised is None else f"{r.normalised:.1f}",
                "" if paper is None else f"{paper[0]:.1f} ± {paper[1]:.1f}",
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in out)

"""Ours beside what a paper prints, as Markdown."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

from jaxomarl.results import tables
from jaxomarl.results.tables import Record

Published = Mapping[tuple[str, str, str], tuple[float, float]]
"""(task, data, system) -> printed mean and spread."""

HEAD = (
    "task", "data", "system", "seeds", "episodes", "mean [95 %]", "std", "IQM [95 %]",
    "% of data's mean [95 %]", "normalised [95 %]", "best in training",
)  # fmt: skip


def scores(name: str, number: str = "") -> Published:
    """Printed scores that ship as `assets/published/NAME.csv`; where a file holds several tables, those of one.

    A spread that is not printed is NaN.
    """
    text = (
        resources.files("jaxomarl")
        .joinpath("assets", "published", f"{name}.csv")
        .read_text(encoding="utf-8")
    )
    return {
        (r["task"], r["data"], r["system"]): (float(r["mean"]), float(r["spread"] or math.nan))
        for r in csv.DictReader(text.splitlines())
        if r.get("table", "") == number
    }


def body(
    records: Sequence[Record],
    printed: Published,
    key: Callable[[str], str],
    spread: str,
    alone: bool = False,
) -> str:
    """Return the table, a row for each record with the published score where the paper prints one, and its notes.

    `key` turns a record's task into the paper's. With `alone`, systems that only the paper has get a row below ours
    of the same task and data.
    """
    out = []
    for r, after in zip(records, [*records[1:], None], strict=True):
        theirs = (printed.get((key(r.task), r.data, name)) for name in called(r))
        out.append(row(r, next(filter(None, theirs), None)))
        if alone and (after is None or (after.task, after.data) != (r.task, r.data)):
            ours = {
                name for x in records if (x.task, x.data) == (r.task, r.data) for name in called(x)
            }
            theirs = [s for t, d, s in printed if (t, d) == (key(r.task), r.data) and s not in ours]
            out += [
                (r.task, r.data, s, *[""] * (len(HEAD) - 3), paper(printed[key(r.task), r.data, s]))
                for s in theirs
            ]
    said = "".join(f"\n{line}\n" for line in (*data_means(records), *tables.notes(records)))
    return markdown((*HEAD, f"published ± {spread}"), out) + said


def glance(
    records: Sequence[Record],
    printed: Published,
    key: Callable[[str], str],
    normalised: bool = False,
) -> str:
    """The same as a table for each task, a row for each system and a column for each data set; "" for a single one.

    `normalised`: what is printed is, so ours stands so beside it.
    """
    out, tasks = [], list(dict.fromkeys(r.task for r in records))
    for task in tasks:
        mine = [r for r in records if r.task == task]
        data = list(dict.fromkeys(r.data for r in mine))
        if len(data) < 2:
            continue
        held = {(named(r, lacks=False), r.data): r for r in mine}
        own = list(dict.fromkeys(name for name, _ in held))
        theirs = {s for t, d, s in printed if t == key(task) and d in data} - {
            n for r in mine for n in called(r)
        }
        rows = [
            (name, *(brief(held.get((name, d)), key(task), printed, normalised) for d in data))
            for name in own
        ]
        rows += [
            (name, *(_mean(printed.get((key(task), d, name))) for d in data))
            for name in sorted(theirs)
        ]
        known = {
            r.data: f"{r.data} ({tables.data_mean(r)})" for r in mine if r.data_mean is not None
        }
        out.append(markdown((task, *(known.get(d, d) for d in data)), rows))
    said = (
        "Mean return ± std over seeds; in brackets the data's mean return ± standard error above, and below "
        + ("the normalised score; the printed one" if normalised else "the printed mean")
        + f". {tables.NOT_CONVERGED}\n"
    )
    return "\n".join([said, *out, ""]) if out else ""


def brief(r: Record | None, task: str, printed: Published, normalised: bool) -> str:
    """A cell of `glance`."""
    if r is None:
        return ""
    theirs = next(filter(None, (printed.get((task, r.data, name)) for name in called(r))), None)
    known = [f"{r.normalised:.1f}"] if normalised and r.normalised is not None else []
    known += [] if theirs is None else [f"{theirs[0]:.1f}"]
    return f"{_score(r)}{'*' * (r.converged is False)}" + (
        f" ({'; '.join(known)})" if known else ""
    )


def row(r: Record, published: tuple[float, float] | None) -> tuple[str, ...]:
    """Return one record's cells under `HEAD` and the published score."""
    return (
        r.task,
        r.data,
        named(r),
        str(r.seeds - r.nonfinite),
        f"{r.episodes} {r.starts}",
        tables.interval(r, r.mean, r.mean_low, r.mean_high),
        "" if r.std is None else tables.number(r, r.std),
        tables.interval(r, r.iqm, r.iqm_low, r.iqm_high),
        tables.share(r),
        tables.normalised(r),
        tables.number(r, r.best),
        paper(published),
    )


def data_means(records: Sequence[Record]) -> list[str]:
    """Return a line with each data set's mean return and its standard error, where the records know them."""
    known = {(r.task, r.data): tables.data_mean(r) for r in records if r.data_mean is not None}
    said = [f"{task} {data} {mean}" for (task, data), mean in known.items()]
    return [f"The data's mean return ± standard error: {'; '.join(said)}."] if said else []


def called(r: Record) -> tuple[str, ...]:
    """What a printed row of this system may be called: with what was swept first."""
    return (f"{r.system} {r.swept}", r.system) if r.swept else (r.system,)


def named(r: Record, lacks: bool = True) -> str:
    """The system, what was swept, and, with `lacks`, what its numbers lack."""
    name = " ".join(filter(None, (r.system, r.swept)))
    lost = [f"{r.nonfinite} of {r.seeds} diverged"] * (r.nonfinite > 0)
    lost += [f"{r.unfinished} unfinished"] * (r.unfinished > 0) + ["not converged"] * (
        r.converged is False
    )
    return name + (f" ({', '.join(lost)})" if lost and lacks else "")


def paper(published: tuple[float, float] | None) -> str:
    """A printed score."""
    return "" if published is None else f"{published[0]:.1f} ± {published[1]:.1f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))


def _score(r: Record) -> str:
    return f"{r.mean:.1f}" + ("" if r.std is None else f" ± {r.std:.1f}")


def _mean(score: tuple[float, float] | None) -> str:
    return "" if score is None else f"({score[0]:.1f})"

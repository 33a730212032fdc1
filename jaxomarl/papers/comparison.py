"""Our scores next to what a paper prints, as Markdown."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

from jaxomarl.results import tables
from jaxomarl.results.tables import Record

Score = tuple[float, float]
"""A printed mean and its spread."""
Published = Mapping[tuple[str, str, str], Score]
"""(task, data, system) -> printed score."""

HEAD = (
    "task",
    "data",
    "system",
    "seeds",
    "episodes",
    "mean [95 %]",
    "std",
    "IQM [95 %]",
    "% of data's mean [95 %]",
    "normalised [95 %]",
    "best in training",
)


def published_scores(name: str, number: str = "") -> Published:
    """Printed scores that ship as `assets/published/NAME.csv`.

    `number` chooses one table of a file that holds several. A spread that is not printed is NaN.
    """
    file = resources.files("jaxomarl").joinpath("assets", "published", f"{name}.csv")
    text = file.read_text(encoding="utf-8")
    scores = {}
    for row in csv.DictReader(text.splitlines()):
        if row.get("table", "") == number:
            spread = float(row["spread"] or math.nan)
            scores[row["task"], row["data"], row["system"]] = (float(row["mean"]), spread)
    return scores


# --- the full table ---


def full_table(
    records: Sequence[Record],
    printed: Published,
    key: Callable[[str], str],
    spread: str,
    alone: bool = False,
) -> str:
    """Return a row for each record with the published score where the paper prints one, and notes.

    `key` turns a record's task into the paper's. With `alone`, systems that only the paper has get
    a row below ours of the same task and data.
    """
    rows = []
    for r, after in zip(records, [*records[1:], None], strict=True):
        rows.append(table_row(r, published_of(r, key(r.task), printed)))
        last_of_cell = after is None or (after.task, after.data) != (r.task, r.data)
        if alone and last_of_cell:
            same_cell = [x for x in records if (x.task, x.data) == (r.task, r.data)]
            rows += _printed_rows(same_cell, key(r.task), printed)
    lines = [*data_means(records), *tables.notes(records)]
    below = "".join(f"\n{line}\n" for line in lines)
    return markdown_table((*HEAD, f"published ± {spread}"), rows) + below


def _printed_rows(
    records: Sequence[Record], task: str, printed: Published
) -> list[tuple[str, ...]]:
    """Rows of the systems that a paper has in a cell and we do not."""
    ours = {name for r in records for name in printed_names(r)}
    first = records[0]
    blank = [""] * (len(HEAD) - 3)
    rows = []
    for (own_task, data, system), score in printed.items():
        if (own_task, data) == (task, first.data) and system not in ours:
            rows.append((first.task, data, system, *blank, printed_score(score)))
    return rows


def table_row(r: Record, published: Score | None) -> tuple[str, ...]:
    """Return one record's cells under `HEAD` and the published score."""
    std = "" if r.std is None else tables.number(r, r.std)
    return (
        r.task,
        r.data,
        full_name(r),
        str(r.seeds - r.nonfinite),
        f"{r.episodes} {r.starts}",
        tables.interval(r, r.mean, r.mean_low, r.mean_high),
        std,
        tables.interval(r, r.iqm, r.iqm_low, r.iqm_high),
        tables.share(r),
        tables.normalised(r),
        tables.number(r, r.best),
        printed_score(published),
    )


def data_means(records: Sequence[Record]) -> list[str]:
    """Return a line with each data set's mean return and standard error, where they are known."""
    known = {(r.task, r.data): tables.data_mean(r) for r in records if r.data_mean is not None}
    if not known:
        return []
    means = [f"{task} {data} {mean}" for (task, data), mean in known.items()]
    return [f"The data's mean return ± standard error: {'; '.join(means)}."]


# --- the overview ---


def overview(
    records: Sequence[Record],
    printed: Published,
    key: Callable[[str], str],
    normalised: bool = False,
    others: bool = True,
) -> str:
    """Return a table for each task, a row for each system and a column for each data set.

    It is "" where no task has several data sets. `normalised` says that the printed scores are, so
    that our normalised score stands next to them. With `others`, systems that only the paper has
    get a row each.
    """
    blocks = []
    for task in dict.fromkeys(r.task for r in records):
        own = [r for r in records if r.task == task]
        if len({r.data for r in own}) > 1:
            blocks.append(_task_overview(own, key(task), printed, normalised, others))
    if not blocks:
        return ""
    below = "the normalised score; the printed one" if normalised else "the printed mean"
    note = (
        "Mean return ± std over seeds; in brackets the data's mean return ± standard error above, "
        f"and below {below}. {tables.NOT_CONVERGED}\n"
    )
    return "\n".join([note, *blocks, ""])


def _task_overview(
    records: Sequence[Record], task: str, printed: Published, normalised: bool, others: bool
) -> str:
    """The table of one task: our systems, then those that only the paper has."""
    data = list(dict.fromkeys(r.data for r in records))
    by_cell = {(short_name(r), r.data): r for r in records}
    rows = []
    for name in dict.fromkeys(short_name(r) for r in records):
        cells = [overview_cell(by_cell.get((name, d)), task, printed, normalised) for d in data]
        rows.append((name, *cells))
    ours = {name for r in records for name in printed_names(r)}
    theirs = {system for t, d, system in printed if others and t == task and d in data}
    for name in sorted(theirs - ours):
        rows.append((name, *(_printed_mean(printed.get((task, d, name))) for d in data)))
    headers = {}
    for r in records:
        if r.data_mean is not None:
            headers[r.data] = f"{r.data} ({tables.data_mean(r)})"
    return markdown_table((records[0].task, *(headers.get(d, d) for d in data)), rows)


def overview_cell(r: Record | None, task: str, printed: Published, normalised: bool) -> str:
    """Return a cell of the overview: our score, and in brackets what it is compared with."""
    if r is None:
        return ""
    cell = f"{r.mean:.1f}"
    if r.std is not None:
        cell += f" ± {r.std:.1f}"
    cell += tables.marks(r)
    in_brackets = []
    if normalised and r.normalised is not None:
        in_brackets.append(f"{r.normalised:.1f}")
    theirs = published_of(r, task, printed)
    if theirs is not None:
        in_brackets.append(f"{theirs[0]:.1f}")
    if in_brackets:
        cell += f" ({'; '.join(in_brackets)})"
    return cell


def _printed_mean(score: Score | None) -> str:
    return "" if score is None else f"({score[0]:.1f})"


# --- names and cells ---


def published_of(r: Record, task: str, printed: Published) -> Score | None:
    """The printed score of a record, under the first of its names that the paper has."""
    for name in printed_names(r):
        score = printed.get((task, r.data, name))
        if score:
            return score
    return None


def printed_names(r: Record) -> tuple[str, ...]:
    """The names that a printed row of this system may have: with what was swept first."""
    if r.swept:
        return f"{r.system} {r.swept}", r.system
    return (r.system,)


def short_name(r: Record) -> str:
    """The system and what was swept."""
    return " ".join(filter(None, (r.system, r.swept)))


def full_name(r: Record) -> str:
    """The system, what was swept, and what its numbers lack."""
    lacks = []
    if r.nonfinite > 0:
        lacks.append(f"{r.nonfinite} of {r.seeds} diverged")
    if r.unfinished > 0:
        lacks.append(f"{r.unfinished} unfinished")
    if r.converged is False:
        lacks.append("not converged")
    if not r.ranked:
        lacks.append(r.health)
    name = short_name(r)
    if lacks:
        name += f" ({', '.join(lacks)})"
    return name


def printed_score(score: Score | None) -> str:
    """A printed score as a cell."""
    return "" if score is None else f"{score[0]:.1f} ± {score[1]:.1f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    rule = ("---",) * len(head)
    lines = [f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows)]
    return "".join(lines)

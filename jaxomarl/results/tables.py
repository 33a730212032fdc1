"""Tables from return rows: one record per cell; final and best scores never mix, and no diverged seed is hidden."""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results import intervals, statistics
from jaxomarl.results.intervals import Estimate
from jaxomarl.results.store import Row, Run, write_bytes, write_table


class Record(NamedTuple):
    """One cell of the study: the runs that differ only in their seed. Scores are over finished, finite seeds.

    Intervals are 95 % ones of `results.intervals`; an end is None where there is none, for want of values.
    """

    task: str
    data: str
    system: str
    swept: str  # "beta=0.01 lr=0.0003"
    config: str
    stage: str
    step: int  # of the final evaluation
    seeds: int  # finished: evaluated at `step`; the diverged ones are among them
    nonfinite: int  # diverged: a final episode return is nan or inf
    unfinished: int  # runs without an evaluation at `step`
    starts: str  # of the final score's episodes: "fresh" for every seed, or "common" to all seeds and systems
    episodes: int  # of one seed's final score
    covers: str  # what the intervals cover: "seeds and episodes", "seeds" or "episodes"
    mean: float  # over seeds, of each seed's mean episode return at `step`; nan where no seed is finite
    mean_low: float | None
    mean_high: float | None
    std: float | None  # of the seeds' mean returns, ddof = 1; None below two seeds
    iqm: float  # interquartile mean of the seeds' mean returns
    iqm_low: float | None
    iqm_high: float | None
    data_mean: float | None  # mean episode return of the data; None where run.json does not say
    data_se: float | None  # standard error of `data_mean`; None of a single episode
    share: float | None  # mean / data_mean; None where the data's mean is not positive
    share_low: float | None
    share_high: float | None
    normalised: (
        float | None
    )  # `mean` between the task's random (0) and expert (100) returns; None where it has none
    normalised_low: float | None
    normalised_high: float | None
    coordinated: float | None  # share of the final episodes; None where the task does not tell
    converged: (
        bool | None
    )  # False where training's last two evaluations differ by more than two standard errors
    scale: float  # of the preset's steps and widths; 1 is the paper's size
    best: (
        float  # mean over the same seeds of each one's best evaluation in training: biased upwards
    )


Values = dict[tuple[int, str], list[float]]  # (step, metric) -> episodes


def summary(rows: Iterable[Row], runs: Sequence[Run], final: Iterable[Row] = ()) -> list[Record]:
    """One record per (task, data, system, swept values, config), sorted so.

    `rows` are those of `load_returns(runs)` and `final` those of `load_final(runs)`. Where a cell has final rows, they
    are its score, on fresh starts; else its score is the last evaluation in training, on common starts.
    The score's step is the last one of the final stage that any seed of the cell has; a seed without it is counted as
    unfinished, one with a non-finite return as diverged, and neither enters a mean.
    A cell of which no run was evaluated yet has no record.
    Raises JaxomarlError where two folders hold the same run, or a row belongs to none.
    """
    folders: dict[tuple, Path] = {}
    facts: dict[tuple, Mapping[str, Any]] = {}
    cells = defaultdict(list)
    for run in runs:
        key, info = _key(run.info), run.info
        if key in facts:
            way_out = "Report one of them; a config digest must tell swept values apart."
            raise refuse(
                "runs", "each run once", f"{key} in {folders[key]} and {run.path}", way_out
            )
        facts[key], folders[key] = info, run.path
        swept = tuple(
            (k, v if isinstance(v, int | float) else str(v))
            for k, v in sorted(info["swept"].items())
        )
        cells[
            (info["task"], info["data"], info["system"], swept, info["config"], info["final_stage"])
        ].append(key)
    training, scores = _by_run(rows, facts), _by_run(final, facts)
    records = [
        _record(
            cell, [training[key] for key in keys], [scores[key] for key in keys], facts[keys[0]]
        )
        for cell, keys in sorted(cells.items(), key=_order)
    ]
    return [record for record in records if record]


def _by_run(rows: Iterable[Row], facts: Mapping[tuple, Mapping[str, Any]]) -> dict[tuple, Values]:
    """Each run's values of its final stage; a run without rows has none."""
    values: dict[tuple, Values] = {key: {} for key in facts}
    for row in rows:
        key = row[:5]
        if key not in facts:
            raise refuse(
                "rows",
                "rows of the given runs",
                key,
                "Give load_returns and summary the same runs.",
            )
        if row.stage == facts[key]["final_stage"]:
            values[key].setdefault((row.step, row.metric), []).append(row.value)
    return values


def _key(info: Mapping[str, Any]) -> tuple:
    return info["system"], info["task"], info["data"], info["config"], int(info["seed"])


def _order(item: tuple[tuple, Any]) -> tuple:
    task, data, system, swept, config, stage = item[0]
    numbers_first = [(k, (1, 0, v) if isinstance(v, str) else (0, v, "")) for k, v in swept]
    return task, data, system, numbers_first, config, stage


def _record(
    cell: tuple, training: list[Values], final: list[Values], info: Mapping[str, Any]
) -> Record | None:
    """The record of a cell from its runs' values and one run's facts; None where nothing was evaluated."""
    task, data, system, swept, config, stage = cell
    fresh = any(final)
    runs = final if fresh else training
    step = _last(runs)
    if step is None:
        return None
    done = [i for i, run in enumerate(runs) if (step, "return") in run]
    with np.errstate(invalid="ignore"):  # inf - inf
        means = {i: float(np.mean(runs[i][step, "return"])) for i in done}
        curves = [
            {s: float(np.mean(x)) for (s, m), x in run.items() if m == "return"} for run in training
        ]
    finite = [i for i in done if np.isfinite(means[i])]
    scores = np.array([means[i] for i in finite], np.float64)
    evaluated = [[v for v in curves[i].values() if np.isfinite(v)] for i in finite]
    best = [max(x) for x in evaluated if x]
    told = [x for i in finite if (x := runs[i].get((step, "coordinated")))]
    estimate = None
    if finite:
        single = np.array(runs[finite[0]][step, "return"], np.float64)
        estimate = intervals.of_samples(scores if len(finite) > 1 else single)
    return Record(
        task=task,
        data=data,
        system=system,
        swept=" ".join(f"{name}={value}" for name, value in swept),
        config=config,
        stage=stage,
        step=step,
        seeds=len(done),
        nonfinite=len(done) - len(finite),
        unfinished=len(runs) - len(done),
        starts="fresh" if fresh else "common",
        episodes=max(len(runs[i][step, "return"]) for i in done),
        covers=_covers(len(finite), fresh),
        std=float(statistics.std(scores)) if len(finite) > 1 else None,
        coordinated=float(np.mean([np.mean(x) for x in told])) if told else None,
        converged=_settled([curves[i] for i in finite]),
        scale=float(info.get("scale", 1.0)),
        best=float(np.mean(best)) if best else float("nan"),
        **_mean(estimate),
        **_iqm(scores, estimate),
        **_share(estimate, info.get("data_return")),
        **_normalised(estimate, info.get("normaliser")),
    )


def _covers(seeds: int, fresh: bool) -> str:
    """Return the sources of error that a cell's intervals cover."""
    if seeds < 2:
        return "episodes"
    return "seeds and episodes" if fresh else "seeds"


def _mean(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"mean": float("nan"), "mean_low": None, "mean_high": None}
    low, high = _ends(intervals.interval(estimate))
    return {"mean": float(estimate.mean), "mean_low": low, "mean_high": high}


def _iqm(scores: np.ndarray, estimate: Estimate | None) -> dict[str, Any]:
    """Return the fields of the interquartile mean of the seeds' scores; one seed's is its mean."""
    if estimate is None:
        return {"iqm": float("nan"), "iqm_low": None, "iqm_high": None}
    single = len(scores) == 1
    low, high = _ends(intervals.interval(estimate) if single else intervals.iqm(scores))
    return {"iqm": float(statistics.iqm(scores)), "iqm_low": low, "iqm_high": high}


def _share(estimate: Estimate | None, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of the data's mean return, as run.json gives it, and of the score's share of it."""
    found: dict[str, Any] = dict.fromkeys(
        ("data_mean", "data_se", "share", "share_low", "share_high")
    )
    if not data or not all(
        isinstance(data.get(key), int | float) for key in ("mean", "std", "episodes")
    ):
        return found
    error = statistics.standard_error(data["std"], data["episodes"])
    found |= {"data_mean": float(data["mean"]), "data_se": error}
    if estimate is None or data["mean"] <= 0:
        return found
    if error is None:
        return {**found, "share": float(estimate.mean / data["mean"])}
    known = Estimate(
        *(np.asarray(x, np.float64) for x in (data["mean"], error**2, data["episodes"] - 1.0))
    )
    low, high = _ends(intervals.share(estimate, known))
    return {
        **found,
        "share": float(estimate.mean / known.mean),
        "share_low": low,
        "share_high": high,
    }


def _normalised(estimate: Estimate | None, ends: Mapping[str, float] | None) -> dict[str, Any]:
    """Return the fields of the normalised score, where the task has references."""
    if not ends:
        return dict.fromkeys(("normalised", "normalised_low", "normalised_high"))
    if estimate is None:
        return {"normalised": float("nan"), "normalised_low": None, "normalised_high": None}
    references = ends["random"], ends["expert"]
    low, high = _ends(intervals.scaled(intervals.interval(estimate), *references))
    middle, _ = intervals.scaled((estimate.mean, estimate.mean), *references)
    return {"normalised": float(middle), "normalised_low": low, "normalised_high": high}


def _ends(ends: intervals.Ends) -> tuple[float | None, float | None]:
    """Return an interval's ends as numbers, or None where there are none."""
    low, high = map(float, ends)
    return (low, high) if np.isfinite([low, high]).all() else (None, None)


def _last(runs: Sequence[Values]) -> int | None:
    """The last step at which any run has a return."""
    return max((step for run in runs for step, metric in run if metric == "return"), default=None)


def _settled(curves: list[dict[int, float]]) -> bool | None:
    """Whether the last two evaluations in training agree within two standard errors over seeds.

    Both are on the same starts. None below two seeds, or where a seed lacks one of the two or is not finite there.
    """
    steps = sorted({step for curve in curves for step in curve})[-2:]
    if (
        len(curves) < 2
        or len(steps) < 2
        or any(step not in curve for curve in curves for step in steps)
    ):
        return None
    before, last = (np.array([curve[step] for curve in curves]) for step in steps)
    if not np.isfinite(before + last).all():
        return None
    error = float(statistics.std(last)) / len(last) ** 0.5
    return bool(abs(last.mean() - before.mean()) <= 2.0 * error)


# --- writers ---

WORDS = ("task", "data", "system", "starts")
"""Columns of words."""
WIDTH = 100
"""Columns of a terminal that notes keep to."""


def markdown(records: Sequence[Record]) -> str:
    """The records as a markdown table, with a note where seeds diverged or are not finished."""
    header, rows, said = _cells(records)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---" if name in WORDS else "---:" for name in header]
    lines = ["| " + " | ".join(row) + " |" for row in _aligned([header, rule, *escaped])]
    return "\n".join(lines + [f"\n{note}" for note in said]) + "\n"


def text(records: Sequence[Record]) -> str:
    """The records as aligned columns for the terminal, with the same notes."""
    header, rows, said = _cells(records)
    lines = ["  ".join(row).rstrip() for row in _aligned([header, *rows])]
    return "\n".join([*lines, *(textwrap.fill(note, WIDTH) for note in said)]) + "\n"


def html(records: Sequence[Record]) -> str:
    """The records as a table of HTML for a notebook, with the same notes; every text is escaped."""
    header, rows, said = _cells(records)
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in said)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


def write_summary(folder: str | Path, records: Sequence[Record], more: str = "") -> None:
    """Write summary.csv, every field of every record in full precision, and summary.md, for reading.

    `more` is Markdown that follows the table.
    """
    text = "\n".join(filter(None, (markdown(records), more)))
    write_table(Path(folder) / "summary.csv", records, Record._fields)
    write_bytes(Path(folder) / "summary.md", text.encode())


def _aligned(rows: list[list[str]]) -> list[list[str]]:
    """Pad every column to its widest cell: words to the left, numbers to the right. The first row has the names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad = [str.ljust if name in WORDS else str.rjust for name in rows[0]]
    return [[pad[c](cell, widths[c]) for c, cell in enumerate(row)] for row in rows]


def _cells(records: Sequence[Record]) -> tuple[list[str], list[list[str]], list[str]]:
    """(header, rows, notes); a column that says nothing is left out, and what all rows share stands in a note."""
    names = [(r.task, r.data, r.system, r.swept) for r in records]
    columns = {
        "task": [r.task for r in records],
        "data": [r.data for r in records],
        "system": [_system(r, names) for r in records],
        "step": [str(r.step) for r in records],
        "seeds": [_seeds(r) for r in records],
        "episodes": [str(r.episodes) for r in records],
        "starts": [r.starts for r in records],
        "data's mean ± s.e.": [data_mean(r) for r in records],
        "mean [95 %]": [interval(r, r.mean, r.mean_low, r.mean_high) for r in records],
        "IQM [95 %]": [interval(r, r.iqm, r.iqm_low, r.iqm_high) for r in records],
        "% of data's mean [95 %]": [share(r) for r in records],
        "normalised [95 %]": [normalised(r) for r in records],
        "coordinated": ["" if r.coordinated is None else f"{r.coordinated:.2f}" for r in records],
        "best in training": [number(r, r.best) for r in records],
    }
    columns = {name: column for name, column in columns.items() if any(column)}
    shared = {name: columns.pop(name)[0] for name in SHARED if len(set(columns.get(name, ()))) == 1}
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return list(columns), rows, [*_facts(shared), *notes(records)]


SHARED = ("task", "data", "step", "seeds", "episodes", "starts", "data's mean ± s.e.")
"""Columns that become words below the table where all rows agree."""


def _facts(shared: Mapping[str, str]) -> list[str]:
    """Return one line of what all rows have in common."""
    words = {
        "task": "{}",
        "data": "data {}",
        "step": "step {}",
        "seeds": "seeds {}",
        "episodes": "episodes of each {}",
        "starts": "{} starts",
        "data's mean ± s.e.": "data's mean return {}",
    }
    said = [words[name].format(value) for name, value in shared.items()]
    return [f"All rows: {', '.join(said)}."] if said else []


NOT_CONVERGED = (
    "* not converged: training's last two evaluations differ by more than two standard errors."
)
"""What the mark at a system's name means."""


def coverage(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each kind of interval among the records: which starts, and what it covers."""
    kinds = {r.covers for r in records if r.mean_low is not None}
    said = []
    if "seeds and episodes" in kinds:
        said.append("Fresh starts for every seed: intervals cover seeds and episodes.")
    if "seeds" in kinds:
        counts = sorted({r.episodes for r in records if r.covers == "seeds"})
        same = " or ".join(map(str, counts))
        said.append(
            f"Common starts, the same {same} for every seed and system: intervals cover seeds alone."
        )
    if "episodes" in kinds:
        said.append("One seed: the interval covers its episodes alone.")
    return said


def notes(records: Sequence[Record]) -> list[str]:
    """Return what has to be known to read the records' numbers: what intervals cover, marks, scale."""
    said = coverage(records)
    if any(np.isfinite(r.best) for r in records):
        said.append(
            "Best in training: each seed's best evaluation on common starts, biased upwards."
        )
    if any(r.converged is False for r in records):
        said.append(NOT_CONVERGED)
    diverged = sum(r.nonfinite for r in records)
    missing = sum(r.unfinished for r in records)
    if diverged:
        said.append(
            f"! {diverged} diverged (nan or inf): scores are over the finite seeds of that row only."
        )
    if missing:
        said.append(f"+ {missing} runs have not reached that step and are not counted.")
    return said + [reduced(scale) for scale in sorted({r.scale for r in records} - {1.0})]


def reduced(scale: float) -> str:
    """What is said of results at another scale than the preset's."""
    size = scale ** (1 / 3)
    return f"Scale {scale:g}: steps are {scale:g} and widths {size:.2g} times the preset's, but for what was set."


def _system(r: Record, names: list[tuple[str, str, str, str]]) -> str:
    """Return the system and what was swept; the config's digest only where nothing else tells two rows apart."""
    twins = names.count((r.task, r.data, r.system, r.swept)) > 1
    digest = f"({r.config[:8]})" if twins else ""
    mark = "*" if r.converged is False else ""
    return " ".join(filter(None, (r.system, r.swept, digest))) + mark


def _seeds(r: Record) -> str:
    finite = f"{r.seeds - r.nonfinite} of {r.seeds} !" if r.nonfinite else str(r.seeds)
    return finite + (f" +{r.unfinished}" if r.unfinished else "")


def data_mean(r: Record) -> str:
    """Return the data's mean return and its standard error, as far as they are known."""
    if r.data_mean is None:
        return ""
    digits = _digits(r.data_mean)
    error = "" if r.data_se is None else f" ± {r.data_se:.{digits}f}"
    return f"{r.data_mean:.{digits}f}{error}"


def interval(r: Record, x: float, low: float | None, high: float | None) -> str:
    """Return a number of a row and its interval."""
    return number(r, x) + ("" if low is None else f" [{number(r, low)}, {number(r, high)}]")


def share(r: Record) -> str:
    """Return the share of the data's mean and its interval, in per cent."""
    if r.share is None:
        return ""
    interval = ""
    if r.share_low is not None and r.share_high is not None:
        interval = f" [{100 * r.share_low:.1f}, {100 * r.share_high:.1f}]"
    return f"{100 * r.share:.1f}{interval}"


def normalised(r: Record) -> str:
    """Return the normalised score and its interval."""
    if r.normalised is None:
        return ""
    interval = (
        "" if r.normalised_low is None else f" [{r.normalised_low:.1f}, {r.normalised_high:.1f}]"
    )
    return f"{r.normalised:.1f}{interval}"


def _digits(x: float) -> int:
    """Return two decimals for small scores, one for hundreds, none for tens of thousands."""
    if abs(x) < 100:
        return 2
    return 1 if abs(x) < 10_000 else 0


def number(r: Record, x: float | None) -> str:
    """Return one number of a row, with as many decimals as its mean has; "" where there is none."""
    if x is None or (np.isnan(x) and np.isfinite(r.mean)):
        return ""
    return f"{x:.{_digits(r.mean)}f}"

"""Tables from return rows: one record per cell; final and best scores never mix, and no diverged seed is hidden."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results import statistics
from jaxomarl.results.store import Row, Run, write_bytes, write_table

LEVEL, REPS = 0.95, 2000  # of every interval, with bootstrap seed 0


class Record(NamedTuple):
    """One cell of the study: the runs that differ only in their seed. Scores are over finished, finite seeds."""

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
    mean: float  # over seeds, of each seed's mean episode return at `step`; nan where no seed is finite
    std: float | None  # over seeds, ddof = 1; None below two seeds, as the three below
    se: float | None  # std / sqrt(seeds)
    iqm: float
    low: float | None  # 95 % stratified bootstrap interval of the IQM
    high: float | None
    coordinated: float | None  # share of the final episodes; None where the task does not tell
    converged: bool | None  # False where training's last two evaluations differ by more than two standard errors
    normalised: float | None  # `mean` between the task's random (0) and expert (100) returns; None where it has none
    scale: float  # of the preset's steps and widths; 1 is the paper's size
    best: float  # mean over the same seeds of each one's best evaluation: biased upwards, never compared with `mean`


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
            raise refuse("runs", "each run once", f"{key} in {folders[key]} and {run.path}", way_out)
        facts[key], folders[key] = info, run.path
        swept = tuple((k, v if isinstance(v, int | float) else str(v)) for k, v in sorted(info["swept"].items()))
        cells[(info["task"], info["data"], info["system"], swept, info["config"], info["final_stage"])].append(key)
    training, scores = _by_run(rows, facts), _by_run(final, facts)
    records = [
        _record(cell, [training[key] for key in keys], [scores[key] for key in keys], facts[keys[0]])
        for cell, keys in sorted(cells.items(), key=_order)
    ]
    return [record for record in records if record]


def _by_run(rows: Iterable[Row], facts: Mapping[tuple, Mapping[str, Any]]) -> dict[tuple, Values]:
    """Each run's values of its final stage; a run without rows has none."""
    values: dict[tuple, Values] = {key: {} for key in facts}
    for row in rows:
        key = row[:5]
        if key not in facts:
            raise refuse("rows", "rows of the given runs", key, "Give load_returns and summary the same runs.")
        if row.stage == facts[key]["final_stage"]:
            values[key].setdefault((row.step, row.metric), []).append(row.value)
    return values


def _key(info: Mapping[str, Any]) -> tuple:
    return info["system"], info["task"], info["data"], info["config"], int(info["seed"])


def _order(item: tuple[tuple, Any]) -> tuple:
    task, data, system, swept, config, stage = item[0]
    numbers_first = [(k, (1, 0, v) if isinstance(v, str) else (0, v, "")) for k, v in swept]
    return task, data, system, numbers_first, config, stage


def _record(cell: tuple, training: list[Values], final: list[Values], info: Mapping[str, Any]) -> Record | None:
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
        curves = [{s: float(np.mean(x)) for (s, m), x in run.items() if m == "return"} for run in training]
    finite = [i for i in done if np.isfinite(means[i])]
    scores = np.array([means[i] for i in finite], np.float64)
    evaluated = [[v for v in curves[i].values() if np.isfinite(v)] for i in finite]
    best = [max(x) for x in evaluated if x]
    told = [x for i in finite if (x := runs[i].get((step, "coordinated")))]
    few = len(scores) < 2
    spread = float(statistics.std(scores))
    mean = float(statistics.mean(scores)) if finite else float("nan")
    ends = info.get("normaliser")
    low, high = statistics.stratified_bootstrap(scores, statistics.iqm, REPS, LEVEL)
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
        mean=mean,
        std=None if few else spread,
        se=None if few else spread / len(scores) ** 0.5,
        iqm=float(statistics.iqm(scores)) if finite else float("nan"),
        low=None if few else low,
        high=None if few else high,
        coordinated=float(np.mean([np.mean(x) for x in told])) if told else None,
        converged=_settled([curves[i] for i in finite]),
        normalised=100.0 * (mean - ends["random"]) / (ends["expert"] - ends["random"]) if ends else None,
        scale=float(info.get("scale", 1.0)),
        best=float(np.mean(best)) if best else float("nan"),
    )


def _last(runs: Sequence[Values]) -> int | None:
    """The last step at which any run has a return."""
    return max((step for run in runs for step, metric in run if metric == "return"), default=None)


def _settled(curves: list[dict[int, float]]) -> bool | None:
    """Whether the last two evaluations in training agree within two standard errors over seeds.

    Both are on the same starts. None below two seeds, or where a seed lacks one of the two or is not finite there.
    """
    steps = sorted({step for curve in curves for step in curve})[-2:]
    if len(curves) < 2 or len(steps) < 2 or any(step not in curve for curve in curves for step in steps):
        return None
    before, last = (np.array([curve[step] for curve in curves]) for step in steps)
    if not np.isfinite(before + last).all():
        return None
    error = float(statistics.std(last)) / len(last) ** 0.5
    return bool(abs(last.mean() - before.mean()) <= 2.0 * error)


# --- writers ---


def markdown(records: Sequence[Record]) -> str:
    """The records as a markdown table, with a note where seeds diverged or are not finished."""
    header, rows, notes = _cells(records)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    aligned = _aligned([header, ["---" if c < 3 else "---:" for c in range(len(header))], *escaped])
    lines = ["| " + " | ".join(row) + " |" for row in aligned]
    return "\n".join(lines + [f"\n{note}" for note in notes]) + "\n"


def text(records: Sequence[Record]) -> str:
    """The records as aligned columns for the terminal, with the same notes."""
    header, rows, notes = _cells(records)
    lines = ["  ".join(row).rstrip() for row in _aligned([header, *rows])]
    return "\n".join([*lines, *notes]) + "\n"


def write_summary(folder: str | Path, records: Sequence[Record]) -> None:
    """Write summary.csv, every field of every record in full precision, and summary.md, for reading."""
    write_table(Path(folder) / "summary.csv", records, Record._fields)
    write_bytes(Path(folder) / "summary.md", markdown(records).encode())


def _aligned(rows: list[list[str]]) -> list[list[str]]:
    """Pad every column to its widest cell: names to the left, numbers (from the fourth column on) to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad = [str.ljust if c < 3 else str.rjust for c in range(len(widths))]
    return [[pad[c](cell, widths[c]) for c, cell in enumerate(row)] for row in rows]


def _cells(records: Sequence[Record]) -> tuple[list[str], list[list[str]], list[str]]:
    """(header, rows, notes); a column that says nothing in any row is left out."""
    names = [(r.task, r.data, r.system, r.swept) for r in records]
    columns = {
        "task": [r.task for r in records],
        "data": [r.data for r in records],
        "system": [" ".join(filter(None, (r.system, r.swept, _digest(r, names)))) for r in records],
        "step": [str(r.step) for r in records],
        "seeds": [_seeds(r) for r in records],
        "final mean ± std": [_spread(r) for r in records],
        "final IQM [95 % interval]": [_interval(r) for r in records],
        "normalised": ["" if r.normalised is None else f"{r.normalised:.1f}" for r in records],
        "coordinated": ["" if r.coordinated is None else f"{r.coordinated:.2f}" for r in records],
        "best in training": [_number(r, r.best) for r in records],
    }
    for name in ("normalised", "coordinated"):
        if not any(columns[name]):
            del columns[name]
    diverged, missing = sum(r.nonfinite for r in records), sum(r.unfinished for r in records)
    notes = [f"! {diverged} diverged (nan or inf): scores are over the finite seeds of that row only."] * (diverged > 0)
    notes += [f"+ {missing} runs have not reached that step and are not counted."] * (missing > 0)
    notes += [reduced(scale) for scale in sorted({r.scale for r in records} - {1.0})]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)], notes


def reduced(scale: float) -> str:
    """What is said of results at another scale than the preset's."""
    size = scale ** (1 / 3)
    return f"Scale {scale:g}: steps are {scale:g} and widths {size:.2g} times the preset's, but for what was set."


def _digest(r: Record, names: list[tuple[str, str, str, str]]) -> str:
    """The config's digest, shown only where nothing else tells two rows apart."""
    return f"({r.config[:8]})" if names.count((r.task, r.data, r.system, r.swept)) > 1 else ""


def _seeds(r: Record) -> str:
    finite = f"{r.seeds - r.nonfinite} of {r.seeds} !" if r.nonfinite else str(r.seeds)
    return finite + (f" +{r.unfinished}" if r.unfinished else "")


def _spread(r: Record) -> str:
    return _number(r, r.mean) + ("" if r.std is None else f" ± {_number(r, r.std)}") + (" !" if r.nonfinite else "")


def _interval(r: Record) -> str:
    return _number(r, r.iqm) + ("" if r.low is None else f" [{_number(r, r.low)}, {_number(r, r.high)}]")


def _number(r: Record, x: float | None) -> str:
    """One number of a row, which has two decimals for small scores, one for hundreds, none for tens of thousands."""
    return "" if x is None else f"{x:.{2 if abs(r.mean) < 100 else 1 if abs(r.mean) < 10_000 else 0}f}"

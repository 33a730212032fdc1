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
    episodes: int  # of one final evaluation
    mean: float  # over seeds, of each seed's mean episode return at `step`; nan where no seed is finite
    std: float | None  # over seeds, ddof = 1; None below two seeds, as the three below
    se: float | None  # std / sqrt(seeds)
    iqm: float
    low: float | None  # 95 % stratified bootstrap interval of the IQM
    high: float | None
    coordinated: float | None  # share of the final episodes; None where the task does not tell
    converged: bool | None  # False where `mean` is further from the evaluation before than the interval's half-width
    normalised: float | None  # `mean` between the task's random (0) and expert (100) returns; None where it has none
    scale: float  # of the preset's steps and widths; 1 is the paper's size
    best: float  # mean over the same seeds of each one's best evaluation: biased upwards, never compared with `mean`


Values = dict[tuple[int, str], list[float]]  # (step, metric) -> episodes


def summary(rows: Iterable[Row], runs: Sequence[Run]) -> list[Record]:
    """One record per (task, data, system, swept values, config), sorted so; `rows` are those of `load_returns(runs)`.

    Final is the last step of the final stage that any seed of the cell has reached; a seed that has not reached it is
    counted as unfinished, one with a non-finite return as diverged, and neither enters a mean.
    A cell of which no run was evaluated yet has no record. JaxomarlError where two folders hold the same run.
    """
    values: dict[tuple, Values] = {}
    folders: dict[tuple, Path] = {}
    cells = defaultdict(list)
    for run in runs:
        key, info = _key(run.info), run.info
        if key in values:
            way_out = "Report one of them; a config digest must tell swept values apart."
            raise refuse("runs", "each run once", f"{key} in {folders[key]} and {run.path}", way_out)
        values[key], folders[key] = {}, run.path
        swept = tuple((k, v if isinstance(v, int | float) else str(v)) for k, v in sorted(info["swept"].items()))
        cells[(info["task"], info["data"], info["system"], swept, info["config"], info["final_stage"])].append(key)
    stages = {_key(run.info): run.info["final_stage"] for run in runs}
    facts = {_key(run.info): run.info for run in runs}
    for row in rows:
        key = row[:5]
        if key not in values:
            raise refuse("rows", "rows of the given runs", key, "Give load_returns and summary the same runs.")
        if row.stage == stages[key]:
            values[key].setdefault((row.step, row.metric), []).append(row.value)
    records = [
        _record(cell, [values[key] for key in keys], facts[keys[0]]) for cell, keys in sorted(cells.items(), key=_order)
    ]
    return [record for record in records if record]


def _key(info: Mapping[str, Any]) -> tuple:
    return info["system"], info["task"], info["data"], info["config"], int(info["seed"])


def _order(item: tuple[tuple, Any]) -> tuple:
    task, data, system, swept, config, stage = item[0]
    numbers_first = [(k, (1, 0, v) if isinstance(v, str) else (0, v, "")) for k, v in swept]
    return task, data, system, numbers_first, config, stage


def _record(cell: tuple, runs: list[Values], info: Mapping[str, Any]) -> Record | None:
    """The record of a cell from its runs' final-stage values and one run's facts; None where nothing was evaluated."""
    task, data, system, swept, config, stage = cell
    step = max((s for run in runs for s, metric in run if metric == "return"), default=None)
    if step is None:
        return None
    finished = [run for run in runs if (step, "return") in run]
    with np.errstate(invalid="ignore"):  # inf - inf
        curves = [{s: float(np.mean(x)) for (s, m), x in run.items() if m == "return"} for run in finished]
    finite = [i for i, curve in enumerate(curves) if np.isfinite(curve[step])]
    scores = np.array([curves[i][step] for i in finite], np.float64)
    best = [max(v for v in curves[i].values() if np.isfinite(v)) for i in finite]
    told = [x for i in finite if (x := finished[i].get((step, "coordinated")))]
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
        seeds=len(finished),
        nonfinite=len(finished) - len(finite),
        unfinished=len(runs) - len(finished),
        episodes=max(len(run[step, "return"]) for run in finished),
        mean=mean,
        std=None if few else spread,
        se=None if few else spread / len(scores) ** 0.5,
        iqm=float(statistics.iqm(scores)) if finite else float("nan"),
        low=None if few else low,
        high=None if few else high,
        coordinated=float(np.mean([np.mean(x) for x in told])) if told else None,
        converged=_settled(curves, finite, step, mean, low, high),
        normalised=100.0 * (mean - ends["random"]) / (ends["expert"] - ends["random"]) if ends else None,
        scale=float(info.get("scale", 1.0)),
        best=float(np.mean(best)) if finite else float("nan"),
    )


def _settled(curves: list[dict[int, float]], finite: list[int], step: int, mean: float, low: float, high: float):
    """Whether the last two evaluations agree; None below two seeds or two evaluations."""
    before = max((s for i in finite for s in curves[i] if s < step), default=None)
    if before is None or len(finite) < 2 or any(before not in curves[i] for i in finite):
        return None
    return bool(abs(mean - np.mean([curves[i][before] for i in finite])) <= (high - low) / 2)


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

"""Tables from return rows: one record per cell.

Final and best scores never mix, and no diverged seed is hidden.
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.health.verdict import LEARNED, of_runs
from jaxomarl.results import intervals, statistics, tabular
from jaxomarl.results.intervals import Estimate
from jaxomarl.results.store import Row, Run, health_of, write_bytes, write_table


class Record(NamedTuple):
    """One cell of the study: the runs that differ only in their seed.

    Scores are over finished, finite seeds. Intervals are 95 % ones of `results.intervals`; an end
    is None where there are too few values for one.
    """

    task: str
    data: str
    system: str
    swept: str
    """Swept values, as "beta=0.01 lr=0.0003"."""
    config: str
    stage: str
    step: int
    """Step of the final evaluation."""
    seeds: int
    """Finished seeds: evaluated at `step`; the diverged ones are among them."""
    nonfinite: int
    """Diverged seeds: a stage's state, or a final episode return, is nan or inf."""
    diverged: str
    """Which seeds those are, and where it showed first."""
    unfinished: int
    """Runs without an evaluation at `step`."""
    starts: str
    """Starts of the final score's episodes: "fresh" for every seed, or "common" to all."""
    episodes: int
    """Episodes of one seed's final score."""
    covers: str
    """What the intervals cover: "seeds and episodes", "seeds" or "episodes"."""
    mean: float
    """Mean over seeds of each one's mean episode return at `step`; nan where no seed is finite."""
    mean_low: float | None
    mean_high: float | None
    std: float | None
    """Standard deviation of the seeds' mean returns, ddof = 1; None below two seeds."""
    iqm: float
    """Interquartile mean of the seeds' mean returns."""
    iqm_low: float | None
    iqm_high: float | None
    data_mean: float | None
    """Mean episode return of the data; None where run.json does not say."""
    data_se: float | None
    """Standard error of `data_mean`; None of a single episode."""
    share: float | None
    """`mean` / `data_mean`; None where the data's mean is not positive."""
    share_low: float | None
    share_high: float | None
    normalised: float | None
    """`mean` between the task's random (0) and expert (100) returns; None where it has none."""
    normalised_low: float | None
    normalised_high: float | None
    coordinated: float | None
    """Share of the final episodes that are coordinated; None where the task does not tell."""
    win: float | None
    """Mean over seeds of each one's share of final episodes won; None where nobody wins or loses.

    The interval is of the seeds' shares, within [0, 1]; of one seed it is Wilson's of its episodes.
    """
    win_low: float | None
    win_high: float | None
    health: str
    """Whether the stages have learned: "learned", "short: critic", "diverged: policy", or "" where
    nobody judged them."""
    converged: bool | None
    """False where training's last two evaluations differ by more than two standard errors."""
    scale: float
    """Scale of the preset's steps and widths; 1 is the paper's size."""
    best: float
    """Mean over the same seeds of each one's best evaluation in training: biased upwards."""

    @property
    def ranked(self) -> bool:
        """Whether the row says something of the method: no stage is known to have failed."""
        return self.health in ("", LEARNED)


Values = dict[tuple[int, str], list[float]]
"""(step, metric) -> one value per episode."""
Curve = dict[int, float]
"""Step -> mean return of one seed's evaluation in training."""


# --- from rows to records ---


def summary(rows: Iterable[Row], runs: Sequence[Run], final: Iterable[Row] = ()) -> list[Record]:
    """One record per (task, data, system, swept values, config), sorted so.

    `rows` are those of `load_returns(runs)` and `final` those of `load_final(runs)`. Where a cell
    has final rows, they are its score, on fresh starts; else its score is the last evaluation in
    training, on common starts.

    The score's step is the last one of the final stage that any seed of the cell has. A seed
    without it is counted as unfinished, one with a non-finite return as diverged, and neither
    enters a mean. A cell of which no run was evaluated yet has no record.

    Raises JaxomarlError where two folders hold the same run, or a row belongs to none.
    """
    folders: dict[tuple, Path] = {}
    facts: dict[tuple, Mapping[str, Any]] = {}
    verdicts: dict[tuple, dict[str, str]] = {}
    cells = defaultdict(list)
    for run in runs:
        key = _key(run.info)
        if key in facts:
            both = f"{key} in {folders[key]} and {run.path}"
            way_out = "Report one of them; a config digest must tell swept values apart."
            raise refuse("runs", "each run once", both, way_out)
        facts[key] = run.info
        verdicts[key] = {stage["stage"]: stage["verdict"] for stage in health_of(run)}
        folders[key] = run.path
        cells[_cell_of(run.info)].append(key)
    training = _by_run(rows, facts)
    scores = _by_run(final, facts)
    records = []
    for cell, keys in sorted(cells.items(), key=_order):
        own_training = [training[key] for key in keys]
        own_scores = [scores[key] for key in keys]
        own_verdicts = [verdicts[key] for key in keys]
        infos = [facts[key] for key in keys]
        record = _record(cell, own_training, own_scores, own_verdicts, infos)
        if record:
            records.append(record)
    return records


def _by_run(rows: Iterable[Row], facts: Mapping[tuple, Mapping[str, Any]]) -> dict[tuple, Values]:
    """Each run's values of its final stage; a run without rows has none."""
    values: dict[tuple, Values] = {key: {} for key in facts}
    for row in rows:
        key = row[:5]
        if key not in facts:
            way_out = "Give load_returns and summary the same runs."
            raise refuse("rows", "rows of the given runs", key, way_out)
        if row.stage == facts[key]["final_stage"]:
            values[key].setdefault((row.step, row.metric), []).append(row.value)
    return values


def _key(info: Mapping[str, Any]) -> tuple:
    return info["system"], info["task"], info["data"], info["config"], int(info["seed"])


def _cell_of(info: Mapping[str, Any]) -> tuple:
    """What the runs of a cell have in common."""
    swept = []
    for name, value in sorted(info["swept"].items()):
        if not isinstance(value, int | float):
            value = str(value)
        swept.append((name, value))
    task_and_data = (info["task"], info["data"])
    return (*task_and_data, info["system"], tuple(swept), info["config"], info["final_stage"])


def _order(item: tuple[tuple, Any]) -> tuple:
    """The order of cells: swept numbers by value, and before words."""
    task, data, system, swept, config, stage = item[0]
    swept_order = []
    for name, value in swept:
        if isinstance(value, str):
            swept_order.append((name, (1, 0, value)))
        else:
            swept_order.append((name, (0, value, "")))
    return task, data, system, swept_order, config, stage


def _record(
    cell: tuple,
    training: list[Values],
    final: list[Values],
    verdicts: list[dict[str, str]],
    infos: Sequence[Mapping[str, Any]],
) -> Record | None:
    """The record of a cell from its runs' values; None where nothing was evaluated."""
    task, data, system, swept, config, stage = cell
    fresh = any(final)
    runs = final if fresh else training
    step = _last_step(runs)
    if step is None:
        return None

    # --- seeds: finished, and of these the finite ones ---
    finished = [i for i, run in enumerate(runs) if (step, "return") in run]
    # the mean of inf and -inf warns
    with np.errstate(invalid="ignore"):
        means = {i: float(np.mean(runs[i][step, "return"])) for i in finished}
        curves = [_curve(run) for run in training]
    info = infos[0]
    diverged = {i: _divergence(infos[i], means[i]) for i in finished}
    finite = [i for i in finished if not diverged[i]]
    scores = np.array([means[i] for i in finite], np.float64)

    # --- scores ---
    estimate = None
    if len(finite) == 1:
        estimate = intervals.of_samples(np.array(runs[finite[0]][step, "return"], np.float64))
    elif finite:
        estimate = intervals.of_samples(scores)
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
        diverged="; ".join(f"seed {infos[i]['seed']}: {x}" for i, x in diverged.items() if x),
        unfinished=len(runs) - len(finished),
        starts="fresh" if fresh else "common",
        episodes=max(len(runs[i][step, "return"]) for i in finished),
        covers=_covers(len(finite), fresh),
        std=_std(scores),
        coordinated=_coordinated([runs[i] for i in finite], step),
        health=of_runs([verdicts[i] for i in finished]),
        converged=_converged([curves[i] for i in finite]),
        scale=float(info.get("scale", 1.0)),
        best=_best_in_training([curves[i] for i in finite]),
        **_win_fields([runs[i] for i in finite], step),
        **_mean_fields(estimate),
        **_iqm_fields(scores, estimate),
        **_share_fields(estimate, info.get("data_return")),
        **_normalised_fields(estimate, info.get("normaliser")),
    )


def _divergence(info: Mapping[str, Any], mean: float) -> str:
    """Where a run's numbers stopped being finite; "" where they are finite."""
    stages = info.get("diverged", [])
    for found in stages if isinstance(stages, list) else []:
        if isinstance(found, dict) and isinstance(found.get("update"), int):
            where = [str(found[k]) for k in ("metric", "leaf") if found.get(k)]
            return f"{found.get('stage')} at update {found['update']} ({', '.join(where)})"
    if not np.isfinite(mean):
        return "its final returns"
    return ""


def _last_step(runs: Sequence[Values]) -> int | None:
    """The last step at which any run has a return."""
    return max((step for run in runs for step, metric in run if metric == "return"), default=None)


def _curve(run: Values) -> Curve:
    """A run's mean return at each step."""
    return {
        step: float(np.mean(values)) for (step, metric), values in run.items() if metric == "return"
    }


def _best_in_training(curves: Sequence[Curve]) -> float:
    """The mean over seeds of each one's best finite evaluation; nan where there is none."""
    best = []
    for curve in curves:
        finite = [value for value in curve.values() if np.isfinite(value)]
        if finite:
            best.append(max(finite))
    if not best:
        return float("nan")
    return float(np.mean(best))


def _coordinated(runs: Sequence[Values], step: int) -> float | None:
    """The share of coordinated episodes at a step; None where no run tells."""
    known = [run[step, "coordinated"] for run in runs if run.get((step, "coordinated"))]
    if not known:
        return None
    return float(np.mean([np.mean(values) for values in known]))


def _win_fields(runs: Sequence[Values], step: int) -> dict[str, float | None]:
    """The fields of the win rate, from the episodes' infos `win`."""
    known = [np.asarray(run[step, "win"]) for run in runs if run.get((step, "win"))]
    if not known:
        return dict.fromkeys(("win", "win_low", "win_high"))
    rates = np.array([wins.mean() for wins in known], np.float64)
    if len(known) == 1:
        ends = intervals.rate(np.asarray(known[0].sum()), len(known[0]))
    else:
        low, high = intervals.interval(intervals.of_samples(rates))
        ends = (np.asarray(np.clip(low, 0.0, 1.0)), np.asarray(np.clip(high, 0.0, 1.0)))
    low, high = _ends(ends)
    return {"win": float(rates.mean()), "win_low": low, "win_high": high}


def _std(scores: np.ndarray) -> float | None:
    """The standard deviation of the seeds' scores; None below two seeds."""
    if len(scores) < 2:
        return None
    return float(statistics.std(scores))


def _covers(seeds: int, fresh: bool) -> str:
    """The sources of error that a cell's intervals cover."""
    if seeds < 2:
        return "episodes"
    return "seeds and episodes" if fresh else "seeds"


def _mean_fields(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"mean": float("nan"), "mean_low": None, "mean_high": None}
    low, high = _ends(intervals.interval(estimate))
    return {"mean": float(estimate.mean), "mean_low": low, "mean_high": high}


def _iqm_fields(scores: np.ndarray, estimate: Estimate | None) -> dict[str, Any]:
    """The fields of the interquartile mean of the seeds' scores; one seed's is its mean."""
    if estimate is None:
        return {"iqm": float("nan"), "iqm_low": None, "iqm_high": None}
    if len(scores) == 1:
        low, high = _ends(intervals.interval(estimate))
    else:
        low, high = _ends(intervals.iqm(scores))
    return {"iqm": float(statistics.iqm(scores)), "iqm_low": low, "iqm_high": high}


def _share_fields(estimate: Estimate | None, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of the data's mean return, and of the score's share of it."""
    names = ("data_mean", "data_se", "share", "share_low", "share_high")
    fields: dict[str, Any] = dict.fromkeys(names)
    if not data:
        return fields
    needed = ("mean", "std", "episodes")
    if not all(isinstance(data.get(key), int | float) for key in needed):
        return fields
    mean = data["mean"]
    error = statistics.standard_error(data["std"], data["episodes"])
    fields["data_mean"] = float(mean)
    fields["data_se"] = error
    if estimate is None or mean <= 0:
        return fields
    fields["share"] = float(estimate.mean / mean)
    if error is None:
        return fields
    degrees = data["episodes"] - 1.0
    of_data = Estimate(*(np.asarray(x, np.float64) for x in (mean, error**2, degrees)))
    fields["share_low"], fields["share_high"] = _ends(intervals.share(estimate, of_data))
    return fields


def _normalised_fields(
    estimate: Estimate | None, references: Mapping[str, float] | None
) -> dict[str, Any]:
    """The fields of the normalised score, where the task has references."""
    if not references:
        return dict.fromkeys(("normalised", "normalised_low", "normalised_high"))
    if estimate is None:
        return {"normalised": float("nan"), "normalised_low": None, "normalised_high": None}
    zero = references["random"]
    hundred = references["expert"]
    low, high = _ends(intervals.scaled(intervals.interval(estimate), zero, hundred))
    middle, _ = intervals.scaled((estimate.mean, estimate.mean), zero, hundred)
    return {"normalised": float(middle), "normalised_low": low, "normalised_high": high}


def _ends(ends: intervals.Ends) -> tuple[float | None, float | None]:
    """An interval's ends as numbers, or None where there are none."""
    low, high = map(float, ends)
    if not np.isfinite([low, high]).all():
        return None, None
    return low, high


def _converged(curves: list[Curve]) -> bool | None:
    """Whether the last two evaluations in training agree within two standard errors over seeds.

    Both are on the same starts. None below two seeds, or where a seed lacks one of the two or is
    not finite there.
    """
    steps = sorted({step for curve in curves for step in curve})[-2:]
    if len(curves) < 2 or len(steps) < 2:
        return None
    if any(step not in curve for curve in curves for step in steps):
        return None
    before, last = (np.array([curve[step] for curve in curves]) for step in steps)
    if not np.isfinite(before + last).all():
        return None
    error = float(statistics.std(last)) / len(last) ** 0.5
    return bool(abs(last.mean() - before.mean()) <= 2.0 * error)


# --- from records to text ---

WORDS = ("task", "data", "system", "starts", "stages")
"""Columns of words."""
NAMED = ("task", "data", "system")
"""Columns that name a row."""
WIDTH = 100
"""Columns of a terminal that notes keep to."""


def markdown(records: Sequence[Record]) -> str:
    """The records as a markdown table, with a note where seeds diverged or are not finished."""
    header, rows, notes_below = _cells(records)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---" if name in WORDS else "---:" for name in header]
    lines = [f"| {' | '.join(row)} |" for row in _aligned([header, rule, *escaped])]
    lines += [f"\n{note}" for note in notes_below]
    return "\n".join(lines) + "\n"


def text(records: Sequence[Record], width: int = 0) -> str:
    """The records as aligned columns for the terminal, with the same notes.

    Where a width is given, columns that do not fit into it continue below, next to the names.
    """
    header, rows, notes_below = _cells(records)
    columns = list(zip(*_aligned([header, *rows]), strict=True))
    blocks = []
    for block in _blocks(columns, header, width):
        lines = ["  ".join(row).rstrip() for row in zip(*block, strict=True)]
        blocks.append("\n".join(lines))
    notes = [textwrap.fill(note, WIDTH) for note in notes_below]
    return "\n".join(["\n\n".join(blocks), *notes]) + "\n"


def _blocks(
    columns: Sequence[tuple[str, ...]], header: Sequence[str], width: int
) -> list[list[tuple[str, ...]]]:
    """Columns in blocks that are no wider than `width`, each of which begins with the names.

    `width` 0 gives a single block.
    """
    first = [c for c, name in zip(columns, header, strict=True) if name in NAMED]
    others = [c for c, name in zip(columns, header, strict=True) if name not in NAMED]
    size = lambda block: sum(len(c[0]) for c in block) + 2 * (len(block) - 1)
    blocks = [list(first)]
    for column in others:
        full = width and size([*blocks[-1], column]) > width
        if full and len(blocks[-1]) > len(first):
            blocks.append(list(first))
        blocks[-1].append(column)
    return blocks


def html(records: Sequence[Record]) -> str:
    """The records as a table of HTML for a notebook, with the same notes; every text is escaped."""
    header, rows, notes_below = _cells(records)
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = ""
    for record, row in zip(records, rows, strict=True):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        style = "" if record.ranked else ' style="color: grey"'
        body += f"<tr{style}>{cells}</tr>"
    paragraphs = "".join(f"<p>{escape(note)}</p>" for note in notes_below)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{paragraphs}"


def write_summary(folder: str | Path, records: Sequence[Record], more: str = "") -> None:
    """Write summary.csv, with every field in full precision, summary.md and summary.tex.

    `more` is Markdown that follows the table. The .tex has the tables of the .md, for booktabs.
    """
    text = "\n".join(filter(None, (markdown(records), more)))
    shown = list(tabular.parsed(text))
    # systems that do not act have no table
    if shown:
        shown[0] = shown[0]._replace(notes=tuple(_cells(records)[2]))
    write_table(Path(folder) / "summary.csv", records, Record._fields)
    write_bytes(Path(folder) / "summary.md", text.encode())
    write_bytes(Path(folder) / "summary.tex", "\n".join(map(tabular.latex, shown)).encode())


def _aligned(rows: list[list[str]]) -> list[list[str]]:
    """Pad every column to its widest cell: words to the left, numbers to the right.

    The first row has the names.
    """
    columns = []
    for cells in zip(*rows, strict=True):
        width = max(map(len, cells))
        pad = str.ljust if cells[0] in WORDS else str.rjust
        columns.append([pad(cell, width) for cell in cells])
    return [list(row) for row in zip(*columns, strict=True)]


SHARED = ("task", "data", "step", "seeds", "episodes", "starts", "data's mean ± s.e.", "stages")
"""Columns that become words below the table where all rows agree."""


def _cells(records: Sequence[Record]) -> tuple[list[str], list[list[str]], list[str]]:
    """(header, rows, notes).

    A column that says nothing is left out, and what all rows share stands in a note.
    """
    names = [(r.task, r.data, r.system, r.swept) for r in records]
    columns = {
        "task": [r.task for r in records],
        "data": [r.data for r in records],
        "system": [_system(r, names) for r in records],
        "step": [str(r.step) for r in records],
        "seeds": [seeds(r) for r in records],
        "episodes": [str(r.episodes) for r in records],
        "starts": [r.starts for r in records],
        "data's mean ± s.e.": [data_mean(r) for r in records],
        "mean [95 %]": [interval(r, r.mean, r.mean_low, r.mean_high) for r in records],
        "IQM [95 %]": [interval(r, r.iqm, r.iqm_low, r.iqm_high) for r in records],
        "% of data's mean [95 %]": [share(r) for r in records],
        "normalised [95 %]": [normalised(r) for r in records],
        "coordinated": [coordinated(r) for r in records],
        "win rate [95 %]": [win_rate(r) for r in records],
        "best in training": [number(r, r.best) for r in records],
        "stages": [r.health for r in records],
    }
    columns = {name: column for name, column in columns.items() if any(column)}
    shared = {}
    for name in SHARED:
        if len(set(columns.get(name, ()))) == 1:
            shared[name] = columns.pop(name)[0]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return list(columns), rows, [*_shared_note(shared), *notes(records)]


def _shared_note(shared: Mapping[str, str]) -> list[str]:
    """One line of what all rows have in common."""
    words = {
        "task": "{}",
        "data": "data {}",
        "step": "step {}",
        "seeds": "seeds {}",
        "episodes": "episodes of each {}",
        "starts": "{} starts",
        "data's mean ± s.e.": "data's mean return {}",
        "stages": "stages {}",
    }
    if not shared:
        return []
    facts = [words[name].format(value) for name, value in shared.items()]
    return [f"All rows: {', '.join(facts)}."]


# --- notes ---

NOT_CONVERGED = (
    "* not converged: training's last two evaluations differ by more than two standard errors."
)
"""What the mark at a system's name means."""
SHORT = (
    "† a stage has not learned (`jaxomarl health RUN`): the row does not judge its method, and is "
    "not compared."
)
"""What the mark of a short or diverged row means."""
BEST = "Best in training: each seed's best evaluation on common starts, biased upwards."
"""What the column of best scores means."""


def coverage(records: Sequence[Record]) -> list[str]:
    """A sentence for each kind of interval among the records: which starts, and what it covers."""
    kinds = {r.covers for r in records if r.mean_low is not None}
    sentences = []
    if "seeds and episodes" in kinds:
        sentences.append("Fresh starts for every seed: intervals cover seeds and episodes.")
    if "seeds" in kinds:
        counts = sorted({r.episodes for r in records if r.covers == "seeds"})
        same = " or ".join(map(str, counts))
        starts = f"Common starts, the same {same} for every seed and system"
        sentences.append(f"{starts}: intervals cover seeds alone.")
    if "episodes" in kinds:
        sentences.append("One seed: the interval covers its episodes alone.")
    return sentences


def notes(records: Sequence[Record]) -> list[str]:
    """What has to be known to read the records' numbers: what intervals cover, marks, scale."""
    lines = coverage(records)
    if any(np.isfinite(r.best) for r in records):
        lines.append(BEST)
    if any(r.converged is False for r in records):
        lines.append(NOT_CONVERGED)
    if not all(r.ranked for r in records):
        lines.append(SHORT)
    diverged = sum(r.nonfinite for r in records)
    missing = sum(r.unfinished for r in records)
    if diverged:
        scores = "scores are over the finite seeds of that row only"
        lines.append(f"! {diverged} diverged (nan or inf): {scores}.")
        for r in records:
            if r.diverged:
                name = " ".join(filter(None, (r.system, r.swept)))
                lines.append(f"! {name} on {r.task}/{r.data}, {r.diverged}.")
    if missing:
        lines.append(f"+ {missing} runs have not reached that step and are not counted.")
    lines += [reduced(scale) for scale in sorted({r.scale for r in records} - {1.0})]
    return lines


def reduced(scale: float) -> str:
    """What is said of results at another scale than the preset's."""
    size = scale ** (1 / 3)
    times = f"steps are {scale:g} and widths {size:.2g} times the preset's"
    return f"Scale {scale:g}: {times}, but for what was set."


# --- one cell ---


def _system(r: Record, names: list[tuple[str, str, str, str]]) -> str:
    """The system and what was swept.

    The config's digest is added only where nothing else tells two rows apart.
    """
    words = [r.system, r.swept]
    if names.count((r.task, r.data, r.system, r.swept)) > 1:
        words.append(f"({r.config[:8]})")
    name = " ".join(filter(None, words))
    return name + marks(r)


def marks(r: Record) -> str:
    """The marks at a row's name: what its notes explain."""
    found = ""
    if r.converged is False:
        found += "*"
    if not r.ranked:
        found += "†"
    return found


def seeds(r: Record) -> str:
    """The finished seeds, how many of them are finite, and how many have not finished."""
    cell = str(r.seeds)
    if r.nonfinite:
        cell = f"{r.seeds - r.nonfinite} of {r.seeds} !"
    if r.unfinished:
        cell += f" +{r.unfinished}"
    return cell


def coordinated(r: Record) -> str:
    """The share of coordinated episodes."""
    if r.coordinated is None:
        return ""
    return f"{r.coordinated:.2f}"


def win_rate(r: Record) -> str:
    """The share of won episodes and its interval."""
    if r.win is None:
        return ""
    cell = f"{r.win:.2f}"
    if r.win_low is not None and r.win_high is not None:
        cell += f" [{r.win_low:.2f}, {r.win_high:.2f}]"
    return cell


def data_mean(r: Record) -> str:
    """The data's mean return and its standard error, as far as they are known."""
    if r.data_mean is None:
        return ""
    digits = _digits(r.data_mean)
    cell = f"{r.data_mean:z.{digits}f}"
    if r.data_se is not None:
        cell += f" ± {r.data_se:.{digits}f}"
    return cell


def interval(r: Record, x: float, low: float | None, high: float | None) -> str:
    """A number of a row and its interval."""
    if low is None:
        return number(r, x)
    return f"{number(r, x)} [{number(r, low)}, {number(r, high)}]"


def share(r: Record) -> str:
    """The share of the data's mean and its interval, in per cent."""
    if r.share is None:
        return ""
    cell = f"{100 * r.share:z.1f}"
    if r.share_low is not None and r.share_high is not None:
        cell += f" [{100 * r.share_low:z.1f}, {100 * r.share_high:z.1f}]"
    return cell


def normalised(r: Record) -> str:
    """The normalised score and its interval."""
    if r.normalised is None:
        return ""
    cell = f"{r.normalised:z.1f}"
    if r.normalised_low is not None:
        cell += f" [{r.normalised_low:z.1f}, {r.normalised_high:z.1f}]"
    return cell


def _digits(x: float) -> int:
    """Decimals of a score: two for small ones, one for hundreds, none for tens of thousands."""
    if abs(x) < 100:
        return 2
    if abs(x) < 10_000:
        return 1
    return 0


def number(r: Record, x: float | None) -> str:
    """One number of a row, with as many decimals as its mean has; "" where there is none.

    Zero has no sign.
    """
    if x is None or (np.isnan(x) and np.isfinite(r.mean)):
        return ""
    return f"{x:z.{_digits(r.mean)}f}"

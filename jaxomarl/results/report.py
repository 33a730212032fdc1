"""A report of folders of results: one page of HTML that stands alone.

The answer comes first, then what it rests on: scores, curves, statistics over tasks, coordination,
films, published numbers, data, health of the stages, cost and provenance.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import JaxomarlError
from jaxomarl.results import (
    card_text,
    cards,
    coordination,
    costs,
    embedded,
    figures,
    findings,
    page,
    stage_health,
    standings,
    study,
    tables,
    tabular,
)
from jaxomarl.results.canvas import Figure
from jaxomarl.results.embedded import Pictures
from jaxomarl.results.page import Section
from jaxomarl.results.store import read_cards, write_bytes
from jaxomarl.results.study import Study
from jaxomarl.results.tables import Record

MOST_LOSSES = 8
"""Number of losses that are drawn."""
MEAN = (
    "IQM is the interquartile mean of the seeds. Grey rows with † are not judged: a stage has not "
    "learned."
)
"""What has to be known of the table of scores."""


class Printed(NamedTuple):
    """Numbers that a paper prints, and how they differ from ours in more than the code."""

    title: str
    scores: Mapping[tuple[str, str, str], tuple[float, float]]
    """(task, data, system) -> mean and spread; a spread that is not printed is NaN."""
    normalised: bool
    """Whether they are normalised scores; else they are returns."""
    spread: str
    """What the spread is, such as "std" or "s.e."."""
    differences: Sequence[str]
    key: Callable[[str], str] = str
    """Maps the name of a task of ours to the paper's."""


def write(
    path: str | Path,
    folders: Sequence[str | Path],
    printed: Sequence[Printed] = (),
    papers: Mapping[str, str] | None = None,
) -> Study:
    """Write the report of all runs below the folders to `path`, and return what was read.

    `printed` are tables of papers, and `papers` says for a system which paper it is of. Raises
    JaxomarlError where a folder does not exist, a file is damaged, or matplotlib is missing.
    """
    read = study.load(folders)
    text = html(read, folders, printed, papers or {})
    write_bytes(path, text.encode(errors="replace"))
    return read


def html(
    read: Study,
    folders: Sequence[str | Path],
    printed: Sequence[Printed] = (),
    papers: Mapping[str, str] | None = None,
) -> str:
    """The report of a study as a page."""
    said = findings.findings(read)
    parts = [
        ("answer", "Answer", _answer(said)),
        ("scores", "Final scores", _scores(read)),
        ("curves", "Learning curves", _curves(read)),
        ("tasks", "Over all tasks", _over_tasks(read)),
        ("coordination", "Coordination", _coordination(read, folders)),
        ("films", "Films", _films(folders)),
        ("published", "Published numbers", _published(read.records, printed)),
        ("data", "Data", _data(read, folders)),
        ("health", "Have the stages learned?", _health(read)),
        ("cost", "Cost", _cost(read)),
        ("provenance", "Provenance", _provenance(read, folders, papers or {})),
    ]
    sections = [Section(*part) for part in parts if part[2]]
    return page.page(_title(read), _facts(read), sections)


def _title(read: Study) -> str:
    tasks = list(dict.fromkeys(task for task, _ in study.cells(read)))
    systems = list(dict.fromkeys(run.info["system"] for run in read.runs))
    if not tasks:
        return "A study without runs"
    return f"{_few(systems)} on {_few(tasks)}"


def _few(words: Sequence[str]) -> str:
    if len(words) > 4:
        return f"{', '.join(words[:3])} and {len(words) - 3} more"
    return ", ".join(words)


def _facts(read: Study) -> str:
    """The size of the study in a line."""
    systems = {run.info["system"] for run in read.runs}
    seeds = {run.info["seed"] for run in read.runs}
    finished = len(study.final_seeds(read))
    counts = [
        (len(systems), "system"),
        (len(study.cells(read)), "data set"),
        (len(seeds), "seed"),
        (len(read.runs), "run"),
    ]
    words = [f"{count} {word}{'s' * (count != 1)}" for count, word in counts]
    return f"{', '.join(words)}, of which {finished} have their final evaluation"


# --- the answer ---


def _answer(said: findings.Findings) -> str:
    parts = [page.paragraph(findings.QUESTION)]
    boxes = []
    for lead in said.leads:
        style = "lead" if lead.leader else "lead none"
        leader = page.paragraph(lead.leader or "none", "leader")
        heading = tabular.escape(f"{lead.task}, {lead.data}")
        words = "".join(map(page.paragraph, lead.sentences))
        boxes.append(f'<div class="{style}"><h3>{heading}</h3>{leader}{words}</div>')
    if boxes:
        parts.append(f'<div class="leads">{"".join(boxes)}</div>')
        parts.append(page.paragraph(findings.CHOSEN, "note"))
    if said.cautions:
        parts.append("<h3>Before you read the scores</h3>")
        parts.append(page.bullets(said.cautions, "cautions"))
    elif said.leads:
        parts.append(page.paragraph("Every stage that can be judged has learned, on every seed."))
    return "".join(parts)


# --- scores ---

SCORES: dict[str, Callable[[Record], str]] = {
    "mean [95 %]": lambda r: tables.interval(r, r.mean, r.mean_low, r.mean_high),
    "std": lambda r: tables.number(r, r.std),
    "IQM [95 %]": lambda r: tables.interval(r, r.iqm, r.iqm_low, r.iqm_high),
    "normalised [95 %]": tables.normalised,
    "% of data's mean [95 %]": tables.share,
    "coordinated": tables.coordinated,
    "win rate [95 %]": tables.win_rate,
    "best in training": lambda r: tables.number(r, r.best),
    "stages": lambda r: r.health,
}
"""Columns of the table of scores after the names -> their cells."""


def score_table(records: Sequence[Record]) -> tabular.Table:
    """Every score of every record, raw and normalised; a column without any number is left out."""
    named = study.names(records)
    columns: dict[str, list[str]] = {
        "task": [r.task for r in records],
        "data": [r.data for r in records],
        "system": [named[r] + tables.marks(r) for r in records],
        "seeds": [tables.seeds(r) for r in records],
        "episodes": [f"{r.episodes} {r.starts}" for r in records],
    }
    for name, cell in SCORES.items():
        cells = [cell(r) for r in records]
        if any(cells):
            columns[name] = cells
    rows = list(zip(*columns.values(), strict=True))
    return tabular.table(list(columns), rows, [MEAN, *tables.notes(records)])


def _scores(read: Study) -> str:
    if not read.records:
        return page.paragraph("No run was evaluated yet.") if read.runs else ""
    grey = [k for k, r in enumerate(read.records) if not r.ranked]
    shown = score_table(read.records)
    parts = [page.table("scores", "Final returns, raw and normalised.", shown, grey)]
    drawn = figures.score_intervals(None, read.records)
    caption = "Interquartile mean of the final return with its 95 % interval, by task and data set."
    parts.append(page.figure("scores", drawn, caption))
    references = _references(read)
    if references:
        parts.append(page.table("references", "References of normalised scores.", references))
    return "".join(parts)


def _references(read: Study) -> tabular.Table | None:
    """What counts as 0 and as 100 on each task, by which rules; None where no task says it."""
    rows = {}
    for (task, _), info in study.facts_of(read).items():
        ends = info.get("normaliser")
        if ends:
            source = str(ends.get("source", ""))
            ends = [f"{ends['random']:g}", f"{ends['expert']:g}"]
            rows[task] = (task, *ends, source, str(info.get("dialect", "")))
    if not rows:
        return None
    head = ("task", "random: 0", "expert: 100", "source", "rules")
    note = "A normalised score is 100 (return - random) / (expert - random), under these rules."
    return tabular.table(head, list(rows.values()), [note])


# --- curves ---


def _curves(read: Study) -> str:
    """Returns in training, then each stage's losses, with bands over seeds."""
    labels = {r.config: r.swept for r in read.records}
    for run in read.runs:
        words = [f"{name}={value}" for name, value in sorted(run.info["swept"].items())]
        labels.setdefault(run.info["config"], " ".join(words))
    parts = []
    if any(row.metric == "return" for row in read.rows):
        drawn = figures.learning_curves(None, read.rows, labels=labels)
        caption = "Mean return of evaluations in training, by updates of the last stage."
        parts.append(page.figure("returns", drawn, caption))
    names = sorted(set(study.names(read.records).values()))
    losses = _losses(read)
    for stage, metric in losses[:MOST_LOSSES]:
        rows = [row for row in read.metrics if (row.stage, row.metric) == (stage, metric)]
        if not any(np.isfinite(row.value) for row in rows):
            continue
        said = f"{metric} of the stage {stage}, mean over each chunk of updates."
        # each system has the colour that it has in the other figures
        drawn = figures.learning_curves(None, rows, metric, labels, said="", order=names)
        parts.append(page.figure(_anchor(f"{stage}-{metric}"), drawn, said))
    left = [f"{metric} of {stage}" for stage, metric in losses[MOST_LOSSES:]]
    if left:
        parts.append(page.paragraph(f"Not drawn, but in metrics.csv: {', '.join(left)}.", "note"))
    return "".join(parts)


def _losses(read: Study) -> list[tuple[str, str]]:
    """(stage, metric) of every loss, in the order of training."""
    pairs = dict.fromkeys((row.stage, row.metric) for row in read.metrics)
    return [pair for pair in pairs if pair[1].endswith("loss")]


def _anchor(name: str) -> str:
    """A name as an anchor takes it."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


# --- over all tasks ---


def _over_tasks(read: Study) -> str:
    if not read.records:
        return ""
    compared = study.comparable(read)
    if not compared.unit:
        return page.paragraph(f"No statistic over tasks: {compared.why_not}")
    shown = standings.standings(compared)
    if not shown.numbers["IQM"]:
        return page.paragraph("No statistic over tasks: every run of a task diverged.")
    grey = [k for k, name in enumerate(shown.numbers["IQM"]) if name in shown.short]
    parts = [
        page.paragraph(
            f"Unit: {shown.unit}. Tasks: {'; '.join(shown.tasks)}. Intervals: stratified bootstrap "
            "over seeds, 95 %, seeded."
        ),
        page.table("over-tasks", "Statistics over tasks.", _numbers_table(shown), grey),
        page.figure("numbers", standings.numbers_figure(None, shown), "Statistics over tasks."),
        page.figure(
            "profiles",
            standings.profiles_figure(None, shown),
            "Performance profiles: the share of runs above each threshold.",
        ),
    ]
    if shown.improvements:
        rows = [(x, y, _interval(number)) for (x, y), number in shown.improvements.items()]
        pairs = tabular.table(("X", "Y", "P(X > Y) [95 %]"), rows)
        drawn = standings.improvements_figure(None, shown)
        caption = "Probability that a run of one system scores above one of another."
        parts += [
            page.table("improvement", "Probability of improvement.", pairs),
            page.figure("improvement", drawn, caption),
        ]
    else:
        why = "No probability of improvement: fewer than two systems have learned in all stages."
        parts.append(page.paragraph(why))
    if compared.left_out:
        missing = ", ".join(compared.left_out)
        parts.append(page.paragraph(f"Left out, without a score on some task: {missing}.", "note"))
    return "".join(parts)


def _numbers_table(shown: standings.Standings) -> tabular.Table:
    """A row for each system, a column for each statistic."""
    rows = []
    for name in shown.numbers["IQM"]:
        mark = "†" if name in shown.short else ""
        cells = [_interval(of[name]) for of in shown.numbers.values()]
        rows.append((name + mark, *cells, str(shown.diverged.get(name, 0))))
    head = ["system", *(f"{kind} [95 %]" for kind in shown.numbers), "diverged runs"]
    notes = ["Diverged runs are in no number of this table, and count as failures in the profiles."]
    if shown.short:
        notes.append(standings.SHORT)
    return tabular.table(head, rows, notes)


def _interval(number: standings.Number) -> str:
    if not np.isfinite(number.low):
        return f"{number.value:z.3f}"
    return f"{number.value:z.3f} [{number.low:z.3f}, {number.high:z.3f}]"


# --- coordination, and films ---


def _coordination(read: Study, folders: Sequence[str | Path]) -> str:
    """Ways of acting together, distance from the data, and what folders hold of it."""
    parts = []
    shown = coordination.table(read)
    if shown is not None:
        grey = [k for k, row in enumerate(shown.rows) if row[2].endswith("†")]
        parts.append(page.table("coordination", "Final episodes, and the data.", shown, grey))
    drawn = coordination.ways_figure(None, read)
    if drawn is not None:
        caption = "Share of final episodes that end in each way of acting together."
        parts.append(page.figure("ways", drawn, caption))
    counts = coordination.counted(folders)
    if counts is not None:
        caption = "Counts that tables of papers wrote, means over seeds."
        parts.append(page.details(caption, page.table("counts", caption, counts)))
    parts += _pictures("figure", embedded.figures(folders))
    return "".join(parts)


def _films(folders: Sequence[str | Path]) -> str:
    """Loops and contact sheets that `render` wrote below the folders."""
    return "".join(_pictures("film", embedded.films(folders), closable=True))


def _pictures(name: str, found: Pictures, closable: bool = False) -> list[str]:
    """Each picture, and what is not shown; what moves can be closed."""
    parts = []
    for k, of in enumerate(found.shown):
        shown = page.picture(f"{name}-{k + 1}", of.kind, of.content, of.caption)
        parts.append(page.details(of.name, shown, shown=True) if closable else shown)
    if found.left_out:
        parts.append(page.paragraph(f"Not shown: {'; '.join(found.left_out)}.", "note"))
    return parts


# --- published numbers ---


def _published(records: Sequence[Record], printed: Sequence[Printed]) -> str:
    """Each paper's table that has a row of ours, ours and theirs in columns of their own."""
    parts = []
    for k, theirs in enumerate(printed):
        rows = [row for r in records for row in _published_row(r, theirs)]
        if not rows:
            continue
        unit = "normalised" if theirs.normalised else "return"
        head = (
            "task",
            "data",
            "system",
            f"ours, {unit} [95 %]",
            "our seeds",
            f"published {unit} ± {theirs.spread}",
        )
        parts.append(f"<h3>{tabular.escape(theirs.title)}</h3>")
        parts.append(page.paragraph("What differs besides the code:"))
        parts.append(page.bullets(theirs.differences))
        shown = tabular.table(head, rows)
        parts.append(page.table(f"published-{k + 1}", "Ours next to the published.", shown))
    return "".join(parts)


def _published_row(r: Record, theirs: Printed) -> Iterable[tuple[str, ...]]:
    """The row of a record that the paper prints too."""
    task = theirs.key(r.task)
    own_names = [f"{r.system} {r.swept}", r.system] if r.swept else [r.system]
    for name in own_names:
        score = theirs.scores.get((task, r.data, name))
        if score is None:
            continue
        ours = tables.interval(r, r.mean, r.mean_low, r.mean_high)
        if theirs.normalised:
            ours = tables.normalised(r)
        mean, spread = score
        published = f"{mean:.1f}" if np.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"
        name = " ".join(filter(None, (r.system, r.swept)))
        yield r.task, r.data, name + tables.marks(r), ours, str(r.seeds - r.nonfinite), published
        return


# --- data ---


def _data(read: Study, folders: Sequence[str | Path]) -> str:
    """A row for each data set that was trained on, and the cards that lie in the folders."""
    rows = []
    for (task, data), info in sorted(study.facts_of(read).items()):
        returns = info.get("data_return") or {}
        mean = f"{returns['mean']:.4g} ± {returns['std']:.3g}" if returns else ""
        held = info.get("held_out") or {}
        rows.append(
            (
                task,
                data,
                f"{returns['episodes']:,}" if returns else "",
                mean,
                f"{held['episodes']} of {held['of']}" if held else "",
                str(info.get("dialect", "")),
                str(info.get("data_sha256", ""))[:12],
            )
        )
    if not rows:
        return ""
    head = ("task", "data", "episodes", "return, mean ± std", "held out", "rules", "SHA-256")
    parts = [page.table("data", "Data sets.", tabular.table(head, rows))]
    found = read_cards(folders)
    for card in found:
        parts.append(
            page.details(f"Card of {card['name']}", page.preformatted(card_text.text(card)))
        )
    drawn = _cards_figure(found)
    if drawn is not None:
        parts.append(page.figure("cards", drawn, "Returns of the data sets' episodes."))
    if not found:
        how = "`jaxomarl data describe SET --out FOLDER` below the results adds a set's card here."
        parts.append(page.paragraph(how, "note"))
    return "".join(parts)


def _cards_figure(found: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The picture of the cards; None where none has a return, or an edited one cannot be drawn."""
    try:
        if not any(card["return"]["histogram"] for card in found):
            return None
        return cards.picture(None, found)
    except JaxomarlError:
        raise
    except Exception:
        return None


# --- health ---


def _health(read: Study) -> str:
    """A row for each stage of each system, with what failed and what to raise."""
    rows = []
    for cell in stage_health.cells_of(read.runs):
        for stage in cell.stages:
            failed = [f"seed {seed}: {words[0]}" for seed, words in stage.failed.items()]
            more = f" (and {len(failed) - 1} more seeds)" if len(failed) > 1 else ""
            raised = [f"--cfg.{name.replace('_', '-')}" for name in stage.raise_fields]
            why = failed[0] + more if failed else ""
            advice = ", ".join(raised) if failed else ""
            rows.append((cell.name, stage.stage, stage_health.verdict(stage), why, advice))
    if not rows:
        if not read.runs:
            return ""
        return page.paragraph("No stage was measured: it is when it ends, and where it has data.")
    head = ("system and data", "stage", "verdict", "what failed", "raise or change")
    shown = tabular.table(head, rows)
    caption = "Verdicts on each stage, by figures on held-out episodes."
    full = page.preformatted(stage_health.text(stage_health.cells_of(read.runs)))
    return page.table("health", caption, shown) + page.details("All figures", full)


# --- cost and provenance ---


def _cost(read: Study) -> str:
    shown = costs.table(read)
    if not shown.rows:
        return ""
    return page.table("cost", "Cost of each group of runs, which is one program.", shown)


SHARED = ("preset", "scale", "device", "precision", "versions", "source", "format")
"""Entries of run.json that are the same for most runs of a study."""


def _provenance(read: Study, folders: Sequence[str | Path], papers: Mapping[str, str]) -> str:
    if not read.runs:
        return page.bullets([f"Folder: {folder}" for folder in folders])
    parts = [page.bullets([f"{name}: {_shown(values)}" for name, values in _shared(read).items()])]
    for folder in folders:
        sweep = Path(folder) / "sweep.json"
        if sweep.is_file():
            asked = sweep.read_text(encoding="utf-8", errors="replace")
            parts.append(page.details(f"What was asked for: {folder}", page.preformatted(asked)))
    settings: dict[str, list[str]] = defaultdict(list)
    for run in read.runs:
        text = json.dumps(run.info["cfg"], indent=1, sort_keys=True)
        name = f"{run.info['system']} on {run.info['task']}, {run.info['data']}"
        if text not in settings[name]:
            settings[name].append(text)
    for name, texts in settings.items():
        content = "".join(map(page.preformatted, texts))
        parts.append(page.details(f"Settings of {name}", content))
    systems = sorted({run.info["system"] for run in read.runs})
    cited = [f"{name}: {papers[name]}" for name in systems if name in papers]
    if cited:
        parts.append("<h3>Papers</h3>")
        parts.append(page.bullets(cited))
    return "".join(parts)


def _shared(read: Study) -> dict[str, list[Any]]:
    """Each entry of `SHARED` with its distinct values."""
    found: dict[str, list[Any]] = {}
    for name in SHARED:
        values = [run.info[name] for run in read.runs if name in run.info]
        distinct = [value for k, value in enumerate(values) if value not in values[:k]]
        if distinct:
            found[name] = distinct
    return found


def _shown(values: Sequence[Any]) -> str:
    """Distinct values as words."""
    return "; or ".join(_words(value) for value in values)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(of)}" for name, of in sorted(value.items()))
    if value == "":
        return "empty"
    return str(value)

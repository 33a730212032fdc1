"""The report: a page that stands alone, says what was found, and what is missing; from folders alone."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.results import (
    coordination,
    costs,
    embedded,
    film,
    findings,
    report,
    store,
    study,
)

pytest.importorskip("matplotlib", reason="matplotlib is an extra: jaxomarl[plot]")

STEPS = np.array([0, 10, 20])
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
TASKS = {"mpe/spread": 1.0, "mpe/tag": 2.0}
LEVELS = {"bc": 0.0, "omsd": 8.0, "iql": 16.0, "<b>x</b>": 1.0}
"""System -> its mean return, in units of the spread over seeds; iql has not learned."""


def verdict(word):
    failed = ["value_correlation is 0.1, at least 0.3 is asked"] if word == "short" else []
    more = {"figures": {"value_correlation": 0.1}, "raise": ["critic_steps"]}
    return [{"stage": "policy", "verdict": word, "failed": failed, **more}]


def write_run(folder, system, task, seed, level, final=True, health="learned"):
    """One run's folder, as training leaves it."""
    rng = np.random.default_rng([seed, len(system), len(task)])
    info = {
        "system": system,
        "task": task,
        "data": "medium",
        "config": f"{system}-{task}"[:12],
        "cfg": {"beta": 0.5},
        "swept": {"beta": 0.5} if system == "omsd" else {},
        "seed": seed,
        "final_stage": "policy",
        "stages": {"policy": {"seconds": 2.0}},
        "seconds": 2.0,
        "compile_seconds": 1.5,
        "updates_executed": 20,
        "device": "cpu x2",
        "dialect": "mpe-omar",
        "data_sha256": "0123456789abcdef",
        "data_return": {"mean": 10.0, "std": 2.0, "episodes": 100},
        "normaliser": {"random": 0.0, "expert": 20.0, "source": "ours"},
        "versions": {"jax": "0.10.2"},
        "source": {"commit": "abc", "dirty": False},
        "scale": 1.0,
        "health": verdict(health),
    }
    path = folder / task.replace("/", "-") / f"{system[:2].strip('<')}" / f"seed-{seed}"
    store.write_json(path / "run.json", info)
    scores = 10.0 + 0.5 * level + 0.5 * rng.normal() + 0.1 * rng.normal(size=(3, 6))
    rows = store.returns_rows(info, "policy", STEPS, {"return": scores})
    store.write_table(path / "returns.csv", rows, store.COLUMNS)
    losses = {"policy_loss": np.array([2.0, 1.0]), "q_term": np.zeros(2)}
    rows = store.metrics_rows(info, "policy", STEPS[1:], losses)
    store.write_table(path / "metrics.csv", rows, store.COLUMNS)
    if final:
        rows = store.returns_rows(info, "policy", STEPS[-1:], {"return": scores[-1:]})
        store.write_table(path / store.FINAL, rows, store.COLUMNS)
    return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four systems on two tasks with four seeds: one has not learned, a seed of bc on tag diverged."""
    folder = tmp_path_factory.mktemp("sweep")
    for task in TASKS:
        for system, level in LEVELS.items():
            for seed in range(4):
                health = "short" if system == "iql" else "learned"
                path = write_run(folder, system, task, seed, level, health=health)
                if (task, system, seed) == ("mpe/tag", "bc", 2):
                    file = path / store.FINAL
                    rows = [row._replace(value=float("nan")) for row in store.read_rows(file)]
                    store.write_table(file, rows, store.COLUMNS)
    store.write_json(folder / "sweep.json", {"asked": {"preset": "particle"}})
    return folder


class Read(HTMLParser):
    """What a browser would find: identifiers, links, tables, figures and their marks."""

    MARKS = ("path", "use", "text")

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.figures, self.tables = Counter(), [], {}, []
        self.loaded, self.policies, self.pictures = [], [], {}
        self.words, self.cell, self.within, self.body = [], None, "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids[attrs.get("id")] += "id" in attrs
        self.links += [attrs[k] for k in ("href", "xlink:href") if attrs.get(k)]
        sources = [attrs[k] for k in ("src", "srcset", "action") if attrs.get(k)]
        self.loaded += [x for x in sources if not x.startswith("data:image/")]
        if tag == "img":
            self.pictures[self.within] = attrs["src"]
        self.loaded += [tag] if tag in ("link", "iframe", "object", "embed", "base") else []
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(attrs["content"])
        if tag == "figure":
            self.within = attrs["id"]
            self.figures[self.within] = 0
        if self.within and tag in self.MARKS:
            self.figures[self.within] += 1
        if tag == "tbody":
            self.tables.append([])
            self.body = True
        if tag == "tr" and self.body:
            self.tables[-1].append([])
        if tag == "td":
            self.cell = ""

    def handle_endtag(self, tag):
        if tag == "figure":
            self.within = ""
        if tag == "tbody":
            self.body = False
        if tag == "td":
            self.tables[-1][-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self.cell is not None:
            self.cell += data


def alone(text):
    """A page that has been checked to stand alone: nothing is fetched, every anchor has its target."""
    read = Read(text)
    assert not read.loaded and [p.startswith("default-src 'none'") for p in read.policies] == [True]
    assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?!#)", text)
    assert {url for url in re.findall(r"https?://[\w./]+", text)} <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert [name for name, count in read.ids.items() if count > 1] == []
    anchors = [link[1:] for link in read.links if link.startswith("#")]
    assert set(anchors) <= set(read.ids) and all(x.startswith(("#", "data:")) for x in read.links)
    referred = set(re.findall(r"url\(#([^)]+)\)", text))
    assert referred <= set(read.ids)
    for name, marks in read.figures.items():
        assert marks > 20 or len(read.pictures[name]) > 200, "a figure is empty"
    return read


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    """The report of the sweep, with what a paper prints, as a file and as it was read."""
    printed = report.Printed(
        "A paper, Table 1",
        {("mpe/spread", "medium", "bc"): (35.0, 2.6), ("mpe/spread", "medium", "cql"): (1.0, 1.0)},
        True,
        "s.e.",
        ["Data: theirs are others."],
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write(path, [sweep], [printed], {"omsd": 'Somebody, "OMSD", 2025'})
    return path, alone(path.read_text())


def test_a_page_has_every_part_and_stands_alone(page):
    path, read = page
    sections = [link[1:] for link in read.links if link.startswith("#") and "-" not in link]
    names = [
        "answer",
        "scores",
        "curves",
        "tasks",
        "published",
        "data",
        "health",
        "cost",
        "provenance",
    ]
    assert [name for name in dict.fromkeys(sections) if name in names] == names
    figures = ["scores", "returns", "policy-policy-loss", "numbers", "profiles", "improvement"]
    assert list(read.figures) == [f"figure-{name}" for name in figures]
    text = " ".join(read.words)
    assert 'Somebody, "OMSD", 2025' in text and "Data: theirs are others." in text
    assert "<b>x</b>" in text, "a name is text, not markup"
    assert "<b>" not in path.read_text()


def test_the_answer_comes_first_and_is_right(sweep, page):
    records = {(r.task, r.system): r for r in study.load([sweep]).records}
    said = findings.findings(study.load([sweep]))
    assert [lead.leader for lead in said.leads] == ["omsd beta=0.5"] * 2
    first = records["mpe/spread", "omsd"]
    assert (
        f"{first.mean:.2f} [{first.mean_low:.2f}, {first.mean_high:.2f}]"
        in said.leads[0].sentences[0]
    )
    assert "4 seeds of 6 fresh episodes each" in said.leads[0].sentences[0]
    others = {s: r.mean for (task, s), r in records.items() if task == "mpe/spread" and r.ranked}
    nearest = max((x, s) for s, x in others.items() if s != "omsd")
    assert f"It lies {first.mean - nearest[0]:.3g} [" in said.leads[0].sentences[1]
    assert f"above {nearest[1]}, the next" in said.leads[0].sentences[1]
    assert said.leads[0].sentences[-1].startswith("iql has a higher mean")
    assert "short: policy" in said.leads[0].sentences[-1]
    assert (
        "1 of 4 seeds of bc on mpe/tag, medium diverged: scores are of the others." in said.cautions
    )
    assert (
        sum("iql on" in caution and "policy is short" in caution for caution in said.cautions) == 2
    )
    text = " ".join(page[1].words)
    assert text.index(said.leads[0].sentences[0]) < text.index("Final returns")


def test_a_difference_that_holds_zero_tells_nothing_apart(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "bc", "mpe/spread", seed, 0.0)
        write_run(tmp_path, "omsd", "mpe/spread", seed, 0.05)
    (lead,) = findings.findings(study.load([tmp_path])).leads
    assert any("not told apart from" in sentence for sentence in lead.sentences)


def test_tables_hold_the_numbers_and_come_as_files(sweep, page):
    path, read = page
    scores = read.tables[0]
    records = study.load([sweep]).records
    assert len(scores) == len(records) == 8
    for row, r in zip(scores, records, strict=True):
        assert row[:2] == [r.task, r.data]
        assert row[5] == f"{r.mean:.2f} [{r.mean_low:.2f}, {r.mean_high:.2f}]"
        assert f"{r.normalised:.1f} [" in row[8], "normalised stands next to raw"
    files = re.findall(
        r'download="(\w[\w.-]*)" href="data:[\w/-]+;base64,([^"]*)"', path.read_text()
    )
    content = {name: base64.b64decode(coded).decode() for name, coded in files}
    rows = list(csv.reader(io.StringIO(content["scores.csv"])))
    assert rows[1:] == scores
    assert r"\toprule" in content["scores.tex"] and "| task |" in content["scores.md"]
    (theirs,) = [table for table in read.tables if table[0][-1] == "35.0 ± 2.6"]
    assert len(theirs) == 1 and theirs[0][2] == "bc", "a row of ours that the paper prints too"
    assert theirs[0][3] == scores[[row[2] for row in scores].index("bc")][8]


def test_systems_over_all_tasks_are_those_of_the_statistics(sweep, page):
    compared = study.comparable(study.load([sweep]))
    assert compared.unit.startswith("normalised") and compared.tasks == [
        f"{t} medium" for t in TASKS
    ]
    assert compared.short == {"iql"} and np.isnan(compared.scores["bc"][1]).sum() == 1
    over = next(table for table in page[1].tables if table[0][0] == "iql†")
    assert [row[-1] for row in over if row[0] == "bc"] == ["1"], "the diverged run is told"
    pairs = next(
        table for table in page[1].tables if " over " not in table[0][0] and len(table[0]) == 3
    )
    assert "iql" not in {name for row in pairs for name in row[:2]}, (
        "a short system is not compared"
    )


def test_equal_folders_give_equal_pages(tmp_path):
    for seed in range(2):
        write_run(tmp_path / "runs", "bc", "mpe/spread", seed, 0.0, final=False)
    read = study.load([tmp_path])
    assert report.html(read, ["runs"]) == report.html(read, ["runs"])


def test_a_half_finished_sweep_says_so(tmp_path):
    """Two seeds of one system are done; the others have their first stage, and no evaluation."""
    for seed in range(2):
        write_run(tmp_path, "bc", "mpe/spread", seed, 0.0)
        path = write_run(tmp_path, "omsd", "mpe/spread", seed, 0.0, final=False)
        info = store.read_json(path / "run.json")
        info |= {"stages": {"critic": {}, "scores": {}}, "health": []}
        store.write_json(path / "run.json", info)
        for name in ("returns.csv", "metrics.csv"):
            (path / name).unlink()
    said = findings.findings(study.load([tmp_path]))
    assert said.leads[0].leader == "bc"
    (line,) = [line for line in said.cautions if "not finished" in line]
    assert line == (
        "2 of 2 runs of omsd on mpe/spread, medium are not finished: of its stages critic and "
        "scores have ended."
    )


def test_a_mean_leads_only_where_another_can_be_judged_too(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "bc", "mpe/spread", seed, 0.0)
        write_run(tmp_path, "iql", "mpe/spread", seed, 9.0, health="short")
    (lead,) = findings.findings(study.load([tmp_path])).leads
    assert lead.leader == "" and lead.sentences[0].startswith("bc is the only system that can be")
    assert lead.sentences[-1].startswith("iql has a higher mean")


def test_a_system_that_a_sweep_has_not_come_to_is_named(tmp_path):
    for system, task in (("bc", "mpe/spread"), ("bc", "mpe/tag"), ("iql", "mpe/tag")):
        write_run(tmp_path, system, task, 0, 0.0)
    said = findings.findings(study.load([tmp_path])).cautions
    assert [x for x in said if "no run yet" in x] == ["iql has no run yet on mpe/spread, medium."]


def test_an_empty_folder_and_runs_that_all_diverged_give_a_page(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    out = tmp_path / "report.html"
    assert commands.run("report", [str(tmp_path / "none"), "-o", str(out)]) == 0
    read = alone(out.read_text())
    assert "nothing has been trained yet" in " ".join(read.words) and not read.figures
    assert capsys.readouterr().out.endswith(f"{out}\n")

    path = write_run(tmp_path / "all", "bc", "mpe/spread", 0, 0.0, health="diverged")
    for name in ("returns.csv", "final.csv", "metrics.csv"):
        rows = [row._replace(value=float("nan")) for row in store.read_rows(path / name)]
        store.write_table(path / name, rows, store.COLUMNS)
    read = alone(report.html(study.load([tmp_path / "all"]), [tmp_path / "all"]))
    text = " ".join(read.words)
    assert "Every seed of every system diverged." in text and "it has no score" in text


def test_every_evaluation_stands_in_the_json_of_marl_eval(sweep, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert commands.run("report", [str(sweep), "-o", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"{out}\n")
    found = json.loads(out.read_text())
    assert list(found) == ["mpe"] and set(found["mpe"]) == {"spread/medium", "tag/medium"}
    assert set(found["mpe"]["tag/medium"]) == {"bc", "iql", "omsd beta=0.5", "<b>x</b>"}

    runs = found["mpe"]["spread/medium"]["omsd beta=0.5"]
    assert set(runs) == {f"run_{seed}" for seed in range(4)}
    assert set(runs["run_3"]) == {"step_0", "step_10", "step_20", "absolute_metrics"}
    halfway = runs["run_3"]["step_10"]
    assert halfway["step_count"] == 10 and halfway["elapsed_time"] == 1.0
    rows = [row for row in study.load([sweep]).rows if row[:2] == ("omsd", "mpe/spread")]
    assert halfway["return"] == [row.value for row in rows if (row.seed, row.step) == (3, 10)]
    assert runs["run_3"]["absolute_metrics"] == {"return": runs["run_3"]["step_20"]["return"]}
    # a diverged seed has no number, and JSON has no word for that
    diverged = found["mpe"]["tag/medium"]["bc"]["run_2"]
    assert diverged["absolute_metrics"]["return"] == [None] * 6


def test_what_cannot_be_read_is_refused(tmp_path, capsys):
    assert commands.run("report", []) == 2
    assert commands.run("report", [str(tmp_path), "-o", "x.pdf"]) == 2
    assert commands.run("report", [str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "RUN: expected at least one folder" in said[0]
    assert "--out: expected a name that ends in .html or .json" in said[1]
    assert "expected a folder of runs" in said[2]
    write_run(tmp_path, "bc", "mpe/spread", 0, 0.0)
    next(tmp_path.rglob("final.csv")).write_text("torn")
    with pytest.raises(JaxomarlError, match="final"):
        study.load([tmp_path])


def test_a_card_in_the_folder_is_shown(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps([{"name": "x"}, 3]))
    assert store.read_cards([tmp_path]) == [], "a file that holds no card"


# --- coordination, films, memory ---


def write_game(folder, system, seed, actions):
    """A run of the bandit, whose final episodes end at these joint actions."""
    path = write_run(folder, system, "games/bandit", seed, 0.0)
    info = store.read_json(path / "run.json")
    near = {"nearest_distance": 0.1 + seed, "nearest_data_distance": 0.05}
    info["health"] = [{**verdict("learned")[0], "figures": near}]
    info["spec"] = {"discrete": False}
    info["stages"] = {"critic": {"program_bytes": 2**21}, "policy": {"program_bytes": 3 * 2**20}}
    store.write_json(path / "run.json", info)
    actions = np.array(actions, float)
    coordinated = actions.prod(axis=1) > 0
    found = {"return": actions.prod(axis=1), "coordinated": coordinated.astype(float)}
    found |= {"action_1": actions[:, 0], "action_2": actions[:, 1], "touches": coordinated + 2.0}
    rows = store.returns_rows(info, "policy", STEPS[-1:], {k: x[None] for k, x in found.items()})
    store.write_table(path / store.FINAL, rows, store.COLUMNS)
    return path


@pytest.fixture
def game(tmp_path):
    """Two seeds: one ends in one way, the other in both, and once in none."""
    write_game(tmp_path, "omsd", 0, [(0.9, 0.8)] * 4)
    write_game(tmp_path, "omsd", 1, [(0.9, 0.9), (-0.9, -0.7), (0.9, -0.9), (-0.8, -0.8)])
    return tmp_path


def test_ways_are_counted_and_each_seed_counts_alike(game):
    read = study.load([game])
    (of_record,) = coordination.infos(read).values()
    found = coordination.ways(of_record, discrete=False)
    assert found.shares == pytest.approx({"(+, +)": (1 + 1 / 4) / 2, "(-, -)": (2 / 4) / 2})
    assert found.in_a_seed == 1.5
    shown = coordination.table(read)
    (row,) = [dict(zip(shown.head, cells, strict=True)) for cells in shown.rows]
    assert (row["coordinated"], row["ways"], row["in a seed"]) == ("0.88", "2", "1.5")
    assert row["commonest way"] == "(+, +): 62%" and row["touches [95 %]"].startswith("2.88 [")
    assert row["distance from the data"] == "0.600" and row["of the data's own"] == "0.050"
    assert "of uniform actions" not in row, "nobody measured it"


def test_a_diverged_seed_has_no_way(game):
    path = write_game(game, "omsd", 2, [(0.9, 0.9)] * 4)
    info = store.read_json(path / "run.json")
    diverged = {"stage": "policy", "update": 3, "metric": "policy_loss", "leaf": "actor"}
    store.write_json(path / "run.json", info | {"diverged": [diverged]})
    (of_record,) = coordination.infos(study.load([game])).values()
    assert list(of_record) == [0, 1]


@pytest.mark.parametrize(
    ("episodes", "discrete", "expected"),
    [
        ({"level": [1, -1, 0]}, False, ["level 1", "", "level 0"]),
        ({"action_1": [0, 2], "action_2": [1, 2]}, True, ["(0, 1)", "(2, 2)"]),
        ({"action_1": [0.1], "action_2": [-0.2], "coordinated": [0]}, False, [""]),
        ({"action_1": [0.1], "touches": [1]}, False, None),
    ],
)
def test_a_way_is_a_level_a_cell_or_signs(episodes, discrete, expected):
    arrays = {name: np.array(values, float) for name, values in episodes.items()}
    assert coordination.ways_of(arrays, discrete) == expected


def test_counts_of_tables_are_read_once(tmp_path):
    columns = ("game", "system", "setting", "seed", "metric", "value")
    rows = [("covering", "DoF", "", seed, "covered", seed / 2) for seed in range(3)]
    rows += [("covering", "DoF", "", 0, "return", 9.0)]
    for folder in ("out", "out/seeds/0"):
        store.write_table(tmp_path / folder / "measured.csv", rows, columns)
    shown = coordination.counted([tmp_path])
    assert shown.head[-1] == "covered [95 %]"
    (row,) = shown.rows
    assert row[:4] == ("covering", "DoF", "", "3") and row[4].startswith("0.5 [")
    assert coordination.counted([tmp_path / "out" / "seeds"]) is not None
    (tmp_path / "none").mkdir()
    assert coordination.counted([tmp_path / "none"]) is None


def test_a_page_shows_films_and_figures_that_lie_in_the_folders(game, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 3), np.uint8)
    film.write(game / "a.gif", frames, shown="omsd seed 0 <on> games/bandit")
    film.write(game / "deeper" / "sheet.png", frames, shown="a sheet")
    film.write(game / "other.gif", frames)
    film.write(game / "games-bandit-directions.png", frames)
    monkeypatch.setattr(embedded, "LARGEST", 9_000)
    film.write(game / "big.gif", np.tile(frames, (1, 9, 9, 1)), shown="big")
    read = alone(report.html(study.load([game]), [game]))
    found = {name: src.partition(";")[0] for name, src in read.pictures.items()}
    kinds = ["data:image/png", "data:image/gif", "data:image/png"]
    names = ["figure-1", "film-1", "film-2"]
    assert found == {f"picture-{name}": kind for name, kind in zip(names, kinds, strict=True)}
    text = " ".join(read.words)
    assert "omsd seed 0 <on> games/bandit" in text and "other.gif" not in text
    assert re.search(r"Not shown: big.gif has \d+ kB, more than 9\.", text)
    assert {"coordination", "films"} <= set(read.ids) and "figure-ways" in read.figures


def test_the_memory_of_a_group_is_that_of_its_most_demanding_program(game, sweep):
    shown = costs.table(study.load([game]))
    assert "peak, MiB" not in shown.head, "a CPU does not count it"
    assert [row[shown.head.index("memory, MiB")] for row in shown.rows] == ["3.0"]
    assert "memory, MiB" not in costs.table(study.load([sweep])).head, "older runs do not say"


# --- in a browser ---

VISIT = """
<script>
const seen = {anchors: 0, lost: [], figures: 0, empty: [], cut: [], columns: 0, unsorted: []};
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.click();
  seen.anchors++;
  const target = document.querySelector(":target");
  if (!target || "#" + target.id !== link.getAttribute("href")) seen.lost.push(link.href);
}
for (const figure of document.querySelectorAll("figure")) {
  const drawn = figure.querySelector("svg, img").getBoundingClientRect();
  seen.figures++;
  if (drawn.width < 100 || drawn.height < 50) seen.empty.push(figure.id);
  for (const words of figure.querySelectorAll("svg text")) {
    const box = words.getBoundingClientRect();
    const inside = box.left > drawn.left - 1 && box.right < drawn.right + 1;
    if (!inside) seen.cut.push(figure.id + ": " + words.textContent);
  }
}
for (const table of document.querySelectorAll("table")) {
  const rows = () => [...table.tBodies[0].rows];
  if (rows().length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    for (const sign of [1, -1]) {
      head.querySelector("button").click();
      seen.columns++;
      const words = rows().map((row) => row.cells[column].textContent);
      const numbers = words.map((x) => parseFloat(x.replace(/,/g, ""))).filter((x) => !isNaN(x));
      const order = (x, y) => head.classList.contains("number")
        ? x - y : x.localeCompare(y, "en", {numeric: true});
      const values = head.classList.contains("number") ? numbers : words;
      if (values.some((x, k) => k && sign * order(values[k - 1], x) > 0))
        seen.unsorted.push(head.textContent);
    }
  });
}
document.body.dataset.seen = JSON.stringify(seen);
</script></body>"""
"""It follows every link, measures every figure, and sorts every column, up and down."""


def visited(path, folder):
    """What `VISIT` has seen on a page, and its document afterwards."""
    page = folder / "visited.html"
    page.write_text(path.read_text().replace("</body>", VISIT))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={folder}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    (seen,) = re.findall(r'data-seen="([^"]*)"', done.stdout)
    return json.loads(unescape(seen)), Read(done.stdout)


@pytest.fixture
def reported(sweep, page, tmp_path):
    """The page of a kind of folder."""

    def made(kind):
        if kind == "whole":
            return page[0]
        folder = tmp_path / "runs"
        folder.mkdir()
        if kind == "half-finished":
            shutil.copytree(sweep, folder, dirs_exist_ok=True)
            shutil.rmtree(folder / "mpe-tag" / "om")
            for name in ("returns.csv", "metrics.csv", store.FINAL):
                (folder / "mpe-spread" / "om" / "seed-3" / name).unlink()
        elif kind == "diverged":
            write_run(folder, "bc", "mpe/spread", 0, 0.0)
            path = write_run(folder, "omsd", "mpe/spread", 0, 0.0, health="diverged")
            for name in ("returns.csv", store.FINAL, "metrics.csv"):
                rows = [row._replace(value=float("nan")) for row in store.read_rows(path / name)]
                store.write_table(path / name, rows, store.COLUMNS)
        report.write(tmp_path / "report.html", [folder])
        return tmp_path / "report.html"

    return made


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
@pytest.mark.parametrize(
    ("kind", "figures", "said"),
    [
        ("whole", 6, "omsd beta=0.5 leads"),
        ("half-finished", 6, "omsd has no run yet on mpe/tag, medium."),
        ("diverged", 4, "1 of 1 seed of omsd beta=0.5 on mpe/spread, medium diverged"),
        ("empty", 0, "nothing has been trained yet"),
    ],
)
def test_a_browser_opens_it_without_an_error_and_everything_works(
    kind, figures, said, reported, tmp_path
):
    """Every kind of folder: links lead somewhere, no figure is empty or cut, columns sort."""
    seen, read = visited(reported(kind), tmp_path)
    assert said in " ".join(read.words)
    assert seen["anchors"] >= 2 and seen["figures"] >= figures
    assert bool(seen["columns"]) == bool(figures)
    wrong = {name: seen[name] for name in ("lost", "empty", "cut", "unsorted")}
    assert not any(wrong.values()), wrong

"""CODA's Table 1: what is printed, whether a scale counts, and that a cell is trained and set beside the paper's."""

import csv
import re

import pytest

from jaxomarl.envs.catalog import make
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.coda import table1
from jaxomarl.results.tables import Record


def test_published_numbers_are_the_papers(shared):
    names = {
        "MADDPG+BC": "maddpg-bc",
        "MADDPG+BC+Diffusion": "maddpg-bc+synther",
        "CODA": "maddpg-bc+coda",
    }
    tasks = {"MAMuJoCo: 2HalfCheetah": "mamujoco/2halfcheetah", "MAMuJoCo: 4Ant": "mamujoco/4ant"}
    with open(shared / "published" / "coda_table1.csv") as file:
        wanted = {
            (tasks[r["task"]], r["dataset"].lower(), names[r["system"]]): (
                float(r["mean"]),
                float(r["spread"]),
            )
            for r in csv.DictReader(file)
        }
    assert len(wanted) == 15 and table1.published() == wanted
    ours = {
        (task, q, s)
        for task, all_of in table1.PRINTED.items()
        for q in all_of
        for s in table1.SYSTEMS
    }
    assert ours == set(wanted) and REPRODUCTIONS["coda-table1"].load() is table1.coda_table1


def test_every_data_set_of_the_table_can_be_made():
    for task, qualities in table1.PRINTED.items():
        assert set(qualities) <= set(make(task).recipes)


def cell(quality, mean):
    return Cell(make(table1.CHEETAH), quality, {"return": {"mean": mean}}, [])


def record(system, quality, mean):
    blank = Record(*[None] * len(Record._fields))  # type: ignore[arg-type]
    return blank._replace(task=table1.CHEETAH, data=quality, system=system, mean=mean)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (
            [record("maddpg-bc", "good", 3990.0), record("maddpg-bc", "good", 4000.0)],
            r"^The scale counts: .*80%\.$",
        ),
        ([record("maddpg-bc", "good", 3990.0)], "The scale does not count"),
        ([record("maddpg-bc+coda", "good", 5000.0)], "not known"),
        ([record("maddpg-bc", "poor", 5000.0)], "not known"),
    ],
)
def test_a_scale_counts_where_the_base_meets_good_data(records, words):
    assert re.search(
        words, table1.scale_verdict([cell("good", 5000.0), cell("poor", 1000.0)], records)
    )


@pytest.mark.long
def test_a_cell_is_trained_and_set_beside_the_published(tmp_path, cache, monkeypatch):
    """On a game, which trains sooner than a robot; its printed number is made up."""
    fields = {
        "generator_steps": [4], "generator_batch": [8], "generator_width": [8], "augment_levels": [2],
        "augment_order": [1], "augment_windows": [8], "augment_microbatch": [8], "policy_steps": [4],
        "policy_batch": [4], "policy_width": [8], "critic_width": [8], "chunk": [2], "every": [1], "horizon": [1],
    }  # fmt: skip
    task, systems = "games/twin-peaks", ("maddpg-bc", "maddpg-bc+coda")
    monkeypatch.setattr(table1, "published", lambda: {(task, "uniform", systems[1]): (7.0, 0.5)})
    asked = Asked(
        [0], 1.0, tmp_path, lambda: False, systems, (task,), ("uniform",), 2, 100, fields, None, 2
    )
    text = table1.coda_table1(asked)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| games")]
    assert [row[2] for row in rows] == list(systems)
    assert [row[-1].rstrip(" |") for row in rows] == ["", "7.0 ± 0.5"] and "not known" in text
    before = {path: path.read_text() for path in tmp_path.rglob("executed")}
    assert len(before) == 3, "a generator and two policies"
    assert table1.coda_table1(asked) == text
    assert {path: path.read_text() for path in tmp_path.rglob("executed")} == before, (
        "nothing is trained again"
    )

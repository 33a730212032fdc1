"""OMSD's Tables 3 and 4: what ships of the printed numbers is what the paper has."""

import csv

import pytest

from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.papers.omsd import robots

ROBOTS = {
    "mamujoco/6halfcheetah": "6-HalfCheetah",
    "mamujoco/2ant": "2-Ant",
    "mamujoco/3hopper": "3-Hopper",
    "mamujoco/2halfcheetah": "2-HalfCheetah",
}


@pytest.mark.parametrize(
    ("number", "count", "theirs"),
    [(3, 66, {"omsd": "OMSD", "omiga": "OMIGA"}), (4, 24, {"omsd": "OMSD", "cfcql": "CFCQL"})],
)
def test_published_scores_are_the_papers(shared, number, count, theirs):
    with open(shared / "published" / f"omsd_table{number}.csv") as file:
        rows = {
            (
                r["task"].split(": ")[-1],
                r["dataset"].lower().replace("med-", "medium-"),
                r["system"],
            ): r
            for r in csv.DictReader(file)
        }
    held = robots.published(number)
    assert len(held) == count
    for (task, data, system), score in held.items():
        if system in theirs:
            row = rows[ROBOTS[task], data, theirs[system]]
            assert score == (float(row["mean"]), float(row["spread"]))


@pytest.mark.parametrize("name", ["omsd-table3", "omsd-table4"])
def test_the_command_makes_it(name):
    assert REPRODUCTIONS[name].load() is getattr(robots, name.removeprefix("omsd-"))

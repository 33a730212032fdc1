"""The planners' table: what is published of them, and that a cell of it is trained and set beside that."""

import math

import pytest

from jaxomarl.cli import planners, reproduce
from jaxomarl.cli.cells import Asked


def test_published_scores_are_those_of_the_sources(shared):
    import csv

    with open(shared / "published" / "madiff_readme.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["task"] == "MPE: Spread" and r["system"].startswith("MADiff")]
    names = {"Expert": "expert", "Md-Replay": "medium-replay", "Medium": "medium", "Random": "random"}
    wanted = {("mpe/spread", names[r["dataset"]], r["system"].lower()): float(r["mean"]) for r in rows}
    found = planners.published()
    assert len(wanted) == 8 and {k: found[k][0] for k in wanted} == wanted
    assert math.isnan(found["mpe/spread", "expert", "madiff-c"][1])
    assert found["mpe/spread", "medium", "madiff-d"] == (64.9, 7.7)


def test_the_commands_table_holds_it():
    assert reproduce.TABLES["dof-planners"] is planners.dof_planners


@pytest.mark.long
def test_a_cell_is_trained_and_set_beside_the_published(tmp_path, cache):
    fields = {
        "horizon": [2], "calls": [1], "sampler": ["ddim"], "depth": [1], "blocks": [1], "policy_width": [8],
        "inverse_width": [8], "policy_batch": [8], "chunk": [2], "policy_steps": [4], "heads": [2], "layers": [1],
        "context": [2],
    }  # fmt: skip
    text = planners.dof_planners(
        Asked([0], 1.0, tmp_path, lambda: False, ("madiff-c", "madt"), (), ("random",), 2, 200, fields)
    )
    rows = {line.split(" | ")[2].split()[0]: line for line in text.splitlines() if line.startswith("| mpe/spread")}
    assert set(rows) == {"madiff-c", "madt", "madiff-d", "dof-p"}
    assert rows["madiff-c"].rstrip(" |").endswith("4.3") and rows["dof-p"].rstrip(" |").endswith("34.5 ± 5.4")
    assert "nan" not in text and "does not" not in rows["madt"]

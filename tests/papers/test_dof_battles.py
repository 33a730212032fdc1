"""DoF's tables of battles: what is printed, what a plan costs, and how networks grow with a team."""

import csv
import json
import types

import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.papers import ALIASES, REPRODUCTIONS, comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dof import battles, teams
from jaxomarl.results import tabular


def asked(out, **more):
    return Asked([0], 1.0, out, lambda: False, **more)


@pytest.mark.parametrize(
    ("number", "file", "ours", "theirs"),
    [
        ("2", "2", ("3m", "good", "macql"), ("SMAC: 3m", "Good", "MACQL")),
        ("12", "12_winrate", ("3m", "good", "macql"), ("SMAC: 3m", "Good", "MACQL")),
        ("10", "10", ("terran_5_vs_5", "replay", "bc"), ("SMACv2: terran_5_vs_5", "replay", "BC")),
        ("19", "19", ("8m", "medium", "dof-t history=0"), ("SMAC: 8m", "Medium", "DoF condition R only")),
        ("25", "25", ("2s3z", "poor", "dof-t data_mixer=atten"), ("SMAC: 2s3z", "Poor", "DoF h=Atten")),
    ],
)  # fmt: skip
def test_printed_numbers_are_the_papers(shared, number, file, ours, theirs):
    with open(shared / "published" / f"dof_table{file}.csv") as lines:
        rows = {(r["task"], r["dataset"], r["system"]): r for r in csv.DictReader(lines)}
    printed = comparison.published_scores("dof_battles", number)
    assert len(printed) == len(rows)
    mean, spread = printed[ours]
    assert mean == float(rows[theirs]["mean"])
    assert spread == pytest.approx(float(rows[theirs]["spread"] or "nan"), nan_ok=True)
    assert sorted(m for m, _ in printed.values()) == sorted(float(r["mean"]) for r in rows.values())


def test_what_ran_out_of_memory_is_said():
    text = battles.printed_table("22", "seconds of inference")
    assert text.startswith("Printed in DoF's Table 22: seconds of inference.")
    (grid,) = tabular.parsed(text)
    by_team = {row[0]: dict(zip(grid.head, row, strict=True)) for row in grid.rows}
    assert by_team["64 agents"]["madiff"] == "out of memory"
    assert by_team["4 agents"]["dof-t ddpm"] == "8.2"


def test_every_table_has_its_command():
    names = [f"dof-table{k}" for k in (2, 3, 10, 18, 19, 21, 22, 23, 24, 25)]
    for name in names:
        entry = REPRODUCTIONS[name]
        assert entry.load().__name__ == name.removeprefix("dof-")
    assert ALIASES["dof-table12"] == "dof-table2"


def test_maps_without_data_are_named(tmp_path, monkeypatch):
    known = {"smax/3m": ("good", "medium"), "smax/8m": ("random",)}
    monkeypatch.setattr(battles, "make", lambda task: types.SimpleNamespace(recipes=known[task]))
    content = battles.MANY_MAPS._replace(tasks=tuple(known))
    (line,) = battles.without_data(asked(tmp_path), content)
    assert "smax/8m" in line and "smax/3m" not in line and "experiments.behaviours" in line
    assert battles.without_data(asked(tmp_path, data=("random",)), content) == []


def planned(system, agents, sampler, seconds):
    return {
        "benchmark": "planning", "system": system, "agents": agents, "sampler": sampler, "calls": 15,
        "seconds": seconds, "seconds_low": 0.9 * seconds, "seconds_high": 1.1 * seconds,
        "program_mib": 8.0 * agents, "width": 128, "load": 1.0,
    }  # fmt: skip


def test_costs_of_plans_are_read_from_the_benchmark(tmp_path):
    lines = [planned(s, n, "ddim", n / 4) for s in ("dof-t", "madiff-c") for n in (4, 64)]
    lines += [planned("dof-t", 4, "ddpm", 10.0)]
    (tmp_path / "planning.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    memory, time, *_ = tabular.parsed(teams.table3(asked(tmp_path)))
    assert memory.rows[0][:3] == ("dof-t", "32", "512")
    assert time.rows[1][2] == "16 [14.4, 17.6]"
    by_sampler, _ = tabular.parsed(teams.table22(asked(tmp_path)))
    assert ("dof-t", "ddpm", "15", "10 [9, 11]", "") in [tuple(row) for row in by_sampler.rows]


def test_without_lines_the_benchmark_is_named(tmp_path):
    with pytest.raises(JaxomarlError, match=r"python -m benchmarks\.planning"):
        teams.table3(asked(tmp_path))
    with pytest.raises(JaxomarlError, match="--tasks"):
        teams.table22(asked(tmp_path, tasks=("mpe/spread",)))


@pytest.mark.long
def test_networks_by_the_number_of_agents(tmp_path, monkeypatch):
    """A team's clones are n networks; QMIX shares one, and its mixer grows with the team."""
    monkeypatch.setattr(teams, "AGENTS", (4, 8))
    text = teams.table21(asked(tmp_path, systems=("bc", "qmix")))
    (grid,) = tabular.parsed(text)
    (_, four, eight), (_, few, many) = grid.rows
    assert float(eight) == pytest.approx(2 * float(four), rel=0.01)
    assert 1.0 < float(many) / float(few) < 1.9


def test_a_system_that_takes_no_battle(tmp_path, monkeypatch):
    monkeypatch.setattr(teams, "AGENTS", (4,))
    monkeypatch.setattr(teams, "REGISTRY", {"bc": None, "dom2": None})
    assert "- Left out: dom2. --task: " in teams.table21(asked(tmp_path))
    with pytest.raises(JaxomarlError):
        teams.table21(asked(tmp_path, systems=("dom2",)))


def test_a_system_of_large_batches_takes_the_battle(tmp_path, monkeypatch):
    """Few rows are packed: they must hold a batch of CFCQL's, which would be left out else."""
    monkeypatch.setattr(teams, "REGISTRY", {"cfcql": None, "iql-ind": None})
    assert teams.accepted(asked(tmp_path)) == (["cfcql", "iql-ind"], {})


def test_teams_that_are_not_trained():
    """Uniform actions pay 3 a step for no foe that is downed; the best script wins most battles."""
    grid = tabular.parsed(teams.untrained_table(("battle/4",)))[0]
    uniform, script, best = (float(cell.split()[0]) for _, cell in grid.rows)
    assert uniform < -150 < script < 0 < best


@pytest.mark.long
def test_a_battle_is_trained_and_set_above_the_printed(tmp_path, cache):
    small = {"policy_width": [8], "policy_batch": [8], "chunk": [2], "policy_steps": [4]}
    more = {"systems": ("bc",), "tasks": ("smax/3m",), "data": ("random",), "rows": 400}
    text = battles.table2(asked(tmp_path, overrides=small, episodes=2, final_episodes=4, **more))
    ours, seconds, *printed = tabular.parsed(text)
    assert "win rate [95 %]" in ours.head and len(ours.rows) == 1
    assert seconds.rows[0][:3] == ("smax/3m", "random", "bc")
    assert len(printed) == 2 and "Printed in DoF's Table 12" in text

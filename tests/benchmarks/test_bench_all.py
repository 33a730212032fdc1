"""Whole runs, and all benchmarks by one command."""

import json

import pytest

from benchmarks import __main__ as everything
from benchmarks import whole
from jaxomarl import documents
from jaxomarl.base import JaxomarlError


def test_an_import_is_timed_in_a_fresh_process_and_loads_nothing_heavy():
    (line,) = whole.imports(whole.Flags(repeats=1))
    assert (
        line["loaded"] == [] and 0 < line["seconds_low"] <= line["seconds"] <= line["seconds_high"]
    )
    assert "import" in whole.table([line])


def test_a_process_that_fails_says_why():
    with pytest.raises(JaxomarlError, match="ended with 3"):
        whole.run("-c", "raise SystemExit(3)")


@pytest.mark.parametrize("flags", [{"parts": ("sweeps",)}, {"repeats": 0}])
def test_flags_of_whole_runs_that_mean_nothing_are_refused(flags):
    with pytest.raises(JaxomarlError):
        next(whole.bench(whole.Flags(**flags)))


def test_the_share_that_health_takes_is_of_all_stages_and_of_the_worst():
    facts = [
        {"stage": "critic", "seconds": 90.0, "health_seconds": 0.5},
        {"stage": "policy", "seconds": 10.0, "health_seconds": 0.5},
    ]
    shares = whole.health_shares(facts)
    assert shares == {
        "health_share": 0.01, "health_share_most": 0.05, "health_stage": "policy",
    }  # fmt: skip
    text = whole.table([whole.line("health, iql", [60.0], scale=1.0, **shares)])
    assert "health takes 1.0% of stage time, at most policy 5.0%" in text


def test_saves_and_reports_are_all_that_training_waits_for(tmp_path):
    """Of 50 s of stages: 0.5 of saves, 0.1 of lines, 0.4 of tables; 2 of pictures."""
    facts = {"stage": "policy", "seconds": 50.0, "save_seconds": 0.5, "report_seconds": 0.1}
    stage = tmp_path / "stages" / "policy-1"
    stage.mkdir(parents=True)
    documents.write_sealed(stage / "DONE", {"facts": {**facts, "health_seconds": 1.0}})
    took = whole.Trained(60.0, tables=0.4, pictures=2.0)
    assert whole.overhead(tmp_path, took) == pytest.approx((0.02, 0.04))
    line = whole.line("sweep, warm", [60.0], **whole.shares([tmp_path], [took]))
    text = whole.table([line])
    assert "saves and reports take 2.0% of stage time, pictures 4.0%" in text


@pytest.mark.long
def test_a_command_that_trained_says_what_its_tables_and_pictures_took(tmp_path):
    words = ["bc", "--rows", "64", "--seeds", "1", "--scale", "0.001", "--final-episodes", "2"]
    took = whole.trained("train", words, tmp_path / "out", tmp_path / "cache")
    assert 0 < took.tables < took.seconds and 0 < took.pictures < took.seconds
    saves, pictures = whole.overhead(tmp_path / "out", took)
    assert saves > 0 and pictures > 0


def test_what_was_measured_is_written_with_its_command_and_the_targets(tmp_path):
    line = {
        "benchmark": "whole",
        "part": "import",
        "seconds": 1.0,
        "seconds_low": 1.0,
        "seconds_high": 1.0,
    }
    (tmp_path / "whole.jsonl").write_text(json.dumps({**line, "machine": "two cores", "load": 0.0}))
    text = everything.written(everything.CPU, tmp_path, card=False)
    assert (
        "two cores" in text
        and "`python -m benchmarks.whole`" in text
        and "| import of jaxomarl, s |" in text
    )


def test_a_part_that_there_is_not_is_refused(tmp_path, capsys):
    assert everything.main(["--parts", "games", "--out", str(tmp_path)]) == 2
    assert "--parts" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("on", [[], ["--card"]])
def test_every_part_runs_at_toy_size(on, tmp_path):
    assert everything.main([*on, "--toy", "--out", str(tmp_path)]) == 0
    plan = everything.CARD if on else everything.CPU
    lost = [name for name in plan if not (tmp_path / f"{name}.jsonl").exists()]
    assert lost in ([], ["peers"]), "peers alone may be missing: PyTorch is an extra"
    assert (tmp_path / "speed.md").read_text().count("## ") == len(plan) - len(lost)

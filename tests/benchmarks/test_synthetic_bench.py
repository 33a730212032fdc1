"""The benchmark of synthetic transitions: what its lines say and what it refuses, never how fast it is."""

import json

import pytest

from benchmarks import synthetic


def test_chains_are_multiplied_from_one_call_and_one_pull():
    flags = synthetic.checked(synthetic.Flags(toy=True, chain=0.0, parts=("draw", "refresh")))
    lines = list(synthetic.bench(flags))
    assert [(x["part"], x["guided"]) for x in lines] == [
        ("draw", False),
        ("draw", True),
        ("refresh", True),
    ]
    for x in lines:
        pulls = x["levels"] if x["guided"] else 0
        assert x["how"] == f"one call x {x['calls']}" + (f" + one pull x {pulls}" if pulls else "")
        assert x["calls"] == 2 * x["levels"] - 1 == 3
        assert x["seconds"] == pytest.approx(
            3 * x["seconds_per_call"] + pulls * x["seconds_per_pull"]
        )
        assert x["transitions_per_second"] == pytest.approx(x["runs"] * 4 * 2 / x["seconds"])
        assert x["seconds_low"] <= x["seconds"] <= x["seconds_high"]
    assert "| draw | yes | 2 | 1 | 4 |" in synthetic.table(lines)


@pytest.mark.long
def test_the_command_times_whole_chains_of_several_runs(tmp_path, capsys):
    argv = [
        "--toy",
        "--parts",
        "draw",
        "refresh",
        "--chain",
        "60",
        "--out",
        str(tmp_path / "lines"),
    ]
    assert synthetic.main(argv) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert len(lines) == 3 and all(
        x["how"] == "whole chain" and x["program_mib"] > 0 for x in lines
    )
    assert "| refresh | yes | 2 | 1 | 4 |" in capsys.readouterr().err
    team = synthetic.Team(synthetic.checked(synthetic.Flags(toy=True)), runs=2, levels=2)
    rows = team.chain(guided=True).call()
    assert rows.shape[:3] == (2, 4, 3) and not (rows[0] == rows[1]).all(), (
        "each run has windows of its own"
    )


@pytest.mark.parametrize(
    ("flags", "word"),
    [(["--parts", "sample"], "draw, refresh"), (["--levels", "0"], "positive counts")],
)
def test_it_refuses_what_it_does_not_know(flags, word, capsys):
    assert synthetic.main(flags) == 2
    assert word in capsys.readouterr().err

"""The benchmark of DOM2's Table 10: what its lines say and what it refuses; how fast it is, is asserted nowhere."""

import json

import pytest

from benchmarks import dom2_cost

TOY = ["--scale", "0.0001", "--rows", "500", "--chunk", "2", "--chunks", "2"]


def test_a_line_multiplies_what_was_timed_up_to_the_protocol(tmp_path, capsys):
    assert (
        dom2_cost.main(
            ["--systems", "bc", "--runs", "1", "2", *TOY, "--out", str(tmp_path / "x.jsonl")]
        )
        == 0
    )
    lines = [json.loads(x) for x in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [x["runs"] for x in lines] == [1, 2]
    for x in lines:
        assert x["training_seconds"] == pytest.approx(10_000 * x["seconds_per_update"])
        assert x["seconds_per_seed"] == pytest.approx(
            (x["training_seconds"] + x["evaluation_seconds"]) / x["runs"]
        )
        assert (x["timed_updates"], x["timed_evaluations"]) == (4, 2) and x[
            "evaluation_seconds"
        ] > 0 < x["program_mb"]
    assert "| dom2, printed | 1 | 3307.9 | 857.2 |" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "word"),
    [(["--systems", "iql"], "systems of one stage"), (["--chunks", "0"], "at least 1")],
)
def test_it_refuses_what_the_protocol_does_not_count(flags, word, capsys):
    assert dom2_cost.main([*TOY, *flags]) == 2
    assert word in capsys.readouterr().err

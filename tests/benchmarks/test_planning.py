"""The benchmark of planning: what its lines say and what it refuses; how fast it is, is asserted nowhere."""

import json

import pytest

from benchmarks import planning


def test_chains_are_multiplied_from_one_call_and_by_the_plans_of_agents_that_plan_for_all():
    tiny = dict(
        horizon=1,
        history=0,
        columns=2,
        width=4,
        depth=1,
        blocks=1,
        ddpm=4,
        ddim=2,
        seconds=0.01,
        chain=0.0,
    )
    flags = planning.Flags(systems=("madiff-d",), agents=(2,), samplers=("ddpm", "ddim"), **tiny)
    lines = list(planning.measure(planning.checked(flags)))
    assert [(x["sampler"], x["agents"], x["calls"]) for x in lines] == [
        ("ddpm", 2, 4),
        ("ddim", 2, 2),
    ]
    for x in lines:
        assert x["how"] == f"one call x {x['calls']}, x 2 plans"
        assert x["seconds"] == pytest.approx(2 * x["calls"] * x["seconds_per_call"])
        assert x["seconds_low"] <= x["seconds"] <= x["seconds_high"] and x["program_mib"] > 0
    assert "| madiff-d | 2 | ddpm | 4 |" in planning.table(lines)


@pytest.mark.long
def test_the_command_times_whole_chains_and_an_evaluation(tmp_path, capsys):
    assert planning.main(["--toy", "--out", str(tmp_path / "lines")]) == 0
    *lines, last = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert len(lines) == 18 and all(x["how"].startswith("whole chain") for x in lines)
    assert (last["evaluation"], last["plans"]) == (
        "mpe/spread",
        last["seeds"] * last["episodes"] * 25,
    )
    assert "Evaluation: 2 runs x 2 episodes of mpe/spread" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--systems", "bc"], "dof-t, madiff-c"),
        (["--samplers", "heun"], "ddpm, ddim"),
        (["--width", "6"], "multiples"),
    ],
)
def test_it_refuses_what_it_does_not_know(flags, word, capsys):
    assert planning.main(flags) == 2
    assert word in capsys.readouterr().err

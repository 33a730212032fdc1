"""Laws and knees of curves, and the picture of results against seeds, agents and devices."""

import json
import types

import pytest

from benchmarks import growth
from jaxomarl.base import JaxomarlError


def bent(x, knee=16.0):
    """Results grow as R^0.9 up to the knee, and as R^0.1 beyond it."""
    return x**0.9 if x <= knee else knee**0.9 * (x / knee) ** 0.1


def test_a_power_has_no_knee():
    found = growth.law([(n, 300.0 * n**-1.5) for n in (2, 4, 8, 16, 32)])
    assert found.power == pytest.approx(-1.5) and found.knee is None


def test_a_knee_is_where_the_exponent_changes():
    found = growth.law([(2.0**k, bent(2.0**k)) for k in range(9)])
    assert found.knee == 16
    assert (found.power, found.after) == (pytest.approx(0.9), pytest.approx(0.1))


def test_noise_is_no_knee():
    """Five per cent up and down in turn: a break leaves most of the error."""
    found = growth.law([(2.0**k, 2.0**k * (1.05 if k % 2 else 0.95)) for k in range(8)])
    assert found.knee is None


def test_three_points_have_no_knee():
    assert growth.law([(1, 1.0), (2, 2.0), (4, 2.0)]).knee is None
    with pytest.raises(JaxomarlError, match="two points"):
        growth.law([(1, 1.0)])


def timed_at(runs, agents, devices):
    seconds = runs / bent(float(runs)) * agents / devices
    return {
        "benchmark": "updates", "size": "game", "system": "omsd", "stage": "critic", "runs": runs,
        "agents": agents, "devices": devices, "seconds_per_update": seconds, "load": 0.0,
    }  # fmt: skip


def numbers(call, name):
    """What a command has after a flag."""
    after = call[call.index(name) + 1 :] if name in call else []
    return [int(x) for x in after[: next((k for k, x in enumerate(after) if "-" in x), None)]]


def test_every_curve_is_measured_and_drawn(tmp_path, monkeypatch, capsys):
    calls = []

    def run(call):
        """A process of benchmarks.updates that takes no time."""
        calls.append(call)
        counts = [
            (runs, agents, devices)
            for runs in numbers(call, "--runs")
            for agents in numbers(call, "--agents") or [2]
            for devices in numbers(call, "--devices") or [1]
        ]
        lines = [json.dumps(timed_at(*count)) for count in counts]
        with open(call[call.index("--out") + 1], "w") as file:
            file.write("\n".join(lines))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(growth.subprocess, "run", run)
    assert growth.main(["--out", str(tmp_path), "--agents", "2", "4", "8", "16"]) == 0
    assert len(calls) == 6 and all("--resume" in call for call in calls)
    said = capsys.readouterr().out
    assert "| runs at once, R | critic | x^0.90 | 16 | x^0.10 | 0.5 at 1 |" in said
    assert "| agents, n (R = 1) | critic | x^-1.00 | none |" in said
    assert "| devices | critic | x^1.00 | none |" in said
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_a_process_that_fails_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(growth.subprocess, "run", lambda call: types.SimpleNamespace(returncode=2))
    assert growth.main(["--out", str(tmp_path)]) == 2
    assert "runs.jsonl" in capsys.readouterr().err


@pytest.mark.long
def test_toy_stages_are_timed(tmp_path):
    few = ["--runs", "1", "2", "--agents", "2", "3", "--devices", "1", "2", "--shared", "2"]
    toy = ["--size", "8x4", "--stages", "critic", "--seconds", "0.02"]
    assert growth.main(["--out", str(tmp_path), *few, *toy]) == 0
    assert (tmp_path / "growth.png").exists()

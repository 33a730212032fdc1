"""Two measurements beside one another: what got slower is found, and noise is not."""

import json
import subprocess

import pytest

from benchmarks import compare
from jaxomarl.base import JaxomarlError

BASE = {
    "benchmark": "updates",
    "size": "game",
    "stage": "critic",
    "runs": 1,
    "load": 1.0,
    "machine": "m",
    "samples": 3,
}


def update(rate: float, spread: float = 0.0, **more) -> dict:
    """A line of that many updates per second."""
    return {
        **BASE, "updates_per_second": rate, "updates_per_second_high": rate * (1 + spread),
        "updates_per_second_low": rate * (1 - spread), "seconds_per_update": 1 / rate, "compile_seconds": 1.0, **more,
    }  # fmt: skip


def test_a_rate_that_falls_is_slower_and_one_that_rises_is_not():
    old, new = [update(100.0), update(50.0, runs=4)], [update(80.0), update(60.0, runs=4)]
    rows = {
        dict(what)["runs"]: (b / a, bad)
        for what, m, a, b, bad in compare.compared(old, new, 1.1)
        if m[0] == "u"
    }
    assert rows == {1: (pytest.approx(1.25), True), 4: (pytest.approx(50 / 60), False)}


def test_what_the_spread_explains_is_not_flagged():
    rows = compare.compared([update(100.0)], [update(80.0, spread=0.3)], 1.1)
    assert not any(bad for *_, bad in rows)


def test_costs_are_seconds_too_and_compiling_is_shown_and_not_flagged():
    whole = {
        "benchmark": "whole",
        "part": "import",
        "seconds": 1.0,
        "seconds_low": 0.9,
        "seconds_high": 1.2,
    }
    slow = {**whole, "seconds": 1.5, "seconds_low": 1.4}
    ((_, measure, a, b, bad),) = compare.compared([whole], [slow], 1.1)
    assert (measure, a, b, bad) == ("seconds", 1.0, 1.5, True)
    compiled = compare.compared([update(1.0)], [update(1.0, compile_seconds=9.0)], 1.1)
    assert next((m, bad) for _, m, _, _, bad in compiled) == ("compile_seconds", False)


def test_microseconds_are_costs_and_counts_are_not():
    line = {
        "benchmark": "batch",
        "rows": 5,
        "batch_microseconds": 2.0,
        "batch_microseconds_low": 1.5,
        "ratio": 0.1,
    }
    assert compare.costs(line) == {"batch_microseconds": (2.0, 1.5)}


def test_lines_of_several_turns_count_by_their_median():
    old, new = [update(100.0)] * 3, [update(r) for r in (50.0, 100.0, 101.0)]
    assert not any(bad for *_, bad in compare.compared(old, new, 1.1))


def test_the_exit_code_says_whether_something_got_slower(tmp_path, capsys):
    files = {k: tmp_path / f"{k}.jsonl" for k in ("fast", "slow", "other")}
    files["fast"].write_text(json.dumps(update(100.0)) + "\n")
    files["slow"].write_text(json.dumps(update(10.0)) + "\n")
    files["other"].write_text(json.dumps(update(10.0, stage="policy")) + "\n")
    assert compare.main([str(files["fast"]), str(files["slow"])]) == 1
    assert "| slower |" in capsys.readouterr().out
    assert compare.main([str(files["slow"]), str(files["fast"])]) == 0
    assert compare.main([str(files["fast"]), str(files["other"])]) == 2
    assert compare.main([str(files["fast"]), str(tmp_path / "none")]) == 2
    assert "JSON lines" in capsys.readouterr().err


def test_a_commit_that_there_is_not_is_named():
    with pytest.raises(JaxomarlError, match="commits"):
        list(
            compare.both(
                compare.Flags(old="no-such-commit", new="HEAD", run="whole --quick --parts import")
            )
        )


@pytest.mark.long
def test_two_commits_are_measured_by_turns(root, tmp_path, capsys):
    flags = [
        "HEAD",
        "HEAD",
        "--run",
        "whole --quick --parts import",
        "--turns",
        "2",
        "--keep",
        str(tmp_path),
    ]
    assert compare.main([*flags, "--slower", "50"]) == 0
    assert len((tmp_path / "old.jsonl").read_text().splitlines()) == 2
    assert "import" in capsys.readouterr().out
    listed = subprocess.run(
        ["git", "-C", str(root), "worktree", "list"], capture_output=True, text=True
    ).stdout
    assert (
        len(listed.splitlines()) == len({line.split()[0] for line in listed.splitlines()})
        and "/old " not in listed
    )

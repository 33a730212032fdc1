"""The benchmark of environments measures what it says; how fast anything is, is asserted nowhere."""

import importlib.util
import itertools
import json
import math
import sys

import jax
import numpy as np
import pytest

from benchmarks import environments
from jaxomarl.base import JaxomarlError
from jaxomarl.envs import catalog

RATES = {"steps_per_second", "steps_per_second_low", "steps_per_second_high"}
TIMES = {"batch_microseconds", "update_microseconds"}
NUMBERS = {
    "steps": RATES | {"compile_seconds"},
    "best": RATES,
    "data": {
        "first_seconds", "seconds", "seconds_low", "seconds_high", "rollout_seconds", "pack_seconds", "hash_seconds",
        "peak_gib",
    },
    "batch": TIMES | {f"{x}_{end}" for x in TIMES for end in ("low", "high")} | {"ratio"},
}  # fmt: skip
COUNTS = {
    "steps": {"episodes", "samples", "steps_per_sample"},
    "best": {"episodes"},
    "data": {"transitions"},
    "batch": {"rows", "width", "batch", "samples"},
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> list[dict]:
    """What `--quick` writes where neither peer is installed."""
    out = tmp_path_factory.mktemp("bench") / "lines.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        for peer in ("jaxmarl", "mpe2"):
            patch.setitem(sys.modules, peer, None)
        patch.setattr(
            jax.config, "update", lambda *_: None
        )  # the compilation cache stays on for other tests
        assert environments.main(["--quick", "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def kind(lines, name):
    return [line for line in lines if line["benchmark"] == name and "skipped" not in line]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_line_has_its_fields_and_positive_numbers(lines, name):
    (line,) = kind(lines, name)
    assert {k for k, v in line.items() if isinstance(v, float)} == NUMBERS[name] | {"load"}
    assert {k for k, v in line.items() if type(v) is int} == COUNTS[
        name
    ]  # a setting of JAX's is True
    assert all(line[k] > 0 and math.isfinite(line[k]) for k in NUMBERS[name] | COUNTS[name])
    assert line["machine"]


def test_the_numbers_of_a_line_agree(lines):
    (steps,), (best,), (data,), (batch,) = (kind(lines, name) for name in NUMBERS)
    assert (
        steps["steps_per_second_low"] <= steps["steps_per_second"] <= steps["steps_per_second_high"]
    )
    assert {k: best[k] for k in RATES} == {k: steps[k] for k in RATES}
    assert (
        data["rollout_seconds"] < data["seconds"]
        and data["transitions"] == environments.QUICK["rows"]
    )
    assert batch["ratio"] == pytest.approx(
        batch["batch_microseconds"] / batch["update_microseconds"]
    )


def test_a_peer_that_is_missing_is_told_with_the_reason(lines):
    told = {line["who"]: line["skipped"] for line in lines if "skipped" in line}
    assert set(told) == {"jaxmarl", "mpe2"}
    assert "pip install" in told["jaxmarl"] and told["mpe2"].endswith(
        "pip install -c constraints.txt mpe2"
    )
    (best,) = kind(lines, "best")
    assert best["over_jaxmarl"] is None and best["over_mpe2"] is None
    assert "skipped: " in environments.table(lines)


def test_the_tables_have_a_row_for_each_line(lines):
    tables = environments.table(lines).split("\n\n")
    assert sum(len(one.splitlines()) - 2 for one in tables) == len(lines) and len(tables) == len(
        NUMBERS
    )
    assert all(len({row.count(" | ") for row in one.splitlines()}) == 1 for one in tables)


def test_ratios_are_of_the_best_of_each(monkeypatch):
    costs = {"jaxomarl": iter((4.0, 2.0)), "jaxmarl": iter((6.0, 9.0)), "mpe2": iter((200.0,))}

    def take_turns(cells, seconds):
        for cell in cells:
            cell.seconds = [next(costs[cell.name["who"]])]

    monkeypatch.setattr(environments, "take_turns", take_turns)
    monkeypatch.setattr(environments, "jaxmarl", lambda: lambda key: 0.0)
    monkeypatch.setattr(environments, "mpe2", lambda: lambda: 0.0)
    monkeypatch.setattr(environments, "ours", lambda env: lambda key: 0.0)
    *_, best = environments.steps({"mpe/spread": catalog.make("mpe/spread")}, (1, 7), seconds=0.0)
    assert (best["over_jaxmarl"], best["over_mpe2"], best["episodes"]) == (3.0, 100.0, 7)


def test_a_sample_is_time_per_unit_of_work(monkeypatch):
    cell, clock = environments.Cell({}, lambda: 0.0, work=25, calls=4), iter((10.0, 30.0))
    monkeypatch.setattr(environments.time, "perf_counter", lambda: next(clock))
    assert cell.sample() == 20.0 / (4 * 25)


@pytest.mark.parametrize("values", [itertools.count(), itertools.repeat(math.nan)])
def test_what_is_not_finite_or_not_repeatable_is_not_timed(values):
    with pytest.raises(RuntimeError, match="same finite numbers twice"):
        environments.checked(environments.Cell({}, lambda: np.asarray(next(values), float), work=1))


def test_peers_get_our_actions():
    action = np.array([[0.5, -0.25], [-1.0, 0.0], [0.0, 1.0]])
    given = environments.five(np, action)
    assert given.shape == (3, 5) and given.min() == 0.0 and given.max() == 1.0
    np.testing.assert_array_equal(
        np.stack([given[:, 2] - given[:, 1], given[:, 4] - given[:, 3]], axis=1), action
    )


@pytest.mark.long
def test_jaxmarl_plays_an_episode():
    play = environments.jaxmarl()
    obs, reward, done = jax.eval_shape(play, jax.random.key(0))
    assert (
        {x.shape for x in jax.tree.leaves(obs)} == {(25, 18)}
        and len(reward) == 3
        and "__all__" in done
    )
    environments.checked(environments.Cell({}, lambda: play(jax.random.key(0)), work=25))


@pytest.mark.skipif(importlib.util.find_spec("mpe2") is None, reason="mpe2 is not installed")
def test_mpe2_plays_an_episode():
    play = environments.mpe2()
    assert play().shape == (25, 3)
    environments.checked(environments.Cell({}, play, work=25))


@pytest.mark.parametrize(
    "flags",
    [{"parts": ("all",)}, {"tasks": ("games/bandit",)}, {"tasks": ("mpe/sprea",)}, {"sizes": (0,)}],
)
def test_flags_that_mean_nothing_are_refused(flags):
    with pytest.raises(JaxomarlError):
        next(environments.bench(environments.Flags(**flags)))

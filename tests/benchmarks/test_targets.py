"""A target is met by lines, missed by lines, or not measured."""

import pytest

from benchmarks import targets
from benchmarks.pictures import agents, pictures, seeds


def line(**more) -> dict:
    """A line of an update."""
    return {
        "benchmark": "updates", "size": "mpe", "system": "omsd", "stage": "critic", "agents": 3, "runs": 1,
        "seconds_per_update": 1.0, "ratio": 1.0, **more,
    }  # fmt: skip


def rows(lines, on) -> dict[str, str]:
    """Target -> what is said of it."""
    return {
        r.split(" | ")[0]: r.split(" | ")[-1].strip(" |")
        for r in targets.table(lines, on).splitlines()[2:]
    }


def test_nothing_is_met_that_was_not_measured():
    assert set(rows([], "cpu").values()) == set(rows([], "card").values()) == {"not measured"}
    skipped = line(runs=16, ratio=0.1, skipped="too long")
    assert set(rows([skipped], "cpu").values()) == {"not measured"}


def test_bounds_are_held_from_their_own_side():
    said = rows([line(runs=16, ratio=1.2), {"part": "import", "seconds": 1.0}], "cpu")
    assert said["| OMSD's stages, MPE size: cost of R = 16 over 16 single runs"] == "not met"
    assert said["| import of jaxomarl, s"] == "met"
    peers = [
        {"benchmark": "peers", "size": "game", "runs": 16, "eager_ratio": x} for x in (20.0, 9.0)
    ]
    assert said != rows(peers, "cpu")
    assert (
        rows(peers, "cpu")["| OMSD's stages, game size, R = 16: times 16 eager PyTorch runs"]
        == "not met"
    )
    assert (
        rows(peers[:1], "cpu")["| OMSD's stages, game size, R = 16: times 16 eager PyTorch runs"]
        == "met"
    )


def test_hours_are_multiplied_from_seconds_of_all_stages():
    each = {"critic": 1e-4, "scores-conditional": 2e-4, "policy": 3e-4}
    lines = [line(stage=s, runs=16, seconds_per_update=x) for s, x in each.items()]
    assert targets.total(targets.STEPS)(lines) == pytest.approx((50 + 20 + 30) / 60)
    assert targets.total(targets.STEPS)(lines[:2]) is None


def test_half_the_bits_are_a_row_of_their_own():
    each = [line(stage=s, runs=16, seconds_per_update=1e-4) for s in targets.STEPS]
    half = [{**x, "precision": "bfloat16", "seconds_per_update": 1e-5} for x in each]
    assert targets.total(targets.STEPS)([*each, *half]) == pytest.approx(70 / 60)
    assert targets.total(targets.STEPS, "bfloat16")([*each, *half]) == pytest.approx(7 / 60)
    assert targets.total(targets.STEPS, "bfloat16")(each) is None


def test_the_optimiser_stands_apart_from_the_share_of_the_products():
    x = line(
        stage="scores-conditional",
        runs=16,
        seconds_per_update=3.0,
        flop_per_update=1e9,
        state_mib=1e9 / 2**20,
    )
    x |= {"ceiling_gflop_per_second": 16.0, "ceiling_gb_per_second": 32.0}
    # products alone take 1 s at the ceiling, and moving the state 1 s of the 3
    assert targets.apart(None)([x]) == pytest.approx(1 / 2)
    assert targets.apart("bfloat16")([x]) is None


def test_growth_is_against_the_straight_line():
    lines = [line(agents=n, seconds_per_update=c) for n, c in ((2, 1.0), (4, 1.5), (8, 6.0))]
    assert targets.growth(lines) == pytest.approx(6.0 / 4)
    assert targets.growth([*lines[:2], line(runs=4, agents=9)]) == pytest.approx(0.75)
    seeded = [line(runs=r, seconds_per_update=c) for r, c in ((16, 16.0), (64, 96.0))]
    assert targets.flat(seeded) == pytest.approx(1.5)


def test_physics_counts_the_steps_within_a_step():
    robot = {
        "benchmark": "robots",
        "task": "2halfcheetah",
        "engine": "mjx",
        "steps_per_second": 3e5,
        "frame_skip": 5,
    }
    robot["iterations"] = 100
    others = (
        {**robot, "engine": "c", "steps_per_second": 9e9},
        {**robot, "iterations": 4, "steps_per_second": 8e9},
    )
    assert targets.physics(100)([robot, *others]) == 1.5e6
    assert rows([robot], "card")["| half-cheetah on MJX: physics steps/s"] == "met"


def test_pictures_are_made_of_what_was_timed(tmp_path):
    lines = [line(runs=r, ratio=x) for r, x in ((1, 1.0), (4, 0.5))]
    lines += [line(agents=n, seconds_per_update=n / 3, stage="policy") for n in (2, 4)]
    assert seeds(lines) == {"mpe omsd critic, n = 3": [(1, 1.0), (4, 0.5)]}
    assert agents(lines)["mpe omsd policy, R = 1"] == [(2, 1.0), (4, 2.0)]
    made = pictures(lines, tmp_path)
    assert [p.name for p in made] == ["bench-seeds.png", "bench-agents.png"] and all(
        p.stat().st_size for p in made
    )
    assert pictures(lines[:1], tmp_path) == []

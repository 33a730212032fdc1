"""The runs axis laid over eight devices: the same numbers as on one, and states that stay where they were put."""

from unittest import mock

import checks
import jax
import numpy as np
import pair
import pytest
from cloning import CLONING
from on_devices import COUNTS, DIVIDED, SWEPT, copies, played
from trial import Trial

from jaxomarl.training import sharding
from jaxomarl.training.library import StageCache

STAGES = ("critic", "policy")


@pytest.fixture(scope="module")
def swept():
    return Trial("weighted", pair.WEIGHTED).sweep(StageCache(), SWEPT)


def some_then_more(counts):
    """(runs, the fixture that has them): the first in every session, the others in the long one."""
    first, *rest = counts
    more = (pytest.param(runs, "laid_out_more", marks=pytest.mark.long) for runs in rest)
    return pytest.mark.parametrize(("runs", "where"), [(first, "laid_out"), *more])


@some_then_more(COUNTS)
def test_any_number_of_runs(request, runs, where):
    trial, laid_out = Trial("cloning", CLONING), request.getfixturevalue(where)
    one = trial.run(copies(trial, runs), tuple(range(runs)), StageCache(), env=False)
    checks.same(
        laid_out[0][f"cloning-{runs}"],
        checks.named(one.past["cloning"]),
        f"{runs} runs",
        checks.CLOSE,
    )
    returns = laid_out[0][f"played-{runs}"]
    checks.same(returns, played(trial, one.past), f"final episodes of {runs} runs", checks.CLOSE)


@pytest.mark.parametrize("stage", STAGES)
def test_a_sweep_of_eight_runs(laid_out, swept, stage):
    found, wanted = laid_out[0][f"weighted-{stage}"], checks.named(swept.past[stage])
    checks.same(found, wanted, stage, checks.CLOSE)


@pytest.mark.long
def test_a_sweep_of_omsd(laid_out_omsd, trials):
    """What stands above of a small system, of the package's own, with a stage more."""
    arrays, layouts = laid_out_omsd
    swept = trials["omsd"].sweep(StageCache(), SWEPT)
    for stage in ("critic", "scores-conditional", "policy"):
        found, wanted = arrays[f"omsd-{stage}"], checks.named(swept.past[stage])
        checks.same(found, wanted, stage, checks.CLOSE)
    assert all(kept for *_, kept in layouts), layouts
    sizes = {(stage, over) for stage, over, data, _ in layouts if data == 1}
    assert sizes == {("critic", 4), ("scores-conditional", 4), ("policy", 8)}


def test_states_stay_on_the_runs_axis(laid_out):
    layouts = laid_out[1]
    assert all(kept for *_, kept in layouts), layouts
    sizes = {
        name: {over for stage, over, data, _ in layouts if stage == name and data == 1}
        for name in ("cloning", *STAGES)
    }
    assert sizes == {"cloning": {8}, "critic": {4}, "policy": {8}}


@pytest.mark.long
def test_fewer_runs_than_devices_take_as_many_devices(laid_out_more):
    layouts = laid_out_more[1]
    assert all(kept for *_, kept in layouts), layouts
    assert {over for _, over, data, _ in layouts if data == 1} == {COUNTS[1]}


@some_then_more(DIVIDED)
def test_wide_runs_divide_their_batches(request, runs, where):
    trial, laid_out = Trial("cloning", CLONING), request.getfixturevalue(where)
    one = trial.run(copies(trial, runs), tuple(range(runs)), StageCache(), env=False)
    wanted = checks.named(one.past["cloning"])
    checks.same(laid_out[0][f"divided-{runs}"], wanted, f"{runs} divided runs", checks.CLOSE)
    assert [runs, DIVIDED[runs]] in [[over, data] for _, over, data, _ in laid_out[1]]


def test_runs_trained_on_different_devices_are_brought_together(laid_out):
    wanted = np.arange(8, dtype=np.float32).reshape(4, 2)[[3, 0, 2]]
    np.testing.assert_array_equal(laid_out[0]["gathered"]["w"], wanted)


def test_runs_on_several_devices_may_call_the_host(laid_out):
    """Robots are simulated in C: with two seeds on two devices their program did not compile."""
    np.testing.assert_array_equal(laid_out[0]["by-host"]["x"], 2.0 * np.arange(8))


def test_the_rule_of_shares():
    """A network of 100 numbers and batches of 64 rows: wide where the limit is below 6,400."""
    state = {"w": jax.ShapeDtypeStruct((10, 10), "float32"), "n": jax.ShapeDtypeStruct((), "int32")}
    with mock.patch.object(sharding, "WIDE", 6_399):
        found = {runs: sharding.shares("gpu", state, 64, 8, runs) for runs in (1, 2, 3, 5, 16)}
        assert found == {1: 8, 2: 4, 3: 2, 5: 1, 16: 1}
        # 30 rows do not divide into 8 shares
        assert sharding.shares("gpu", state, 30, 8, 1) == 1
        assert sharding.shares("cpu", state, 64, 8, 1) == 1
    with mock.patch.object(sharding, "WIDE", 6_400):
        assert sharding.shares("gpu", state, 64, 8, 1) == 1


def test_the_rule_of_mappings():
    """A CPU goes through narrow runs in blocks and through wide ones one by one; a card takes all at once."""
    state = {"w": jax.ShapeDtypeStruct((10, 10), "float32")}
    with mock.patch.object(sharding, "WIDE", 6_400):
        assert sharding.mapping("cpu", state, 64) == "blocks"
        assert sharding.mapping("cpu", state, 65) == "map"
        assert sharding.mapping("cpu", state, 64, replay=True) == "vmap"
        assert sharding.mapping("gpu", state, 65) == "vmap"


def test_blocks_are_equal_and_repeat_few_runs():
    sizes = {runs: sharding.at_once("blocks", runs) for runs in (1, 8, 15, 16, 17, 21, 25, 128)}
    assert sizes == {1: 1, 8: 8, 15: 15, 16: 8, 17: 6, 21: 7, 25: 5, 128: 8}
    assert (sharding.at_once("vmap", 128), sharding.at_once("map", 128)) == (128, 1)


def test_the_last_block_is_filled():
    def sums(block):
        assert block[0].shape[0] == 2
        return {"sum": block[0] + block[1].sum(axis=1), "none": block[1][:, :0]}

    given = (jax.numpy.arange(5.0), jax.numpy.ones((5, 3)))
    found = sharding.in_blocks(sums, given, 2)
    np.testing.assert_array_equal(found["sum"], np.arange(5.0) + 3)
    assert found["none"].shape == (5, 0)


def test_runs_in_blocks_are_those_of_all_at_once():
    """Five runs in blocks of two, of which the last has one run more than there is."""
    trial = Trial("cloning", CLONING)
    some = (copies(trial, 5), tuple(range(5)))
    wanted = trial.run(*some, StageCache())
    with mock.patch.object(sharding, "BLOCK", 2):
        found = trial.run(*some, StageCache(), how="blocks")
    facts = found.trained["cloning"].facts
    assert (facts["mapping"], facts["at_once"]) == ("blocks", 2)
    one, other = (checks.histories(x.trained["cloning"]) for x in (found, wanted))
    checks.same(one, other, "five runs in blocks", checks.CLOSE)

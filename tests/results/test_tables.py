"""The summary: final and not best, diverged and unfinished seeds told, refusals."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxomarl.base import JaxomarlError
from jaxomarl.results import statistics, store, tables

STEPS = np.array([100, 200, 300])


def study(returns, steps=STEPS, stage="policy", extra=None, **changes):
    """Runs and rows of one cell from returns [seeds, V, E]."""
    runs, rows = [], []
    for seed, table in enumerate(returns):
        info = {"system": "omsd", "task": "t", "data": "d", "config": "c", "cfg": {}, "swept": {}, "seed": seed}
        info |= {"final_stage": "policy"} | changes
        runs.append(store.Run(Path(f"/runs/{len(runs)}"), info))
        evaluations = {"return": table, **{name: x[seed] for name, x in (extra or {}).items()}}
        rows += store.returns_rows(info, stage, steps, evaluations)
    return runs, rows


def curves(seeds=16, seed=0):
    return np.random.default_rng(seed).normal(size=(seeds, 3, 8)) + np.array([0.0, 50.0, 10.0])[:, None]


def test_the_summary_takes_the_final_evaluation_and_keeps_the_best_apart():
    returns = curves()
    runs, rows = study(returns)
    (record,) = tables.summary(rows, runs)
    final = returns[:, -1].mean(-1)
    assert record.step == 300 and record.seeds == 16 and record.episodes == 8
    assert record.mean == pytest.approx(final.mean(), rel=1e-12)
    assert record.std == pytest.approx(final.std(ddof=1), rel=1e-12)
    assert record.se == pytest.approx(stats.sem(final), rel=1e-12)
    assert record.iqm == pytest.approx(stats.trim_mean(final, 0.25), rel=1e-12)
    assert (record.low, record.high) == pytest.approx(statistics.stratified_bootstrap(final), rel=1e-12)
    assert record.best == pytest.approx(returns.mean(-1).max(1).mean(), rel=1e-12)
    assert record.best > 45 > 15 > record.mean
    assert record.coordinated is None and record.nonfinite == record.unfinished == 0


def fresh(runs, returns):
    """Rows of a final evaluation at step 300 from returns [seeds, E]."""
    rows = []
    for run, episodes in zip(runs, returns, strict=True):
        rows += store.returns_rows(run.info, "policy", STEPS[-1:], {"return": episodes[None]})
    return rows


def test_a_final_evaluation_is_the_score_and_training_gives_the_rest():
    returns = curves(4)
    runs, rows = study(returns)
    episodes = np.random.default_rng(5).normal(20.0, 1.0, (4, 50))
    (before,) = tables.summary(rows, runs)
    (record,) = tables.summary(rows, runs, fresh(runs, episodes))
    assert (before.starts, before.episodes) == ("common", 8)
    assert (record.starts, record.episodes, record.step) == ("fresh", 50, 300)
    assert record.mean == pytest.approx(episodes.mean(), rel=1e-12)
    assert (record.best, record.converged) == (before.best, before.converged)
    (alone,) = tables.summary([], runs, fresh(runs, episodes))
    assert alone.mean == record.mean and np.isnan(alone.best) and alone.converged is None


def test_a_seed_without_a_final_evaluation_is_not_mixed_into_those_with_one():
    runs, rows = study(curves(4))
    episodes = np.random.default_rng(5).normal(20.0, 1.0, (4, 50))
    episodes[2, 7] = np.inf
    (record,) = tables.summary(rows, runs, [row for row in fresh(runs, episodes) if row.seed != 1])
    assert (record.seeds, record.unfinished, record.nonfinite) == (3, 1, 1)
    assert record.mean == pytest.approx(episodes[[0, 3]].mean(), rel=1e-12)


def test_rows_may_come_in_any_order_and_other_stages_do_not_count():
    runs, rows = study(curves())
    early = [row._replace(stage="teacher", step=9000, value=1e6) for row in rows]
    shuffled = [(rows + early)[i] for i in np.random.default_rng(0).permutation(2 * len(rows))]
    (a,), (b,) = tables.summary(rows, runs), tables.summary(shuffled, runs[::-1])
    assert a._replace(mean=0, std=0, se=0, iqm=0, low=0, high=0, best=0) == b._replace(
        mean=0, std=0, se=0, iqm=0, low=0, high=0, best=0
    )
    assert (b.mean, b.std, b.iqm, b.best) == pytest.approx((a.mean, a.std, a.iqm, a.best), rel=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_seed_is_told_and_not_averaged_away(bad):
    returns = curves(5)
    returns[2, -1, 3] = bad  # one episode is enough
    runs, rows = study(returns)
    (record,) = tables.summary(rows, runs)
    kept = returns[[0, 1, 3, 4], -1].mean(-1)
    assert (record.seeds, record.nonfinite) == (5, 1)
    assert record.mean == pytest.approx(kept.mean(), rel=1e-12)
    for text in (tables.text([record]), tables.markdown([record])):
        assert "4 of 5 !" in text
        assert "1 diverged" in text


def test_where_every_seed_diverged_the_score_is_nan():
    returns = curves(2)
    returns[:, -1] = np.nan
    runs, rows = study(returns)
    (record,) = tables.summary(rows, runs)
    assert np.isnan([record.mean, record.iqm, record.best]).all()
    assert record.std is record.low is None
    assert "0 of 2 !" in tables.text([record]) and "nan" in tables.text([record])


def test_a_seed_that_diverged_and_recovered_is_finite():
    returns = curves(3)
    returns[0, 1] = np.nan
    (record,) = tables.summary(*study(returns)[::-1])
    assert record.nonfinite == 0
    assert record.best < np.inf


def test_an_unfinished_seed_is_counted_and_its_earlier_score_not_mixed_in():
    returns = curves(4)
    runs, rows = study(returns)
    rows = [row for row in rows if not (row.seed == 1 and row.step == 300) and row.seed != 3]
    (record,) = tables.summary(rows, runs)
    assert (record.seeds, record.unfinished) == (2, 2)
    assert record.mean == pytest.approx(returns[[0, 2], -1].mean(), rel=1e-12)
    assert "2 runs have not reached" in tables.text([record])


def test_one_seed_has_no_spread():
    (record,) = tables.summary(*study(curves(1))[::-1])
    assert record.std is record.se is record.low is record.high is None
    assert "±" not in tables.text([record]).splitlines()[1]


def test_coordination_is_the_share_of_the_final_episodes():
    hit = np.zeros((4, 3, 8))
    hit[:, 0] = 1.0
    hit[:2, -1] = 1.0
    (record,) = tables.summary(*study(curves(4), extra={"coordinated": hit})[::-1])
    assert record.coordinated == 0.5
    assert "0.50" in tables.text([record])
    assert "coordinated" not in tables.text([record._replace(coordinated=None)])


def test_cells_are_told_apart_and_sorted_by_value():
    runs, rows = [], []
    for name, swept in (("c1", {"beta": 10}), ("c2", {"beta": 9.5}), ("c3", {}), ("deadbeefcafe", {})):
        more_runs, more_rows = study(curves(2), config=name, swept=swept)
        runs, rows = runs + more_runs, rows + more_rows
    records = tables.summary(rows, runs)
    assert [r.config for r in records] == ["c3", "deadbeefcafe", "c2", "c1"]
    lines = tables.text(records).splitlines()
    assert "omsd (c3)" in lines[1] and "omsd (deadbeef)" in lines[2]
    assert "omsd beta=9.5 " in lines[3] and "omsd beta=10 " in lines[4]
    assert tables.summary([], runs) == []
    runs, rows = study(curves(2), swept={"hidden": [64, 64], "norm": None})
    assert tables.summary(rows, runs)[0].swept == "hidden=[64, 64] norm=None"


def test_the_same_run_twice_and_rows_of_no_run_are_refused():
    runs, rows = study(curves(2))
    with pytest.raises(JaxomarlError, match="each run once"):
        tables.summary(rows, [*runs, runs[0]._replace(path=Path("/elsewhere"))])
    with pytest.raises(JaxomarlError, match="the same runs"):
        tables.summary(rows, runs[:1])


def test_writers_align_their_columns(tmp_path):
    records = []
    for system, scale in (("omsd", 1.0), ("a|b", 100.0), ("iql", 1e4)):
        records += tables.summary(*study(curves(3) * scale, system=system)[::-1])
    lines = tables.text(records).splitlines()
    assert len({len(line) for line in lines}) == 1  # right-aligned numbers end in one column
    table = tables.markdown(records).splitlines()
    assert len({len(line) for line in table}) == 1 and "a\\|b" in table[3]
    tables.write_summary(tmp_path, records)
    assert (tmp_path / "summary.md").read_text() == tables.markdown(records)
    back = store.read_table(tmp_path / "summary.csv")
    assert [row["system"] for row in back] == ["omsd", "a|b", "iql"]
    assert [float(row["mean"]) for row in back] == [r.mean for r in records]
    assert back[0]["coordinated"] == "" and tuple(back[0]) == tables.Record._fields
    before = (tmp_path / "summary.csv").read_bytes()
    tables.write_summary(tmp_path, records)
    assert (tmp_path / "summary.csv").read_bytes() == before

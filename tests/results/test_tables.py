"""The summary: final and not best, diverged and unfinished seeds told, refusals."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxomarl.base import JaxomarlError
from jaxomarl.results import intervals, store, tables

STEPS = np.array([100, 200, 300])


def study(returns, steps=STEPS, stage="policy", extra=None, **changes):
    """Runs and rows of one cell from returns [seeds, V, E]."""
    runs, rows = [], []
    for seed, table in enumerate(returns):
        info = {
            "system": "omsd",
            "task": "t",
            "data": "d",
            "config": "c",
            "cfg": {},
            "swept": {},
            "seed": seed,
        }
        info |= {"final_stage": "policy"} | changes
        runs.append(store.Run(Path(f"/runs/{len(runs)}"), info))
        evaluations = {"return": table, **{name: x[seed] for name, x in (extra or {}).items()}}
        rows += store.returns_rows(info, stage, steps, evaluations)
    return runs, rows


def curves(seeds=16, seed=0):
    return (
        np.random.default_rng(seed).normal(size=(seeds, 3, 8))
        + np.array([0.0, 50.0, 10.0])[:, None]
    )


def test_the_summary_takes_the_final_evaluation_and_keeps_the_best_apart():
    returns = curves()
    runs, rows = study(returns)
    (record,) = tables.summary(rows, runs)
    final = returns[:, -1].mean(-1)
    assert record.step == 300 and record.seeds == 16 and record.episodes == 8
    assert record.mean == pytest.approx(final.mean(), rel=1e-12)
    assert record.std == pytest.approx(final.std(ddof=1), rel=1e-12)
    expected = stats.ttest_1samp(final, 0.0).confidence_interval(0.95)
    assert (record.mean_low, record.mean_high) == pytest.approx(
        (expected.low, expected.high), rel=1e-12
    )
    assert record.iqm == pytest.approx(stats.trim_mean(final, 0.25), rel=1e-12)
    assert (record.iqm_low, record.iqm_high) == intervals.iqm(final)
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
    for x, y in zip(a, b, strict=True):
        assert x == y or x == pytest.approx(y, rel=1e-9)


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
    assert record.std is record.mean_low is record.iqm_high is None
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


def test_one_seeds_interval_covers_its_episodes_alone_and_says_so():
    returns = curves(1)
    (record,) = tables.summary(*study(returns)[::-1])
    expected = stats.ttest_1samp(returns[0, -1], 0.0).confidence_interval(0.95)
    assert record.std is None and record.covers == "episodes"
    assert (record.mean_low, record.mean_high) == pytest.approx(
        (expected.low, expected.high), rel=1e-12
    )
    assert (record.iqm_low, record.iqm_high) == (record.mean_low, record.mean_high)
    for text in (tables.text([record]), tables.markdown([record])):
        assert "covers its episodes alone" in text
    returns = curves(2)
    returns[0, -1, 0] = np.nan
    (record,) = tables.summary(*study(returns)[::-1])
    assert record.covers == "episodes", "of two seeds one diverged"


def test_every_table_says_which_starts_it_rests_on():
    runs, rows = study(curves(4))
    (common,) = tables.summary(rows, runs)
    (own,) = tables.summary(
        rows, runs, fresh(runs, np.random.default_rng(5).normal(20.0, 1.0, (4, 50)))
    )
    assert (common.covers, own.covers) == ("seeds", "seeds and episodes")
    said = {k: tables.markdown([r]) for k, r in (("common", common), ("fresh", own))}
    assert "the same 8 for every seed and system: intervals cover seeds alone" in said["common"]
    assert "episodes of each 8, common starts" in said["common"]
    assert (
        "intervals cover seeds and episodes" in said["fresh"]
        and "episodes of each 50, fresh starts" in said["fresh"]
    )
    both = tables.text([common, own._replace(config="other")])
    header = both.splitlines()[0]
    assert (
        "starts" in header
        and "episodes" in header
        and "seeds alone" in both
        and "seeds and episodes" in both
    )


def test_the_datas_mean_has_its_error_and_a_share_of_it_an_interval():
    returns = curves(4) + 90.0
    runs, rows = study(returns, data_return={"mean": 125.0, "std": 40.0, "episodes": 1601})
    (record,) = tables.summary(rows, runs)
    assert (record.data_mean, record.data_se) == (125.0, 1.0)
    assert record.share == pytest.approx(record.mean / 125.0)
    assert (
        record.share_low
        < record.mean_low / 125.0
        < record.share
        < record.mean_high / 125.0
        < record.share_high
    )
    text = tables.text([record])
    assert (
        "data's mean return 125.0 ± 1.0" in " ".join(text.split())
        and "% of data's mean [95 %]" in text
    )
    assert (
        f"{100 * record.share:.1f} [{100 * record.share_low:.1f}, {100 * record.share_high:.1f}]"
        in text
    )
    for held in (None, {"mean": "nan", "std": 1.0, "episodes": 10}):
        (bare,) = tables.summary(*study(returns, data_return=held)[::-1])
        assert bare.share is bare.data_mean is None and "data's mean" not in tables.text([bare])
    (single,) = tables.summary(
        *study(returns, data_return={"mean": 125.0, "std": 0.0, "episodes": 1})[::-1]
    )
    assert single.data_se is single.share_low is None and single.share == record.share
    assert "data's mean return 125.0." in " ".join(tables.text([single]).split()), (
        "one episode has no error"
    )
    (below,) = tables.summary(
        *study(returns, data_return={"mean": -5.0, "std": 1.0, "episodes": 9})[::-1]
    )
    assert below.data_mean == -5.0 and below.share is None, "a share of a loss means nothing"


def test_a_normalised_score_has_an_interval():
    runs, rows = study(curves(4), normaliser={"random": 0.0, "expert": 50.0})
    (record,) = tables.summary(rows, runs)
    found = record.normalised, record.normalised_low, record.normalised_high
    assert found == pytest.approx((2 * record.mean, 2 * record.mean_low, 2 * record.mean_high))
    assert f"{found[0]:.1f} [{found[1]:.1f}, {found[2]:.1f}]" in tables.text([record])


def test_marks_and_the_best_in_training_stand_in_every_table():
    returns = (
        np.zeros((4, 3, 8)) + np.array([0.0, 50.0, 10.0])[:, None] + np.arange(4.0)[:, None, None]
    )
    (record,) = tables.summary(*study(returns)[::-1])
    assert record.converged is False, "from 50 to 10 by a spread of one"
    for text in (tables.text([record]), tables.markdown([record])):
        assert "omsd*" in text and "* not converged" in text
        assert "best in training" in text and "biased upwards" in text
    returns[:, 1] = returns[:, 2]
    (record,) = tables.summary(*study(returns)[::-1])
    assert record.converged is True and "*" not in tables.text([record])


def test_zero_has_no_sign():
    runs, rows = study(np.full((4, 3, 8), -0.001), normaliser={"random": 0.0, "expert": 1.0})
    (record,) = tables.summary(rows, runs)
    assert tables.number(record, record.mean) == "0.00" and "-0.00" not in tables.text([record])
    assert tables.number(record, -0.006) == "-0.01" and tables.normalised(record)[0] == "-"


def test_a_table_of_two_tasks_fits_a_terminal():
    records, facts = [], {"data_return": {"mean": 224.1, "std": 41.0, "episodes": 4000}}
    for task in ("mpe/spread", "mpe/world"):
        for system in ("bc", "diffusion-ql", "omsd"):
            more = study(curves(4) + 200.0, task=task, data="medium-expert", system=system, **facts)
            runs, rows = more
            records += tables.summary(
                rows, runs, fresh(runs, np.full((4, 50), 215.0) + np.arange(4.0)[:, None])
            )
    assert max(map(len, tables.text(records).splitlines())) <= 130
    one = tables.text([r for r in records if r.task == "mpe/spread"])
    assert max(map(len, one.splitlines())) <= 100
    assert "All rows: mpe/spread, data medium-expert, step 300, seeds 4" in one and "omsd*" in one


def test_coordination_is_the_share_of_the_final_episodes():
    hit = np.zeros((4, 3, 8))
    hit[:, 0] = 1.0
    hit[:2, -1] = 1.0
    (record,) = tables.summary(*study(curves(4), extra={"coordinated": hit})[::-1])
    assert record.coordinated == 0.5
    assert "0.50" in tables.text([record])
    assert "coordinated" not in tables.text([record._replace(coordinated=None)])


def test_a_win_rate_has_an_interval_within_its_bounds():
    """Over seeds Student's, cut at 0 and 1; of one seed Wilson's, so that 0 of 8 is not certain: (0, 0.324)."""
    won = np.zeros((4, 3, 8))
    won[:, -1] = [[1.0] * 8, [1.0] * 8, [1.0] * 8, [1.0] * 4 + [0.0] * 4]
    (record,) = tables.summary(*study(curves(4), extra={"win": won})[::-1])
    assert record.win == 0.875 and record.win_high == 1.0
    half = 3.1824463 * won[:, -1].mean(axis=1).std(ddof=1) / 2
    assert record.win_low == pytest.approx(0.875 - half)
    assert f"0.88 [{record.win_low:.2f}, 1.00]" in tables.text([record])
    (one,) = tables.summary(*study(curves(1), extra={"win": 0 * won[:1]})[::-1])
    assert (one.win, one.win_low) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert one.win_high == pytest.approx(0.32441, abs=1e-4)
    (none,) = tables.summary(*study(curves(4))[::-1])
    assert none.win is None and "win rate" not in tables.text([none])


def test_cells_are_told_apart_and_sorted_by_value():
    runs, rows = [], []
    for name, swept in (
        ("c1", {"beta": 10}),
        ("c2", {"beta": 9.5}),
        ("c3", {}),
        ("deadbeefcafe", {}),
    ):
        more_runs, more_rows = study(curves(2), config=name, swept=swept)
        runs, rows = runs + more_runs, rows + more_rows
    records = tables.summary(rows, runs)
    assert [r.config for r in records] == ["c3", "deadbeefcafe", "c2", "c1"]
    lines = tables.text(records).splitlines()
    assert "omsd (c3)" in lines[1] and "omsd (deadbeef)" in lines[2]
    assert "omsd beta=9.5*" in lines[3] and "omsd beta=10*" in lines[4]
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
    lines = tables.text(records).splitlines()[:4]
    assert len({len(line) for line in lines}) == 1  # right-aligned numbers end in one column
    table = tables.markdown(records).splitlines()[:5]
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


def test_a_wide_table_continues_below_next_to_its_names():
    runs, rows = study(curves(), data_return={"mean": 10.0, "std": 1.0, "episodes": 4})
    (record,) = tables.summary(rows, runs)
    records = [record, record._replace(task="games/another", data_mean=None, share=None)]
    wide = tables.text(records).splitlines()
    narrow = tables.text(records, 60)
    blocks = [block.splitlines() for block in narrow.split("\n\n")]
    assert len(blocks) > 1 and max(map(len, narrow.splitlines())) <= 100
    assert {line.split()[0] for block in blocks for line in block[:3]} == {
        "task",
        "t",
        "games/another",
    }
    cells = [line.split("  ") for block in blocks for line in block[:3]]
    assert all(len("  ".join(line).rstrip()) <= 60 for line in cells)
    for k in range(3):
        words = {word for block in blocks for word in block[k].split()}
        assert words == set(wide[k].split()), "nothing is lost"

"""Differences of systems: paired by seed and start where they can be."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxomarl.results import differences, store, tables


def cells(scores):
    """Records and final rows of systems, name -> {seed -> returns [E]}."""
    runs, final = [], []
    for system, seeds in scores.items():
        for seed, returns in seeds.items():
            info = {
                "system": system,
                "task": "t",
                "data": "d",
                "config": system,
                "cfg": {},
                "swept": {},
                "seed": seed,
            }
            info["final_stage"] = "policy"
            runs.append(store.Run(Path(f"/runs/{len(runs)}"), info))
            final += store.returns_rows(info, "policy", np.array([300]), {"return": returns[None]})
    return tables.summary([], runs, final), final


def study(seeds=4, gap=0.5):
    """Two systems on starts in common, whose part in a return is ten times the policies'."""
    rng = np.random.default_rng(0)
    starts = {s: 50.0 + 10.0 * rng.normal(size=200) for s in range(seeds)}
    return {
        "bc": {s: starts[s] + rng.normal(size=200) for s in range(seeds)},
        "iql": {s: starts[s] + gap + rng.normal(size=200) for s in range(seeds)},
    }


def test_systems_are_paired_by_seed_and_start():
    scores = study()
    records, final = cells(scores)
    (found,) = differences.differences(records, final[::-1])
    apart = np.array([(scores["iql"][s] - scores["bc"][s]).mean() for s in range(4)])
    expected = stats.ttest_1samp(apart, 0.0).confidence_interval(0.95)
    assert (found.leader.system, found.other.system, found.pairs) == ("iql", "bc", 4)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (apart.mean(), expected.low, expected.high)
    )
    assert found.low > 0.2, "half a point stands out of starts that differ by ten"
    other = next(r for r in records if r.system == "bc")
    leader = next(r for r in records if r.system == "iql")
    assert other.mean_high > leader.mean_low, "as the intervals side by side do not show"
    text = differences.markdown([found])
    assert (
        f"| iql | bc | {found.mean:.4g} [{found.low:.4g}, {found.high:.4g}] | 4 |" in text
        and "lean its way" in text
    )


def test_systems_without_a_seed_in_common_are_compared_by_welch():
    scores = study()
    scores["iql"] = {s + 10: x for s, x in scores["iql"].items()}
    (found,) = differences.differences(*cells(scores))
    means = [[x.mean() for x in scores[name].values()] for name in ("iql", "bc")]
    welch = stats.ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    assert found.pairs == 0 and (found.low, found.high) == pytest.approx((welch.low, welch.high))


def test_one_seed_is_paired_by_its_episodes_and_a_diverged_one_is_left_out():
    scores = study(2)
    scores["iql"][1] = np.full(200, np.nan)
    (found,) = differences.differences(*cells(scores))
    apart = scores["iql"][0] - scores["bc"][0]
    expected = stats.ttest_1samp(apart, 0.0).confidence_interval(0.95)
    assert found.pairs == 1 and (found.low, found.high) == pytest.approx(
        (expected.low, expected.high)
    )


def test_nothing_to_compare_is_no_table(tmp_path):
    records, final = cells({"bc": study()["bc"]})
    assert differences.differences(records, final) == [] and differences.markdown([]) == ""
    assert (
        differences.differences([r._replace(starts="common") for r in cells(study())[0]], final)
        == []
    )

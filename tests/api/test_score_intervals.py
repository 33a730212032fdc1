"""The interval of a printed score holds what the same policies get from other starts."""

import pytest

import jaxomarl
from jaxomarl.results import tables
from jaxomarl.training.final import roll_out

SMALL = {
    "policy_steps": 400,
    "policy_batch": 128,
    "policy_width": 32,
    "policy_lr": 0.003,
    "chunk": 40,
    "every": 1,
}
ELSEWHERE = 1000
"""Added to a seed: it gives the policy of that seed other starts and other draws."""


@pytest.fixture(scope="module")
def clones():
    """Four small BC policies on spread, with their final evaluation."""
    return jaxomarl.train(
        "bc", "mpe/spread", "medium", seeds=4, rows=5000, episodes=8, final_episodes=1024, **SMALL
    )


def test_the_interval_of_four_clones_holds_the_mean_of_other_fresh_episodes(clones):
    (record,) = clones.records
    group, past = clones.past[0]
    last = group.system.pipeline(group.task.env.spec, group.cfgs[0], None)[-1].name
    before = {name: state for name, state in past.items() if name != last}
    others = [seed + ELSEWHERE for seed in group.seeds]
    env = group.task.env
    shown = roll_out(
        env, group.system.pipeline, env.spec, group.cfgs, others, past[last], before, 1024
    )["return"]
    assert shown.shape == (4, 1024)
    assert record.mean != pytest.approx(float(shown.mean()), abs=1e-6), "other episodes"
    assert record.mean_low <= shown.mean() <= record.mean_high
    assert record.iqm_low <= shown.mean() <= record.iqm_high
    assert record.mean_high - record.mean_low < 0.2 * record.mean, "and it says something"


def test_the_table_says_what_its_interval_covers(clones):
    (record,) = clones.records
    text = " ".join(tables.text(clones.records).split())
    assert (record.starts, record.episodes, record.covers) == ("fresh", 1024, "seeds and episodes")
    assert (
        "episodes of each 1024, fresh starts" in text
        and "intervals cover seeds and episodes" in text
    )
    assert f"data's mean return {record.data_mean:.1f} ± {record.data_se:.1f}" in text
    assert record.share_low < record.share < record.share_high
    assert record.normalised_low < record.normalised < record.normalised_high

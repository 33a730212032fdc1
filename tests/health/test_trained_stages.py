"""Trained stages are learned, untrained ones short: each pair is one program that sweeps a learning rate from 0."""

import jax
import numpy as np
import pytest

import jaxomarl
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.results import store, tables

NONE, SOME = 1e-9, 3e-3
BRIEF = {"rows": 2000, "chunk": 100, "every": 2, "final_episodes": 16, "episodes": 4}
SMALL = {"policy_width": 16, "policy_batch": 256}
SYSTEMS = {
    "omsd": {
        "critic_lr": [NONE, SOME],
        "score_lr": [NONE, SOME],
        "critic_steps": 300,
        "critic_batch": 256,
        "critic_width": 32,
        "score_steps": 600,
        "score_batch": 256,
        "score_width": 32,
        "policy_steps": 100,
        **SMALL,
    },
    "iql": {
        "critic_lr": [NONE, SOME],
        "critic_steps": 300,
        "critic_batch": 256,
        "critic_width": 32,
        "policy_steps": 100,
        **SMALL,
    },
    "td3-bc": {"critic_lr": [NONE, SOME], "policy_steps": 400, "critic_width": 32, **SMALL},
}
"""System -> settings; a learning rate of NONE leaves a stage as it was built."""
STAGES = [
    ("iql", "critic", "critic_lr"),
    pytest.param("omsd", "scores-conditional", "score_lr", marks=pytest.mark.long),
    ("td3-bc", "policy", "critic_lr"),
]
"""(system, stage, the rate that trains it); OMSD has IQL's critic."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """System -> its results on the bandit."""
    found = {}

    def of(name):
        if name not in found:
            out = tmp_path_factory.mktemp(name)
            settings = BRIEF | SYSTEMS[name]
            found[name] = jaxomarl.train(name, "games/bandit", out=out, progress=False, **settings)
        return found[name]

    return of


def verdicts(results, stage):
    """(the run's settings, its verdict on the stage)."""
    runs = [(run.info["swept"], store.health_of(run)) for run in results.runs]
    return [(swept, {one["stage"]: one for one in health}[stage]) for swept, health in runs]


@pytest.mark.parametrize("system, stage, rate", STAGES)
def test_a_stage_has_learned_where_it_was_trained_and_there_alone(trained, system, stage, rate):
    for swept, said in verdicts(trained(system), stage):
        expected = "learned" if swept[rate] == SOME else "short"
        assert said["verdict"] == expected, said
        assert bool(said["failed"]) == (expected == "short")


def test_a_row_with_a_short_stage_is_marked_and_not_compared(trained):
    results = trained("td3-bc")
    short, learned = sorted(results.records, key=lambda record: record.health == "learned")
    assert (short.health, learned.health) == ("short: policy", "learned")
    text = (results.out / "summary.md").read_text(encoding="utf-8")
    assert f"critic_lr={NONE}†" in text.replace("*", "") and f"critic_lr={SOME}†" not in text
    assert "highest mean" not in text  # one row is left, with nothing to compare it with


def test_figures_are_written_at_each_evaluation_and_the_last_one_is_judged(trained):
    run = next(run for run in trained("td3-bc").runs if run.info["swept"]["critic_lr"] == SOME)
    rows = store.read_rows(run.path / "health.csv")
    curve = [(row.step, row.value) for row in rows if row.metric == "value_correlation"]
    assert [step for step, _ in curve] == [200, 400]
    (said,) = store.health_of(run)
    assert said["figures"]["value_correlation"] == pytest.approx(curve[-1][1])
    assert run.info["held_out"] == {"episodes": 40, "of": 2000}


def test_training_sees_no_held_out_row(trained):
    """Statistics of the training are those of the other rows."""
    (group, past), *_ = trained("td3-bc").past
    left = np.asarray(group.data.left)
    episode = np.cumsum(left == 0) - (left == 0)
    others = ~np.isin(episode, group.held_out.episodes)
    assert others.sum() == 2 * 1960
    mean = np.asarray(group.data.obs)[others].mean(axis=0)
    for own in np.asarray(jax.tree.map(np.asarray, past["stats"].obs_mean)):
        np.testing.assert_allclose(own, mean, atol=1e-6)


@pytest.mark.parametrize(
    ("system", "stages"),
    [
        ("iql", ("critic:", "policy:")),
        pytest.param("omsd", ("critic:", "scores-conditional:", "policy:"), marks=pytest.mark.long),
    ],
)
def test_the_command_shows_figures_and_the_way_out(trained, capsys, system, stages):
    out = trained(system).out
    assert commands.run("health", [str(out)]) == 0
    text = capsys.readouterr().out
    order = [text.index(stage) for stage in stages]
    assert order == sorted(order)
    assert "critic: short" in text and "critic: learned" in text
    assert "1 seed, on 40 of 2000 episodes, held out" in text
    assert "seed 0: value_correlation is" in text
    assert "policy: not judged, nothing is asked of it" in text
    assert "raise or change --cfg.critic-steps, --cfg.critic-batch" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_command_refuses_what_it_cannot_read(trained, tmp_path, capsys):
    assert commands.run("health", [str(tmp_path)]) == 2
    assert "expected a folder with runs" in capsys.readouterr().err

    run = trained("td3-bc").runs[0]
    info = store.read_json(run.path / "run.json")
    (own,) = info["health"]
    wrong = ({"figures": []}, {"figures": {"a": "x"}}, {"verdict": "banana"})
    for damaged in (3, [3], [{}], *([{**own, **change}] for change in wrong)):
        store.write_json(tmp_path / "run.json", {**info, "health": damaged})
        assert commands.run("health", [str(tmp_path)]) == 2
        assert "health" in capsys.readouterr().err
        with pytest.raises(JaxomarlError, match="health"):
            tables.summary([], store.find_runs([tmp_path]))

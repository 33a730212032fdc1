"""Episodes in memory become the same rows as a file's, and each refusal names the episode and the field."""

import numpy as np
import pytest
from refusing import refused

import jaxomarl
from jaxomarl.api.arrays import from_arrays
from jaxomarl.base import Spec
from jaxomarl.data import arrays, catalog
from jaxomarl.data.dataset import content_hash
from jaxomarl.data.raw import blocks
from jaxomarl.envs.catalog import make

SPEC = Spec((3, 2), (2, 1), state_dim=4, horizon=5)
LENGTHS = (5, 3, 4)


def episode(steps, seed=0, **change):
    """An episode of the spec that ends by termination, or by time where it is as long as the horizon."""
    rng = np.random.default_rng(seed)
    made = {
        "obs": [rng.normal(size=(steps + 1, width)) for width in SPEC.obs_dims],
        "action": [rng.uniform(-1, 1, size=(steps, width)) for width in SPEC.act_dims],
        "reward": rng.normal(size=(steps, 2)),
        "terminated": steps < SPEC.horizon,
        "truncated": steps == SPEC.horizon,
        "state": rng.normal(size=(steps + 1, 4)),
    }
    return {name: value for name, value in {**made, **change}.items() if value is not None}


def episodes(**change):
    return [episode(steps, e, **change) for e, steps in enumerate(LENGTHS)]


def test_rows_are_what_was_given():
    given = episodes()
    made = from_arrays(given, SPEC)
    data = made.data
    held = blocks(data)
    assert data.left.tolist() == [5, 4, 3, 2, 1, 0, 3, 2, 1, 0, 4, 3, 2, 1, 0]
    for e, first in enumerate((0, 6, 10)):
        steps = LENGTHS[e]
        for i, (wide, broad) in enumerate(zip(SPEC.obs_dims, SPEC.act_dims, strict=True)):
            obs, action = given[e]["obs"][i], given[e]["action"][i]
            np.testing.assert_array_equal(
                held["obs"][first : first + steps + 1, i, :wide], obs.astype(np.float32)
            )
            np.testing.assert_array_equal(
                held["action"][first : first + steps, i, :broad], action.astype(np.float32)
            )
        np.testing.assert_array_equal(
            held["reward"][first : first + steps], given[e]["reward"].astype(np.float32)
        )
        np.testing.assert_array_equal(
            held["state"][first : first + steps + 1], given[e]["state"].astype(np.float32)
        )
    assert np.flatnonzero(held["done"]).tolist() == [8, 13] and held["known"].all()
    assert made.manifest["quality"] == "arrays" and made.manifest["episodes"] == 3
    assert "12 transitions in 3 episodes" in repr(made)


def test_a_recipes_set_taken_apart_is_the_same_again():
    task = make("mpe/spread")
    data, _ = catalog.load(task, "random", rows=100)
    held, starts = blocks(data), np.flatnonzero(np.asarray(data.step) == 0)
    given = []
    for first in starts:
        rows = slice(first, first + int(data.left[first]) + 1)
        part = {name: held[name][rows] for name in ("obs", "action", "reward", "state")}
        given.append(
            {**part, "action": part["action"][:-1], "reward": part["reward"][:-1], "done": True}
        )
    made = from_arrays(given, "mpe/spread", name="mine")
    np.testing.assert_array_equal(made.data.rows, data.rows)
    assert made.manifest["quality"] == "mine" and made.manifest["origin"]["time_outs"] == len(
        starts
    )
    assert any("time-outs: done = 0" in line for line in made.repairs)


def test_one_array_for_all_agents_and_a_common_reward():
    given = episodes()
    for one in given:
        one["obs"] = np.stack(
            [np.pad(x, ((0, 0), (0, 3 - x.shape[1]))) for x in one["obs"]], axis=1
        )
        one["action"] = np.stack(
            [np.pad(x, ((0, 0), (0, 2 - x.shape[1]))) for x in one["action"]], axis=1
        )
    assert content_hash(from_arrays(given, SPEC).data) == content_hash(
        from_arrays(episodes(), SPEC).data
    )
    for one in given:
        one["reward"] = one["reward"][:, 0]
    reward = np.asarray(from_arrays(given, SPEC).data.reward)
    assert (reward[:, 0] == reward[:, 1]).all() and reward.any()


def test_a_successor_that_was_not_given_is_unknown():
    given = episodes()
    for one in given:
        one["obs"] = [x[:-1] for x in one["obs"]]
        one["state"] = one["state"][:-1]
    made = from_arrays(given, SPEC)
    assert np.flatnonzero(np.asarray(made.data.known) == 0).tolist() == [4, 8, 13]
    np.testing.assert_array_equal(made.data.obs[5], made.data.obs[4])
    assert made.manifest["origin"]["unknown_successors"] == 3


def test_flags_by_step_and_discrete_actions():
    spec = Spec((1, 1), (3, 2), state_dim=2, horizon=4, discrete=True)
    rng = np.random.default_rng(0)
    given = [
        {
            "obs": rng.normal(size=(4, 2, 1)),
            "action": np.array([[0, 1], [2, 0], [1, 1]]),
            "reward": np.zeros(3),
            "terminated": np.array([0, 0, 1]),
            "available": np.ones((4, 2, 3)) * np.array([[1, 1, 1], [1, 1, 0]]),
        }
    ]
    data = from_arrays(given, spec).data
    assert np.asarray(data.action)[:3].argmax(axis=2).tolist() == [[0, 1], [2, 0], [1, 1]]
    given[0]["available"][1, 0, 2] = 0
    refused(lambda: from_arrays(given, spec), "data, action", "row 1 (episode 0, step 1)")
    refused(
        lambda: from_arrays([{**given[0], "action": np.full((3, 2), 2)}], spec),
        "data, episode 0, action of agent 1",
    )


def with_change(e, **change):
    given = episodes()
    given[e].update(change)
    return given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"obs": 1}, ["data, episodes", "a list of episodes"]),
        ([], ["data, episodes", "at least one"]),
        ([*episodes(), 3], ["data, episode 3", "a dict of arrays"]),
        (episodes(reward=None), ["data, episode 0, reward", "this entry"]),
        (with_change(1, rewards=1), ["data, episode 1", "'rewards'", "Did you mean reward?"]),
        ([*episodes(), episode(3, state=None)], ["data, episode 3", "the entries of episode 0"]),
        (with_change(2, done=True), ["data, episode 2, done", "one way"]),
        (with_change(1, reward=np.zeros((4, 2))), ["data, episode 1, reward", "3 rows", "4"]),
        (with_change(1, reward=np.zeros((3, 3))), ["data, episode 1, reward", "shape (3, 2)"]),
        (with_change(1, reward=["a"] * 3), ["data, episode 1, reward", "an array of real numbers"]),
        (with_change(1, reward=[[1, 2], [3]]), ["data, episode 1, reward", "an array of numbers"]),
        (with_change(2, obs=[np.zeros((5, 3))]), ["data, episode 2, obs", "2 agents", "1"]),
        (
            with_change(2, obs=[np.zeros((5, 3)), np.zeros((4, 2))]),
            ["data, episode 2, obs of agent 1", "5 rows"],
        ),
        (
            with_change(2, obs=[np.zeros((7, 3)), np.zeros((7, 2))]),
            ["data, episode 2, obs", "4 or 5 rows", "7"],
        ),
        (
            with_change(2, obs=[np.zeros((5, 4)), np.zeros((5, 2))]),
            ["data, episode 2, obs of agent 0", "3 columns"],
        ),
        (with_change(2, obs=np.zeros((5, 6))), ["data, episode 2, obs", "3 axes", "(5, 6)"]),
        (with_change(2, obs=np.zeros((5, 3, 3))), ["data, episode 2, obs", "2 agents", "3"]),
        (with_change(1, state=np.zeros((3, 4))), ["data, episode 1, state", "4 rows"]),
        (
            with_change(1, terminated=np.array([1, 0, 1])),
            ["data, episode 1, terminated", "the last step only"],
        ),
        (with_change(1, terminated=0.5), ["data, episode 1, terminated", "zeros and ones"]),
        (with_change(1, terminated=np.ones(2)), ["data, episode 1, terminated", "3 rows"]),
        (
            with_change(0, action=[np.zeros((0, 2)), np.zeros((0, 1))]),
            ["data, episode 0, action", "at least one step"],
        ),
        # by the checks of `fit`
        (
            with_change(1, reward=np.full((3, 2), np.nan)),
            ["data, reward of agent 0", "episode 1, step 0"],
        ),
        (
            with_change(1, action=[np.full((3, 2), 2.0), np.zeros((3, 1))]),
            ["action of agent 0", "episode 1, step 0"],
        ),
        (with_change(1, terminated=False), ["data, episodes", "3 steps", "episode 1, step 2"]),
        ([*episodes(), episode(6)], ["data, episode length", "at most 5 steps"]),
    ],
)
def test_what_does_not_fit_is_named(given, words):
    refused(lambda: from_arrays(given, SPEC), *words)


def test_names_and_widths():
    refused(
        lambda: from_arrays(episodes(), SPEC, name="a/b"),
        "name: expected a name that can be a folder's",
    )
    wide = Spec((4, 2), (2, 1), state_dim=4, horizon=5)
    refused(
        lambda: from_arrays(episodes(), wide), "data, obs widths of the agents", "(4, 2)", "(3, 2)"
    )


def test_what_is_missing_names_arrays_and_no_path():
    text = refused(
        lambda: from_arrays(episodes(state=None), SPEC), "data, state width", "jaxomarl.from_arrays"
    )
    assert "PATH" not in text
    text = refused(
        lambda: from_arrays(with_change(1, terminated=False), SPEC), "data, episodes", "from_arrays"
    )
    assert "PATH" not in text


def test_every_entry_is_described():
    for name in arrays.ENTRIES:
        assert f"| {name} |" in str(arrays.__doc__)


# --- training on them ---


def bandit_episodes(count=40):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, size=(count, 1, 2, 1))
    one = np.ones((2, 2, 1))
    made = {"obs": one, "state": np.ones((2, 1)), "terminated": True}
    return [
        {**made, "action": action, "reward": action[:, 0, 0] * action[:, 1, 0]}
        for action in actions
    ]


def test_training_takes_them(tmp_path):
    made = jaxomarl.from_arrays(bandit_episodes(), "games/bandit", name="mine")
    settings = {"episodes": 2, "final_episodes": 3, "scale": 0.003}
    results = jaxomarl.train("bc", "games/bandit", data=made, out=tmp_path / "out", **settings)
    (record,) = results.records
    assert record.data == "mine" and (tmp_path / "out/games-bandit/mine").is_dir()
    made.save(tmp_path / "set")
    again = jaxomarl.train("bc", "games/bandit", data=str(tmp_path / "set"), **settings)
    np.testing.assert_array_equal(again.returns["bc"], results.returns["bc"])

    refused(
        lambda: jaxomarl.train("bc", "games/bandit", data=made, rows=3),
        "rows=: expected nothing with",
    )
    refused(
        lambda: jaxomarl.train("bc", "games/consensus:n=4", data=made),
        "data: expected a set made for the spec of",
    )

"""Cards, comparisons and the estimate of modes, on rows whose answers are known."""

import json

import numpy as np
import pytest

from jaxomarl.data import card, modes
from jaxomarl.data.catalog import load
from jaxomarl.data.compare import compare
from jaxomarl.data.raw import Raw, from_dataset
from jaxomarl.envs.catalog import make


def raw(lengths, policy=None, widths=(5, 5), seed=0, **changes):
    """Episodes of standard normal observations; `policy(i, episode, obs)` gives agent i's actions."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths)
    step = np.concatenate([np.arange(n + 1) for n in lengths]).astype(np.int32)
    episode = np.repeat(np.arange(len(lengths)), lengths + 1)
    left = (lengths[episode] - step).astype(np.int32)
    now = (left > 0).astype(np.float32)
    obs = tuple(rng.standard_normal((len(step), w)).astype(np.float32) for w in widths)
    policy = policy or (lambda i, e, o: np.tanh(o[:, :2]))
    action = tuple(
        (policy(i, episode, o) * now[:, None]).astype(np.float32) for i, o in enumerate(obs)
    )
    reward = rng.standard_normal((len(step), len(widths))).astype(np.float32) * now[:, None]
    zeros = np.zeros(len(step), np.float32)
    held = Raw(
        "jaxomarl",
        obs,
        action,
        reward,
        zeros,
        step,
        left,
        np.ones(len(step), np.float32),
        zeros.astype(np.int32),
    )
    return held._replace(**changes)


# --- the card ---


def test_counts_ends_and_returns_are_those_of_the_rows():
    r = raw([3, 5, 4])
    done, known = r.done.copy(), r.known.copy()
    done[2], done[5], known[8] = (
        1.0,
        1.0,
        0.0,
    )  # the first episode's last transition, one within the second, its last
    c = card.describe(r._replace(done=done, known=known), "x")
    assert (
        c["counts"]["transitions"] == 12
        and c["counts"]["rows"] == 15
        and c["counts"]["episodes"] == 3
    )
    assert c["counts"]["length"] == {"min": 3, "median": 4, "max": 5}
    ends = {
        "terminations": 1,
        "time_outs": 2,
        "stray": 1,
        "distinct": True,
        "unknown_successors": 1,
    }
    assert c["ends"] == ends
    sums = [r.reward[a:b].mean(axis=1).sum() for a, b in ((0, 4), (4, 10), (10, 15))]
    assert c["return"]["mean"] == pytest.approx(np.mean(sums), rel=1e-5)
    assert sum(c["return"]["histogram"]["counts"]) == 3
    assert "no task" in c["return"]["note"] and c["return"]["normalised"] is None


def test_actions_at_and_beyond_the_bound_are_counted():
    r = raw([4, 4])
    action = tuple(
        np.where(r.left[:, None] > 0, np.float32(0.5), 0).repeat(2, axis=1) for _ in range(2)
    )
    action[0][0], action[1][2] = (1.0, -1.5), (-1.0, 0.999)
    found = card.describe(r._replace(action=action), "x")["actions"]
    assert found == {
        "min": -1.5,
        "max": 1.0,
        "saturated": 3 / 32,
        "beyond": 1 / 32,
    }  # successor rows do not count


def test_discrete_actions_are_shares():
    r = raw([4], policy=lambda i, e, o: np.eye(3)[np.array([0, 1, 1, 2, 0])], discrete=True)
    found = card.describe(r, "x")["actions"]
    assert found == {"share": [[0.25, 0.5, 0.25]] * 2}
    legal = np.ones((5, 2, 3))
    legal[1, 0, 2] = legal[4, :, 0] = 0.0  # the last is a successor row, which does not count
    found = card.describe(r._replace(available=legal), "x")["actions"]
    assert found["legal"] == [[1.0, 1.0, 0.75], [1.0, 1.0, 1.0]]


def test_repeated_rows_are_counted_whatever_the_sign_of_zero():
    r = raw([4, 4], widths=(2,), policy=lambda i, e, o: 0 * o)
    obs = r.obs[0].copy()
    obs[1], obs[6] = obs[0], obs[2]
    obs[3], obs[7] = 0.0, -0.0
    assert card.duplicates([obs], r.left > 0) == 3 / 8
    assert card.duplicates([obs, np.arange(20.0).reshape(10, 2)], r.left > 0) == 0.0


def test_values_that_are_not_finite_are_counted_and_the_card_is_json():
    r = raw([4, 4])
    obs, reward = r.obs[0].copy(), r.reward.copy()
    obs[0, 0], obs[3], reward[1, 0] = np.nan, np.inf, np.nan
    c = card.describe(r._replace(obs=(obs, r.obs[1]), reward=reward), "x")
    assert c["not_finite"] == {"obs": 6, "action": 0, "reward": 1, "state": 0}
    held = obs[np.isfinite(obs[:, 0]), 0]
    column = c["columns"][0]["obs"][0]
    assert column["mean"] == pytest.approx(held.mean(), abs=1e-6) and column["max"] == held.max()
    json.dumps(c, allow_nan=False)
    assert c["return"]["mean"] == pytest.approx(
        reward[5:].mean(axis=1).sum(), abs=1e-5
    )  # of the other episode


def test_the_task_names_columns_team_and_references():
    task = make("mpe/tag")
    r = raw([25, 25], widths=(16, 16, 16, 14), dialects=("mpe-own-prey",))
    c = card.describe(r, "x", task)
    names = [[column["name"] for column in agent["obs"]] for agent in c["columns"]]
    assert names[1][:5] == ["own vel x", "own vel y", "own pos x", "own pos y", "obstacle 0 dx"]
    assert names[1][8:] == [
        "predator 0 dx", "predator 0 dy", "predator 2 dx", "predator 2 dy", "prey dx", "prey dy",
        "prey vel x", "prey vel y",
    ]  # fmt: skip
    assert names[3][0] == "obs 0"  # the prey is no agent of the task
    first = np.add.reduceat(r.reward[:, 0].astype(float), [0, 26])
    assert c["return"]["mean"] == pytest.approx(first.mean())
    assert c["return"]["normalised"] == pytest.approx(task.scale.normalise(first.mean()))
    foreign = card.describe(r._replace(dialects=("mpe-omar",)), "x", task)["return"]
    assert (
        foreign["normalised"] is None
        and "mpe-omar" in foreign["note"]
        and "mpe-own-prey" in foreign["note"]
    )


@pytest.mark.parametrize("name", ["mpe/spread", "mpe/tag", "mpe/world", "mpe/six"])
def test_column_names_are_the_observations_in_their_order(name):
    import jax

    task = make(name)
    assert [len(x) for x in task.fields.obs] == list(task.env.spec.obs_dims)
    scene, first = task.env.reset(jax.random.key(0))
    n = len(scene.vel)
    obs = np.asarray(first.obs)
    for i, names in enumerate(task.fields.obs):
        at = {called: float(x) for called, x in zip(names, obs[i], strict=True)}
        assert len(at) == len(names)
        here = np.asarray(scene.pos[i])
        assert [at["own pos x"], at["own pos y"]] == here.tolist()
        kind = "predator" if "prey" in names[-1] or "prey dx" in names else "agent"
        for j in [j for j in range(3) if j != i]:
            assert at[f"{kind} {j} dx"] == pytest.approx(float(scene.pos[j, 0]) - here[0], abs=1e-6)
        if "prey dx" in at:
            assert at["prey dy"] == pytest.approx(float(scene.pos[3, 1]) - here[1], abs=1e-6)
        marks = [k for k in names[4:] if k.endswith("dx") and not k.startswith((kind, "prey"))]
        for k, mark in enumerate(marks):
            assert at[mark] == pytest.approx(float(scene.pos[n + k, 0]) - here[0], abs=1e-6)


# --- the modes ---


def test_policies_that_differ_are_told_apart_and_one_is_one():
    maps = np.random.default_rng(1).standard_normal((3, 2, 5, 2))

    def policy(count):
        noise = np.random.default_rng(2)
        return lambda i, e, o: (
            np.tanh(np.einsum("mo,moa->ma", o, maps[e % count, i]))
            + 0.1 * noise.normal(size=(len(o), 2))
        )

    found = {count: modes.estimate(raw([15] * 300, policy(count))) for count in (1, 3)}
    assert {count: f.count for count, f in found.items()} == {1: 1, 3: 3}
    assert found[1].dispersion == 0.0 and found[3].dispersion > 0.5
    assert found[3] == modes.estimate(raw([15] * 300, policy(3)))


def test_noise_is_one_mode_and_few_episodes_have_no_estimate():
    noise = np.random.default_rng(3)
    policy = lambda i, e, o: noise.uniform(-1, 1, (len(o), 2))
    assert modes.estimate(raw([10] * 200, policy)).count == 1
    assert modes.estimate(raw([10] * 29)) is None


def test_known_behaviours_are_listed_with_their_returns():
    r = raw([4] * 6)
    behaviour = np.repeat([7, 9, 7, 7, 9, 7], 5).astype(np.int32)
    found = card.describe(r._replace(behaviour=behaviour), "x")["behaviours"]
    returns = r.reward.mean(axis=1).reshape(6, 5).sum(axis=1)
    assert found["known"] and found["count"] == 2 and found["estimate"] is None
    assert found["each"]["9"] == {
        "episodes": 2,
        "return": pytest.approx(returns[[1, 4]].mean(), abs=1e-6),
    }


# --- comparisons ---


def test_a_set_is_the_same_as_itself_with_another_name():
    r = raw([4, 6])
    found = compare(r, r._replace(format="omar", behaviour=r.behaviour + 1))
    assert found["same"] and not found["rows"] and not found["columns"]
    assert found["return"]["ks_distance"] == 0.0
    assert any("format" in x for x in found["beside"]) and any(
        "behaviours" in x for x in found["beside"]
    )


def test_one_number_is_found():
    r = raw([4, 6])
    obs = r.obs[1].copy()
    obs[7, 2] += 1.0
    found = compare(r, r._replace(obs=(r.obs[0], obs)))
    assert not found["same"]
    (row,) = found["rows"]
    assert (row["field"], row["row"], row["differ"]) == ("obs of agent 1", 7, 1)
    (column,) = found["columns"]
    assert column["column"] == "obs of agent 1, column 2"
    assert column["mean_b"] - column["mean_a"] == pytest.approx(0.1)


def test_ends_and_shapes_count():
    r = raw([4, 6])
    done = r.done.copy()
    done[3] = 1.0
    found = compare(r, r._replace(done=done))
    assert not found["same"] and found["rows"][0]["field"] == "done"
    assert (found["counts"]["a"]["terminations"], found["counts"]["b"]["terminations"]) == (0, 1)
    assert "reward" in compare(r, raw([4, 5]))["shapes"]
    assert compare(r, raw([4, 6], widths=(5,)))["shapes"]["agents"] == {"a": 2, "b": 1}
    assert compare(r, raw([4, 6], widths=(5, 6)))["shapes"]["obs of agent 1"] == {
        "a": [12, 5],
        "b": [12, 6],
    }


@pytest.mark.parametrize("named", [True, False])
def test_ends_of_a_task_that_never_terminates_are_time_outs(named):
    """In a format that marks every end alike, with its task named and by what its rows look like."""
    task = make("mpe/spread")
    ours = from_dataset(load(task, "random", 100)[0], task.env.spec, "random")
    marked = ours._replace(done=(ours.left == 1).astype(np.float32), distinct=False, format="omar")
    found = compare(marked, ours, task if named else None)
    assert found["same"] and found["counts"]["a"] == found["counts"]["b"]
    assert found["counts"]["a"]["terminations"] == 0
    assert found["counts"]["a"]["time_outs"] == found["counts"]["a"]["episodes"] == 4


def test_ends_of_a_task_that_may_terminate_stay_as_they_are():
    r = raw([4, 6])
    marked = r._replace(done=(r.left == 1).astype(np.float32))
    counts = compare(marked, r)["counts"]
    assert (counts["a"]["terminations"], counts["a"]["time_outs"]) == (2, 0)
    assert (counts["b"]["terminations"], counts["b"]["time_outs"]) == (0, 2)


def test_shifted_returns_are_far_in_distribution():
    a = raw([5] * 40)
    b = a._replace(reward=a.reward + np.where(a.left[:, None] > 0, np.float32(9.0), 0))
    found = compare(a, b)["return"]
    assert found["ks_distance"] == 1.0 and found["b"] - found["a"] == pytest.approx(45.0, abs=1e-4)

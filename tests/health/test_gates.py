"""A stage that knows what there is to know has learned, one that knows nothing is short, one of NaN has diverged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import Algorithm, Episodes, Gate, Spec
from jaxomarl.data.dataset import pack
from jaxomarl.diffusion.schedules import vp
from jaxomarl.health import behaviour, critics, scores, verdict
from jaxomarl.health.figures import returns_to_go

SPEC = Spec((3, 2), (2, 1), 4, horizon=6, team="mean")
GAMMA = 0.9
EPISODES, LENGTH = 60, 6


@pytest.fixture(scope="module")
def held():
    return episodes()


def episodes(paid=None):
    """Episodes whose actions are a curved function of observations, with noise; rewards follow both, or are `paid`."""
    rng = np.random.default_rng(0)
    rows = EPISODES * (LENGTH + 1)
    left = np.tile(np.arange(LENGTH, -1, -1), EPISODES)
    obs = rng.normal(size=(rows, 2, 3)) * SPEC.obs_mask
    action = np.sin(3.0 * obs[..., :2]) * SPEC.act_mask
    action = np.clip(action + 0.05 * rng.normal(size=action.shape), -1.0, 1.0) * SPEC.act_mask
    action[left == 0] = 0.0
    reward = obs[:, :, 0] + action[..., 0]
    if paid is not None:
        reward = np.full_like(reward, paid)
    return pack(
        Episodes(
            obs=jnp.asarray(obs, jnp.float32),
            state=jnp.asarray(rng.normal(size=(rows, 4)), jnp.float32),
            action=jnp.asarray(action, jnp.float32),
            reward=jnp.asarray(np.where(left[:, None] > 0, reward, 0.0), jnp.float32),
            done=jnp.zeros(rows),
            step=jnp.asarray(LENGTH - left),
            left=jnp.asarray(left),
            behaviour=jnp.zeros(rows, jnp.int32),
        ),
        SPEC,
    )


def judged(health, held, state=()):
    figures = jax.jit(health.measure)(jax.random.key(0), state, {}, held)
    figures = {name: float(x) for name, x in figures.items()}
    return verdict.judge(health.gates, figures), figures


# --- critics ---


def critic_of(values, reward="own"):
    return critics.critic(values, GAMMA, reward, ("critic_steps",))


def true_returns(held):
    starts = np.asarray(held.starts)
    return np.asarray(returns_to_go(held.reward, held.left, GAMMA))[starts]


def test_a_critic_that_is_the_return_has_learned(held):
    own = jnp.asarray(true_returns(held))
    said, figures = judged(critic_of(lambda state, past, obs, s, a: own), held)
    assert said == (verdict.LEARNED, ())
    assert figures["value_correlation"] == pytest.approx(1.0, abs=1e-5)
    assert figures["value_bias"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("reward", ["team", "first", "own"])
def test_a_joint_critic_is_compared_with_its_own_reward(held, reward):
    own = true_returns(held)
    joint = {"team": own.mean(axis=1), "first": own[:, 0], "own": own.sum(axis=1)}[reward]
    values = lambda state, past, obs, s, a: jnp.asarray(joint) + 10.0 * own.std()
    said, figures = judged(critic_of(values, reward), held)
    assert said.word == verdict.LEARNED
    assert figures["value_bias"] == pytest.approx(10.0 * own.std() / joint.std(), rel=1e-3)


def test_a_critic_that_ranks_by_chance_is_short_and_says_by_what(held):
    noise = jax.random.normal(jax.random.key(1), (EPISODES * LENGTH, 2))
    said, _ = judged(critic_of(lambda state, past, obs, s, a: noise), held)
    assert said.word == verdict.SHORT
    assert said.failed[0].startswith("value_correlation is ") and "at least 0.3" in said.failed[0]


def test_a_critic_that_knows_the_time_alone_is_short(held):
    """Q = the mean return of each step: it ranks all rows well, and tells no two of one step apart."""
    starts = np.asarray(held.starts)
    step = np.asarray(held.step)[starts]
    own = true_returns(held) + 100.0 * (LENGTH - step)[:, None]
    by_step = np.stack([own[step == s].mean(axis=0) for s in range(LENGTH)])[step]
    said, figures = judged(critic_of(lambda state, past, obs, s, a: jnp.asarray(by_step)), held)
    assert said.word == verdict.SHORT and abs(figures["value_correlation"]) < 0.3


@pytest.mark.parametrize("paid", [0.0, 1.0])
def test_a_critic_of_returns_that_are_all_alike_is_not_judged(paid):
    """As in data of XOR's two good cells: every reward is the same, and only the step tells returns apart."""
    noise = jax.random.normal(jax.random.key(1), (EPISODES * LENGTH, 2))
    said, figures = judged(critic_of(lambda state, past, obs, s, a: noise), episodes(paid))
    assert said == (verdict.UNJUDGED, ()) and np.isnan(figures["returns_differ"])


def test_a_critic_of_nan_has_diverged(held):
    nothing = jnp.full((EPISODES * LENGTH, 2), jnp.nan)
    said, _ = judged(critic_of(lambda state, past, obs, s, a: nothing), held)
    assert said.word == verdict.DIVERGED


def test_the_gap_is_of_actions_alone(held):
    by_action = lambda state, past, obs, s, a: a.sum(axis=(1, 2))
    by_state = lambda state, past, obs, s, a: s.sum(axis=1)
    assert judged(critic_of(by_state, "team"), held)[1]["action_gap"] == 0.0
    assert (
        abs(judged(critic_of(by_action, "team"), held)[1]["action_gap"]) < 1e-5
    )  # the same on average


# --- behaviour ---


def acting(play):
    act = lambda key, state, past, memory, seen: (SPEC.act_mask * play(key, seen.obs), memory)
    nothing = lambda *args: None
    return Algorithm(nothing, nothing, nothing, act)


def right(key, obs):
    return jnp.sin(3.0 * obs[..., :2])


def drawn(key, obs):
    return jnp.clip(right(key, obs) + 0.05 * jax.random.normal(key, (2, 2)), -1.0, 1.0)


@pytest.mark.parametrize("play, draws", [(right, False), (drawn, True)])
def test_a_clone_that_is_right_has_learned(held, play, draws):
    said, figures = judged(behaviour.clone(SPEC, acting(play), draws, ("policy_steps",)), held)
    assert said.word == verdict.LEARNED
    assert figures["action_error"] < 0.3 * figures["mean_error"]
    if draws:
        assert figures["energy_score"] < 0.3 * figures["shuffled_score"]
    else:
        assert (
            figures["action_error"] < 0.5 * figures["linear_error"] <= 1.05 * figures["mean_error"]
        )


@pytest.mark.parametrize("draws", [False, True])
def test_a_clone_that_knows_nothing_is_short(held, draws):
    blind = lambda key, obs: jax.random.uniform(key, (2, 2), minval=-1.0)
    said, figures = judged(behaviour.clone(SPEC, acting(blind), draws, ("policy_steps",)), held)
    assert said.word == verdict.SHORT, figures


def test_nothing_is_asked_of_a_policy_that_may_leave_the_data(held):
    far = lambda key, obs: jnp.ones((2, 2))
    said, figures = judged(behaviour.policy(SPEC, acting(far)), held)
    assert said.word == verdict.UNJUDGED and figures["at_bounds"] == 1.0


# --- scores ---


def score_health(model, last_time=0.98):
    """Health of models that predict the clean action `model(x, t, obs)`."""

    def eps(state, past, x, t, z, obs, env_state, action):
        alpha, sigma = (f(t)[:, None, None] for f in vp())
        return (x - alpha * model(x, t, obs)) / sigma

    condition = lambda past, obs, s, a: obs
    return scores.score_model(SPEC, vp(), eps, condition, last_time, ("score_steps",))


def test_a_score_model_that_knows_the_condition_has_learned(held):
    said, figures = judged(score_health(lambda x, t, obs: SPEC.act_mask * right(None, obs)), held)
    assert said.word == verdict.LEARNED
    assert figures["score_error_0.98"] < 0.3 * figures["mean_error"]


def test_a_score_model_that_gives_the_noisy_action_back_is_short(held):
    said, figures = judged(score_health(lambda x, t, obs: x), held)
    assert said.word == verdict.SHORT
    assert figures["score_error_0.2"] < figures["score_error_0.98"]


def test_a_score_model_is_judged_where_policies_ask(held):
    """Right up to t = 0.5 and useless beyond: learned for weights that end there."""

    def model(x, t, obs):
        return jnp.where(t[0] <= 0.5, SPEC.act_mask * right(None, obs), 9.0)

    assert judged(score_health(model, 0.5), held)[0].word == verdict.LEARNED
    assert judged(score_health(model, 0.02), held)[0].word == verdict.LEARNED
    said, figures = judged(score_health(model, 0.98), held)
    assert said.word == verdict.SHORT
    ratio = figures["score_error_0.98"] / figures["linear_error_0.98"]
    assert figures["excess_error"] == pytest.approx(ratio, rel=1e-5)


# --- the words ---


def test_a_row_is_as_good_as_the_worst_stage_of_half_of_its_runs():
    learned = {"critic": "learned", "policy": "not judged"}
    short = {"critic": "short", "scores": "short", "policy": "not judged"}
    assert verdict.of_runs([learned] * 4) == "learned"
    assert verdict.of_runs([short]) == "short: critic, scores"
    assert verdict.of_runs([short, learned]) == "short: critic in 1 of 2, scores in 1 of 2"
    assert verdict.of_runs([short, learned, learned]) == "learned"
    assert verdict.of_runs([short | {"policy": "diverged"}]) == "diverged: policy"
    assert verdict.of_runs([{"policy": "not judged"}]) == ""
    assert verdict.of_runs([{}]) == ""


def test_a_reference_that_is_not_finite_asks_nothing():
    gate = Gate("error", at_most=1.0, times="linear")
    assert verdict.judge([gate], {"error": 3.0, "linear": float("nan")}).word == verdict.LEARNED
    assert verdict.judge([gate], {"error": 3.0, "linear": 2.0}).failed == (
        "error is 3, at most 2 (linear) is asked",
    )


def test_a_critic_that_nobody_follows_is_not_judged():
    """At beta 0 the policies of OMSD climb no critic."""
    for name in ("omsd", "brpo-ctde", "brpo-ind"):
        system = REGISTRY[name]
        for beta, gates in ((0.0, 0), (0.1, 2)):
            critic = system.pipeline(SPEC, system.Config(beta=beta), None)[0]
            assert len(critic.health.gates) == gates
            assert critic.health.measure is not None
    for name, weight in (("td3-bc", "alpha"), ("dom2", "eta"), ("edp", "eta"), ("dof-p", "eta")):
        system = REGISTRY[name]
        for value, gates in ((0.0, 0), (0.1, 2)):
            (policy,) = system.pipeline(SPEC, system.Config(**{weight: value}), None)
            assert len(policy.health.gates) == gates


# --- the nearest action of the data ---


NEAREST = ("nearest_distance", "nearest_data_distance", "nearest_random_distance")


def nearest_of(play, data):
    """(of the policy, of the data, of uniform actions) and all figures of a stage that acts."""
    _, figures = judged(behaviour.policy(SPEC, acting(play)), data)
    return [figures[name] for name in NEAREST], figures


def test_a_random_policy_is_far_from_the_data_and_a_clone_is_near(held):
    blind = lambda key, obs: jax.random.uniform(key, (2, 2), minval=-1.0)
    (far, data, random), _ = nearest_of(blind, held)
    (near, same_data, same_random), _ = nearest_of(right, held)
    assert far == pytest.approx(random, rel=0.15) and far > 2.0 * data
    assert near < 1.1 * data
    assert (same_data, same_random) == (data, random), "references do not depend on the policy"


def test_clones_of_every_kind_have_the_figures(held):
    for draws, play in ((False, right), (True, drawn)):
        _, figures = judged(behaviour.clone(SPEC, acting(play), draws, ()), held)
        assert figures["nearest_distance"] < 0.6 * figures["nearest_random_distance"]


@pytest.fixture(scope="module")
def two_modes():
    """Episodes of one step and one observation, whose agents play 0.8 or -0.8."""
    rng = np.random.default_rng(1)
    count = 200
    action = np.zeros((2 * count, 2, 2))
    action[::2] = 0.8 * rng.choice([-1.0, 1.0], (count, 2, 1)) + 0.02 * rng.normal(
        size=(count, 2, 2)
    )
    zeros = np.zeros(2 * count)
    step = np.tile([0, 1], count)
    return pack(
        Episodes(
            obs=jnp.ones((2 * count, 2, 3)) * SPEC.obs_mask,
            state=jnp.zeros((2 * count, 4)),
            action=jnp.asarray(action * SPEC.act_mask, jnp.float32),
            reward=jnp.zeros((2 * count, 2)),
            done=jnp.asarray(zeros, jnp.float32),
            step=jnp.asarray(step),
            left=jnp.asarray(1 - step),
            behaviour=jnp.asarray(zeros, jnp.int32),
        ),
        SPEC,
    )


def test_either_mode_is_near_the_data_and_their_mean_is_not(two_modes):
    """Where all rows are alike, all of them are similar."""
    other, figures = nearest_of(lambda key, obs: jnp.full((2, 2), 0.8), two_modes)
    mean, of_mean = nearest_of(lambda key, obs: jnp.zeros((2, 2)), two_modes)
    assert other[0] < 0.03 and mean[0] == pytest.approx(0.76, abs=0.04)
    assert figures["action_error"] > of_mean["action_error"], (
        "the error of one draw prefers the mean"
    )


def test_similar_rows_are_at_the_ten_smallest_distances_and_not_the_row_itself():
    every = jnp.asarray(np.arange(40.0, dtype=np.float32)[:, None] * np.array([1.0, 0.0]) + 5.0)
    itself = jnp.arange(40)[:, None] == jnp.arange(40)[None]
    found = np.asarray(behaviour.similar_rows(every, every, itself))
    assert set(np.flatnonzero(found[20])) == {*range(10, 31)} - {20}
    assert set(np.flatnonzero(found[0])) == set(range(1, 11))

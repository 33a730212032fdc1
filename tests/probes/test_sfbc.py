"""MA-SfBC: the best of its candidates under an exact critic, returns planned along trajectories, the better mode."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import MODE, PAST, SPEC, far, jit, refused, trained, two_modes
from judges import given, likes_the_good_mode, modes

from jaxomarl.algorithms import sfbc
from jaxomarl.base import Observation
from jaxomarl.data.dataset import BLOCK, every_row
from jaxomarl.losses.planning import planned_returns
from jaxomarl.policies.diffusion import sample

CFG = sfbc.Config(
    policy_batch=64, policy_width=16, policy_lr=1e-2, critic_width=16, critic_batch=64, critic_lr=1e-2, clip=10.0,
    levels=8, candidates=12, value_samples=4, rounds=2, critic_steps=200, gamma=0.5,
)  # fmt: skip
SEEN = Observation(jnp.asarray(SPEC.obs_mask), jnp.asarray(SPEC.act_mask > 0))


@pytest.fixture(scope="module")
def behaviour():
    """Clones of two modes."""
    return jit(lambda data: trained(sfbc.behaviour_diffusion(SPEC, CFG), data, 2000))(two_modes())


@pytest.fixture(scope="module")
def past(behaviour):
    return {**PAST, "behaviour": behaviour}


def acting(past, state, **changed):
    """(algorithm under exact critics, its actions [200, N, A])."""
    with given(sfbc, likes_the_good_mode, members=1):
        algorithm = sfbc.policy(SPEC, dataclasses.replace(CFG, **changed))[0]
    one = lambda key: algorithm.act(key, state, past, (), SEEN)[0]
    return np.asarray(jit(jax.vmap(one))(jax.random.split(jax.random.key(9), 200)))


@pytest.fixture(scope="module")
def state(past):
    with given(sfbc, likes_the_good_mode, members=1):
        return sfbc.policy(SPEC, CFG)[0].init(jax.random.key(0), past, two_modes(2))


def test_it_plays_the_best_of_its_candidates_under_an_exact_critic(past, state):
    """The candidates are drawn again with the same keys; of twelve, nearest to MODE is played, agent for agent."""
    actions = acting(past, state, select="argmax")[:20]
    diffuser = sfbc.diffusion(SPEC, CFG)

    def candidates(key, model, mask):
        return sample(diffuser, key, model, jnp.broadcast_to(mask, (CFG.candidates, 2)), mask)

    keys = jax.vmap(lambda key: jax.random.split(jax.random.split(key)[0], 2))(
        jax.random.split(jax.random.key(9), 200)[:20]
    )
    draw = jit(jax.vmap(jax.vmap(candidates), in_axes=(0, None, None)))
    drawn = np.asarray(
        draw(keys, past["behaviour"].params, jnp.asarray(SPEC.act_mask))
    )  # [20, N, K, A]
    best = np.abs(drawn[..., 0] - MODE).argmin(axis=-1)
    want = np.take_along_axis(drawn, best[..., None, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(actions, want, atol=1e-5)
    assert np.all(drawn.std(axis=2)[..., 0] > 0.1), "candidates that differ"


def test_sharpness_leads_from_the_clone_to_the_better_mode(past, state):
    """alpha = 0 is the behaviour with both modes, a large one the mode that is liked."""
    good, bad = modes(acting(past, state, alpha=0.0)[..., 0])
    assert np.all(good > 0.25) and np.all(bad > 0.15), (good, bad)
    sharp = acting(past, state, alpha=100.0)
    good, bad = modes(sharp[..., 0])
    assert np.all(good > 0.95) and np.all(bad == 0), (good, bad)
    assert np.all(sharp[:, 1, 1] == 0)


def test_returns_are_joined_where_a_state_is_worth_more():
    """Two trajectories of 2 steps, gamma 0.5: rewards 1, 4 | 8, 16; by hand."""
    reward = jnp.array([1.0, 4, 0, 8, 16, 0])[:, None]
    ends = jnp.array([0, 0, 1, 0, 0, 1]) > 0
    factor = 0.5 * jnp.array([1.0, 0, 1, 1, 1, 1])  # the first terminates, the second is cut
    value = jnp.array([0.0, 20.0, 99.0, 0.0, 2.0, 6.0])[:, None]
    started = ~np.asarray(ends)
    plain = planned_returns(reward, factor, ends, value, jnp.array(True))[started, 0]
    np.testing.assert_allclose(plain, [1 + 0.5 * 4, 4, 8 + 0.5 * 16, 16])
    planned = planned_returns(reward, factor, ends, value, jnp.array(False))[started, 0]
    np.testing.assert_allclose(planned, [1 + 0.5 * 20, 4, 8 + 0.5 * (16 + 0.5 * 6), 16 + 0.5 * 6])
    low = planned_returns(reward, factor, ends, value - 100.0, jnp.array(False))[started, 0]
    np.testing.assert_allclose(low, [3, 4, 8 + 0.5 * (16 - 0.5 * 94), 16 - 0.5 * 94])


def test_each_round_computes_returns_and_the_critics_follow_them(past):
    """A bandit that terminates: returns are rewards in every round, and Q learns to tell the modes apart."""
    data = two_modes(100)

    algorithm, refresh = sfbc.policy(SPEC, CFG)

    @jit
    def one_round(key, state):
        def step(state, key):
            return algorithm.update(key, state, past, algorithm.batch(key, state, data))[0], ()

        return jax.lax.scan(step, refresh(key, state, past, data), jax.random.split(key, 100))[0]

    state, returns = algorithm.init(jax.random.key(0), past, data), []
    for k in range(CFG.rounds):
        state = one_round(jax.random.key(k), state)
        returns.append(state.returns)
    one = lambda key: algorithm.act(key, state, past, (), SEEN)[0]
    actions = jit(jax.vmap(one))(jax.random.split(jax.random.key(9), 200))
    starts = np.asarray(data.starts)
    for found in returns:
        np.testing.assert_allclose(
            np.asarray(found)[starts], np.asarray(data.reward)[starts], atol=1e-6
        )
    np.testing.assert_allclose(state.spread, np.asarray(data.reward)[starts].std(axis=0), rtol=1e-3)
    assert int(state.round) == 2
    good, bad = modes(np.asarray(actions)[..., 0])
    assert np.all(good > 0.6) and np.all(bad < 0.02), (good, bad)


def test_the_behaviour_knows_no_reward(behaviour):
    """Other rewards, the same clone."""
    data = two_modes()
    paid = dataclasses.replace(data, rows=data.rows.at[:, 9:11].multiply(-3.0))
    assert np.any(np.asarray(paid.reward) != np.asarray(data.reward))
    np.testing.assert_array_equal(paid.action, data.action)
    learn = jit(lambda data: trained(sfbc.behaviour_diffusion(SPEC, CFG), data, 3))
    assert far(learn(paid), learn(data)) == 0


def test_a_scan_is_a_round_and_rounds_are_as_long():
    for steps, rounds in ((200, 2), (200, 3)):
        stage = sfbc.pipeline(SPEC, dataclasses.replace(CFG, critic_steps=steps, rounds=rounds))[-1]
        assert stage.steps == rounds * stage.chunk and steps <= stage.steps < steps + rounds


@pytest.mark.parametrize(
    "changed", [{"levels": 0}, {"select": "best"}, {"value_samples": 0}, {"rounds": 0}]
)
def test_bad_settings_are_refused(changed):
    refused(sfbc.check, CFG, changed)


def test_every_row_has_its_value_and_idle_runs_none():
    keys, obs = (
        jax.random.split(jax.random.key(0), BLOCK + 7),
        jnp.arange(2.0 * (BLOCK + 7)).reshape(2, -1, 1),
    )
    value = jax.vmap(lambda row: row[1] + jax.random.uniform(row[0], (1,)))
    found = jax.vmap(lambda o, idle: every_row(value, (keys, o), idle))(
        obs, jnp.array([False, True])
    )
    assert jnp.allclose(found[0], value((keys, obs[0]))) and not found[1].any()

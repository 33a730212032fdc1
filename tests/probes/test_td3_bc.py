"""MA-TD3+BC: targets by hand, the divisor that is held constant, the delay, and better than the mean of two modes."""

import dataclasses

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import MODE, ONE_STEP, PAST, SPEC, jit

from jaxomarl.algorithms import td3_bc
from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.losses.weighting import normalised_value

STEP = td3_bc.Config(**ONE_STEP, policy_delay=1, gamma=0.9, target_noise=0.6)
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def update():
    """(state, changed traced fields) -> (state, metrics), on one batch with one key."""
    step = jit(
        lambda cfg, state: td3_bc.policy(SPEC, cfg).update(KEY, state, PAST, alone.batch_of())
    )
    return lambda state, **changed: step(dataclasses.replace(STEP, **changed), state)


@pytest.fixture(scope="module")
def state():
    return alone.filled(td3_bc.policy(SPEC, STEP))


def push(update, state, alpha=2.5):
    """The policy's gradient of the value alone."""
    parts = [alone.gradient(update(state, alpha=a, critic_lr=0.0)[0].actor) for a in (alpha, 0.0)]
    return jax.tree.map(np.subtract, *parts)


def size(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


# --- the divisor ---


def test_the_gradient_lives_where_all_values_share_a_sign(update, state):
    """Row 19: without the stop-gradient, -mean Q / mean |Q| is constant there, and its gradient exactly zero."""
    for shift in (100.0, -100.0):
        assert np.sign(
            update(alone.judged(state, shift=shift), critic_lr=0.0)[1]["q_played"]
        ) == np.sign(shift)
        assert size(push(update, alone.judged(state, shift=shift), alpha=250.0)) > 1e-3
    up, down = (push(update, alone.judged(state, shift=s), alpha=250.0) for s in (100.0, -100.0))
    assert alone.far(up, down) < 0.1 * size(up), "the objective turns over with the sign of Q"


def test_the_scale_of_q_does_not_matter(update, state):
    """Row 19: Q -> 3 Q leaves the gradient as it was."""
    one = push(update, state)
    assert size(one) > 1e-3
    assert alone.far(push(update, alone.judged(state, scale=3.0)), one) < 1e-3 * size(one)


def test_the_normalised_value_by_hand():
    """-alpha mean Q / mean |scale|, and the gradient of the numerator alone; finite where every value is zero."""
    q, scale = jnp.array([1.0, -2.0, 5.0]), jnp.array([-1.0, 3.0, 2.0])
    value, slope = jax.value_and_grad(lambda q: normalised_value(q, 2.5, scale))(q)
    np.testing.assert_allclose(value, -2.5 * (4 / 3) / 2, rtol=1e-6)
    np.testing.assert_allclose(slope, np.full(3, -2.5 / 3 / 2), rtol=1e-6)
    own = jax.grad(lambda q: normalised_value(q, 2.5, q))(jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(own, np.full(3, -2.5 / 3 / 2), rtol=1e-6)
    assert np.isfinite(jax.grad(lambda q: normalised_value(q, 2.5, q))(jnp.zeros(3))).all()


# --- one step, written apart ---


def by_hand(state, batch):
    """Lines 2 and 3 in NumPy, agent by agent: the critics' losses."""
    losses = []
    for i, width in enumerate(SPEC.act_dims):
        key = jax.random.split(KEY, 2)[i]
        noise = STEP.target_noise * np.asarray(jax.random.normal(key, batch.action[:, i].shape))
        assert np.any(np.abs(noise) > STEP.target_clip), "no noise to be clipped"
        one = lambda tree, i=i: jax.tree.map(lambda x: np.asarray(x)[i], tree)
        after = np.tanh(alone.layers(one(state.actor.target), batch.next_obs[:, i]))
        after = np.clip(after + np.clip(noise, -STEP.target_clip, STEP.target_clip), -1, 1)
        after[:, width:] = 0
        twins = lambda params, obs, action: np.stack(
            [
                alone.layers(
                    jax.tree.map(lambda x, k=k: x[k], params),
                    np.concatenate([obs, action], axis=-1),
                )[:, 0]
                for k in (0, 1)
            ]
        )
        ahead = twins(one(state.critic.target), batch.next_obs[:, i], after).min(axis=0)
        y = batch.reward[:, i] + STEP.gamma * (1 - batch.done) * ahead
        q = twins(one(state.critic.params), batch.obs[:, i], batch.action[:, i])
        losses.append(np.sum(np.mean((q - y) ** 2, axis=1)))
    return losses


def test_targets_are_those_written_apart(update, state):
    b = alone.batch_of()
    assert 0 < b.done.mean() < 1
    metrics = update(state)[1]
    np.testing.assert_allclose(metrics["q_loss"], np.mean(by_hand(state, b)), rtol=1e-4)


def test_the_policy_loss_is_that_written_apart(update, state):
    b, losses, clones = alone.batch_of(), [], []
    for i, width in enumerate(SPEC.act_dims):
        one = lambda tree, i=i: jax.tree.map(lambda x: np.asarray(x)[i], tree)
        a = np.tanh(alone.layers(one(state.actor.params), b.obs[:, i]))
        a[:, width:] = 0
        critic = jax.tree.map(lambda x: x[0], one(state.critic.params))
        q = alone.layers(critic, np.concatenate([b.obs[:, i], a], axis=-1))[:, 0]
        clones.append(np.mean((a - b.action[:, i])[:, :width] ** 2))
        losses.append(-2.5 * q.mean() / np.abs(q).mean() + clones[-1])
    metrics = update(state, critic_lr=0.0)[1]
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(metrics["cloning_loss"], np.mean(clones), rtol=1e-4)


def test_policy_and_targets_wait_for_every_second_step(state):
    """Policy, its optimiser and both targets stand still on odd steps; the critics move on each."""
    cfg = dataclasses.replace(STEP, policy_delay=2)
    step = jit(lambda state: td3_bc.policy(SPEC, cfg).update(KEY, state, PAST, alone.batch_of())[0])
    one = step(state)
    assert (
        alone.far(one.actor, state.actor) == 0
        and alone.far(one.critic.target, state.critic.target) == 0
    )
    assert alone.far(one.critic.params, state.critic.params) > 1e-3
    two = step(one)
    assert alone.far(two.actor.params, one.actor.params) > 1e-3
    for before, after in zip(one, two, strict=True):
        want = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, after.params, before.target)
        assert alone.far(after.target, want) < 1e-6


# --- what is learned ---


def test_it_leaves_the_mean_of_two_modes_for_the_better():
    """At alpha = 0 it is a clone, at the modes' mean; else it goes to the mode that pays, or beyond."""
    data = alone.two_modes()
    cfg = td3_bc.Config(
        policy_width=16, critic_width=16, policy_batch=64, policy_lr=5e-3, polyak=0.05, clip=10.0
    )

    @jit
    @jax.vmap
    def learn(alpha):
        algorithm = td3_bc.policy(SPEC, dataclasses.replace(cfg, alpha=alpha))
        return alone.played(algorithm, alone.trained(algorithm, data, 300), 1)[0]

    clone, ours = np.asarray(learn(jnp.array([0.0, 2.5])))
    want = np.asarray(data.action)[np.asarray(data.starts)].mean(axis=0)
    np.testing.assert_allclose(clone, want, atol=MODE / 4)
    assert np.all(ours[SPEC.act_mask > 0] > MODE / 2), ours
    assert clone[1, 1] == ours[1, 1] == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policy_batch": 401}, ["--cfg.policy-batch", "400 transitions", "found 401"]),
        ({"reward": "shared"}, ["--cfg.reward", "own, team"]),
        ({"time_limit": "never"}, ["--cfg.time-limit", "bootstrap, terminal"]),
        ({"policy_delay": 0}, ["--cfg.policy-delay"]),
    ],
)
def test_bad_settings_are_refused(changed, words):
    good = dataclasses.replace(STEP, policy_batch=64)
    alone.refused(td3_bc.check, good, changed, words)


def test_discrete_tasks_are_refused():
    with pytest.raises(JaxomarlError, match="continuous actions"):
        td3_bc.check(Spec((2,), (2,), 1, 1, discrete=True), STEP, None)

"""MADDPG+BC: losses written apart, the divisor, cut episodes, team-mates, memory, and what it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import MODE, PAST, SPEC, far, filled, gradient, jit, refused, trained, two_modes

from jaxomarl.algorithms import maddpg
from jaxomarl.base import JaxomarlError, Observation, Spec, Window
from jaxomarl.data.windows import transitions_known

STEP = maddpg.Config(
    policy_width=8, critic_width=8, horizon=3, gamma=0.9, polyak=0.2, action_penalty=0.01
)
SIZE, WIDE = 6, 4
KEY = jax.random.key(1)


def window(seed=0) -> Window:
    """Windows of three steps: the first two end by termination and by a cut, the others go on."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal((SIZE, WIDE, *shape)).astype(np.float32)
    valid, done, last = (np.full((SIZE, WIDE), x, np.float32) for x in (1, 0, 0))
    done[0, 1], last[0, 1], valid[0, 3] = 1, 1, 0  # row 2 is its successor
    last[1, 0], valid[1, 2:] = 1, 0
    acted = (np.arange(WIDE) < 3) * valid
    acted[0, 2] = acted[1, 1] = 0
    reward = draw(2) * acted[..., None]
    made = Window(
        obs=draw(2, 2) * SPEC.obs_mask,
        state=draw(1),
        action=np.tanh(draw(2, 2)) * SPEC.act_mask * acted[..., None, None],
        reward=reward,
        team_reward=reward.mean(axis=-1),
        done=done,
        last=last,
        alive=np.ones((SIZE, WIDE, 2), np.float32),
        available=np.ones((SIZE, WIDE, 2, 2), np.float32),
        valid=valid,
        extra={},
    )
    return jax.tree.map(jnp.asarray, made)


COUNT = np.array([[1, 1, 0], [1, 0, 0]] + 4 * [[1, 1, 1]], np.float32)


@pytest.fixture(scope="module")
def state():
    return filled(maddpg.policy(SPEC, STEP))


@pytest.fixture(scope="module")
def update():
    """(state, window, changed traced fields) -> (state, metrics); each choice of static fields is one program."""
    held = {}

    def run(state, batch=None, **changed):
        still = {k: changed.pop(k) for k in list(changed) if isinstance(changed[k], str)}
        step = lambda cfg, state, batch: maddpg.policy(SPEC, cfg).update(KEY, state, PAST, batch)
        step = held.setdefault(str(still), jit(step))
        return step(
            dataclasses.replace(STEP, **still, **changed),
            state,
            window() if batch is None else batch,
        )

    return run


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unrolled(params, obs):
    """The recurrent policy in NumPy, one agent and window at a time: [B, W, N, A]."""
    p = jax.tree.map(np.asarray, params)
    lin = lambda layer, x: x @ layer["kernel"] + layer.get("bias", 0.0)
    g, out = p["gru"], np.zeros((*obs.shape[:3], 2))
    for i in range(2):
        h = np.zeros((len(obs), 8))
        for t in range(obs.shape[1]):
            told = np.concatenate([np.asarray(obs)[:, t, i], np.eye(2)[[i] * len(obs)]], axis=1)
            x = np.maximum(lin(p["Dense_0"], told), 0)
            r, z = (sigmoid(lin(g[f"i{k}"], x) + lin(g[f"h{k}"], h)) for k in "rz")
            n = np.tanh(lin(g["in"], x) + r * lin(g["hn"], h))
            h = (1 - z) * n + z * h
            out[:, t, i] = np.tanh(lin(p["out"], np.maximum(h, 0)))
    return out * SPEC.act_mask


def judged(params, state, joint):
    """Twin values [2, B, T, N] of `joint` [B, T, N(i), N, A] for agent i."""
    p, out = jax.tree.map(np.asarray, params), np.zeros((2, *joint.shape[:3]))
    for k in range(2):
        for i in range(2):
            mine = np.broadcast_to(np.eye(2)[i], (*state.shape[:2], 2))
            x = np.concatenate([state, mine, joint[:, :, i].reshape(*state.shape[:2], 4)], axis=-1)
            for name in ("Dense_0", "Dense_1"):
                x = np.maximum(x @ p[name]["kernel"][k] + p[name]["bias"][k], 0)
            out[k, ..., i] = (x @ p["out"]["kernel"][k] + p["out"]["bias"][k])[..., 0]
    return out


def both(joint):
    return np.broadcast_to(np.asarray(joint)[:, :, None], (*joint.shape[:2], 2, 2, 2))


def mean(x):
    """Over transitions that count, both agents'."""
    return (x * COUNT[..., None]).sum(axis=(-3, -2, -1)) / (2 * COUNT.sum())


def by_hand(state, others="data", weights=(2.5, 1.0)):
    """(critic's loss, policy's loss, its clone) of the two lines, from the state's own parameters."""
    b = window()
    seen = np.asarray(b.state)
    ahead = judged(
        state.critic.target, seen[:, 1:], both(unrolled(state.actor.target, b.obs)[:, 1:])
    ).min(axis=0)
    y = (
        np.asarray(b.team_reward)[:, :-1, None]
        + 0.9 * (1 - np.asarray(b.done)[:, :-1, None]) * ahead
    )
    done = np.asarray(b.action)[:, :-1]
    q_loss = sum(
        mean((judged(state.critic.params, seen[:, :-1], both(done))[k] - y) ** 2) for k in (0, 1)
    )
    a = unrolled(state.actor.params, b.obs)[:, :-1]
    joint = both(done if others == "data" else a).copy()
    for i in range(2):
        joint[:, :, i, i] = a[:, :, i]
    q = judged(state.critic.params, seen[:, :-1], joint).min(axis=0)
    square = lambda x: np.sum(SPEC.act_mask * x**2, axis=-1) / SPEC.act_mask.sum(axis=-1)
    clone = mean(square(a - done))
    loss = weights[1] * clone - weights[0] * mean(q) / mean(np.abs(q)) + 0.01 * mean(square(a))
    return q_loss, loss, clone


@pytest.mark.parametrize("others", ["data", "policy"])
def test_losses_are_those_written_apart(update, state, others):
    metrics = update(state, others=others, critic_lr=0.0)[1]
    want = by_hand(state, others)
    np.testing.assert_allclose(
        [metrics[k] for k in ("q_loss", "policy_loss", "cloning_loss")], want, rtol=2e-4
    )


def test_both_readings_of_the_coefficient(update, state):
    """Trap 11: alpha times the value, or times the clone; at 1 they are the same, at 0 the first is a clone."""
    for alpha, on, weights in ((0.5, "value", (0.5, 1.0)), (0.5, "clone", (1.0, 0.5))):
        metrics = update(state, alpha=alpha, coefficient_on=on, critic_lr=0.0)[1]
        np.testing.assert_allclose(
            metrics["policy_loss"], by_hand(state, weights=weights)[1], rtol=2e-4
        )
    one, other = (update(state, alpha=1.0, coefficient_on=on)[0].actor for on in ("value", "clone"))
    assert far(one, other) < 1e-6


def shifted(state, by):
    out = state.critic.params["out"]
    params = {**state.critic.params, "out": {**out, "bias": out["bias"] + np.float32(by)}}
    return state._replace(critic=state.critic._replace(params=params))


def test_the_gradient_lives_where_all_values_share_a_sign(update, state):
    """Trap 10: without the stop-gradient the value's part would be constant there."""
    for by in (100.0, -100.0):
        moved = [
            gradient(update(shifted(state, by), alpha=a, critic_lr=0.0)[0].actor)
            for a in (250.0, 0.0)
        ]
        assert np.sign(update(shifted(state, by), critic_lr=0.0)[1]["q_played"]) == np.sign(by)
        assert far(*moved) > 1e-3


def test_the_cut_transition_meets_its_own_successor(update, state):
    """Row 24: a cut transition bootstraps from the row after it, and what lies beyond reaches nothing."""
    b = window()
    beyond = b._replace(obs=b.obs.at[1, 2:].set(9.0), state=b.state.at[1, 2:].set(9.0))
    successor = b._replace(state=b.state.at[1, 1].set(9.0))
    for other, reaches in ((beyond, False), (successor, True)):
        found = far(update(state, b)[0], update(state, other)[0])
        assert (found > 1e-5) == reaches, found
    ended = b._replace(
        state=b.state.at[0, 2].set(9.0)
    )  # after a termination nothing is worth anything
    assert far(update(state, b)[0], update(state, ended)[0]) == 0
    unknown = b._replace(
        valid=b.valid.at[1, 1].set(0.0)
    )  # the data lack the cut one's successor: it does not count
    assert (
        float(transitions_known(unknown)[1].sum()) == 0
        and float(transitions_known(b)[1].sum()) == 2
    )
    cut = update(state, time_limit="terminal")[1]["q_loss"]
    assert abs(cut - update(state)[1]["q_loss"]) > 1e-5


def test_targets_follow_and_both_networks_move(update, state):
    after, _ = update(state)
    for before, now in zip(state, after, strict=True):
        assert far(now.params, before.params) > 1e-5
        want = jax.tree.map(lambda p, t: 0.2 * p + 0.8 * t, now.params, before.target)
        assert far(now.target, want) < 1e-6


def test_acting_step_by_step_is_the_unrolled_policy(state):
    """Its memory starts empty, and what an agent does depends on its own past alone."""
    algorithm, obs = maddpg.policy(SPEC, STEP), np.asarray(window().obs[3])

    @jit
    def play(obs):
        step = lambda memory, o: algorithm.act(
            KEY, state, PAST, memory, Observation(o, SPEC.act_mask > 0)
        )[::-1]
        return jax.lax.scan(step, algorithm.memory, obs)[1]

    found = np.asarray(play(obs))
    np.testing.assert_allclose(found, unrolled(state.actor.params, obs[None])[0], atol=1e-5)
    other = obs.copy()
    other[0, 1, 0] += 1.0
    changed = np.asarray(play(other))
    assert (
        np.array_equal(changed[:, 0], found[:, 0])
        and np.abs(changed[2, 1] - found[2, 1]).max() > 1e-6
    )
    assert np.all(found * (1 - SPEC.act_mask) == 0)


@pytest.mark.long
def test_it_leaves_the_mean_of_two_modes_for_the_better():
    """At alpha = 0 it clones the mean of the modes; else it goes to the one that pays."""
    data = two_modes()
    cfg = maddpg.Config(
        policy_width=16,
        critic_width=16,
        policy_batch=64,
        horizon=1,
        policy_lr=5e-3,
        critic_lr=5e-3,
        reward="own",
    )

    @jit
    @jax.vmap
    def learn(alpha):
        algorithm = maddpg.policy(SPEC, dataclasses.replace(cfg, alpha=alpha))
        state = trained(algorithm, data, 300)
        seen = Observation(jnp.asarray(SPEC.obs_mask), jnp.asarray(SPEC.act_mask > 0))
        return algorithm.act(KEY, state, PAST, algorithm.memory, seen)[0]

    clone, ours = np.asarray(learn(jnp.array([0.0, 2.5])))
    want = np.asarray(data.action)[np.asarray(data.starts)].mean(axis=0)
    np.testing.assert_allclose(clone, want, atol=MODE / 4)
    assert np.all(ours[SPEC.act_mask > 0] > MODE / 2), ours


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"others": "nobody"}, ["--cfg.others", "data, policy"]),
        ({"coefficient_on": "both"}, ["--cfg.coefficient-on", "value, clone"]),
        ({"reward": "shared"}, ["--cfg.reward", "own, team"]),
        ({"horizon": 0}, ["--cfg.horizon"]),
    ],
)
def test_bad_settings_are_refused(changed, words):
    good = dataclasses.replace(STEP, policy_batch=64)
    refused(maddpg.check, good, changed, words)


def test_discrete_tasks_are_refused():
    with pytest.raises(JaxomarlError, match="continuous actions"):
        maddpg.check(Spec((2,), (2,), 1, 1, discrete=True), STEP, None)

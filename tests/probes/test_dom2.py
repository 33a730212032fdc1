"""DOM2: clones of two modes, the better mode, the divisor, the targets, and trajectories counted by their returns."""

import dataclasses
from unittest import mock

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import MODE, PAST, SPEC, jit, jit_loop

from jaxomarl.algorithms import dom2
from jaxomarl.base import Episodes, JaxomarlError, Spec
from jaxomarl.data.dataset import pack
from jaxomarl.data.reweight import reweighted, trajectories
from jaxomarl.networks.denoisers import residual_unet
from jaxomarl.networks.mlp import Network

LEARN = dom2.Config(
    policy_batch=64, policy_width=16, policy_lr=1e-2, critic_width=16, dropout=0.0, polyak=0.02, clip=10.0, samples=1,
    network="mlp", levels=16, acting="target",
)  # fmt: skip
ETAS = (0.0, 1.0)
STEP = dataclasses.replace(LEARN, policy_width=8, critic_width=8, levels=2, samples=4, clip=1e6)

# --- what is learned ---


@pytest.fixture(scope="module")
def actions():
    """Sampled actions for each eta [2, draws, N, A], learned from two modes under critics that prefer the positive one.

    The critics are fixed, 1 - (a - MODE)^2, so that what is seen is the policy's doing. Sixteen levels, because the
    chain itself blurs these modes when it has five, whatever the network (tests/diffusion/test_dom2_sampling.py).
    """
    data, original = alone.two_modes(), dom2.agent_networks

    def fixed(*args, **kwargs):
        value = lambda params, obs, action: jnp.broadcast_to(
            1 - (action[..., 0] - MODE) ** 2, (2, *action.shape[:-1])
        )
        return original(*args, **kwargs)._replace(q=Network(lambda key: jnp.zeros(1), value))

    @jit_loop
    @jax.vmap
    def learn(eta):
        with mock.patch.object(dom2, "agent_networks", fixed):
            algorithm = dom2.policy(SPEC, dataclasses.replace(LEARN, eta=eta))
        return alone.played(algorithm, alone.trained(algorithm, data, 1200), 200)

    return np.asarray(learn(jnp.array(ETAS)))


def modes(x):
    """Shares of an agent's first column near the good mode and near the bad one."""
    return np.mean(np.abs(x - MODE) < MODE / 2, axis=0), np.mean(
        np.abs(x + MODE) < MODE / 2, axis=0
    )


def test_without_value_it_is_a_clone_with_both_modes(actions):
    """With exact noise, 0.86 of the samples end near a mode."""
    good, bad = modes(actions[0, :, :, 0])
    assert np.all(good + bad > 0.7), (good, bad)
    assert np.all(good > 0.25) and np.all(bad > 0.25), (good, bad)


def test_with_value_it_takes_the_better_mode(actions):
    good, bad = modes(actions[1, :, :, 0])
    assert np.all(good > 0.95) and np.all(bad == 0), (good, bad)


def test_padded_columns_are_zero(actions):
    assert np.all(actions[..., 1, 1] == 0) and np.all(actions[..., 0, 1] != 0)


# --- one step ---


def stepped(cfg, state):
    """(state, metrics) after an update on one batch with one key; the noise is x and a little of the network's.

    Else all actions of a network that has learned nothing end at an edge of the box, where no gradient passes.
    """
    original = dom2.noise_network

    def near_x(spec, cfg):
        net = original(spec, cfg)
        return Network(net.init, lambda params, x, *rest: x + 0.02 * net.apply(params, x, *rest))

    with mock.patch.object(dom2, "noise_network", near_x):
        return dom2.policy(SPEC, cfg).update(jax.random.key(1), state, PAST, alone.batch_of())


@pytest.fixture(scope="module")
def update():
    """(state, changed traced fields) -> (state, metrics)."""
    step = jit(stepped)
    return lambda state, **changed: step(dataclasses.replace(STEP, **changed), state)


@pytest.fixture(scope="module")
def state():
    return alone.filled(dom2.policy(SPEC, STEP))


def push(update, state, eta=2.0, **critic):
    """The policy's gradient of the value alone."""
    held = alone.judged(state, **critic)
    parts = [alone.gradient(update(held, eta=e, critic_lr=0.0)[0].actor) for e in (eta, 0.0)]
    return jax.tree.map(np.subtract, *parts)


def close(one, other, tolerance=1e-3):
    """Equal to this share of the largest number, which is not zero."""
    assert alone.far(one, other) < tolerance * alone.far(
        other, jax.tree.map(np.zeros_like, other)
    ), alone.far(one, other)


def test_the_scale_of_q_does_not_matter(update, state):
    """eta / mean |Q| times Q is the same for 3 Q, so the divisor is of the values' own size; 2 eta is twice as much."""
    one = push(update, state)
    assert alone.far(one, jax.tree.map(np.zeros_like, one)) > 1e-3
    close(push(update, state, scale=3.0), one)
    close(push(update, state, eta=4.0), jax.tree.map(lambda x: 2 * x, one))


def test_negative_values_do_not_turn_the_objective_over(update, state):
    """A signed mean would: Q - 50 and Q + 50 have the same gradient and nearly the same mean |Q|."""
    low, high = (
        push(update, state, scale=10.0, shift=-50.0),
        push(update, state, scale=10.0, shift=50.0),
    )
    dot = sum(np.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (low, high)), strict=True))
    norms = [np.sqrt(sum(np.vdot(x, x) for x in jax.tree.leaves(g))) for g in (low, high)]
    assert dot > 0.9 * norms[0] * norms[1] > 0


def test_the_divisor_is_the_datas_mean_size(update, state):
    """mean |Q(data)| by numpy: a critic shifted by 1000 divides by about 1000 more."""
    b, held = alone.batch_of(), state.critic.params
    found, sizes = push(update, state), []
    for i in range(2):
        x = np.concatenate([b.obs[:, i], b.action[:, i]], axis=-1)
        one = jax.tree.map(lambda p, i=i: p[i, 0], held)
        mish = lambda x: x * np.tanh(np.log1p(np.exp(x)))
        q = alone.layers(one, x, mish)[:, 0]
        sizes.append((np.abs(q).mean(), np.abs(q + 1000).mean()))
    far_off = push(update, state, eta=2000.0, shift=1000.0)
    for i, (near, beyond) in enumerate(sizes):
        want = jax.tree.map(lambda g, i=i, r=1000 * near / beyond: r * g[i], found)
        close(jax.tree.map(lambda g, i=i: g[i], far_off), want, 0.02)


def test_next_actions_are_the_target_policys(update, state):
    """The critics' step follows the target policy and not the policy."""
    step = lambda actor: alone.gradient(update(state._replace(actor=actor))[0].critic)
    first, moved = step(state.actor), jax.tree.map(lambda x: 30.0 * x, state.actor)
    assert alone.far(step(state.actor._replace(params=moved.params)), first) == 0
    assert alone.far(step(state.actor._replace(target=moved.target)), first) > 1e-3


def test_targets_follow_both_networks(update, state):
    after = update(state)[0]
    for before, net in zip(state, after, strict=True):
        want = jax.tree.map(
            lambda p, t: STEP.polyak * p + (1 - STEP.polyak) * t, net.params, before.target
        )
        assert alone.far(net.target, want) < 1e-6


def test_ablations_leave_their_term_out(update, state):
    """Without improvement the gradient is that of eta = 0; without denoising and at eta = 0 there is none."""
    step = lambda cfg: jit(stepped)(cfg, state)
    cloned, metrics = step(dataclasses.replace(STEP, improvement=False))
    assert "q_played" not in metrics and "denoising_loss" in metrics
    close(alone.gradient(cloned.actor), alone.gradient(update(state, eta=0.0)[0].actor), 1e-4)
    greedy, metrics = step(dataclasses.replace(STEP, denoising=False, critic_lr=0.0))
    assert "denoising_loss" not in metrics
    close(alone.gradient(greedy.actor), push(update, state, eta=STEP.eta), 1e-3)


def test_the_noise_network_has_the_papers_sizes():
    """Blocks 512, 256, 128, a middle of 128, 256 and 512 with skips; dropout where a key is given alone."""
    shapes = jax.eval_shape(residual_unet(2, 5, 512, 128, 0.1).init, jax.random.key(0))
    linear = lambda i, o: (i + 1) * o
    block = lambda i, o: 2 * linear(i, o) + linear(128, o) + linear(o, o)
    sizes = [(2, 512), (512, 256), (256, 128), (128, 128), (256, 256), (512, 512)]
    want = (
        linear(5, 32)
        + linear(64, 128)
        + linear(128, 128)
        + sum(block(*s) for s in sizes)
        + linear(1024, 2)
    )
    assert sum(x.size for x in jax.tree.leaves(shapes)) == want
    small = residual_unet(2, 5, 8, 8, 0.5)
    rng = np.random.default_rng(0)
    drawn = lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype)
    params = jax.tree.map(drawn, jax.eval_shape(small.init, jax.random.key(0)))
    x, cond = jnp.ones((3, 2)), jnp.ones((3, 5))
    run = jit(
        lambda t, key: (small.apply(params, x, t, cond), small.apply(params, x, t, cond, key))
    )
    still, dropped = run(jnp.full(3, 0.2), jax.random.key(1))
    again, other = run(jnp.full(3, 0.2), jax.random.key(2))
    np.testing.assert_array_equal(still, again)
    assert np.any(dropped != other) and np.any(run(jnp.full(3, 0.4), jax.random.key(1))[0] != still)


# --- reweighting ---


def episodes(rewards, team="mean", pays_at_the_end=0.0):
    """Episodes of several steps with these rewards [length, N] each, and a payment in their successor rows."""
    spec = dataclasses.replace(SPEC, team=team)
    parts = []
    for r in rewards:
        r = np.asarray(r, np.float32)
        length = len(r)
        tail = np.full((1, 2), pays_at_the_end, np.float32)
        wide = lambda *shape, n=length: np.zeros((n + 1, *shape), np.float32)
        left = np.arange(length, -1, -1, dtype=np.int32)
        parts.append(
            (
                wide(2, 2),
                wide(1),
                wide(2, 2),
                np.concatenate([r, tail]),
                wide(),
                length - left,
                left,
                0 * left,
            )
        )
    return pack(
        Episodes(*(jnp.asarray(np.concatenate(blocks)) for blocks in zip(*parts, strict=True))),
        spec,
    )


def test_a_trajectory_counts_once_more_for_each_threshold():
    """Row 28: a return of 200 under 100, 150, 200, 250 counts 4 times, with all of its starts and no row copied."""
    data = episodes([[[50, 150]] * 2, [[20, 20]], [[100, 100]] * 3], pays_at_the_end=1000.0)
    np.testing.assert_allclose(trajectories(data)[1], [200, 20, 300])
    found = reweighted(data, (100.0, 150.0, 200.0, 250.0))
    rows, times = np.unique(np.asarray(found.starts), return_counts=True)
    np.testing.assert_array_equal(rows, [0, 1, 3, 5, 6, 7])
    np.testing.assert_array_equal(times, [4, 4, 1, 5, 5, 5])
    assert found.rows is data.rows and found.step is data.step
    assert reweighted(data, ()) is data


def test_equal_thresholds_count_each_and_the_team_decides():
    data = episodes([[[10, 0]], [[0, 30]]], team="first")
    np.testing.assert_allclose(trajectories(data)[1], [10, 0])
    np.testing.assert_array_equal(reweighted(data, (10.0, 10.0)).starts, [0, 0, 0, 2])
    np.testing.assert_allclose(trajectories(episodes([[[10, 0]], [[0, 30]]]))[1], [5, 15])


def test_prepare_reads_the_setting():
    data = episodes([[[1, 1]], [[3, 3]]])
    cfg = dataclasses.replace(LEARN, thresholds="2, 2.5,-1")
    np.testing.assert_array_equal(dom2.prepare(SPEC, cfg, data).starts, [0, 0, 2, 2, 2, 2])
    assert dom2.prepare(SPEC, LEARN, data) is data


# --- refusals ---


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"thresholds": "0.5,2"}, ["--cfg.thresholds", "found 2.0", "50%", "100% 1"]),
        ({"thresholds": "good"}, ["--cfg.thresholds", "numbers", "'good'"]),
        ({"thresholds": "nan"}, ["--cfg.thresholds", "numbers"]),
        ({"policy_batch": 401}, ["--cfg.policy-batch", "400 transitions", "found 401"]),
        ({"schedule": "cosine"}, ["--cfg.schedule", "cumulative, printed"]),
        ({"network": "cnn"}, ["--cfg.network", "unet, mlp"]),
        ({"acting": "best"}, ["--cfg.acting", "online, target"]),
        ({"reward": "shared"}, ["--cfg.reward", "own, team"]),
        ({"levels": 0}, ["--cfg.levels"]),
        ({"dropout": 1.0}, ["--cfg.dropout"]),
        ({"improvement": False, "denoising": False}, ["--cfg.improvement", "--cfg.denoising"]),
    ],
)
def test_bad_settings_are_refused(changed, words):
    alone.refused(dom2.check, LEARN, changed, words)


def test_discrete_tasks_are_refused():
    with pytest.raises(JaxomarlError, match="continuous actions"):
        dom2.check(Spec((2,), (2,), 1, 1, discrete=True), LEARN, None)


def test_thresholds_that_the_data_reach_are_taken():
    data = alone.bandit(np.zeros((200, 2, 2)), np.ones((200, 2)))
    dom2.check(SPEC, dataclasses.replace(LEARN, thresholds="-5,1"), data)

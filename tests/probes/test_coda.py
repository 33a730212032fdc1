"""CODA: what its generator makes of windows, what the pull does to them and to whom, and what a base learns from."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit

from jaxomarl.algorithms import coda, maddpg, td3_bc
from jaxomarl.base import Episodes, JaxomarlError, Spec, Window
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import identity
from jaxomarl.data.windows import sample_windows
from jaxomarl.envs.polynomial import ascend, brud_gradient, polynomial, twin_peaks_brud_fixed_point
from jaxomarl.papers.coda import games
from jaxomarl.stages import augmented as stage_of
from jaxomarl.stages import generator
from jaxomarl.stages.generator import (
    Generator,
    TrainedGenerator,
    column_distributions,
    window_columns,
)

SPEC = Spec(
    (2, 1), (2, 1), state_dim=1, horizon=4
)  # the second agent is padded in what it sees and does
PAST = {"stats": identity(SPEC)}
STEPS, EPISODES = 4, 150
BASE = {
    "policy_width": 8,
    "critic_width": 8,
    "policy_batch": 32,
    "policy_steps": 8,
    "chunk": 4,
    "every": 1,
}
SMALL = {
    "generator_width": 16, "generator_batch": 64, "generator_steps": 800, "generator_lr": 5e-3,
    "augment_windows": 256, "augment_horizon": 3,
    "augment_microbatch": 128, "augment_levels": 12, "augment_order": 1, "augment_churn": 0.0,
}  # fmt: skip
SYSTEM = coda.augmentation(td3_bc.TD3_BC, "td3-bc", "coda")
CFG = SYSTEM.Config(**BASE, **SMALL)
LAMBDAS = (0.0, 0.1, 0.3)


def make_data(seed=0):
    """Four steps of a walk: actions 0.4 +- 0.2 with a common part, o' = o + a / 2, reward the sum of actions."""
    rng = np.random.default_rng(seed)
    common = 0.15 * rng.standard_normal((EPISODES, STEPS, 1, 1))
    action = (
        np.clip(0.4 + common + 0.1 * rng.standard_normal((EPISODES, STEPS, 2, 2)), -1, 1)
        * SPEC.act_mask
    )
    walked = np.concatenate([np.zeros((EPISODES, 1, 2, 2)), np.cumsum(action, axis=1) / 2], axis=1)
    obs = walked + 0.3 * rng.standard_normal((EPISODES, 1, 2, 2)) * SPEC.obs_mask
    after = lambda x: np.concatenate([x, np.zeros((EPISODES, 1, *x.shape[2:]))], axis=1)
    reward = np.repeat(action.sum(axis=(2, 3))[..., None], 2, axis=2)
    step = np.tile(np.arange(STEPS + 1, dtype=np.int32), (EPISODES, 1))
    blocks = (obs, obs[:, :, 0, :1], after(action), after(reward), np.zeros(step.shape))
    flat = [np.asarray(x, np.float32).reshape(-1, *x.shape[2:]) for x in blocks]
    counted = [step.reshape(-1), (STEPS - step).reshape(-1), 0 * step.reshape(-1)]
    return pack(Episodes(*map(jnp.asarray, (*flat, *counted))), SPEC)


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture(scope="module")
def made(data):
    """(the trained generator, the augmented stage's states after a refresh at each of LAMBDAS, the base's first)."""

    @jit
    def run(data, lambdas):
        generator, policy = SYSTEM.pipeline(SPEC, CFG, None)

        def step(state, key):
            k_batch, k_update = jax.random.split(key)
            return generator.algorithm.update(
                k_update, state, PAST, generator.algorithm.batch(k_batch, state, data)
            )

        first = generator.algorithm.init(jax.random.key(0), PAST, data)
        keys = jax.random.split(jax.random.key(1), CFG.generator_steps)
        trained, metrics = jax.lax.scan(step, first, keys)
        past = {**PAST, "generator": trained}
        before = policy.algorithm.init(jax.random.key(2), past, data)
        refresh = lambda cfg: SYSTEM.pipeline(SPEC, cfg, None)[1].refresh
        each = lambda lam: refresh(dataclasses.replace(CFG, augment_lambda=lam))(
            jax.random.key(3), before, past, data
        )
        return trained, metrics["denoising_loss"], jax.vmap(each)(lambdas), before

    return run(data, jnp.asarray(LAMBDAS))


def at(states, index):
    return jax.tree.map(lambda x: x[index], states)


# --- the generator ---


def test_it_learns_the_windows(made, data):
    """Marginals, the correlation of team-mates' actions, the step's dynamics and the reward, of unguided windows."""
    _, losses, states, _ = made
    assert np.mean(losses[-50:]) < 0.75 * np.mean(losses[:20])
    rows = window_columns(SPEC).layout.unpack(at(states, 0).rows)
    real = np.asarray(data.action)[np.asarray(data.left) > 0]
    fake = np.asarray(rows["action"])[:, :-1].reshape(-1, 2, 2)
    np.testing.assert_allclose(fake.mean(axis=0), real.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(fake.std(axis=0), real.std(axis=0), atol=0.07)
    together = lambda a: np.corrcoef(a[:, 0, 0], a[:, 1, 0])[0, 1]
    assert together(real) > 0.6 and together(fake) > 0.35
    obs, action = np.asarray(rows["obs"]), np.asarray(rows["action"])
    error = (obs[:, 1:] - obs[:, :-1] - action[:, :-1] / 2) * SPEC.obs_mask
    assert np.sqrt(np.mean(error**2)) < 0.15
    paid = np.asarray(rows["reward"])[:, :-1, 0] - action[:, :-1].sum(axis=(2, 3))
    assert np.sqrt(np.mean(paid**2)) < 0.5 * real.sum(axis=(1, 2)).std()


def test_what_a_window_does_not_have_is_zero(made):
    """Its last row has observations alone; padded columns nothing; done is 0 or 1; it knows its successors."""
    rows = window_columns(SPEC).layout.unpack(at(made[2], 2).rows)
    for name in ("action", "reward", "done"):
        assert np.all(np.asarray(rows[name])[:, -1] == 0)
    assert np.all(np.asarray(rows["obs"]) * (1 - SPEC.obs_mask) == 0)
    assert np.all(np.asarray(rows["action"]) * (1 - SPEC.act_mask) == 0)
    assert set(np.unique(np.asarray(rows["done"]))) <= {0.0, 1.0}
    assert (
        np.all(np.asarray(rows["known"]) == 1)
        and np.abs(np.asarray(rows["obs"])[:, -1]).max() > 0.1
    )


def test_successor_rows_are_no_actions(data):
    """Distributions of what is done come from rows in which something was: none of these data's actions is zero."""
    held = window_columns(SPEC)
    found = column_distributions(data, held).part(*held.at["action"])
    real = np.asarray(data.action)[np.asarray(data.left) > 0].reshape(-1, 4)
    np.testing.assert_allclose(found.value[0, 0], real[:, 0].min(), rtol=1e-6)
    np.testing.assert_allclose(
        found.inverse(jnp.zeros((1, 4)))[0], np.median(real, axis=0), atol=0.02
    )


# --- the pull ---


def test_rows_become_likely_under_the_policy(made):
    """Done when, 5: above lambda = 0's, and the more so the stronger the pull; the same keys made both."""
    found = np.asarray(made[2].likelihood)
    assert found[0] < found[1] - 0.02 and found[1] < found[2] - 0.02, found


@pytest.fixture(scope="module")
def scores(data):
    """(x_0, gradients by `chain`) -> of a policy that plays `played` whatever it sees."""
    model = Generator(SPEC, CFG, 3)
    trained = TrainedGenerator(None, jit(lambda d: column_distributions(d, model.held))(data), ())
    x0 = jax.random.normal(jax.random.key(5), (6, 4, model.held.width))

    def of(played, chain=True):
        pulled = model.scores(trained, lambda obs: jnp.broadcast_to(played, obs.shape), chain)
        return np.asarray(jit(pulled)(x0))

    return of


ONE = np.array([[0.9, -0.9], [0.8, 0.0]], np.float32)


def test_only_actions_are_pulled_each_by_its_own_agent_s_policy(scores):
    """D.8 (5) and (8): agent 2's policy moves no column but agent 2's; nor a padded one; nor the last row's."""
    first, last = window_columns(SPEC).at["action"]
    one, other = scores(ONE), scores(ONE + np.array([[0.0, 0.0], [0.1, 0.0]]))
    rest = np.delete(one, range(first, last), axis=-1)
    assert np.all(rest == 0) and np.all(one[:, -1] == 0) and np.all(one[..., last - 1] == 0)
    changed = np.abs(one - other)[:, :-1, first:last].max(axis=(0, 1))
    assert (
        np.all(changed[:2] == 0) and changed[2] > 0 and np.all(one[:, :-1, first : last - 1] != 0)
    )


def test_the_literal_gradient_differs_by_positive_factors(scores):
    first, last = window_columns(SPEC).at["action"]
    chain, literal = (scores(ONE, c)[:, :-1, first : last - 1] for c in (True, False))
    assert np.all(chain / literal > 0) and np.std(chain / literal) > 0.01


def test_the_base_is_left_as_it_was(made):
    """Line 9 makes rows and nothing else; a finished stage is the base's own state."""
    _, _, states, before = made
    for x, y in zip(*map(jax.tree.leaves, (at(states, 2).base, before.base)), strict=True):
        assert np.array_equal(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, y
        )
    policy = SYSTEM.pipeline(SPEC, CFG, None)[1]
    assert policy.kept(before) is before.base
    assert policy.owner == "td3-bc+coda" and policy.name == "policy"


def test_a_policy_with_memory_is_followed_from_an_empty_one(data):
    cfg = maddpg.Config(policy_width=8, critic_width=8, horizon=3)
    base = maddpg.policy(SPEC, cfg)
    state = jit(base.init)(jax.random.key(0), PAST, data)
    obs = jax.random.normal(jax.random.key(1), (5, 3, 2, 2)) * SPEC.obs_mask
    found = jit(stage_of.follower(base, jax.random.key(2), state, PAST, SPEC))(obs)
    want = jit(maddpg.recurrent_networks(SPEC, cfg).play)(state.actor.params, obs)
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert np.abs(np.asarray(found)[:, 1:] - np.asarray(found)[:, :-1]).max() > 1e-3


# --- which rows count, and what a batch is ---


def windows_of(done=(), bad=(), size=4, steps=3):
    """A state with windows whose every number tells window and row; `done` and `bad` are (window, row)."""
    held = window_columns(SPEC)
    rows = np.zeros((size, steps + 1, held.width), np.float32)
    rows += np.arange(size)[:, None, None] + 0.1 * np.arange(steps + 1)[:, None]
    rows[..., held.at["done"][0]] = 0.0
    for k, t in done:
        rows[k, t, held.at["done"][0]] = 1.0
    for k, t in bad:
        rows[k, t, 0] = np.nan
    blank = stage_of.Augmented((), *(jnp.zeros(()) for _ in range(7)))
    counted = jit(lambda rows: stage_of.with_windows(blank, rows, jnp.zeros(size), held))
    return counted(rows), held


def base_batch(key, state, data):
    """A batch as the base draws it."""
    return jit(td3_bc.policy(SPEC, CFG).batch)(key, state, data)


def test_rows_that_are_not_finite_are_dropped_and_counted():
    state, _ = windows_of(bad=[(1, 2)])
    assert float(state.dropped) == 0.25 and int(state.whole) == 3
    assert np.asarray(state.windows)[:3].tolist() == [0, 2, 3]
    assert not np.any(np.asarray(state.order)[: int(state.usable)] // 3 == 1)
    assert np.isfinite(np.asarray(state.rows)).all()


def test_rows_after_an_end_do_not_count():
    """Nor does a window's last step, after which no action is known, unless it ends the episode."""
    state, _ = windows_of(done=[(0, 0), (2, 2)])
    counted = {divmod(int(x), 3) for x in np.asarray(state.order)[: int(state.usable)]}
    assert counted == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)}


def test_transitions_are_neighbouring_rows(data):
    state, held = windows_of(done=[(2, 2)])
    real = jax.tree.map(lambda x: np.asarray(x)[:1], base_batch(jax.random.key(0), None, data))
    draw = jit(lambda key, state, real: stage_of.synthetic_transitions(key, state, held, 64, real))
    found, there = draw(jax.random.key(1), state, real)
    assert bool(there)
    np.testing.assert_allclose(found.next_obs[:, 0, 0] - found.obs[:, 0, 0], 0.1, atol=1e-5)
    np.testing.assert_allclose(found.state[:, 0], found.obs[:, 0, 0])
    ends = np.isclose(np.asarray(found.obs[:, 0, 0]), 2.2)
    assert 0 < ends.sum() < 64 and np.array_equal(np.asarray(found.done) > 0, ends)
    assert np.array_equal(np.asarray(found.last) > 0, ends)


def test_windows_stop_at_an_end(data):
    state, held = windows_of(done=[(0, 1)])
    sample = jit(lambda key, data: sample_windows(key, data, 32, 3)._replace(extra={}))
    real = sample(jax.random.key(0), data)
    draw = jit(lambda key, state, real: stage_of.synthetic_windows(key, state, held, 32, real))
    found, _ = draw(jax.random.key(1), state, real)
    assert isinstance(found, Window) and jax.tree.map(jnp.shape, found) == jax.tree.map(
        jnp.shape, real
    )
    ended = np.asarray(found.obs[:, 0, 0, 0]) == 0.0
    assert 0 < ended.sum() < 32
    assert np.asarray(found.valid)[ended].tolist() == [[1, 1, 1, 0]] * ended.sum()
    assert np.asarray(found.valid)[~ended].min() == 1
    assert np.all(np.asarray(found.action)[ended][:, 2:] == 0) and np.all(
        np.asarray(found.reward)[:, -1] == 0
    )
    assert np.all(np.asarray(found.reward)[~ended][:, 1:3] > 0)


def test_the_share_of_a_batch_that_is_synthetic(made, data):
    """At 0 the batch is the base's, to the last bit, as before the first refresh; at 1 none of it is."""
    state, before = at(made[2], 1), made[3]
    draw = jit(
        lambda share, state: SYSTEM.pipeline(
            SPEC, dataclasses.replace(CFG, augment_share=share), None
        )[1].algorithm.batch(jax.random.key(7), state, data)
    )
    base = base_batch(jax.random.key(7), state.base, data)
    same = lambda a, b: np.all(np.asarray(a.obs) == np.asarray(b.obs), axis=(1, 2))
    whole = draw(0.0, state)
    for x, y in zip(whole, base, strict=True):
        assert np.array_equal(x, y)
    assert same(draw(1.0, before), base).all()
    assert not same(draw(1.0, state), base).any()
    assert same(draw(0.25, state), base).tolist() == [False] * 8 + [True] * 24
    held = {
        tuple(x)
        for x in np.asarray(state.rows).reshape(-1, state.rows.shape[-1])[:, :4].round(5).tolist()
    }
    drawn = np.asarray(draw(1.0, state).obs).reshape(-1, 4).round(5)
    assert all(tuple(x) in held for x in drawn.tolist())


def test_the_dropped_share_and_the_likelihood_are_metrics(made, data):
    _, policy = SYSTEM.pipeline(SPEC, CFG, None)
    state = at(made[2], 1)._replace(dropped=jnp.asarray(0.125))
    batch = base_batch(jax.random.key(0), state.base, data)
    after, metrics = jit(lambda s, b: policy.algorithm.update(jax.random.key(1), s, PAST, b))(
        state, batch
    )
    assert float(metrics["synthetic_dropped"]) == 0.125
    assert float(metrics["synthetic_likelihood"]) == float(state.likelihood)
    assert np.array_equal(after.rows, state.rows)


# --- bad input ---


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"augment_share": 1.5}, ["--cfg.augment-share", "a number in [0, 1]"]),
        ({"augment_share": -0.1}, ["--cfg.augment-share"]),
        ({"augment_lambda": -0.5}, ["--cfg.augment-lambda", "a number of at least 0"]),
        ({"augment_horizon": 5}, ["--cfg.augment-horizon", "4, the shortest episode"]),
        ({"augment_order": 3}, ["--cfg.augment-order"]),
        ({"augment_placement": "late"}, ["--cfg.augment-placement", "paper, pgd, pgd-denoised"]),
        ({"augment_coordinates": "polar"}, ["--cfg.augment-coordinates", "chain, literal"]),
        ({"generator_weighting": "none"}, ["--cfg.generator-weighting", "edm, unweighted"]),
        ({"augment_levels": 0}, ["--cfg.augment-levels"]),
        ({"generator_steps": 5}, ["--cfg.generator-steps", "multiple of chunk"]),
        ({"augment_windows": 300}, ["--cfg.augment-windows", "128"]),
        ({"augment_refresh": 3, "policy_steps": 16}, ["--cfg.augment-refresh"]),
        ({"policy_batch": 10_000}, ["--cfg.policy-batch"]),
    ],
)
def test_bad_settings_are_refused(data, changed, words):
    SYSTEM.check(SPEC, CFG, data)
    with pytest.raises(JaxomarlError) as error:
        SYSTEM.check(SPEC, dataclasses.replace(CFG, **changed), data)
    assert [w for w in words if w not in str(error.value)] == [], str(error.value)


def test_short_episodes_are_refused_or_skipped(data):
    """Five episodes lose all but two of their steps."""
    step = np.asarray(data.step)
    episode = np.cumsum(step == 0) - 1
    cut = (episode < 5) & (step < 2)
    left = np.where(cut, 2 - step, np.where((episode < 5) & (step >= 2), 0, np.asarray(data.left)))
    some = dataclasses.replace(data, left=jnp.asarray(left, jnp.int32))
    assert (coda.shorter(some, 3), coda.shorter(some, 2), coda.shorter(data, 4)) == (5, 0, 0)
    with pytest.raises(
        JaxomarlError, match=r"--cfg.augment-short skip leaves out 5 of 150 .*horizon 2 makes"
    ):
        SYSTEM.check(SPEC, CFG, some)
    SYSTEM.check(SPEC, dataclasses.replace(CFG, augment_short="skip"), some)
    assert all("augment_short" not in stage.fields for stage in SYSTEM.pipeline(SPEC, CFG, None)), (
        "it reaches none"
    )
    with pytest.raises(JaxomarlError, match="refuse, skip"):
        SYSTEM.check(SPEC, dataclasses.replace(CFG, augment_short="drop"), some)


def test_a_generator_narrower_than_two_rows_is_warned_of(data, caplog):
    columns = generator.window_columns(SPEC).width
    with caplog.at_level(logging.WARNING):
        SYSTEM.check(SPEC, dataclasses.replace(CFG, generator_width=2 * columns), data)
        assert not caplog.records
        SYSTEM.check(SPEC, dataclasses.replace(CFG, generator_width=2 * columns - 1), data)
    assert f"--cfg.generator-width {2 * columns - 1} is below {2 * columns}" in caplog.text


def test_a_pull_beyond_contraction_is_warned_of(data, caplog):
    wide = dataclasses.replace(CFG, generator_width=64)
    with caplog.at_level(logging.WARNING):
        SYSTEM.check(SPEC, dataclasses.replace(wide, augment_lambda=1.9), data)
        assert not caplog.records
        SYSTEM.check(SPEC, dataclasses.replace(wide, augment_lambda=2.5), data)
    assert "augment-lambda" in caplog.text and "past the policy" in caplog.text


def test_a_base_without_a_policy_is_refused(data):
    mute = lambda spec, cfg, env: tuple(
        s._replace(algorithm=s.algorithm._replace(act=None))
        for s in td3_bc.pipeline(spec, cfg, env)
    )
    system = coda.augmentation(td3_bc.TD3_BC._replace(pipeline=mute), "mute", "coda")
    with pytest.raises(JaxomarlError, match="a policy to follow"):
        system.check(SPEC, system.Config(**BASE, **SMALL), data)


# --- the games' closed forms ---


def test_learning_from_data_has_the_gradient_of_its_moments():
    """Rows 17 and 18: the batch's mean of dR/da_i is `brud_gradient` of its moments, constant for R = x y."""
    batch = jax.random.uniform(jax.random.key(0), (500, 2), minval=-0.8, maxval=1.0)

    @jit
    def both(theta, weights):
        value = lambda t, i: polynomial(batch.at[:, i].set(t), *weights).mean()
        want = [jax.grad(value)(theta[i], i) for i in (0, 1)]
        return brud_gradient(theta, batch.mean(axis=0), batch.std(axis=0), *weights), want

    for weights in games.GAMES.values():
        for theta in np.array([[-0.64, 0.65], [0.3, 0.9]], np.float32):
            found, want = both(theta, weights)
            np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-5)
    mean, std = batch.mean(axis=0), batch.std(axis=0)
    constant = brud_gradient(jnp.asarray(theta), jnp.asarray(mean), jnp.asarray(std), 0.0, 0.0, 1.0)
    np.testing.assert_allclose(constant, batch.mean(axis=0)[::-1], rtol=1e-5)
    assert twin_peaks_brud_fixed_point(1.0, 4.0, 5.0, 0.6124, 0.3) == pytest.approx(
        0.5353, abs=1e-4
    )


def test_rows_of_the_present_policy_make_it_online_ascent(monkeypatch):
    """D.4's oracle: where synthetic actions are the policy's own, paths are gradient ascent's; D.7's measurements."""
    monkeypatch.setattr(games, "LONG", 60)
    monkeypatch.setattr(games, "SHORT", 60)
    monkeypatch.setattr(games, "ROWS", 50)
    exact = lambda key, model, told, each: jnp.repeat(told[:, None, :2], each, axis=1)
    monkeypatch.setattr(games, "sample_actions", exact)
    model = games.RowModel((), None, jnp.array([0.0, 1.0]))
    pools = jnp.stack([jnp.full((50, 2), c) for c in (0.1, -0.2, 0.0)])
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    paths = jit(lambda w: games.learn(keys, model, pools, w))(jnp.array([0.0, 0.0, 1.0]))
    ours = np.asarray(paths[3, 0])
    np.testing.assert_allclose(ours[0], games.START, rtol=1e-6)
    np.testing.assert_allclose(ours[11], (-0.188, 0.217), atol=2e-3)
    np.testing.assert_allclose(ours[41], (0.240, 0.258), atol=2e-3)
    np.testing.assert_allclose(ours[60], (1.0, 1.0), atol=1e-6)
    theta = jnp.asarray(games.START)
    for _ in range(20):
        theta = ascend(theta, brud_gradient(theta, jnp.array([0.1, 0.1]), 0.0, 0.0, 0.0, 1.0))
    np.testing.assert_allclose(paths[0, 1, 20], theta, atol=1e-5)

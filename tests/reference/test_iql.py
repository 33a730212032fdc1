"""Implicit Q-learning against a separate step, printed expectiles, and the chain's known values.

The letters are those of the equations: A.3, E.3.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from starts import numpy_start

from jaxomarl.algorithms import omsd
from jaxomarl.base import Batch, Episodes, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.dataset import pack, sample_transitions
from jaxomarl.envs import catalog
from jaxomarl.envs.chain import chain_values
from jaxomarl.losses.expectile import expectile
from jaxomarl.losses.td import continuation_factor
from jaxomarl.stages import critic

SPEC = Spec((3, 2), (2, 1), state_dim=4, horizon=5)
SIZE = 12
CFG = omsd.Config(
    critic_width=8, critic_lr=0.01, critic_policy=True, expectile=0.7, temperature=3.0, gamma=0.9
)
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    flags = [jnp.asarray(rng.integers(0, 2, SIZE), jnp.float32) for _ in range(3)]
    done, last, known = flags
    reward = some(seed + 4, SIZE, 2)
    per_action = jnp.ones((SIZE, 2, 2))
    return Batch(
        obs=some(seed + 1, SIZE, 2, 3) * SPEC.obs_mask,
        state=some(seed + 5, SIZE, 4),
        action=jnp.tanh(some(seed + 3, SIZE, 2, 2)) * SPEC.act_mask,
        reward=reward,
        team_reward=reward.mean(1),
        next_obs=some(seed + 2, SIZE, 2, 3) * SPEC.obs_mask,
        next_state=some(seed + 6, SIZE, 4),
        next_action=per_action,
        done=done,
        last=last,
        known=known,
        alive=jnp.ones((SIZE, 2)),
        available=per_action,
        next_available=per_action,
    )


# --- one step, written from equation A.3 alone ---


@jax.jit
def forward(params, *inputs):
    h = jnp.concatenate(inputs, axis=-1)
    for name in ("Dense_0", "Dense_1"):
        h = jnp.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    return h @ params["out"]["kernel"] + params["out"]["bias"]


def adam(params, grads, moments, count, lr):
    """Kingma and Ba's Algorithm 1."""
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], grads)
    step = lambda p, m, v: (
        p - lr * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
    )
    return jax.tree.map(step, params, m, v), (m, v)


@partial(jit, static_argnames="value_first")
def iql_step(params, moments, count, c, a, r, c2, go_on, cfg, mask, value_first=False):
    """(params, moments) -> after one step. `params`: q, target (twins lead), v, pi."""
    twin = lambda q, c, a: jax.vmap(forward, in_axes=(0, None, None))(q, c, a)[..., 0]
    u = twin(params["target"], c, a).min(axis=0) - forward(params["v"], c)[:, 0]
    v_next = forward(params["v"], c2)[:, 0]

    def loss_v(v):
        u = twin(params["target"], c, a).min(axis=0) - forward(v, c)[:, 0]
        return jnp.mean(jnp.where(u < 0, 1 - cfg.expectile, cfg.expectile) * u**2)

    def loss_q(q):
        one, two = twin(q, c, a)
        y = r + cfg.gamma * go_on * v_next
        return 0.5 * (jnp.mean((one - y) ** 2) + jnp.mean((two - y) ** 2))

    def loss_pi(pi):
        w = jnp.minimum(jnp.exp(cfg.temperature * u), 100.0)
        return jnp.mean(w * jnp.sum(mask * (jnp.tanh(forward(pi, c)) - a) ** 2, axis=-1))

    new: dict = {}
    out: dict = {}
    losses: dict = {}
    value, g = jax.value_and_grad(loss_v)(params["v"])
    losses["v_loss"] = value
    new["v"], out["v"] = adam(params["v"], g, moments["v"], count, cfg.critic_lr)
    if value_first:  # the mistake of taking V' after its step
        v_next = forward(new["v"], c2)[:, 0]
    losses["q_loss"], g = jax.value_and_grad(loss_q)(params["q"])
    new["q"], out["q"] = adam(params["q"], g, moments["q"], count, cfg.critic_lr)
    new["target"] = jax.tree.map(lambda q, t: 0.005 * q + 0.995 * t, new["q"], params["target"])
    losses["policy_loss"], g = jax.value_and_grad(loss_pi)(params["pi"])
    new["pi"], out["pi"] = adam(params["pi"], g, moments["pi"], count, cfg.critic_lr)
    return new, out, losses


def params_of(state):
    return {
        "q": state.q.params,
        "target": state.q.target,
        "v": state.v.params,
        "pi": state.policy.params,
    }


def blank(params):
    zero = jax.tree.map(jnp.zeros_like, params)
    return {k: (zero[k], zero[k]) for k in ("q", "v", "pi")}


def joint_inputs(b):
    factor = (1 - b.done) * b.known * (1 - b.last)
    return b.state, b.action.reshape(SIZE, -1), b.team_reward, b.next_state, factor


def filled(init):
    """The state that `init` makes, with networks drawn by numpy; a start reads no data."""
    data = load(catalog.make("games/bandit"), rows=2)[0]
    return jax.tree.map(jnp.asarray, numpy_start(init, {}, data))


def start(cfg=CFG, own=False):
    return filled(critic.iql(SPEC, cfg, own).algorithm.init)


def close(got, want, atol=2e-5):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=atol), got, want)


def far(got, want):
    return max(
        float(jnp.abs(g - w).max()) for g, w in zip(*map(jax.tree.leaves, (got, want)), strict=True)
    )


def test_joint_steps_are_those_written_apart():
    """Three steps on three batches.

    Losses are from before any update, V' too; Q's loss is half a sum over twins; Polyak is 0.005.
    """
    cfg = dataclasses.replace(CFG, time_limit="terminal")
    state = start()
    update = jit(critic.iql(SPEC, cfg).algorithm.update)
    params = params_of(state)
    moments = blank(params)
    mask = SPEC.act_mask.reshape(-1)
    for count in (1, 2, 3):
        b = batch_of(10 * count)
        state, metrics = update(jax.random.key(count), state, {}, b)
        params, moments, losses = iql_step(params, moments, count, *joint_inputs(b), cfg, mask)
        close(params_of(state), params)
        for name, value in losses.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    wrong = iql_step(
        params_of(start()),
        blank(params),
        1,
        *joint_inputs(batch_of(10)),
        cfg,
        mask,
        value_first=True,
    )[0]
    right = iql_step(params_of(start()), blank(params), 1, *joint_inputs(batch_of(10)), cfg, mask)[
        0
    ]
    assert far(wrong["q"], right["q"]) > 1e-4, (
        "the comparison would not notice V' from after the step"
    )


def test_a_step_in_numbers():
    """Networks that give constants: Q = 1 and 3, targets 5 and 2, V = 4; r = 1, gamma 0.9."""
    cfg = dataclasses.replace(CFG, expectile=0.7, critic_lr=0.0)
    state = jax.tree.map(jnp.zeros_like, start())
    plain = lambda net, *bias: {
        **net,
        "out": {**net["out"], "bias": jnp.array(bias).reshape(net["out"]["bias"].shape)},
    }
    q = state.q._replace(
        params=plain(state.q.params, 1.0, 3.0), target=plain(state.q.target, 5.0, 2.0)
    )
    state = state._replace(q=q, v=state.v._replace(params=plain(state.v.params, 4.0)))
    b = batch_of()
    one = jnp.ones(SIZE)
    b = b._replace(team_reward=one, done=0 * one, known=one, last=0 * one)
    after, metrics = jit(critic.iql(SPEC, cfg).algorithm.update)(jax.random.key(0), state, {}, b)
    np.testing.assert_allclose(metrics["advantage"], 2.0 - 4.0)
    np.testing.assert_allclose(metrics["v_loss"], 0.3 * 4.0, rtol=1e-6)  # u = -2 < 0
    y = 1 + 0.9 * 4
    np.testing.assert_allclose(metrics["q_loss"], 0.5 * ((1 - y) ** 2 + (3 - y) ** 2), rtol=1e-6)
    np.testing.assert_allclose(
        after.q.target["out"]["bias"][:, 0], [0.995 * 5 + 0.005, 0.995 * 2 + 0.015], rtol=1e-6
    )
    done = jit(critic.iql(SPEC, cfg).algorithm.update)(
        jax.random.key(0), state, {}, b._replace(done=one)
    )[1]
    np.testing.assert_allclose(done["q_loss"], 0.5 * ((1 - 1) ** 2 + (3 - 1) ** 2), rtol=1e-6)


def test_advantage_weights_stop_at_100():
    state = start()
    b = batch_of()
    lift = lambda shift: state._replace(
        q=state.q._replace(
            target={
                **state.q.target,
                "out": {**state.q.target["out"], "bias": jnp.full((2, 1), shift)},
            }
        )
    )
    update = jit(critic.iql(SPEC, CFG).algorithm.update)
    played = jnp.tanh(forward(state.policy.params, b.state))
    error = SPEC.act_mask.reshape(-1) * (played - b.action.reshape(SIZE, -1)) ** 2
    square = float(jnp.mean(jnp.sum(error, -1)))
    high, metrics = update(jax.random.key(0), lift(50.0), {}, b)  # exp(3 * 50) overflows
    np.testing.assert_allclose(metrics["policy_loss"], 100 * square, rtol=1e-5)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(high))
    _, metrics = update(jax.random.key(0), lift(-50.0), {}, b)
    np.testing.assert_allclose(metrics["policy_loss"], 0.0, atol=1e-6)


# --- own critics ---


def test_own_critics_in_one_update_are_a_loop_over_agents():
    """Each agent's critic reads its own observation, action and reward alone, in any order."""
    cfg = dataclasses.replace(CFG, reward="own")
    state = start(own=True, cfg=cfg)
    b = batch_of()
    update = jit(critic.iql(SPEC, cfg, own=True).algorithm.update)
    after, metrics = update(jax.random.key(0), state, {}, b)
    losses = []
    for i in (1, 0):
        pick = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)
        inputs = (
            b.obs[:, i],
            b.action[:, i],
            b.reward[:, i],
            b.next_obs[:, i],
            (1 - b.done) * b.known,
        )
        params = pick(params_of(state))
        want, _, loss = iql_step(params, blank(params), 1, *inputs, cfg, SPEC.act_mask[i])
        close(pick(params_of(after)), want)
        losses.append(loss)
    for name in ("v_loss", "q_loss", "policy_loss"):
        np.testing.assert_allclose(metrics[name], np.mean([x[name] for x in losses]), rtol=1e-5)
    # the other agent's observation, action and reward reach nothing of this one's
    swap = {"obs": b.obs, "action": b.action, "reward": b.reward, "next_obs": b.next_obs}
    other = b._replace(
        **{k: x.at[:, 1].add(0.1) for k, x in swap.items()}, team_reward=b.team_reward + 1
    )
    moved, _ = update(jax.random.key(0), state, {}, other)
    for x, y in zip(*(jax.tree.leaves(params_of(s)) for s in (after, moved)), strict=True):
        np.testing.assert_array_equal(x[0], y[0])
    assert far(params_of(after), params_of(moved)) > 1e-3


@pytest.mark.parametrize(("reward", "reads"), [("team", "team_reward"), ("first", "reward")])
def test_the_joint_critics_reward(reward, reads):
    state = start()
    b = batch_of()
    update = jit(critic.iql(SPEC, dataclasses.replace(CFG, reward=reward)).algorithm.update)
    base = params_of(update(jax.random.key(0), state, {}, b)[0])
    for change, seen in (
        ({"team_reward": b.team_reward + 1}, reads == "team_reward"),
        ({"reward": b.reward.at[:, 0].add(1.0)}, reads == "reward"),
        ({"reward": b.reward.at[:, 1].add(1.0)}, False),
    ):
        other = params_of(update(jax.random.key(0), state, {}, b._replace(**change))[0])
        assert (far(base["q"], other["q"]) > 1e-3) == seen
        assert far(base["v"], other["v"]) == 0  # V's step reads no reward


# --- expectiles (E.3, H row 10) ---


NORMAL = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
UNIFORM = (np.arange(20_000) + 0.5) / 20_000
COIN = np.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("x", "tau", "printed"),
    [
        (NORMAL, 0.5, 0.0),
        (NORMAL, 0.7, 0.3371),
        (NORMAL, 0.9, 0.8616),
        (UNIFORM, 0.5, 0.5),
        (UNIFORM, 0.7, 0.6044),
        (UNIFORM, 0.9, 0.75),
        (COIN, 0.3, 0.3),
        (COIN, 0.7, 0.7),
        (COIN, 0.9, 0.9),
    ],
)
def test_the_minimiser_is_the_expectile(x, tau, printed):
    x = jnp.asarray(x, jnp.float32)
    slope = jax.jit(jax.grad(lambda v: expectile(x - v, tau).mean()))
    low, high = -2.0, 2.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    digits = len(str(printed).split(".")[1])
    assert abs(low - printed) < 0.51 * 10**-digits if digits > 1 else abs(low - printed) < 5e-5


def test_the_loss_in_numbers():
    np.testing.assert_allclose(
        expectile(jnp.array([-2.0, 0.0, 3.0]), 0.7), [0.3 * 4, 0, 0.7 * 9], rtol=1e-6
    )


# --- time limits ---


@pytest.mark.parametrize("done", [0.0, 1.0])
@pytest.mark.parametrize("last", [0.0, 1.0])
@pytest.mark.parametrize("known", [0.0, 1.0])
def test_which_transitions_continue(done, last, known):
    b = batch_of()._replace(
        done=jnp.full(SIZE, done), last=jnp.full(SIZE, last), known=jnp.full(SIZE, known)
    )
    np.testing.assert_array_equal(continuation_factor(b, "bootstrap"), float(not done and known))
    np.testing.assert_array_equal(
        continuation_factor(b, "terminal"), float(not done and known and not last)
    )


def test_a_cut_episode_bootstraps_with_its_own_successor():
    """The last transition before a time-out reads the stored successor, no other episode (H 24)."""
    rows = 6
    spec = Spec((1, 1), (1, 1), state_dim=1, horizon=2)
    # two episodes of two steps; row 2 is the true successor
    value = jnp.array([0.1, 0.2, 0.7, -5.0, -6.0, -7.0])
    episodes = Episodes(
        obs=jnp.broadcast_to(value[:, None, None], (rows, 2, 1)),
        state=value[:, None],
        action=jnp.zeros((rows, 2, 1)),
        reward=jnp.full((rows, 2), 0.5),
        done=jnp.zeros(rows),
        step=jnp.array([0, 1, 2, 0, 1, 2]),
        left=jnp.array([2, 1, 0, 2, 1, 0]),
        behaviour=jnp.zeros(rows, int),
    )
    data = dataclasses.replace(pack(episodes, spec), starts=jnp.array([1]))
    b = sample_transitions(jax.random.key(0), data, 8)
    np.testing.assert_array_equal(b.last, 1.0)
    np.testing.assert_array_equal(b.done, 0.0)
    np.testing.assert_allclose(b.next_state, 0.7)
    np.testing.assert_allclose(b.next_obs, 0.7)
    cfg = dataclasses.replace(CFG, critic_policy=False)
    state = jit(critic.iql(spec, cfg).algorithm.init)(jax.random.key(0), {}, data)
    # targets start equal
    jax.tree.map(np.testing.assert_array_equal, state.q.target, state.q.params)
    for time_limit in ("bootstrap", "terminal"):
        learner = critic.iql(spec, dataclasses.replace(cfg, time_limit=time_limit))
        _, metrics = jit(learner.algorithm.update)(jax.random.key(1), state, {}, b)
        v = float(forward(state.v.params, jnp.array([[0.7]]))[0, 0])
        y = 0.5 + (0.9 * v if time_limit == "bootstrap" else 0.0)
        q = jax.vmap(forward, in_axes=(0, None))(state.q.params, jnp.array([[0.2, 0, 0]]))[:, 0, 0]
        np.testing.assert_allclose(
            metrics["q_loss"], 0.5 * ((q[0] - y) ** 2 + (q[1] - y) ** 2), rtol=1e-4
        )
        assert abs(v) > 0.01


# --- the chain (known values) ---

LENGTH, GAMMA, STEPS = 4, 0.9, 2000


@pytest.fixture(scope="module")
def chain_data():
    """Half of the joint actions agree; episodes are cut after 6 steps, and two thirds are."""
    return load(catalog.make(f"games/chain:length={LENGTH},horizon=6"), rows=8000)[0]


def table(data, time_limit):
    """V, Q(agree), Q(disagree) [LENGTH] of the data's own frequencies, from linear equations."""
    start = np.asarray(data.starts)
    at = np.asarray(data.state)[start]
    after = np.asarray(data.state)[start + 1]
    action = np.asarray(data.action)[start, :, 0]
    agree = action[:, 0] * action[:, 1] > 0
    go_on = 1 - np.asarray(data.done)[start]
    if time_limit == "terminal":
        go_on = go_on * (1 - np.asarray(data.last)[start])
    reward = np.asarray(data.reward)[start, 0]
    flow = GAMMA * go_on[:, None] * after
    average = lambda chosen, x: (
        (at[chosen].T @ x[chosen]) / at[chosen].sum(axis=0).reshape(-1, *[1] * (x.ndim - 1))
    )
    all_rows = np.ones_like(agree)
    v = np.linalg.solve(np.eye(LENGTH) - average(all_rows, flow), average(all_rows, reward))
    return v, *(average(chosen, reward) + average(chosen, flow) @ v for chosen in (agree, ~agree))


@pytest.mark.parametrize("time_limit", ["bootstrap", "terminal"])
def test_iql_learns_the_chains_values(chain_data, time_limit):
    """Expectile 1/2: V is the behaviour's value.

    The learner aims at the data's own fixed point. Values are up to 1, and the tolerance is 0.04,
    for SGD's noise and the minimum over twins. Where cuts bootstrap, the data's point is the closed
    form up to how often the actions agree: 4 standard errors of that frequency, 4 * 0.5 /
    sqrt(1000 visits), times a slope of V in it of at most 2, are 0.13 in the last state; it is
    0.06 here.
    """
    cfg = omsd.Config(
        critic_width=32,
        critic_batch=128,
        critic_lr=3e-3,
        critic_polyak=0.02,
        expectile=0.5,
        gamma=GAMMA,
        time_limit=time_limit,
    )
    spec = catalog.make(f"games/chain:length={LENGTH},horizon=6").env.spec
    learner = critic.iql(spec, cfg)

    @jax.jit
    def train(key, data):
        def step(state, key):
            k_batch, k_update = jax.random.split(key)
            return learner.algorithm.update(
                k_update, state, {}, learner.algorithm.batch(k_batch, state, data)
            )[0], None

        first = learner.algorithm.init(key, {}, data)
        return jax.lax.scan(step, first, jax.random.split(key, STEPS))[0]

    state = train(jax.random.key(0), chain_data)
    places = jnp.eye(LENGTH)
    v = forward(state.v.params, places)[:, 0]
    pairs = jnp.array([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    value = lambda a: learner.q(
        {"critic": state},
        jnp.zeros((LENGTH, 2, LENGTH)),
        places,
        jnp.tile(a[:, None], (LENGTH, 1, 1)),
    )
    q = jit(jax.vmap(value))(pairs).reshape(2, 2, LENGTH).mean(axis=1)
    own = table(chain_data, time_limit)
    for got, want in zip((v, *q), own, strict=True):
        np.testing.assert_allclose(got, want, atol=0.04)
    exact = chain_values(LENGTH, 0.5, GAMMA)
    if time_limit == "bootstrap":
        for got, want in zip((v, *q), exact, strict=True):
            np.testing.assert_allclose(got, want, atol=0.1)
    else:
        assert np.all(exact.v - np.asarray(v) > 0.15)

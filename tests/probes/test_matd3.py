"""MATD3: its step against one written apart, what its replay holds, and a chase that it must solve."""

import dataclasses
import itertools
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import QUICK, jit
from scipy import stats
from starts import numpy_start

from jaxomarl.algorithms import matd3
from jaxomarl.base import Batch, Environment, Observation, Spec, TimeStep
from jaxomarl.data import replay
from jaxomarl.data.stats import identity
from jaxomarl.envs import catalog
from jaxomarl.optim import first_moments
from jaxomarl.training import evaluation
from jaxomarl.training.runner import Job, run

SPEC = Spec(
    (3, 2), (2, 1), state_dim=4, horizon=5
)  # the second agent is padded in what it sees and does
SIZE, STEPS = 12, 2
# Nothing is one, zero or small, so that every number of a step can be seen in it.
CFG = matd3.Config(
    width=8,
    lr=0.01,
    gamma=0.9,
    polyak=0.2,
    reward_scale=0.5,
    target_noise=0.6,
    target_clip=0.5,
    action_penalty=0.3,
)


def some(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    obs, after = (some(seed + k, SIZE, 2, 3) * SPEC.obs_mask for k in (1, 2))
    action = np.tanh(some(seed + 3, SIZE, 2, 2)) * SPEC.act_mask
    reward, ones = some(seed + 4, SIZE, 2), np.ones((SIZE, 2, 2), np.float32)
    done, last = (rng.integers(0, 2, SIZE).astype(np.float32) for _ in range(2))
    return Batch(
        obs=obs,
        state=some(seed + 5, SIZE, 4),
        action=action,
        reward=reward,
        team_reward=reward.mean(axis=1),
        next_obs=after,
        next_state=some(seed + 6, SIZE, 4),
        next_action=0 * action,
        done=done,
        last=last,
        known=ones[:, 0, 0],
        alive=ones[..., 0],
        available=ones,
        next_available=ones,
    )


def filled(spec, cfg):
    """A learner without replay, its networks and their targets drawn by numpy, each differently."""
    return numpy_start(matd3.policy(spec, cfg, None).init, {}, None)


def pick(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def bent(x, *index):
    """A copy in which some numbers are others."""
    x = np.array(x)
    x[index] *= -0.5
    return x


def close(got, want, atol=1e-5):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=atol), got, want)


def far(got, want):
    return max(
        float(np.abs(np.asarray(g) - w).max())
        for g, w in zip(*map(jax.tree.leaves, (got, want)), strict=True)
    )


def moments(net):
    """Adam's first moments; after one step, a tenth of the clipped gradients."""
    return first_moments(net)


# --- one step, written apart from the pseudo-code ---


def forward(params, x, relu=lambda x: np.maximum(x, 0)):
    """Two ReLU layers and a linear one."""
    h = relu(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    h = relu(h @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"])
    return h @ params["out"]["kernel"] + params["out"]["bias"]


def seen_by(i, critic, obs, state, action):
    """What the critic of agent i is given."""
    if critic == "own":
        return [obs[:, i], action[:, i]]
    return [state, action[:, 0], action[:, 1]]


def targets_by_hand(cfg, state, b, key):
    """Lines 4 and 5 in NumPy, agent by agent."""
    state = jax.tree.map(np.asarray, state)
    noise = cfg.target_noise * np.asarray(jax.random.normal(key, b.action.shape))
    after = np.zeros_like(b.action)
    for i, width in enumerate(SPEC.act_dims):
        played = np.tanh(forward(pick(state.actor.target, i), b.next_obs[:, i]))
        shaken = played + np.clip(noise[:, i], -cfg.target_clip, cfg.target_clip)
        after[:, i, :width] = np.clip(shaken, -1, 1)[:, :width]
    y = np.zeros((2, SIZE), np.float32)
    for i in range(2):
        x = np.concatenate(seen_by(i, cfg.critic, b.next_obs, b.next_state, after), axis=-1)
        low = np.minimum(*(forward(pick(state.critic.target, i, k), x)[:, 0] for k in (0, 1)))
        reward = b.reward[:, i] if cfg.reward == "own" else (b.reward[:, 0] + b.reward[:, 1]) / 2
        ends = b.done if cfg.time_limit == "bootstrap" else np.maximum(b.done, b.last)
        y[i] = cfg.reward_scale * reward + cfg.gamma * (1 - ends) * low
    return y, after, noise


@jit
def gradients_by_hand(cfg, actors, critics, b, y):
    """Lines 6 and 7, a loss for each agent, both at the parameters from before the step; and the norms of all."""
    relu = jax.nn.relu

    def q(params, k, i, action):
        x = jnp.concatenate(seen_by(i, cfg.critic, b.obs, b.state, action), axis=-1)
        return forward(pick(params, k), x, relu)[:, 0]

    def critic_loss(params, i):
        return sum(jnp.mean((q(params, k, i, b.action) - y[i]) ** 2) for k in (0, 1))

    def actor_loss(params, i):
        a = jnp.tanh(forward(params, b.obs[:, i], relu))[:, : SPEC.act_dims[i]]
        joint = jnp.asarray(b.action).at[:, i, : SPEC.act_dims[i]].set(a)
        return cfg.action_penalty * jnp.mean(a**2) - jnp.mean(q(pick(critics, i), 0, i, joint))

    out = []
    for loss, params in ((actor_loss, actors), (critic_loss, critics)):
        grads = [jax.grad(loss)(pick(params, i), i) for i in range(2)]
        grads = jax.tree.map(lambda *g: jnp.stack(g), *grads)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        out.append(
            (jax.tree.map(lambda g, norm=norm: g * jnp.minimum(1.0, cfg.clip / norm), grads), norm)
        )
    return out


def step_by_hand(cfg, net, m, v, count, grads):
    """Kingma and Ba's Algorithm 1, then line 8; (params, target, m, v)."""
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, grads)
    down = lambda p, m, v: (
        p - cfg.lr * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
    )
    params = jax.tree.map(down, net[0], m, v)
    return (
        (params, jax.tree.map(lambda p, t: cfg.polyak * p + (1 - cfg.polyak) * t, params, net[1])),
        m,
        v,
    )


CASES = {
    "own": dataclasses.replace(CFG, critic="own", reward="own", time_limit="bootstrap", clip=1e3),
    "joint": dataclasses.replace(
        CFG, critic="joint", reward="team", time_limit="terminal", clip=0.05
    ),
}


@pytest.fixture(scope="module")
def update():
    """One compiled update for each kind of critic: traced fields are arguments."""
    return jit(lambda cfg, key, state, b: matd3.policy(SPEC, cfg, None).update(key, state, {}, b))


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_written_apart(update, case):
    cfg = CASES[case]
    state = first = filled(SPEC, cfg)
    nets = {
        k: jax.tree.map(np.asarray, (net.params, net.target))
        for k, net in zip("aq", first[:2], strict=True)
    }
    zero = {k: jax.tree.map(np.zeros_like, net[0]) for k, net in nets.items()}
    m, v = dict(zero), dict(zero)
    for count in range(1, STEPS + 1):
        b, key = batch_of(10 * count), jax.random.key(count)
        y, after, noise = targets_by_hand(cfg, state, b, key)
        assert np.any(np.abs(noise) > cfg.target_clip) and np.any(np.abs(after) == 1), (
            "no clipping to be compared"
        )
        grads = gradients_by_hand(cfg, nets["a"][0], nets["q"][0], b, y)
        for k, (grad, norm) in zip("aq", grads, strict=True):
            assert (norm > cfg.clip) == (case == "joint"), (
                "the clip of gradients is not what this case is for"
            )
            nets[k], m[k], v[k] = step_by_hand(
                cfg, nets[k], m[k], v[k], count, jax.tree.map(np.asarray, grad)
            )
        state, metrics = update(cfg, key, state, b)
        for k, net in zip("aq", state[:2], strict=True):
            close((net.params, net.target), nets[k])
            close(moments(net), m[k])
        assert all(np.isfinite(x) for x in metrics.values())
    # what is padded has no gradient: the second agent's third observation, and its second action
    same = np.testing.assert_array_equal
    same(
        state.actor.params["Dense_0"]["kernel"][1, 2], first.actor.params["Dense_0"]["kernel"][1, 2]
    )
    jax.tree.map(
        lambda x, y: same(x[1, ..., 1], y[1, ..., 1]),
        state.actor.params["out"],
        first.actor.params["out"],
    )
    enters, was = (net.critic.params["Dense_0"]["kernel"] for net in (state, first))
    i, row = ((0, 1), 4 + 3) if case == "joint" else (1, 3 + 1)
    same(enters[i, :, row], was[i, :, row])
    assert np.all(np.any(enters[1, :, :2] != was[1, :, :2], axis=-1))


def test_a_step_feels_each_number(update):
    """No traced field is lost: half of it gives another step, by far more than the comparison allows."""
    cfg, b, key = CASES["joint"], batch_of(10), jax.random.key(1)
    stepped = lambda cfg: [
        (net.params, net.target, moments(net)) for net in update(cfg, key, start, b)[0][:2]
    ]
    start = filled(SPEC, cfg)
    base = stepped(cfg)
    for field in (
        "lr",
        "gamma",
        "polyak",
        "reward_scale",
        "target_noise",
        "target_clip",
        "action_penalty",
        "clip",
    ):
        changed = stepped(dataclasses.replace(cfg, **{field: 0.5 * getattr(cfg, field)}))
        assert far(changed, base) > 1e-4, field


def test_targets_of_every_choice():
    """Both critics, rewards and time limits in all combinations."""
    choices = [*itertools.product(("own", "joint"), ("own", "team"), ("bootstrap", "terminal"))]
    cfgs = [dataclasses.replace(CFG, critic=c, reward=r, time_limit=t) for c, r, t in choices]
    states, b, key = [filled(SPEC, cfg) for cfg in cfgs], batch_of(3), jax.random.key(5)

    @jit
    def all_targets(states, b):
        ours = zip(cfgs, states, strict=True)
        return [
            matd3.targets(SPEC, cfg, matd3.online_networks(SPEC, cfg), key, state, b)
            for cfg, state in ours
        ]

    found = np.stack(all_targets(states, b))
    wanted = np.stack(
        [targets_by_hand(cfg, state, b, key)[0] for cfg, state in zip(cfgs, states, strict=True)]
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    for one, other in itertools.combinations(wanted, 2):
        assert np.abs(one - other).max() > 0.05, "two choices that the comparison cannot tell apart"


@pytest.mark.parametrize("case", CASES)
def test_an_actors_gradient_does_not_depend_on_other_actors(update, case):
    """a_-i are the batch's; the clip, which is of all agents' gradients together, is out of the way."""
    cfg, b, key = dataclasses.replace(CASES[case], clip=1e9), batch_of(10), jax.random.key(1)
    state = filled(SPEC, cfg)
    other = jax.tree.map(lambda x: bent(x, 1), state.actor.params)
    base, moved = (
        update(cfg, key, s, b)[0]
        for s in (state, state._replace(actor=state.actor._replace(params=other)))
    )
    same = lambda one, two: jax.tree.map(np.testing.assert_array_equal, one, two)
    same(pick(moments(moved.actor), 0), pick(moments(base.actor), 0))
    same(moved.critic, base.critic)
    assert far(pick(moments(moved.actor), 1), pick(moments(base.actor), 1)) > 1e-3
    # what the other agent did is in the joint critic's input, and in no own critic's
    did = update(cfg, key, state, b._replace(action=bent(b.action, slice(None), 1, 0)))[0]
    for net, was in zip(did[:2], base[:2], strict=True):
        assert (far(pick(moments(net), 0), pick(moments(was), 0)) > 1e-3) == (case == "joint")


def test_padded_observations_reach_no_action():
    state, obs = filled(SPEC, CFG), batch_of().obs[0]
    see = lambda obs: Observation(obs, SPEC.act_mask > 0)
    act = jit(
        lambda obs: matd3.policy(SPEC, CFG, None).act(jax.random.key(0), state, {}, (), see(obs))[0]
    )
    np.testing.assert_array_equal(act(obs + 3.0 * (1 - SPEC.obs_mask)), act(obs))
    np.testing.assert_array_equal(act(obs)[1, 1], 0.0)


# --- the ring ---


def marked(first, count):
    """Transitions of which every number says which one it is, and in which block it lies."""
    blocks = zip(
        replay.Rows._fields,
        jax.eval_shape(lambda: replay.empty_ring(SPEC, count)).rows,
        strict=True,
    )
    number = lambda x: np.arange(first, first + count, dtype=np.float32).reshape(
        -1, *[1] * (x.ndim - 1)
    )
    return replay.Rows(
        **{k: np.broadcast_to(number(x) + MARK[k], x.shape) for k, x in blocks if x is not None}
    )


# of continuous actions a ring has neither what is legal nor who lives
HELD = [name for name, x in replay.empty_ring(SPEC, 1).rows._asdict().items() if x is not None]
MARK = {name: 1000.0 * k for k, name in enumerate(HELD)}
CAPACITY = 5


def rings():
    """After 3, 6 and 9 transitions, of which it holds five."""
    ring, extend = jax.tree.map(np.zeros_like, marked(0, CAPACITY)), jit(replay.extend)
    ring = replay.Replay(ring, np.int32(0))
    for first in (0, 3, 6):
        ring = extend(ring, marked(first, 3))
        yield first + 3, jax.tree.map(np.asarray, ring)


def test_the_ring_overwrites_the_oldest():
    for given, ring in rings():
        assert int(ring.count) == given
        for k in range(max(0, given - CAPACITY), given):
            jax.tree.map(
                lambda x, want: np.testing.assert_array_equal(x, want[0]),
                pick(ring.rows, k % CAPACITY),
                marked(k, 1),
            )


def test_samples_are_whole_transitions_that_were_written():
    """Every one that is held, equally often: counts of 1,000 draws lie within 5 sigma, 5 sqrt(1000 p (1 - p))."""
    draw = jit(lambda key, ring: replay.sample_ring(key, ring, SPEC, 1000))
    for given, ring in rings():
        b = draw(jax.random.key(given), ring)
        held = np.arange(max(0, given - CAPACITY), given)
        which = np.asarray(b.done) - MARK["done"]
        counts = np.array([(which == k).sum() for k in held])
        assert counts.sum() == 1000, "a row that the ring does not hold"
        p = 1 / len(held)
        assert np.all(np.abs(counts - 1000 * p) < 5 * np.sqrt(1000 * p * (1 - p)))
        for name, offset in MARK.items():
            x = np.asarray(getattr(b, name))
            np.testing.assert_array_equal(
                x - offset, np.broadcast_to(which.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
            )
        np.testing.assert_array_equal(b.known, 1.0)


def test_the_teams_reward_follows_the_task():
    ring = replay.Replay(
        marked(0, 4)._replace(reward=np.arange(8.0, dtype=np.float32).reshape(4, 2)), np.int32(4)
    )
    specs = [dataclasses.replace(SPEC, team=team) for team in ("mean", "first")]
    mean, first = jit(
        lambda key, ring: [replay.sample_ring(key, ring, spec, 20) for spec in specs]
    )(jax.random.key(0), ring)
    np.testing.assert_array_equal(mean.team_reward, (mean.reward[:, 0] + mean.reward[:, 1]) / 2)
    np.testing.assert_array_equal(first.team_reward, first.reward[:, 0])


# --- the walk ---

LENGTH, HORIZON, ENVS = 3, 5, 6
CHAIN = catalog.make(f"games/chain:length={LENGTH},horizon={HORIZON}").env


def anywhere(key):
    """The chain from a position drawn anew (nobody moves on 0)."""
    return CHAIN.step(key, jax.random.randint(key, (), 0, LENGTH), jnp.zeros((2, 1)))


CHAIN = CHAIN._replace(reset=anywhere)


def test_the_walk_follows_the_rules_through_ends_of_episodes():
    """Two walks of 25 steps are one of 50: each row against the chain's rule, which is simple enough to write again."""
    toss = lambda key, seen: jax.random.rademacher(key, (2, 1), jnp.float32)
    further = jit(lambda walk, key: replay.step_environments(CHAIN, toss, walk, key, 25))
    walk, parts = jit(lambda key: replay.begin(CHAIN, key, ENVS))(jax.random.key(0)), []
    for key in jax.random.split(jax.random.key(1)):
        walk, rows = further(walk, key)
        parts.append(jax.tree.map(lambda x: np.asarray(x).reshape(25, ENVS, *x.shape[1:]), rows))
    rows = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    at = rows.state.argmax(axis=-1)
    then = at + (rows.action[..., 0, 0] * rows.action[..., 1, 0] > 0)
    hot = np.eye(LENGTH + 1)[:, :LENGTH]  # beyond the last position: zeros
    np.testing.assert_array_equal(rows.state, hot[at])
    np.testing.assert_array_equal(rows.next_state, hot[then])  # the true successor, at ends too
    for joint, seen in ((rows.state, rows.obs), (rows.next_state, rows.next_obs)):
        np.testing.assert_array_equal(seen, np.stack([joint, joint], axis=-2))
    over = then == LENGTH
    np.testing.assert_array_equal(rows.done, over)
    np.testing.assert_array_equal(rows.reward, np.stack([over, over], axis=-1))
    step = np.zeros(ENVS, int)
    for t in range(50):
        last = over[t] | (step == HORIZON - 1)
        np.testing.assert_array_equal(rows.last[t], last)
        step = np.where(last, 0, step + 1)
        after = rows.state[t + 1] if t < 49 else np.asarray(walk.now.state)
        np.testing.assert_array_equal(after[~last], rows.next_state[t][~last])
    np.testing.assert_array_equal(walk.step, step)
    # and all of this happened: terminations, time-outs, new starts everywhere and other than where the episode ended
    ends = rows.last[:-1] == 1
    cut = ends & ~over[:-1]
    assert over.any() and cut.any()
    assert set(at[1:][ends]) == set(range(LENGTH))
    assert np.any(rows.state[1:][cut] != rows.next_state[:-1][cut])
    assert len(np.unique(rows.action[:, :, 0, 0], axis=1).T) == ENVS, (
        "two environments share their noise"
    )


ROUND = 40 * 8


@pytest.fixture(scope="module")
def collected():
    """(policies' parameters, noise, transitions held before) -> one collection: 40 steps of 8 environments."""
    cfg = matd3.Config(width=8, envs=8, collect=40, capacity=2 * ROUND, warmup=ROUND)
    state = filled(CHAIN.spec, cfg)

    @jit
    def refresh(cfg, key, state, before):
        ring = replay.empty_ring(CHAIN.spec, cfg.capacity)._replace(count=before)
        state = state._replace(replay=ring, walk=replay.begin(CHAIN, jax.random.key(1), cfg.envs))
        return matd3.collecting(CHAIN.spec, cfg, CHAIN)(key, state, {}, None)

    def collect(params, noise, before):
        start = state._replace(actor=state.actor._replace(params=params))
        after = refresh(
            dataclasses.replace(cfg, noise=noise), jax.random.key(2), start, np.int32(before)
        )
        assert int(after.replay.count) == before + ROUND
        return pick(
            jax.tree.map(np.asarray, after.replay.rows), slice(before, before + ROUND)
        ), after

    return collect


def constant(*actions):
    """Policies that play these numbers everywhere."""
    params = jax.tree.map(np.zeros_like, filled(CHAIN.spec, matd3.Config(width=8)).actor.params)
    return {**params, "out": {**params["out"], "bias": np.arctanh(np.float32(actions))[:, None]}}


def test_warming_up_is_uniform_and_then_the_policies_play(collected):
    """Kolmogorov and Smirnov's p is below 1e-4 for one right draw in ten thousand, and the keys are fixed."""
    rows, _ = collected(constant(0.5, -0.98), 0.1, 0)
    for i in range(2):
        assert stats.kstest(rows.action[:, i, 0], stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert abs(stats.pearsonr(*rows.action[..., 0].T)[0]) < 5 / np.sqrt(ROUND)
    rows, _ = collected(constant(0.5, -0.98), 0.1, ROUND)  # `warmup` transitions are there
    first, second = rows.action[..., 0].T
    assert (
        stats.kstest(first, stats.norm(0.5, 0.1).cdf).pvalue > 1e-4
    )  # the clip, at 5 sigma, does not show
    p = stats.norm.cdf(-0.02 / 0.1)  # beyond the edge
    assert second.min() == -1.0
    assert abs(np.mean(second == -1.0) - p) < 5 * np.sqrt(p * (1 - p) / ROUND)
    inside = stats.truncnorm(-0.02 / 0.1, np.inf, -0.98, 0.1)
    assert stats.kstest(second[second > -1], inside.cdf).pvalue > 1e-4


def test_policies_collect_by_their_own_observations(collected):
    params = filled(CHAIN.spec, matd3.Config(width=8)).actor.params
    rows, after = collected(params, 0.0, ROUND)
    for i in range(2):
        want = np.tanh(forward(pick(params, i), rows.obs[:, i]))
        np.testing.assert_allclose(rows.action[:, i], want, atol=1e-6)
    assert np.unique(rows.action[:, 0, 0].round(4)).size == LENGTH
    jax.tree.map(
        np.testing.assert_array_equal, after.actor.params, params
    )  # collecting learns nothing


# --- the chase ---

CHASE = Spec((2, 1), (1, 1), state_dim=2, horizon=4)
REACH = 0.5
SEEDS, EPISODES = (0, 1), 64
LEARN = matd3.Config(
    critic="joint", reward_scale=1.0, gamma=0.7, policy_steps=720, chunk=8, every=90, batch=64, width=16, lr=5e-3,
    polyak=0.05, envs=8, collect=4, capacity=2048, warmup=128, noise=0.2,
)  # fmt: skip


def chase():
    """Two agents on a line pay their distance after each step of up to REACH; the second sees the distance alone."""

    def timestep(x, reward):
        obs = jnp.array([[x[0], x[1]], [x[1] - x[0], 0.0]])
        on = jnp.ones(2)
        return TimeStep(obs, x, reward * on, jnp.zeros(()), on, jnp.ones((2, 1), bool), {})

    def reset(key):
        x = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return x, timestep(x, jnp.zeros(()))

    def step(key, x, action):
        x = x + REACH * jnp.clip(action[:, 0], -1.0, 1.0)
        return x, timestep(x, -jnp.abs(x[0] - x[1]))

    return Environment(CHASE, reset, step)


class Chased(NamedTuple):
    """A finished run: what it kept, its last state, the mean return of each seed, the episodes' first distances."""

    kept: Any
    whole: Any
    score: np.ndarray
    distance: np.ndarray


@pytest.fixture(scope="module")
def chased():
    env, seen = chase(), []

    def watch(progress):
        if progress.step == progress.steps:
            seen.append(
                (
                    jax.tree.map(np.array, progress.state),
                    progress.evaluations["return"].mean(axis=1),
                )
            )

    cfgs = [LEARN] * len(SEEDS)
    job = Job(
        matd3.MATD3,
        CHASE,
        cfgs,
        [*SEEDS],
        None,
        identity(CHASE),
        env,
        episodes=EPISODES,
        report=watch,
    )
    compiled = jax.stages.Lowered.compile
    with mock.patch.object(
        jax.stages.Lowered,
        "compile",
        lambda self, **_: compiled(self, compiler_options=QUICK),
    ):
        past = run(job)
    starts = np.asarray(jit(jax.vmap(env.reset))(evaluation.reset_keys(EPISODES))[0])
    return Chased(past["policy"], *seen[0], np.abs(starts[:, 0] - starts[:, 1]))


@pytest.mark.long
def test_the_chase_is_solved(chased):
    """Nine tenths of the way from standing still, -4 d, to the optimum.

    At best both agents go REACH towards each other and have met on the second step, as d < 2: -max(d - 1, 0).
    """
    best, still = (
        -np.maximum(chased.distance - 2 * REACH, 0).mean(),
        -CHASE.horizon * chased.distance.mean(),
    )
    assert np.all(chased.score <= best + 1e-5)
    assert np.all(chased.score > best - 0.1 * (best - still)), (chased.score, best, still)


@pytest.mark.long
def test_the_replay_of_a_run_holds_what_happened(chased):
    rounds = LEARN.policy_steps // LEARN.chunk
    ring, walk = chased.whole.replay, chased.whole.walk
    total = rounds * LEARN.envs * LEARN.collect
    np.testing.assert_array_equal(ring.count, total)
    assert total > LEARN.capacity
    np.testing.assert_array_equal(walk.step, rounds * LEARN.collect % CHASE.horizon)
    rows = ring.rows
    np.testing.assert_allclose(rows.next_state, rows.state + REACH * rows.action[..., 0], atol=1e-6)
    gap = np.abs(rows.next_state[..., 0] - rows.next_state[..., 1])
    np.testing.assert_allclose(rows.reward, -np.stack([gap, gap], axis=-1), atol=1e-6)
    np.testing.assert_array_equal(rows.done, 0.0)  # time alone ends a chase
    np.testing.assert_array_equal(
        rows.last.mean(axis=1), 1 / CHASE.horizon
    )  # a collection is one episode of each
    assert np.all(np.abs(rows.state[rows.last == 0]) <= 1 + REACH * CHASE.horizon)
    assert not np.array_equal(rows.state[0], rows.state[1]), "two seeds walked alike"


@pytest.mark.long
def test_a_finished_run_keeps_its_policies_alone_and_acts_as_it_did(chased):
    assert (chased.kept.replay, chased.kept.walk) == ((), ())
    jax.tree.map(np.testing.assert_array_equal, chased.kept[:2], chased.whole[:2])
    observation = Observation(some(1, 2, 2) * CHASE.obs_mask, np.ones((2, 1), bool))

    def act(env, state):
        algorithm = matd3.pipeline(CHASE, LEARN, env)[0].algorithm
        played = jit(lambda state: algorithm.act(jax.random.key(0), state, {}, (), observation)[0])
        return played(jax.tree.map(lambda x: np.asarray(x)[0], state))

    assert np.all(act(chase(), chased.whole) != 0)
    np.testing.assert_array_equal(act(None, chased.kept), act(chase(), chased.whole))

"""BC and IQL's policies: gradients by hand, the mean of two modes and the better of them, and the critic they share."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit
from batches import repeated_batch
from starts import numpy_start

from jaxomarl.algorithms import bc, iql, omsd
from jaxomarl.base import Episodes, Observation, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import statistics
from jaxomarl.envs import catalog
from jaxomarl.envs.games import BANDIT_MODE
from jaxomarl.stages import critic
from jaxomarl.training.library import Identity

SPEC = Spec(
    (3, 2), (2, 1), state_dim=4, horizon=1
)  # the second agent is padded in what it sees and does
SIZE = 16
# Plain descent at rate 1: the parameters move by the gradient.
GRADIENT = {"policy_width": 8, "policy_lr": 1.0, "policy_optimiser": "sgd", "policy_anneal": False}


def some(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_of(seed=0):
    """Transitions with numbers in the padded columns too: nothing may come of them."""
    wide, line = np.ones((SIZE, 2, 2), np.float32), np.zeros(SIZE, np.float32)
    action = np.tanh(some(seed + 2, SIZE, 2, 2))
    batch = repeated_batch(some(seed, SIZE, 2, 3), some(seed + 1, SIZE, 4), action, line, wide)
    after = {"next_obs": some(seed + 3, SIZE, 2, 3), "next_state": some(seed + 4, SIZE, 4)}
    return jax.tree.map(jnp.asarray, batch._replace(**after))


def episodes_of(obs, action, state, reward):
    """One-step episodes, each followed by a successor row of zeros."""
    rows = len(obs)
    pair = lambda x: np.stack([x, np.zeros_like(x)], axis=1).reshape(2 * rows, *x.shape[1:])
    done, step = np.ones(rows, np.float32), np.tile(np.array([0, 1], np.int32), rows)
    blocks = (
        pair(obs),
        pair(state),
        pair(action),
        pair(reward),
        pair(done),
        step,
        1 - step,
        0 * step,
    )
    return Episodes(*map(jnp.asarray, blocks))


@functools.cache
def unread():
    """A data set for the starts that read none."""
    return pack(
        episodes_of(*(np.zeros((1, *shape), np.float32) for shape in ((2, 3), (2, 2), (4,), (2,)))),
        SPEC,
    )


def filled(init, seed=11):
    """The state that `init` makes, its parameters drawn by numpy."""
    return numpy_start(init, {}, unread(), seed)


def moved(after, before):
    return jax.tree.map(
        lambda x, y: np.asarray(y) - np.asarray(x), after.actor.params, before.actor.params
    )


def far(one, other):
    return max(
        float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def layers(params, x):
    """Inputs of each layer of two ReLU layers and a linear one, and the output."""
    inputs = [x]
    for name in ("Dense_0", "Dense_1"):
        inputs.append(np.maximum(inputs[-1] @ params[name]["kernel"] + params[name]["bias"], 0))
    return inputs, inputs[-1] @ params["out"]["kernel"] + params["out"]["bias"]


def gradient_by_hand(params, obs, action, w):
    """Of mean_batch w sum_dims (tanh(net(o_i)) - a_i)^2 for each agent on its true widths, by the chain rule."""
    grads = jax.tree.map(np.zeros_like, params)
    for i, (wide, real) in enumerate(zip(SPEC.obs_dims, SPEC.act_dims, strict=True)):
        own = jax.tree.map(lambda x, i=i: x[i], params)
        own["Dense_0"]["kernel"] = own["Dense_0"]["kernel"][:wide]
        inputs, out = layers(own, obs[:, i, :wide])
        played = np.tanh(out[:, :real])
        back = np.zeros_like(out)
        back[:, :real] = 2 * w[:, None] * (played - action[:, i, :real]) * (1 - played**2) / len(w)
        for name, x in zip(("out", "Dense_1", "Dense_0"), inputs[::-1], strict=True):
            grads[name]["kernel"][i, : x.shape[-1]], grads[name]["bias"][i] = (
                x.T @ back,
                back.sum(axis=0),
            )
            back = (back @ own[name]["kernel"].T) * (x > 0)
    return grads


def agree(got, want):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5), got, want)


def fit(algorithm, state, past, data, steps):
    """So many updates, each on its own draw, as the runner's scan does."""

    def step(state, key):
        k_batch, k_update = jax.random.split(key)
        return algorithm.update(k_update, state, past, algorithm.batch(k_batch, state, data))[0], ()

    return jax.lax.scan(step, state, jax.random.split(jax.random.key(3), steps))[0]


def fitted(algorithm, past, data, steps):
    """`fit` from parameters drawn by numpy, compiled."""
    return jit(lambda state, data: fit(algorithm, state, past, data, steps))(
        filled(algorithm.init), data
    )


def played(algorithm, spec, past={}):  # noqa: B006 (it is read)
    """(state, obs [..., N, O]) -> actions [..., N, A] in one compiled call."""
    see = lambda obs: Observation(obs, jnp.asarray(spec.act_mask > 0))
    one = lambda state, obs: algorithm.act(jax.random.key(0), state, past, (), see(obs))[0]
    return jit(jax.vmap(one, in_axes=(None, 0)))


# --- BC ---


def test_bc_steps_down_the_squared_error():
    """The update's gradient is the one by hand; padded columns, with numbers in them here, give none."""
    learner, b = bc.policy(SPEC, bc.Config(**GRADIENT)), batch_of()
    before = filled(learner.init)
    after, metrics = jit(learner.update)(jax.random.key(0), before, {}, b)
    found = moved(after, before)
    agree(
        found,
        gradient_by_hand(
            before.actor.params, np.asarray(b.obs), np.asarray(b.action), np.ones(SIZE)
        ),
    )
    assert far(found, jax.tree.map(np.zeros_like, found)) > 0.1
    np.testing.assert_array_equal(found["Dense_0"]["kernel"][1, 2], 0.0)
    np.testing.assert_array_equal(found["out"]["kernel"][1, :, 1], 0.0)
    np.testing.assert_array_equal(found["out"]["bias"][1, 1], 0.0)
    assert np.all(found["out"]["bias"][:, 0] != 0)
    squares = 0.0
    for i, real in enumerate(SPEC.act_dims):
        x = np.asarray(b.obs)[:, i] * SPEC.obs_mask[i]
        out = layers(jax.tree.map(lambda x, i=i: x[i], before.actor.params), x)[1]
        squares += (
            np.mean(np.sum((np.tanh(out) - b.action[:, i])[:, :real] ** 2, axis=1)) / SPEC.agents
        )
    np.testing.assert_allclose(metrics["policy_loss"], squares, rtol=1e-5)


def test_bc_plays_the_mean_of_two_modes():
    """A constant's squared error is least at the data's mean, which is near zero and far from both modes.

    The bound is an eighth of a mode; a batch's mean strays by BANDIT_MODE / sqrt(batch) = 0.07, and annealing averages.
    """
    task = catalog.make("games/bandit")
    data, _ = load(task, "std0.1", rows=400)
    cfg = bc.Config(policy_width=8, policy_batch=128, policy_lr=0.02, policy_steps=300)
    learner, spec = bc.policy(task.env.spec, cfg), task.env.spec
    state = fitted(learner, {}, data, cfg.policy_steps)
    action = np.asarray(played(learner, spec)(state, jnp.ones((1, 2, 1))))[0, :, 0]
    actions = np.asarray(data.action)[np.asarray(data.starts), :, 0]
    assert np.all(np.abs(actions) > 0.3) and np.all(np.abs(actions.mean(axis=0)) < 0.1), (
        "the data have two modes"
    )
    np.testing.assert_allclose(action, actions.mean(axis=0), atol=BANDIT_MODE / 8)


def test_bc_recovers_a_linear_policy_in_raw_units():
    """Observations far from zero are normalised inside; on fresh ones, a hundredth of the actions' variance is left."""
    true = 0.15 * some(5, 2, 2, 3)  # inside the actions' box, where a tanh can follow

    def draw(seed, rows):
        z = some(seed, rows, 2, 3)
        action = np.einsum("nao,mno->mna", true * SPEC.obs_mask[:, None], z) * SPEC.act_mask
        return ((5.0 + 3.0 * z) * SPEC.obs_mask).astype(np.float32), action

    obs, action = draw(1, 2000)
    data = pack(episodes_of(obs, action, some(2, 2000, 4), np.zeros((2000, 2), np.float32)), SPEC)
    cfg = bc.Config(
        policy_width=32, policy_batch=128, policy_lr=0.01, policy_steps=600, normalise=True
    )
    learner, past = bc.policy(SPEC, cfg), {"stats": statistics(data)}
    state = fitted(learner, past, data, cfg.policy_steps)
    fresh, want = draw(9, 200)
    found = np.asarray(played(learner, SPEC, past)(state, jnp.asarray(fresh)))
    for i, real in enumerate(SPEC.act_dims):
        left = np.mean((found - want)[:, i, :real] ** 2, axis=0) / np.var(want[:, i, :real], axis=0)
        assert np.all(left < 0.01), (i, left)
    np.testing.assert_array_equal(found[:, 1, 1], 0.0)


# --- IQL: weights ---


def judged(cfg):
    """A joint critic with parameters drawn by numpy, as the policies' stage finds it."""
    joint = critic.iql(SPEC, cfg)
    return joint, {"critic": filled(joint.algorithm.init, seed=7)}


def advantage_by_hand(held, b):
    """min_k Qbar^k(s, a) - V(s)."""
    action = np.asarray(b.action * SPEC.act_mask).reshape(SIZE, -1)
    x = np.concatenate([np.asarray(b.state), action], axis=-1)
    twins = [layers(jax.tree.map(lambda p, k=k: p[k], held.q.target), x)[1][:, 0] for k in (0, 1)]
    return np.minimum(*twins) - layers(held.v.params, np.asarray(b.state))[1][:, 0]


@pytest.fixture(scope="module")
def weighted():
    """(temperature, batch) -> IQL's policies before and after a step, its metrics, and the critic that judged."""
    cfg = iql.Config(**GRADIENT, critic_width=8)
    before = filled(iql.policy(SPEC, cfg, judged(cfg)[0]).init)

    @jit
    def update(temperature, b):
        warm = dataclasses.replace(cfg, temperature=temperature)
        joint, past = judged(warm)
        return iql.policy(SPEC, warm, joint).update(jax.random.key(0), before, past, b)

    return lambda temperature, b: (before, *update(temperature, b), judged(cfg)[1]["critic"])


@pytest.mark.parametrize("temperature", [0.0, 1.5, 8.0, 1e4])
def test_iql_weighs_by_advantage_up_to_100(weighted, temperature):
    """Min(exp(T u), 100) by hand, where none, some, or (exp overflows) nearly half are at the cap."""
    b = batch_of()
    before, after, metrics, held = weighted(temperature, b)
    u = advantage_by_hand(held, b)
    with np.errstate(over="ignore"):
        w = np.minimum(np.exp(temperature * u), 100.0)
    at_cap = np.mean(w >= 100.0)
    assert (at_cap > 0) == (temperature > 1.5) and at_cap < 1 and np.ptp(u) > 1, (
        "not the case that it should be"
    )
    np.testing.assert_allclose(metrics["weight"], w.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["capped"], at_cap)
    scale = max(1.0, w.max())  # the comparison is for gradients of order one
    want = gradient_by_hand(before.actor.params, np.asarray(b.obs), np.asarray(b.action), w)
    divide = lambda tree: jax.tree.map(lambda x: x / scale, tree)
    agree(divide(moved(after, before)), divide(want))


def test_iql_reads_no_padded_number(weighted):
    b = batch_of()
    clean = b._replace(obs=b.obs * SPEC.obs_mask, action=b.action * SPEC.act_mask)
    assert far((b.obs, b.action), (clean.obs, clean.action)) > 0.1
    jax.tree.map(np.testing.assert_array_equal, weighted(1.5, b)[1], weighted(1.5, clean)[1])


def test_iql_at_temperature_zero_is_bc_step_for_step():
    """The same draws and, up to rounding, the same three steps of Adam."""
    shared = {"policy_width": 8, "policy_lr": 0.01, "policy_batch": SIZE, "policy_steps": 10}
    cfg = iql.Config(**shared, critic_width=8)
    joint, past = judged(cfg)
    clone, ours = bc.policy(SPEC, bc.Config(**shared)), iql.policy(SPEC, cfg, joint)
    draws = jit(lambda key: [algorithm.batch(key, None, unread()) for algorithm in (clone, ours)])(
        jax.random.key(1)
    )
    jax.tree.map(np.testing.assert_array_equal, *draws)
    batches = jax.tree.map(lambda *x: np.stack(x), *(batch_of(10 * k) for k in range(3)))
    first = filled(clone.init)

    def three(algorithm, start):
        step = lambda state, b: (algorithm.update(jax.random.key(2), state, past, b)[0], ())
        return jax.lax.scan(step, start, batches)[0].actor.params

    @jit
    def both(temperatures):
        at = lambda t: iql.policy(SPEC, dataclasses.replace(cfg, temperature=t), joint)
        return three(clone, first), jax.vmap(lambda t: three(at(t), first))(temperatures)

    cloned, weighted = both(np.array([0.0, 1.5], np.float32))
    cold, warm = (jax.tree.map(lambda x, k=k: x[k], weighted) for k in (0, 1))
    assert far(cold, cloned) < 1e-6
    assert far(cloned, first.actor.params) > 0.01 and far(warm, cloned) > 1e-3


# --- IQL: the better mode ---

TEMPERATURES = (0.0, 1.0, 10.0)
SHARE = 0.3  # of the data, in the better mode


@pytest.fixture(scope="module")
def extracted():
    """Each agent's action at each temperature [T, N]: critic and policies learned from three good rows in ten."""
    spec = catalog.make("games/bandit").env.spec
    good = (np.arange(100) % 10 < 10 * SHARE).astype(np.float32)
    action = np.broadcast_to(BANDIT_MODE * (2 * good - 1)[:, None, None], (100, 2, 1))
    ones = np.ones((100, 2, 1), np.float32)
    data = pack(episodes_of(ones, action, ones[:, 0], np.repeat(good[:, None], 2, axis=1)), spec)
    cfg = iql.Config(
        critic_width=8, critic_batch=64, critic_lr=0.01, critic_polyak=0.05,
        policy_width=8, policy_batch=128, policy_lr=0.02, policy_steps=300,
    )  # fmt: skip
    joint = critic.iql(spec, cfg)
    past = {"critic": fitted(joint.algorithm, {}, data, 400)}

    start = filled(iql.policy(spec, cfg, joint).init)

    @jit
    @partial(jax.vmap, in_axes=(0, None))
    def actions(temperature, past):
        learner = iql.policy(spec, dataclasses.replace(cfg, temperature=temperature), joint)
        state = fit(learner, start, past, data, cfg.policy_steps)
        return learner.act(
            jax.random.key(0),
            state,
            past,
            (),
            Observation(jnp.ones((2, 1)), jnp.ones((2, 1), bool)),
        )[0]

    pair = BANDIT_MODE * np.array([1.0, -1.0], np.float32)[:, None, None] * ones[:2]
    ones = jax.tree.map(jnp.asarray, ones)
    q = jit(lambda past: joint.q(past, ones[:2], ones[:2, 0], jnp.asarray(pair)))(past)
    return np.asarray(actions(np.float32(TEMPERATURES), past))[..., 0], np.asarray(q)


def test_the_critic_knows_the_better_mode(extracted):
    np.testing.assert_allclose(
        extracted[1], [1.0, 0.0], atol=0.1
    )  # r is all there is: the episode ends


def test_temperature_turns_the_mean_into_the_better_mode(extracted):
    """Weights p exp(T) : (1 - p) of the modes +-m put the optimum at m tanh((T + log(p / (1 - p))) / 2), V cancelling.

    That is -0.32, BC's mean, at T = 0, then 0.06, and 0.80 for large T (where the cap on 100 changes the fourth digit).
    A tenth in the critic's gap moves it by m T / 20 = 0.04 at T = 1; a batch's mean strays by 0.07 before annealing.
    """
    t = np.array(TEMPERATURES)[:, None]
    want = BANDIT_MODE * np.tanh((t + np.log(SHARE / (1 - SHARE))) / 2)
    np.testing.assert_allclose(extracted[0], np.broadcast_to(want, (3, 2)), atol=0.1)


# --- IQL: what it shares and declares ---


def pipelines(**changed):
    """IQL's and OMSD's configs with these settings of the critic, and their stages."""
    cfgs = [system.Config(**changed) for system in (iql, omsd)]
    systems = (iql.IQL, omsd.OMSD)
    return cfgs, [s.pipeline(SPEC, cfg, None) for s, cfg in zip(systems, cfgs, strict=True)]


def test_iql_and_omsd_share_their_critic():
    """Same name, fields, owner and lengths, and the same identity, whatever the rest of the settings."""
    for settings in (
        {},
        {
            "critic_width": 32,
            "critic_steps": 2000,
            "expectile": 0.9,
            "temperature": 1.0,
            "every": 3,
        },
    ):
        cfgs, ((ours, *_), (theirs, *_)) = pipelines(**settings)
        functions = {"algorithm": None, "refresh": None, "kept": None, "health": None}
        assert ours._replace(**functions) == theirs._replace(**functions)
        assert (ours.name, ours.fields, ours.owner) == ("critic", critic.FIELDS, "")
        cfgs[0] = dataclasses.replace(cfgs[0], policy_lr=1.0, policy_width=2, execution="joint")
        identities = [
            Identity.of(s, [c], [0], {}) for s, c in zip((ours, theirs), cfgs, strict=True)
        ]
        assert identities[0] == identities[1]
        for change in ({"expectile": 0.6}, {"critic_batch": 4}):
            assert (
                Identity.of(ours, [dataclasses.replace(cfgs[0], **change)], [0], {})
                != identities[1]
            )
    assert [pipeline[-1].owner for pipeline in pipelines()[1]] == ["iql", "omsd"]


@pytest.mark.parametrize("execution", ["separate", "joint"])
def test_joint_execution_declares_that_it_is_centralised(execution):
    """And it is: the first agent's action follows what the second one sees, or is bitwise the same."""
    cfg = iql.Config(policy_width=8, execution=execution)
    final = iql.pipeline(SPEC, cfg)[-1].algorithm
    assert final.centralised == (execution == "joint")
    obs = np.broadcast_to(batch_of().obs[0], (2, 2, 3)).copy()
    obs[1, 1, 0] += 1.0
    one, other = np.asarray(played(final, SPEC)(filled(final.init), jnp.asarray(obs)))
    assert np.array_equal(one[0], other[0]) == (execution == "separate")
    assert np.any(one[1] != other[1])
    np.testing.assert_array_equal(one[1, 1], 0.0)

"""MADT: what each row reads, what is remembered, and that a better return is played when it is asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import madt
from jaxomarl.base import Environment, Episodes, JaxomarlError, Observation, Spec, TimeStep
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import statistics
from jaxomarl.envs.rollout import episodes

SPEC = Spec((2, 2), (1, 1), state_dim=1, horizon=4, dialect="dial-v1")
CFG = madt.Config(
    context=3, layers=1, heads=2, policy_width=16, policy_batch=64, policy_lr=5e-3, reward="own", clip=10.0
)  # fmt: skip
UPDATES = 300


def shown(t, reward):
    """Agents see the share of the episode that is over, and a constant."""
    obs = jnp.stack([jnp.full(2, t / 4.0), jnp.ones(2)], axis=-1)
    return TimeStep(
        obs, jnp.ones(1), reward, jnp.zeros(()), jnp.ones(2), jnp.ones((2, 1), bool), {"t": t}
    )


def step(key, t, action):
    return t + 1.0, shown(t + 1.0, jnp.clip(action[:, 0], -1, 1))


DIAL = Environment(SPEC, lambda key: (jnp.zeros(()), shown(jnp.zeros(()), jnp.zeros(2))), step)


@pytest.fixture(scope="module")
def data():
    """Each agent turns its dial to one place for the whole of an episode, and is paid for where it stands."""
    count, rng = 200, np.random.default_rng(0)
    action = np.repeat(rng.uniform(-1, 1, (count, 1, 2, 1)), 5, axis=1)
    action[:, -1] = 0
    steps = np.tile(np.arange(5), count)
    obs = np.stack([np.repeat(steps[:, None] / 4.0, 2, axis=1), np.ones((len(steps), 2))], axis=-1)
    flat = action.reshape(-1, 2, 1)
    return pack(
        Episodes(
            obs,
            np.ones((len(steps), 1)),
            flat,
            flat[..., 0],
            np.zeros(len(steps)),
            steps,
            4 - steps,
            0 * steps,
        ),
        SPEC,
    )


@pytest.fixture(scope="module")
def dial(data):
    """(algorithm's state after training, past, losses)."""
    ready, past, algorithm = (
        madt.prepare(SPEC, CFG, data),
        {"stats": statistics(data)},
        madt.policy(SPEC, CFG),
    )

    @jax.jit
    def run(key, rows):
        def one(state, key):
            return algorithm.update(key, state, past, algorithm.batch(key, state, rows))

        return jax.lax.scan(one, algorithm.init(key, past, rows), jax.random.split(key, UPDATES))

    state, metrics = run(jax.random.key(0), ready)
    return state, past, metrics["policy_loss"]


def test_a_better_return_is_played_when_it_is_asked_for(dial):
    state, past, losses = dial
    assert losses[-20:].mean() < 0.1 * losses[0]

    @jax.jit
    def play(target):
        algorithm = madt.policy(SPEC, dataclasses.replace(CFG, target=target))
        act = lambda key, memory, seen: algorithm.act(key, state, past, memory, seen)
        keys = jax.random.split(jax.random.key(5), 4)
        return episodes(DIAL, act, algorithm.memory, keys, keys)["return"].mean()

    high, low = float(play(jnp.asarray(1.0))), float(play(jnp.asarray(0.0)))
    assert high > 3.0 and low < 1.0, "four steps of full pay are 4; the data's mean is 0"


def test_the_largest_return_to_go_is_kept_by_step(dial, data):
    togo = np.asarray(madt.prepare(SPEC, CFG, data).extra["returns"])
    wanted = [togo[np.asarray(data.step) == t].max(axis=0) for t in range(5)]
    np.testing.assert_array_equal(dial[0].best, wanted)


@pytest.fixture(scope="module")
def net(dial):
    """The trained transformer on a batch of inputs, and the inputs."""
    apply = jax.jit(madt.network(SPEC, CFG).apply)
    keys = jax.random.split(jax.random.key(2), 3)
    shapes = (5, 3), (5, 3, 4), (5, 3, 1)
    returns, obs, action = (
        jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)
    )
    given = [returns, obs, action, jnp.tile(jnp.arange(3), (5, 1)), jnp.ones((5, 3))]
    return lambda inputs: np.asarray(apply(dial[0].net.params, *inputs)), given


def test_no_row_reads_a_later_one_or_its_own_action(net):
    read, given = net
    out = read(given)
    for which, reaches in (
        (0, 0),
        (1, 0),
        (2, 1),
    ):  # a return and an observation reach their own row, an action the next
        for row in range(3):
            other = [*given]
            other[which] = given[which].at[:, row].add(1.0)
            differs = (read(other) != out).any(axis=(0, 2))
            assert differs.tolist() == [c >= row + reaches for c in range(3)], (which, row)


def test_rows_from_before_the_episode_are_not_read(net):
    read, given = net
    given = [*given[:4], jnp.ones((5, 3)).at[:, 0].set(0.0)]
    out, other = read(given), read([x.at[:, 0].add(2) if i < 4 else x for i, x in enumerate(given)])
    assert (out[:, 1:] == other[:, 1:]).all()


def test_the_memory_is_the_last_rows_of_a_plain_loop(dial):
    state, past, _ = dial
    algorithm = madt.policy(SPEC, CFG)
    act, memory = jax.jit(algorithm.act), algorithm.memory
    seen = jax.random.normal(jax.random.key(3), (4, 2, 2))
    rows_seen, best = np.asarray(seen), np.asarray(state.best)
    mean, std = np.asarray(past["stats"].obs_mean), np.asarray(past["stats"].obs_std)
    said, read = [], jax.jit(madt.network(SPEC, CFG).apply)
    for t in range(4):
        action, memory = act(
            jax.random.key(0), state, past, memory, Observation(seen[t], jnp.ones((2, 1), bool))
        )
        first, rows = max(0, t - 2), min(t + 1, 3)
        for i in range(2):
            sees = (rows_seen[first : t + 1, i] - mean[i]) / std[i]
            sees = np.concatenate(
                [sees, np.tile(np.eye(2, dtype=np.float32)[i], (rows, 1))], axis=-1
            )
            acts = np.asarray([*(a[i] for a in said[first:]), np.zeros(1, np.float32)])
            wanted = read(
                state.net.params,
                best[first : t + 1, i],
                sees,
                acts,
                np.arange(first, t + 1, dtype=np.int32),
                np.ones(rows, np.float32),
            )[-1]
            np.testing.assert_allclose(action[i], np.clip(wanted, -1, 1), atol=1e-5)
        said.append(np.asarray(action))
        assert int(memory.step) == t + 1 and (memory.obs[:, -1] == seen[t]).all()


def test_widths_that_do_not_divide_are_refused(data):
    madt.check(SPEC, CFG, data)
    with pytest.raises(JaxomarlError, match="multiple of the 3 heads"):
        madt.check(SPEC, dataclasses.replace(CFG, heads=3), data)
    with pytest.raises(JaxomarlError, match="800 transitions"):
        madt.check(SPEC, dataclasses.replace(CFG, policy_batch=801), data)

"""Windows against a plain loop over episodes, and returns against their definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import Episodes, JaxomarlError, Spec
from jaxomarl.data.dataset import pack
from jaxomarl.data.returns import returns, with_returns
from jaxomarl.data.windows import check_windows, sample_windows, transitions_known

SPEC = Spec((2, 1), (1, 1), state_dim=1, horizon=6)
LENGTHS = (1, 3, 6, 2)  # steps of the episodes: T = 1, T = H, T < H for H = 3, 6, ...
CASES = [(1, 0), (3, 0), (3, 2), (6, 0), (2, 5), (7, 3), (0, 3)]


draw = jax.jit(sample_windows, static_argnums=(2, 3, 4, 5))


def name(episode: int, step: int) -> float:
    return 100.0 * episode + step


@pytest.fixture(scope="module")
def data():
    """Observations that name their episode and step; agent i is paid i + 1 at every step, the third episode ends."""
    rows = [(e, t, n) for e, n in enumerate(LENGTHS) for t in range(n + 1)]
    e, t, n = (np.array(x) for x in zip(*rows, strict=True))
    acts = (t < n)[:, None]
    obs = np.stack([name(e, t)[:, None] * [1, 1], name(e, t)[:, None] * [1, 0]], axis=1)
    packed = pack(
        Episodes(
            obs=obs,
            state=name(e, t)[:, None],
            action=np.stack([acts * 0.5, acts * -0.5], axis=1),
            reward=acts * [1.0, 2.0],
            done=((e == 2) & (t == n - 1)).astype(float),
            step=t,
            left=n - t,
            behaviour=e,
        ),
        SPEC,
    )
    return dataclasses.replace(packed, extra={"id": jnp.asarray(name(e, t))})


@pytest.mark.parametrize(("horizon", "history"), CASES)
def test_a_window_is_its_episode_with_the_ends_repeated(data, horizon, history):
    drawn = draw(jax.random.key(horizon), data, 64, horizon, history)
    known = np.asarray(transitions_known(drawn))
    drawn = jax.tree.map(np.asarray, drawn)
    presents = set()
    for b in range(64):
        episode, step = divmod(int(drawn.state[b, history, 0]), 100)
        length = LENGTHS[episode]
        presents.add((episode, step))
        for w in range(history + horizon + 1):
            at = step - history + w
            row = min(max(at, 0), length)
            assert (
                drawn.state[b, w, 0]
                == drawn.obs[b, w, 0, 1]
                == drawn.extra["id"][b, w]
                == name(episode, row)
            )
            assert drawn.valid[b, w] == (0 <= at <= length)
            acted = 0 <= at < length
            assert w == history + horizon or (known[b, w] == acted).all()
            assert (drawn.action[b, w, :, 0] == (0.5 * acted, -0.5 * acted)).all()
            assert (drawn.reward[b, w] == (1.0 * acted, 2.0 * acted)).all() and drawn.team_reward[
                b, w
            ] == 1.5 * acted
            assert drawn.last[b, w] == (at == length - 1) and drawn.done[b, w] == (
                at == length - 1 and episode == 2
            )
    assert presents == {(e, t) for e, n in enumerate(LENGTHS) for t in range(n)}, (
        "not every start is drawn"
    )
    assert drawn.alive.all() and drawn.available.all()


@pytest.mark.parametrize(("horizon", "history"), [(1, 0), (3, 0), (3, 2), (6, 0), (1, 1)])
def test_full_windows_are_all_there_and_uniform(data, horizon, history):
    drawn = draw(jax.random.key(1), data, 4000, horizon, history, True)
    assert np.asarray(drawn.valid).all() and np.asarray(drawn.team_reward[:, :-1] > 0).all()
    fits = [
        name(e, t)
        for e, n in enumerate(LENGTHS)
        for t in range(n)
        if t >= history and n - t >= horizon
    ]
    found, count = np.unique(np.asarray(drawn.state[:, history, 0]), return_counts=True)
    assert list(found) == fits
    assert np.abs(count / 4000 - 1 / len(fits)).max() < 0.04


def test_a_missing_successor_is_not_valid(data):
    last = np.asarray(data.left) == 1
    whole = data.layout.unpack(data.rows)
    parts = {**whole, "known": jnp.where(last, 0.0, 1.0)}
    rows = jnp.concatenate(
        [parts[k].reshape(len(data.rows), -1) for k in data.layout.blocks], axis=1
    )
    drawn = draw(jax.random.key(0), dataclasses.replace(data, rows=rows), 64, 2)
    full = draw(jax.random.key(0), data, 64, 2)
    successor = np.pad(
        np.asarray(full.last)[:, :-1] > 0, [(0, 0), (1, 0)]
    )  # the row after a last one
    assert successor.any()
    assert (np.asarray(drawn.valid) == np.asarray(full.valid) * ~successor).all()


def test_repeated_starts_are_drawn_as_often(data):
    start = jnp.asarray([2, 2, 2, 6], jnp.int32)
    drawn = draw(jax.random.key(0), dataclasses.replace(data, starts=start), 400, 1, 0, True)
    share = np.mean(np.asarray(drawn.state[:, 0, 0]) == float(data.state[2, 0]))
    assert abs(share - 0.75) < 0.08


def test_too_long_windows_are_refused_with_the_episodes_lengths(data):
    check_windows(data, 6)
    check_windows(data, 3, 3)
    check_windows(data, 2, least=8)
    for wrong in ((7, 0), (4, 3)):
        with pytest.raises(
            JaxomarlError, match=r"1 to 6 steps \(median 2\).*found '0 windows'.*at most 6"
        ):
            check_windows(data, *wrong)
    with pytest.raises(JaxomarlError, match=r"at least 9 windows"):
        check_windows(data, 2, least=9)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_returns_to_go_are_discounted_sums_to_the_episodes_end(data, gamma):
    togo = returns(data, gamma)
    step, left = np.asarray(data.step), np.asarray(data.left)
    wanted = np.array([sum(gamma**k for k in range(n)) for n in left])
    np.testing.assert_allclose(togo, wanted[:, None] * [1.0, 2.0])
    whole = np.array([sum(gamma**k for k in range(n)) for n in step + left])
    np.testing.assert_allclose(returns(data, gamma, "episode"), whole[:, None] * [1.0, 2.0])
    np.testing.assert_allclose(
        returns(data, gamma, "togo", "team"), 1.5 * wanted[:, None] * [1.0, 1.0]
    )


def test_conditions_are_shares_of_a_scale_or_of_the_datas_range(data):
    togo = returns(data, 1.0)
    np.testing.assert_allclose(
        with_returns(data, 1.0, "togo", "own", 4.0).extra["returns"], togo / 4.0
    )
    share = np.asarray(with_returns(data, 1.0, "togo", "own", 0.0).extra["returns"])
    started = share[np.asarray(data.left) > 0]
    assert (started.min(), started.max()) == (0.0, 1.0)
    np.testing.assert_allclose(share, (togo - 1.0) / 11.0, rtol=1e-6)

"""Whole episodes in packed rows: what is drawn, what follows it, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxomarl.base import Episodes, JaxomarlError, Layout, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.dataset import content_hash, pack, pads_are_zero, sample_transitions
from jaxomarl.data.stats import identity, statistics
from jaxomarl.envs import catalog

SPEC = Spec((3, 2), (2, 1), state_dim=2, horizon=9)


def episodes(lengths, spec=SPEC, terminal=(), seed=0):
    """Episodes of these numbers of transitions. Column 0 of each observation and of the state is the row's number."""
    rng = np.random.default_rng(seed)
    step = np.concatenate([np.arange(n + 1) for n in lengths])
    left = np.concatenate([np.arange(n, -1, -1) for n in lengths])
    which = np.repeat(np.arange(len(lengths)), np.add(lengths, 1))
    rows, n = len(step), spec.agents
    obs = rng.standard_normal((rows, n, spec.obs_width)) * spec.obs_mask
    obs[:, :, 0] = np.arange(rows)[:, None] + np.arange(n) / 10
    state = np.stack([np.arange(rows), which], axis=1)
    live = (left > 0)[:, None, None]
    done = (left == 1) & np.isin(which, terminal)
    return Episodes(
        obs=jnp.asarray(obs, jnp.float32),
        state=jnp.asarray(state, jnp.float32),
        action=jnp.asarray(
            rng.uniform(-1, 1, (rows, n, spec.act_width)) * spec.act_mask * live, jnp.float32
        ),
        reward=jnp.asarray(rng.standard_normal((rows, n)) * live[..., 0], jnp.float32),
        done=jnp.asarray(done, jnp.float32),
        step=jnp.asarray(step, jnp.int32),
        left=jnp.asarray(left, jnp.int32),
        behaviour=jnp.asarray(which, jnp.int32),
    )


def row_of(batch):
    return np.asarray(batch.state[:, 0]).astype(int)


# --- packing ---


def test_packing_keeps_every_number():
    e = episodes([2, 1, 3], terminal=(1,))
    known = jnp.array([1, 1, 1, 1, 0, 1, 1, 0, 1], jnp.float32)
    data = pack(e, SPEC, known)
    for name in ("obs", "state", "action", "reward", "done"):
        np.testing.assert_array_equal(getattr(data, name), getattr(e, name), err_msg=name)
    np.testing.assert_array_equal(data.known, known)
    np.testing.assert_array_equal(data.last, [0, 1, 0, 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(data.done, [0, 0, 0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(data.starts, [0, 1, 3, 5, 6, 7])
    np.testing.assert_array_equal(data.behaviour, [0, 0, 0, 1, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(pack(e, SPEC).known, 1.0)
    assert data.rows.shape == (9, 2 * 3 + 2 + 2 * 2 + 2 + 3)
    assert data.layout == Layout(2, 3, 2, 2, "mean")


@pytest.mark.parametrize("name", ["obs", "state", "action", "reward", "done"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_are_refused_by_name(name, bad):
    e = episodes([2, 1])
    found = np.array(getattr(e, name))
    found.reshape(len(found), -1)[[1, 3], 0] = bad
    with pytest.raises(
        JaxomarlError, match=rf"data\.{name}: expected finite numbers, found '2 that are not'"
    ):
        pack(e._replace(**{name: jnp.asarray(found)}), SPEC)


@pytest.mark.parametrize("name", ["obs", "state", "action", "reward", "done"])
def test_other_shapes_are_refused_by_name(name):
    e = episodes([2, 1])
    found = getattr(e, name)
    short = found[:-1] if name in ("done",) else found[..., :-1]
    with pytest.raises(JaxomarlError, match=rf"data\.{name}: expected shape \({len(e.step)}"):
        pack(e._replace(**{name: short}), SPEC)


def test_known_of_another_length_is_refused():
    with pytest.raises(JaxomarlError, match=r"data\.known"):
        pack(episodes([2, 1]), SPEC, jnp.ones(4))


# --- drawing ---


def test_a_transition_is_a_row_and_its_stored_successor():
    e = episodes([3, 1, 2], terminal=(0,))
    data = pack(e, SPEC, jnp.array([1, 1, 1, 1, 0, 1, 1, 0, 1], jnp.float32))
    b = jax.jit(sample_transitions, static_argnums=2)(jax.random.key(0), data, 400)
    at = row_of(b)
    assert set(at) == {0, 1, 2, 4, 6, 7}  # never a successor row: 3, 5 and 8
    for name, source, shift in (
        ("obs", e.obs, 0), ("state", e.state, 0), ("action", e.action, 0), ("reward", e.reward, 0), ("done", e.done, 0),
        ("known", data.known, 0), ("last", data.last, 0), ("next_obs", e.obs, 1), ("next_state", e.state, 1),
        ("next_action", e.action, 1),
    ):  # fmt: skip
        np.testing.assert_array_equal(
            getattr(b, name), np.asarray(source)[at + shift], err_msg=name
        )
    np.testing.assert_array_equal(b.last, np.isin(at, (2, 4, 7)))
    np.testing.assert_array_equal(b.done, at == 2)
    np.testing.assert_array_equal(b.known, ~np.isin(at, (4, 7)))
    for name, shape in (
        ("alive", (400, 2)),
        ("available", (400, 2, 2)),
        ("next_available", (400, 2, 2)),
    ):
        np.testing.assert_array_equal(getattr(b, name), np.ones(shape))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.data())
def test_no_transition_crosses_an_episode(lengths, draw):
    terminal = draw.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=3))
    data = pack(episodes(lengths, terminal=terminal), SPEC)
    assert len(data.starts) == sum(lengths)
    b = sample_transitions(jax.random.key(draw.draw(st.integers(0, 99))), data, 64)
    np.testing.assert_array_equal(b.state[:, 1], b.next_state[:, 1])  # the same episode
    np.testing.assert_array_equal(b.next_state[:, 0], b.state[:, 0] + 1)
    at = row_of(b)
    left, step = np.asarray(data.left), np.asarray(data.step)
    assert np.all(left[at] > 0)
    np.testing.assert_array_equal(step[at + 1], step[at] + 1)
    np.testing.assert_array_equal(b.last, left[at] == 1)
    np.testing.assert_array_equal(
        b.done, (left[at] == 1) & np.isin(np.asarray(b.state[:, 1]), terminal)
    )


def test_starts_are_a_multiset():
    data = pack(episodes([3, 1, 2]), SPEC)
    size, weighed = 6000, dataclasses.replace(data, starts=jnp.array([1, 1, 1, 7, 4, 4]))
    at = row_of(sample_transitions(jax.random.key(0), weighed, size))
    counts = np.bincount(at, minlength=9)
    assert counts.sum() == counts[[1, 4, 7]].sum()
    for row, p in ((1, 1 / 2), (4, 1 / 3), (7, 1 / 6)):
        assert abs(counts[row] / size - p) < 4 * (p * (1 - p) / size) ** 0.5


def test_draws_are_uniform_and_of_their_key():
    data = pack(episodes([5] * 40), SPEC)
    draw = jax.jit(sample_transitions, static_argnums=2)
    first, again, other = (row_of(draw(jax.random.key(k), data, 20_000)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first == other) < 0.03
    for at in (first, other):
        counts = np.bincount(at, minlength=240)[np.asarray(data.starts)]
        square = ((counts - 100.0) ** 2 / 100.0).sum()  # chi-square of 199 degrees of freedom
        assert abs(square - 199) < 4 * (2 * 199) ** 0.5


def test_the_teams_reward():
    lengths, rewards = [2, 2], []
    for team in ("mean", "first"):
        spec = dataclasses.replace(SPEC, team=team)
        b = sample_transitions(jax.random.key(0), pack(episodes(lengths, spec), spec), 50)
        np.testing.assert_allclose(
            b.team_reward,
            b.reward[:, 0] if team == "first" else (b.reward[:, 0] + b.reward[:, 1]) / 2,
            rtol=1e-6,
        )
        rewards.append(b.team_reward)
    assert np.abs(rewards[0] - rewards[1]).min() > 1e-3


def test_what_prepare_adds_is_drawn_with_its_row():
    data = pack(episodes([2, 2]), SPEC)
    available = jnp.arange(6 * 2 * 2, dtype=jnp.float32).reshape(6, 2, 2)
    alive = jnp.arange(12, dtype=jnp.float32).reshape(6, 2)
    b = sample_transitions(
        jax.random.key(0),
        dataclasses.replace(data, extra={"available": available, "alive": alive}),
        30,
    )
    at = row_of(b)
    np.testing.assert_array_equal(b.alive, np.asarray(alive)[at])
    np.testing.assert_array_equal(b.available, np.asarray(available)[at])
    np.testing.assert_array_equal(b.next_available, np.asarray(available)[at + 1])


# --- identity ---


def test_the_hash_is_of_the_content():
    make = lambda seed=0: load(catalog.make("games/chain:length=2,horizon=4"), rows=50, seed=seed)
    (data, told), (same, _), (other, _) = make(), make(), make(1)
    assert told["sha256"] == content_hash(data) == content_hash(same) != content_hash(other)
    hashes = [content_hash(data)]
    for change in (
        {"rows": data.rows.at[7, 3].add(1e-6)},
        {"starts": data.starts[::-1]},
        {"behaviour": data.behaviour + 1},
        {"step": data.step.at[0].add(1)},
        {"left": data.left.at[0].add(1)},
        {"extra": {"alive": jnp.ones(3)}},
        {"extra": {"alive": jnp.zeros(3)}},
        {"extra": {"zombie": jnp.ones((3, 1))}},
        {"layout": data.layout._replace(team="first")},
        {"starts": data.starts.astype(jnp.uint32)},
    ):
        hashes.append(content_hash(dataclasses.replace(data, **change)))
    assert len(set(hashes)) == len(hashes)


def test_the_manifest_counts():
    data, told = load(catalog.make("games/chain:length=2,horizon=4"), rows=50)
    left, reward = np.asarray(data.left), np.asarray(data.reward)[:, 0]
    first = np.flatnonzero(np.asarray(data.step) == 0)
    returns = [reward[a : a + left[a]].sum() for a in first]
    assert told["transitions"] == (left > 0).sum() >= 50
    assert told["episodes"] == len(first) == (left == 0).sum()
    want = {
        "mean": np.mean(returns),
        "std": np.std(returns),
        "min": np.min(returns),
        "max": np.max(returns),
    }
    assert told["return"] == pytest.approx(want)
    assert told["origin"] == {"recipe": "random", "rows": 50, "seed": 0}


@pytest.mark.parametrize(
    ("quality", "rows", "said"), [("randon", 5, "Did you mean random"), ("random", -1, "--rows")]
)
def test_an_unknown_recipe_is_refused(quality, rows, said):
    with pytest.raises(JaxomarlError, match=said):
        load(catalog.make("games/chain"), quality, rows)


# --- padding and statistics ---


def test_padding_is_checked():
    e = episodes([2, 1])
    assert pads_are_zero(pack(e, SPEC), SPEC)
    assert not pads_are_zero(pack(e._replace(obs=e.obs.at[1, 1, 2].set(-1e-3)), SPEC), SPEC)
    assert not pads_are_zero(pack(e._replace(action=e.action.at[0, 1, 1].set(1e-3)), SPEC), SPEC)


def test_statistics():
    """Over every stored row; padded columns 0 and 1; constant ones their value and 1."""
    e = episodes([40, 30])
    e = e._replace(obs=e.obs.at[:, 0, 1].set(2.5))
    s = statistics(pack(e, SPEC))
    obs, state = np.asarray(e.obs, np.float64), np.asarray(e.state, np.float64)
    np.testing.assert_allclose(s.obs_mean, obs.mean(axis=0), rtol=1e-5, atol=1e-7)
    real = (SPEC.obs_mask == 1) & (np.arange(6).reshape(2, 3) != 1)
    np.testing.assert_allclose(np.asarray(s.obs_std)[real], obs.std(axis=0)[real], rtol=1e-5)
    assert (s.obs_mean[0, 1], s.obs_std[0, 1]) == (2.5, 1.0)
    assert (s.obs_mean[1, 2], s.obs_std[1, 2]) == (0.0, 1.0)
    np.testing.assert_allclose(s.state_mean, state.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(s.state_std, state.std(axis=0), rtol=1e-6)
    assert s.obs_mean.dtype == s.state_std.dtype == jnp.float32


def test_statistics_sum_in_double_precision():
    """A column of 1e4 +- 0.1 keeps its deviation, which float32 sums of squares would lose."""
    spec = Spec((1,), (1,), state_dim=1, horizon=4000)
    e = episodes([3999], spec)
    value = 1e4 + 0.125 * jnp.where(jnp.arange(4000) % 2 == 0, 1.0, -1.0)
    s = statistics(pack(e._replace(state=value[:, None]), spec))
    np.testing.assert_allclose(s.state_std, 0.125, rtol=1e-6)
    np.testing.assert_allclose(s.state_mean, 1e4, rtol=1e-7)


def test_identity_statistics_change_nothing():
    s = identity(SPEC)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)), jnp.float32)
    np.testing.assert_array_equal((x - s.obs_mean) / s.obs_std, x)
    np.testing.assert_array_equal((x[0, :2] - s.state_mean) / s.state_std, x[0, :2])
    assert [a.shape for a in s] == [a.shape for a in statistics(pack(episodes([1]), SPEC))]

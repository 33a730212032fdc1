"""JaxMARL under our contract: equal to calling it directly, and our rules of time limits, padding and availability."""

import functools
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.envs import catalog
from jaxomarl.envs.jaxmarl import adapt
from jaxomarl.envs.recipes import random_play

FIXED = {
    "MPE_simple_spread_v3": ((18,) * 3, (5,) * 3),
    "MPE_simple_tag_v3:continuous=true": ((16, 16, 16, 14), (5,) * 4),
    "MPE_simple_speaker_listener_v4": ((3, 11), (3, 5)),
    "MPE_simple_speaker_listener_v4:continuous=true": ((3, 11), (3, 5)),
}
ALL = [*FIXED, "switch_riddle"]
AGAIN = "MPE_simple_speaker_listener_v4:continuous=true"
"""Waits for the long run: unlike widths are the discrete one's, continuous actions are tag's."""


def cases(names):
    """The cases of a test, of which one is long."""
    return [pytest.param(n, marks=[pytest.mark.long] * (n == AGAIN)) for n in names]


EPISODES = 2


def make(name):
    return catalog.make(f"jaxmarl/{name}")


def game(name):
    """JaxMARL's own object, built by JaxMARL's own means."""
    import jaxmarl

    env_id, _, continuous = name.partition(":")
    return jaxmarl.make(env_id, **({"action_type": "Continuous"} if continuous else {}))


def keys(spec):
    """Reset keys [E], step keys [E, T]."""
    reset = jax.random.split(jax.random.key(5), EPISODES)
    return reset, jax.vmap(lambda k: jax.random.split(k, spec.horizon))(reset)


def drawn(spec):
    """[E, T, N, A], host: legal actions, with rubbish in continuous padding."""
    rng = np.random.default_rng(1)
    shape = (EPISODES, spec.horizon, spec.agents)
    if not spec.discrete:
        return rng.uniform(-1, 1, (*shape, spec.act_width)).astype(np.float32)
    chosen = rng.integers(0, np.array(spec.act_dims), shape)
    return np.eye(spec.act_width, dtype=np.float32)[chosen]


@functools.cache
def ours(name):
    """Time steps [E, T + 1] and JaxMARL's states, from one compiled program."""
    env = make(name).env

    def play(key, step_keys, actions):
        state, first = env.reset(key)

        def body(state, inputs):
            state, then = env.step(inputs[0], state, inputs[1])
            return state, (state.inner, then)

        _, (inner, rest) = jax.lax.scan(body, state, (step_keys, actions))
        return jax.tree.map(
            lambda a, b: jnp.concatenate([a[None], b]), (state.inner, first), (inner, rest)
        )

    reset, step = keys(env.spec)
    return jax.tree.map(
        np.asarray, jax.jit(jax.vmap(play))(reset, step, jnp.asarray(drawn(env.spec)))
    )


@functools.cache
def theirs(name):
    """Per episode: the (obs, reward, dones) of JaxMARL's reset and of each `step_env`, one call after the other."""
    spec, jm = make(name).env.spec, game(name)
    reset, step = keys(spec)
    actions, told = drawn(spec), []
    for e in range(EPISODES):
        obs, state = jm.reset(reset[e])
        rows = [(obs, None, None)]
        for t in range(spec.horizon):
            a = actions[e, t]
            if spec.discrete:
                act = {x: jnp.int32(a[i].argmax()) for i, x in enumerate(jm.agents)}
            else:
                act = {
                    x: jnp.asarray((a[i, :n] + 1) / 2)
                    for i, (x, n) in enumerate(zip(jm.agents, spec.act_dims, strict=True))
                }
            obs, state, reward, dones, _ = jm.step_env(step[e, t], state, act)
            rows.append((obs, reward, dones))
        told.append(rows)
    return jm.agents, jax.tree.map(np.asarray, told)


@pytest.mark.parametrize("name", cases(ALL))
def test_equals_calling_jaxmarl_directly(name):
    spec, (_, t), (agents, told) = make(name).env.spec, ours(name), theirs(name)
    for e, rows in enumerate(told):
        for k, (obs, reward, _) in enumerate(rows):
            for i, a in enumerate(agents):
                real = t.obs[e, k, i, : spec.obs_dims[i]]
                np.testing.assert_allclose(real, obs[a], rtol=1e-5, atol=1e-5)
                if reward is not None:
                    np.testing.assert_allclose(t.reward[e, k, i], reward[a], rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(
                t.state[e, k], np.concatenate([obs[a] for a in agents]), rtol=1e-5, atol=1e-5
            )
    assert np.abs(t.reward[:, 1:]).sum() > 0


@pytest.mark.parametrize("name", cases(FIXED))
def test_mpe_lasts_25_steps_and_times_out(name):
    spec, (inner, t), (_, told) = make(name).env.spec, ours(name), theirs(name)
    assert (spec.obs_dims, spec.act_dims) == FIXED[name]
    assert spec.discrete != name.endswith("continuous=true")
    assert spec.horizon == 25 and spec.team == "mean"
    assert spec.dialect == f"jaxmarl-0.2.0-{name.partition(':')[0]}"
    assert (
        not t.done.any()
        and t.alive.all()
        and t.available.sum() == EPISODES * 26 * sum(spec.act_dims)
    )
    np.testing.assert_array_equal(inner.step, [np.arange(26)] * EPISODES)
    # the last observation follows the one before: x' = x + 0.1 v, which no reset one does
    np.testing.assert_allclose(
        inner.p_pos[:, -1], inner.p_pos[:, -2] + 0.1 * inner.p_vel[:, -2], atol=1e-5
    )
    assert not any(rows[25][2]["__all__"] for rows in told)  # JaxMARL says done on the 26th call


@pytest.mark.parametrize("name", cases(ALL))
def test_padding_is_zero_and_unavailable(name):
    spec, (_, t) = make(name).env.spec, ours(name)
    assert not np.any(t.obs * (1 - spec.obs_mask))
    np.testing.assert_array_equal(
        t.available, np.broadcast_to(spec.act_mask > 0, t.available.shape)
    )


def test_alone_equals_among_many():
    env, (_, many) = make("switch_riddle").env, ours("switch_riddle")
    reset, step = keys(env.spec)
    state, first = jax.jit(env.reset)(reset[1])
    _, second = jax.jit(env.step)(step[1, 0], state, jnp.asarray(drawn(env.spec)[1, 0]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[1, 0]), first, many)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[1, 1]), second, many)


def test_the_riddle_terminates_before_its_limit_and_times_out_at_it():
    (inner, t), (_, told) = ours("switch_riddle"), theirs("switch_riddle")
    assert make("switch_riddle").env.spec.horizon == 6
    for e, rows in enumerate(told):
        over = [bool(dones["__all__"]) for _, _, dones in rows[1:]]
        np.testing.assert_array_equal(
            t.done[e, 1:], [*over[:-1], False]
        )  # JaxMARL always says done on the last
    # the state of the end is kept; a reset one would have taken no step
    at = np.argwhere(t.done)[0]
    assert inner.step[tuple(at)] == at[1] > 0 and inner.has_been[tuple(at)].any()
    assert t.alive.all()


def test_recipe_drops_what_follows_termination():
    task = make("switch_riddle")
    e = jax.tree.map(np.asarray, task.recipes["random"](jax.random.key(0), 60))
    ends = np.flatnonzero(e.left == 0)
    lengths = np.diff(np.concatenate([[-1], ends])) - 1
    assert lengths.sum() >= 60 > lengths[:-1].sum() and len(set(lengths)) > 2
    np.testing.assert_array_equal(e.step, np.concatenate([np.arange(n + 1) for n in lengths]))
    np.testing.assert_array_equal(e.step + e.left, np.repeat(lengths, lengths + 1))
    np.testing.assert_array_equal(e.done[ends - 1], lengths < 6)
    assert e.done.sum() == (lengths < 6).sum()
    assert not e.action[ends].any() and not e.reward[ends].any()
    np.testing.assert_array_equal(e.action[e.left > 0].sum(axis=-1), 1.0)
    # an episode that terminates pays +-1 at its end and nothing before
    assert set(np.abs(e.reward[ends - 1][lengths < 6]).ravel()) == {1.0}
    assert not e.reward[e.left > 1].any()
    np.testing.assert_array_equal(e.state, e.obs.reshape(len(e.obs), -1))
    again = task.recipes["random"](jax.random.key(0), 60)
    jax.tree.map(np.testing.assert_array_equal, e, jax.tree.map(np.asarray, again))


# --- rules that few games need ---


class Toy:
    """Two unlike agents: `a` is done after its first step, `b` ends the game with action `last`."""

    agents = ("a", "b")

    def __init__(self, last=2):
        self.last = last

    def action_space(self, agent):
        return SimpleNamespace(n={"a": 2, "b": 3}[agent])

    def get_obs(self, t):
        return {
            "a": jnp.full(1, t),
            "b": jnp.full((2, 2), t, jnp.int8),
            "world_state": jnp.arange(7) + t,
        }

    def reset(self, key):
        return self.get_obs(0), {"t": 0, "sum": jnp.zeros((), jnp.int32)}

    def step_env(self, key, state, actions):
        t = state["t"] + 1
        over = (actions["b"] == self.last) | (t >= self.last + 1)
        dones = {"a": t >= 1, "b": over, "__all__": over}
        reward = {"a": actions["a"] * 1.0, "b": actions["b"] * 10, "__all__": 99}
        info = {"lit": over, "each": jnp.zeros(2)}
        return self.get_obs(t), {"t": t, "sum": state["sum"] + 0.5}, reward, dones, info

    def get_avail_actions(self, state):
        return {
            "a": jnp.array([1, 0]),
            "b": jnp.array([True, True, True]).at[1].set(state["t"] < 1),
        }


def test_the_rules_on_a_toy():
    env = adapt(Toy(), "toy", horizon=3)
    assert (env.spec.obs_dims, env.spec.act_dims, env.spec.state_dim) == ((1, 4), (2, 3), 7)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state, first = reset(jax.random.key(0))
    np.testing.assert_array_equal(first.state, np.arange(7))
    np.testing.assert_array_equal(first.available, [[1, 0, 0], [1, 1, 1]])
    assert first.info == {"lit": 0.0} and first.done == 0

    waits = jnp.array([[0.0, 1.0, 5.0], [0.0, 1.0, 0.0]])  # the 5 is padding
    told = []
    for _ in range(3):
        before = state
        state, t = step(jax.random.key(0), state, waits)
        assert jax.tree.map(jnp.result_type, before) == jax.tree.map(jnp.result_type, state)
        told.append(t)
    assert [float(t.done) for t in told] == [0, 0, 0]  # JaxMARL's done of the third is the limit's
    assert [float(t.info["lit"]) for t in told] == [0, 0, 1]
    np.testing.assert_array_equal([t.alive for t in told], [[0, 1]] * 3)
    np.testing.assert_array_equal(told[0].reward, [1, 10])
    np.testing.assert_array_equal(told[1].obs, [[2, 0, 0, 0], [2, 2, 2, 2]])
    np.testing.assert_array_equal(told[1].available, [[1, 0, 0], [1, 0, 1]])
    assert state.inner["sum"] == 1.5 and state.inner["t"] == 3

    ends = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    _, t = step(jax.random.key(0), reset(jax.random.key(0))[0], ends)
    assert t.done == 1


def test_random_play_takes_available_actions_for_a_fixed_length():
    env = adapt(Toy(last=9), "toy", horizon=4)
    recipe = random_play(env)
    e = jax.tree.map(np.asarray, recipe(jax.random.key(0), 401))
    assert len(e.done) == 101 * 5 and not e.done.any() and e.left[-1] == 0
    np.testing.assert_array_equal(e.obs[:, 0, 0], np.tile(np.arange(5), 101))
    assert not np.any(e.obs * (1 - env.spec.obs_mask))
    share = [e.action[e.step == t].mean(axis=0) for t in range(5)]
    np.testing.assert_allclose(share[0], [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], atol=0.15)
    np.testing.assert_allclose(share[2], [[1, 0, 0], [1 / 2, 0, 1 / 2]], atol=0.15)
    assert not share[4].any()
    with pytest.raises(JaxomarlError, match="at least 1"):
        recipe(jax.random.key(0), 0)


def test_what_cannot_be_traced_is_refused():
    toy = Toy()
    toy.get_obs = lambda t: {"a": jnp.zeros(1)}
    with pytest.raises(
        JaxomarlError, match=r"jaxmarl/toy: expected rules that JAX can trace.*KeyError"
    ):
        adapt(toy, "toy", horizon=3)


# --- names ---


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("MPE_simple_spred_v3", "Did you mean MPE_simple_spread_v3"),
        ("switch_riddle:continuous=true", "continuous: expected .*found 'Discrete'"),
        ("MPE_simple_facmac_v1", "Try jaxmarl/MPE_simple_facmac_v1:continuous=true"),
        ("switch_riddle:horizon=9", "at most 6"),
        ("switch_riddle:horizon=-1", "or 0 for its own"),
        ("hanabi", "Try jaxmarl/hanabi:horizon=100"),
        ("humanoid_9|8", "brax"),
        ("switch_riddle:agents=4", "continuous, horizon"),
    ],
)
def test_a_wrong_name_says_the_way_out(name, says):
    with pytest.raises(JaxomarlError, match=says):
        make(name)


def test_names_are_canonical_and_horizons_are_taken():
    task = make("MPE_simple_spread_v3:horizon=40,continuous=True")
    assert task.name == "jaxmarl/MPE_simple_spread_v3:continuous=true,horizon=40"
    assert task.env.spec.horizon == 40 and make("switch_riddle:horizon=4").env.spec.horizon == 4
    assert make("switch_riddle") is make("switch_riddle:horizon=0")


def test_without_jaxmarl_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(JaxomarlError, match=r"pip install 'jaxmarl"):
        make("switch_riddle:horizon=5")
    assert sys.stdout is not None


def test_importing_jaxmarl_leaves_the_output_alone(capsys):
    make("switch_riddle")
    print("seen")
    assert capsys.readouterr().out == "seen\n"


# --- pictures ---


def test_mpe_is_drawn_and_other_games_are_not():
    env = make("MPE_simple_spread_v3").env
    assert make("switch_riddle").env.render is None
    state, _ = env.reset(jax.random.key(0))
    frame = env.render(state)
    assert (env.render_trails([state]) == frame).all()
    assert frame.shape == (360, 360, 3) and frame.dtype == np.uint8
    place = np.asarray(state.inner.p_pos)
    moved = env.render(
        state._replace(inner=state.inner.replace(p_pos=jnp.asarray(place).at[0].set(9.0)))
    )
    assert (moved != frame).any()  # an agent has left the picture

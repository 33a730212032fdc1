"""What every task of the catalog keeps to; a new task is one row of the catalog."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.envs import catalog

VARIANTS = [
    "games/consensus:n=2,modes=3,discrete=true",
    "games/consensus:n=4,std=0.2",
    "games/chain:length=3,horizon=4",
]
TASKS = [*catalog.names(), *VARIANTS]
ROWS = 40


# A case that repeats another's code is long, and the case named here stands for it in `make test`.
TWINS = {
    "mamujoco/ant": "mamujoco/2ant",
    "mamujoco/halfcheetah": "mamujoco/2halfcheetah",
    "mamujoco/hopper": "mamujoco/3hopper",
}
"""A robot in its usual partition -> the same environment under the name of that partition."""
PARTITIONS = {"mamujoco/4ant": "mamujoco/2ant", "mamujoco/6halfcheetah": "mamujoco/2halfcheetah"}
"""Another partition of a robot -> the one of the short run: the same physics, other columns."""
PLAYED = ("mamujoco/2halfcheetah", "mamujoco/3hopper")
"""The robots whose random data are made in the short run: one runs into the horizon, one falls."""


def tasks(*apart):
    """All tasks; those in `apart` wait for the long run."""
    marks = {name: [pytest.mark.long] for names in apart for name in names}
    return [pytest.param(name, marks=marks.get(name, [])) for name in TASKS]


ALONE = ("games/bandit", "games/chain", "mpe/spread", "mamujoco/2halfcheetah")
"""One task of each kind of rules, which are programs of their own or calls of the host, is played alone as well."""
MIXED = ("random", "medium-expert")
"""What is drawn of the particle tasks but the first: one behaviour, and a mixture of two."""


def recipe(name, quality):
    """A row of the tests of recipes: a thousand steps of MuJoCo take a second, so most wait for the long run.

    Mixtures of behaviours and single behaviours are the same code in every particle task, and so is a game's other data.
    """
    slow = name.startswith("mamujoco/") and not (name in PLAYED and quality == "random")
    single = name.startswith("mpe/") and name != "mpe/spread" and quality not in MIXED
    single = single or (name.startswith("games/") and quality != catalog.make(name).quality)
    return pytest.param(name, quality, marks=[pytest.mark.long] if slow or single else [])


RECIPES = [recipe(name, quality) for name in TASKS for quality in catalog.make(name).recipes]


def random_actions(key, spec, steps):
    shape = (steps, spec.agents, spec.act_width)
    if spec.discrete:
        logits = jnp.where(spec.act_mask > 0, 0.0, -jnp.inf)
        return jax.nn.one_hot(
            jax.random.categorical(key, jnp.broadcast_to(logits, shape)), spec.act_width
        )
    return jax.random.uniform(key, shape, minval=-1.2, maxval=1.2) * spec.act_mask


@functools.cache
def player(name):
    """key -> the time steps of one episode of random actions, reset first; the same function each time it is asked."""
    env = catalog.make(name).env

    def play(key):
        k_reset, k_act, k_step = jax.random.split(key, 3)
        state, first = env.reset(k_reset)
        actions = random_actions(k_act, env.spec, min(env.spec.horizon, 12))

        def body(state, inputs):
            return env.step(inputs[0], state, inputs[1])

        _, rest = jax.lax.scan(body, state, (jax.random.split(k_step, len(actions)), actions))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    return jax.jit(play), jax.jit(jax.vmap(play))


def keys():
    """Of three episodes side by side, the last two the same."""
    return jax.random.split(jax.random.key(3), 2)[np.array([0, 1, 1])]


@functools.cache
def three(name):
    """The time steps of these episodes, by one program."""
    return jax.tree.map(np.asarray, player(name)[1](keys()))


@functools.cache
def data(name, quality, seed=0):
    return jax.tree.map(np.asarray, catalog.make(name).recipes[quality](jax.random.key(seed), ROWS))


@pytest.mark.parametrize("name", tasks(TWINS, PARTITIONS))
def test_same_key_same_episode(name):
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[1], x[2]), three(name))
    again = player(name)[1](keys())
    jax.tree.map(np.testing.assert_array_equal, three(name), again)


@pytest.mark.parametrize(
    "name",
    [name if name in ALONE else pytest.param(name, marks=pytest.mark.long) for name in TASKS],
)
def test_alone_equals_among_many(name):
    alone = player(name)[0](keys()[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[1], rtol=1e-5, atol=1e-6), alone, three(name)
    )


@pytest.mark.parametrize("name", tasks(TWINS))
def test_time_steps_are_as_the_spec_says(name):
    task = catalog.make(name)
    spec, n = task.env.spec, task.env.spec.agents
    t = jax.tree.map(lambda x: x[0], three(name))
    steps = t.done.shape[0]
    assert t.obs.shape == (steps, n, spec.obs_width)
    assert t.state.shape == (steps, spec.state_dim)
    assert t.reward.shape == t.alive.shape == (steps, n)
    assert t.available.shape == (steps, n, spec.act_width)
    assert t.available.dtype == bool
    assert {x.dtype for x in [t.obs, t.state, t.reward, t.done, t.alive, *t.info.values()]} == {
        jnp.dtype("float32")
    }
    assert all(x.shape == (steps,) for x in t.info.values())
    assert spec.dialect
    assert task.quality in task.recipes
    # padding, and the values at reset
    assert not np.any(np.asarray(t.obs) * (1 - spec.obs_mask))
    assert np.all(np.asarray(t.available) | (spec.act_mask == 0))
    assert t.done[0] == 0
    assert not np.any(t.reward[0])
    assert all(x[0] == 0 for x in t.info.values())
    assert set(np.unique(t.done)) <= {0.0, 1.0}


@pytest.mark.parametrize("name", TASKS)
def test_reset_and_step_agree_in_structure(name):
    env = catalog.make(name).env
    key = jax.random.key(0)
    before = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((env.spec.agents, env.spec.act_width), jnp.float32)
    after = jax.eval_shape(env.step, key, before[0], action)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.leaves(before) == jax.tree.leaves(after)


def clips(name):
    """Whether a task clips actions."""
    return not catalog.make(name).env.spec.discrete and not name.startswith("mpe/")


CLIPPED = [row for row in tasks(TWINS) if clips(row.values[0])]
"""The particle rules clip nothing: the policies do."""


@pytest.mark.parametrize("name", CLIPPED)
def test_padded_action_columns_are_ignored_and_large_ones_clipped(name):
    env = catalog.make(name).env
    spec = env.spec
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    a = random_actions(jax.random.key(1), spec, 1)[0]
    large = jnp.where(spec.act_mask > 0, jnp.sign(a) * 7.0, 3.0)
    step = jax.jit(env.step)
    got = step(jax.random.key(2), state, large)[1]
    want = step(jax.random.key(2), state, jnp.sign(a) * spec.act_mask)[1]
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(("name", "quality"), RECIPES)
def test_recipe_makes_whole_episodes(name, quality):
    spec, e = catalog.make(name).env.spec, data(name, quality)
    M = len(e.done)
    assert e.obs.shape == (M, spec.agents, spec.obs_width)
    assert e.state.shape == (M, spec.state_dim)
    assert e.action.shape == (M, spec.agents, spec.act_width)
    assert e.reward.shape == (M, spec.agents)
    assert all(x.dtype == np.float32 for x in (e.obs, e.state, e.action, e.reward, e.done))
    assert all(x.shape == (M,) and x.dtype == np.int32 for x in (e.step, e.left, e.behaviour))
    ends = np.flatnonzero(e.left == 0)
    begins = np.concatenate([[0], ends[:-1] + 1])
    assert ends[-1] == M - 1
    lengths = ends - begins
    np.testing.assert_array_equal(e.step, np.concatenate([np.arange(n + 1) for n in lengths]))
    np.testing.assert_array_equal(e.left, np.concatenate([np.arange(n, -1, -1) for n in lengths]))
    # as many transitions as asked for, rounded up to whole episodes
    assert lengths.sum() >= ROWS > lengths[:-1].sum()
    # nothing in successor rows; termination in the last transition only, and what does not terminate times out
    assert not np.any(e.action[ends])
    assert not np.any(e.reward[ends])
    assert not np.any(e.done[e.left != 1])
    assert lengths.max() <= spec.horizon
    assert np.all((e.done[ends - 1] == 1) | (lengths == spec.horizon))
    # actions are legal
    assert not np.any(e.action * (1 - spec.act_mask))
    live = e.action[e.left > 0]
    if spec.discrete:
        np.testing.assert_array_equal(np.sort(live, axis=-1)[..., -1], 1.0)
        np.testing.assert_array_equal(live.sum(axis=-1), 1.0)
    assert np.abs(live).max() <= 1.0


AGAIN = [
    row
    if row.values[0] in ALONE and row.values[1] in (*MIXED, catalog.make(row.values[0]).quality)
    else pytest.param(*row.values, marks=pytest.mark.long)
    for row in RECIPES
]
"""One task of each kind of rules generates its data three times."""


@pytest.mark.parametrize(("name", "quality"), AGAIN)
def test_recipe_is_the_same_bits_each_time(name, quality):
    again = jax.tree.map(np.asarray, catalog.make(name).recipes[quality](jax.random.key(0), ROWS))
    jax.tree.map(np.testing.assert_array_equal, data(name, quality), again)
    assert np.any(data(name, quality).action[:ROWS] != data(name, quality, seed=1).action[:ROWS])


@pytest.mark.parametrize(
    ("name", "quality"), [r for r in RECIPES if catalog.make(r.values[0]).env.spec.horizon == 1]
)
def test_recipe_rewards_are_the_environments(name, quality):
    env, e = catalog.make(name).env, data(name, quality)
    now = e.left > 0
    keys = jax.random.split(jax.random.key(9), now.sum())
    state, first = jax.jit(jax.vmap(env.reset))(keys)
    _, after = jax.jit(jax.vmap(env.step))(keys, state, jnp.asarray(e.action[now]))
    np.testing.assert_allclose(
        after.reward, e.reward[now], rtol=1e-5, atol=1e-6
    )  # the recipe is compiled as one
    np.testing.assert_array_equal(after.done, e.done[now])
    np.testing.assert_array_equal(first.obs, e.obs[now])
    np.testing.assert_array_equal(after.obs, e.obs[~now])
    np.testing.assert_array_equal(after.state, e.state[~now])


def test_recipe_refuses_no_rows():
    for name in ("games/bandit", "games/chain"):
        task = catalog.make(name)
        with pytest.raises(JaxomarlError, match="at least 1"):
            task.recipes[task.quality](jax.random.key(0), 0)


# --- the catalog ---


def test_names_are_canonical():
    assert catalog.make("games/bandit").name == "games/bandit"
    assert catalog.make("games/bandit") is catalog.make("games/bandit")
    same = catalog.make("games/consensus:modes=3, n=4")
    assert same.name == "games/consensus:n=4,modes=3"
    assert same is catalog.make("games/consensus:n=4,modes=3,std=0.0,discrete=False")
    assert same.env.spec.agents == 4
    assert catalog.make("games/twin-peaks:A=1,B=4.0,C=5").name == "games/twin-peaks"
    assert catalog.make("games/twin-peaks:C=5.5,A=2").name == "games/twin-peaks:A=2,C=5.5"
    for name in TASKS:
        assert catalog.make(catalog.make(name).name) is catalog.make(name)


def test_names_are_all_listed_and_all_made():
    assert catalog.names() == sorted(catalog.names())
    assert {"games/bandit", "games/chain", "games/twin-peaks"} <= set(catalog.names())
    assert all(catalog.make(name).about for name in catalog.names())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("games/bandot", "Did you mean games/bandit"),
        ("bandit", "games/bandit"),
        ("zzz", "Known: games/additive"),
        ("games/consensus:m=4", "n, modes, std, discrete"),
        ("games/consensus:mode=4", "Did you mean modes"),
        ("games/consensus:n", "parameter=value"),
        ("games/consensus:n=2,n=3", "once"),
        ("games/consensus:n=2.5", "a finite int"),
        ("games/consensus:discrete=2", "true or false"),
        ("games/consensus:std=nan", "a finite float"),
        ("games/consensus:n=1", "at least 2"),
        ("games/consensus:std=0.1,discrete=true", "0 where actions are discrete"),
        ("games/bandit:n=3", "takes no parameters"),
        ("games/chain:horizon=2", "at least length"),
        ("games/chain:agree=1.5", "a probability"),
        ("games/chain:length=0", "at least 1"),
        ("games/twin-peaks:B=-1", "at least 0"),
        ("games/multiplication:data_std=-1", "at least 0"),
    ],
)
def test_a_wrong_name_says_the_way_out(name, says):
    with pytest.raises(JaxomarlError, match=says):
        catalog.make(name)

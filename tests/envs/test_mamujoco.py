"""The MuJoCo tasks against Gymnasium-Robotics, live, and what their engine promises."""

import copy
import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.envs import catalog
from jaxomarl.envs.mamujoco import engine_c, pictures, shifts
from jaxomarl.envs.mamujoco.environment import environment, noise
from jaxomarl.envs.mamujoco.layout import WHOLE, layout
from jaxomarl.envs.mamujoco.robots import ROBOTS, quiet
from jaxomarl.envs.rollout import episodes

GYM = {"halfcheetah": "HalfCheetah", "ant": "Ant", "hopper": "Hopper", "walker2d": "Walker2d"}
FIVE = [
    ("halfcheetah", "2x3"),
    ("halfcheetah", "6x1"),
    ("ant", "2x4"),
    ("ant", "4x2"),
    ("hopper", "3x1"),
]
ROTATING = [("ant", "2x4d"), ("walker2d", "2x3"), ("walker2d", WHOLE), ("ant", WHOLE)]
SHORT = 60
LONG = {("halfcheetah", "2x3", 1): 1000, ("ant", "2x4", 1): 1000, ("hopper", "3x1", 1): 1000}


@functools.cache
def simulator(robot, threads=0):
    return engine_c.Simulator(ROBOTS[robot], old=False, threads=threads)


@functools.cache
def reference(robot, partition, obsk):
    mamujoco = pytest.importorskip("gymnasium_robotics").mamujoco_v1
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        return mamujoco.parallel_env(
            GYM[robot], None if partition == WHOLE else partition, agent_obsk=obsk
        )


def started(env, seed):
    """The reference at a random start, and the same as our row."""
    env.reset(seed=seed)
    base = env.single_agent_env.unwrapped
    return np.concatenate([base.data.qpos - base.init_qpos, base.data.qvel])[None]


NEIGHBOURS = [
    (robot, partition, obsk)
    if obsk == 1 or (robot, partition) in (FIVE[0], FIVE[2])
    else pytest.param(robot, partition, obsk, marks=pytest.mark.long)
    for robot, partition in FIVE + ROTATING
    for obsk in (0, 1, 2)
]
"""Every partition sees its neighbours, two of them none and those of neighbours too; all others are long."""


@pytest.mark.parametrize(("robot", "partition", "obsk"), NEIGHBOURS)
def test_episodes_are_those_of_gymnasium_robotics(robot, partition, obsk):
    """Observations, state, reward and termination in float64, along a random episode."""
    theirs, laid, sim = (
        reference(robot, partition, obsk),
        layout(ROBOTS[robot], partition, obsk=obsk),
        simulator(robot),
    )
    base = theirs.single_agent_env.unwrapped
    agents = theirs.possible_agents
    assert laid.obs_dims == tuple(theirs.observation_space(a).shape[0] for a in agents)
    assert laid.act_dims == tuple(theirs.action_space(a).shape[0] for a in agents)
    rng, ends = np.random.default_rng(obsk), 0

    def check(full, obs):
        mine, state = laid.observe(full[0], np)
        np.testing.assert_allclose(state, base._get_obs(), rtol=0, atol=1e-6)
        for i, agent in enumerate(agents):
            np.testing.assert_allclose(mine[i, : laid.obs_dims[i]], obs[agent], rtol=0, atol=1e-6)
            assert not mine[i, laid.obs_dims[i] :].any()

    steps = LONG.get((robot, partition, obsk), SHORT)
    rows = sim.start(started(theirs, obsk))
    check(sim.seen(rows), theirs._get_obs())
    for t in range(steps):
        action = rng.uniform(-1, 1, (len(agents), max(laid.act_dims)))
        given = {a: action[i, : laid.act_dims[i]] for i, a in enumerate(agents)}
        obs, rewards, over, _, _ = theirs.step(given)
        moved = sim.advance(rows, laid.control(action)[None], np.zeros((1, 0)))
        rows = moved.rows
        check(moved.full, obs)
        assert abs(moved.reward[0] - rewards[agents[0]]) < 1e-6
        assert moved.ended[0] == over[agents[0]]
        assert not moved.diverged[0]
        if over[agents[0]]:
            ends += 1
            rows = sim.start(started(theirs, 100 + t))
    assert ends > 0 or steps < 1000 or robot == "halfcheetah"


# --- dialects ---

DIMS = [  # robot, partition, dialect, observations, state, actions: specs, section 4.1
    ("halfcheetah", "2x3", "gymnasium", (12, 12), 17, (3, 3)),
    ("halfcheetah", "6x1", "gymnasium", (9, 9, 8, 9, 9, 8), 17, (1,) * 6),
    ("ant", "2x4", "gymnasium", (63, 63), 105, (4, 4)),
    ("ant", "4x2", "gymnasium", (42,) * 4, 105, (2,) * 4),
    ("hopper", "3x1", "gymnasium", (8, 9, 8), 11, (1,) * 3),
    ("halfcheetah", "2x3", "omar", (6, 6), 17, (3, 3)),
    ("halfcheetah", "2x3", "ogmarl", (13, 13), 17, (3, 3)),
    ("ant", "2x4", "ogmarl", (54, 54), 111, (4, 4)),
    ("ant", "4x2", "ogmarl", (33,) * 4, 111, (2,) * 4),
    ("halfcheetah", "6x1", "omiga", (23,) * 6, 23, (1,) * 6),
    ("ant", "2x4", "omiga", (113,) * 2, 113, (4, 4)),
    ("hopper", "3x1", "omiga", (14,) * 3, 14, (1,) * 3),
]


def cached(robot, partition, dialect):
    body, laid = ROBOTS[robot], layout(ROBOTS[robot], partition, dialect)
    return environment(body, laid, engine_c.engine(body, dialect != "gymnasium"))


@pytest.mark.parametrize(("robot", "partition", "dialect", "obs", "state", "acts"), DIMS)
def test_dialects_are_as_wide_as_their_data(robot, partition, dialect, obs, state, acts):
    env = cached(robot, partition, dialect)
    first = jax.jit(env.reset)(jax.random.key(0))[1]
    assert (env.spec.obs_dims, env.spec.state_dim, env.spec.act_dims) == (obs, state, acts)
    assert first.obs.shape == (len(obs), max(obs))
    assert first.state.shape == (state,)
    assert env.spec.dialect == "mamujoco-" + {"gymnasium": "gymnasium-v1"}.get(dialect, dialect)
    assert not np.any(np.asarray(first.obs) * (1 - env.spec.obs_mask))
    fields = layout(ROBOTS[robot], partition, dialect).fields
    assert tuple(map(len, fields.obs)) == obs
    assert tuple(map(len, fields.action)) == acts


def numbered(robot, partition, dialect, obsk=1):
    """What an agent sees where qpos[i] is 100 + i, qvel[i] 200 + i, clipped 300 + i, cfrc[body] 1000 + body."""
    model = ROBOTS[robot].model
    full = [100 + np.arange(model.nq), 200 + np.arange(model.nv)]
    full += [300 + np.arange(model.nv)] if ROBOTS[robot].clipped[0] else []
    full += [1000 + np.repeat(np.arange(model.nbody), 6)] if ROBOTS[robot].contacts else []
    return layout(ROBOTS[robot], partition, dialect, obsk).observe(
        np.concatenate(full).astype(float), np
    )


def test_old_observations_by_hand():
    """The tables of specs, section 4.4."""
    obs, state = numbered("halfcheetah", "2x3", "omar")
    np.testing.assert_array_equal(
        obs, [[105, 205, 104, 204, 103, 203], [108, 208, 107, 207, 106, 206]]
    )
    np.testing.assert_array_equal(state, [*range(101, 109), *range(200, 209)])
    obs, _ = numbered("halfcheetah", "2x3", "ogmarl")
    root = [200, 202, 201, 100, 102, 101]
    np.testing.assert_array_equal(obs[0], [105, 205, 104, 204, 103, 203, 106, *root])
    np.testing.assert_array_equal(obs[1], [108, 208, 107, 207, 106, 206, 103, *root])
    obs, state = numbered("ant", "4x2", "ogmarl")
    np.testing.assert_array_equal(
        obs[2], [112, 211, *[0] * 18, 111, 210, *[0] * 6, 107, 109, 113, 200, 100]
    )
    np.testing.assert_array_equal(state, [*range(102, 115), *range(200, 214), *[0] * 84])
    obs, state = numbered("hopper", "3x1", "omiga")
    raw = np.array([*range(101, 106), *range(300, 306), 0, 1, 0])
    np.testing.assert_allclose(obs[1], (raw - raw.mean()) / raw.std(), rtol=1e-12)
    np.testing.assert_array_equal(state, obs[0])


ORDERS = [
    ("halfcheetah", "2x3", "gymnasium", [0, 1, 2, 3, 4, 5]),
    ("halfcheetah", "2x3", "omar", [0, 1, 2, 3, 4, 5]),
    ("halfcheetah", "2x3", "ogmarl", [2, 1, 0, 5, 4, 3]),
    ("ant", "2x4", "gymnasium", [2, 3, 4, 5, 6, 7, 0, 1]),
    ("ant", "2x4", "ogmarl", [2, 3, 4, 5, 6, 7, 0, 1]),
    ("ant", "2x4", "omiga", [0, 1, 2, 3, 4, 5, 6, 7]),
    ("hopper", "3x1", "omiga", [0, 1, 2]),
]


@pytest.mark.parametrize(("robot", "partition", "dialect", "actuators"), ORDERS)
def test_each_action_slot_moves_the_actuator_of_its_data(robot, partition, dialect, actuators):
    laid = layout(ROBOTS[robot], partition, dialect)
    slots = np.arange(len(actuators)).reshape(len(laid.act_dims), -1)
    moved = laid.control(slots)
    np.testing.assert_array_equal(moved[actuators], np.arange(len(actuators)))


def test_old_rules_pay_the_terminating_step_and_not_for_contacts():
    """A hopper that leans, an ant too high, and an ant that falls to the ground, under both rules."""
    none = np.zeros((1, 0))
    for robot, at, value in (("hopper", 3, 1.0), ("ant", 3, 1.5)):
        body = ROBOTS[robot]
        rows, still = (
            simulator(robot).start(np.zeros((1, body.model.nq + body.model.nv))),
            np.zeros((1, body.model.nu)),
        )
        rows[0, at] = value
        new, old = (
            engine_c.Simulator(body, rule).advance(rows, still, none) for rule in (False, True)
        )
        assert new.ended[0]
        assert old.ended[0]
        assert old.reward[0] - new.reward[0] == pytest.approx(1.0, abs=1e-9)
    theirs = [engine_c.Simulator(ROBOTS["ant"], rule) for rule in (False, True)]
    rows, felt = theirs[0].start(np.zeros((1, 29))), 0.0
    for _ in range(30):
        new, old = (sim.advance(rows, np.full((1, 8), 0.5), none) for sim in theirs)
        rows, cost = new.rows, 5e-4 * (new.full[0, 29:] ** 2).sum()
        assert old.reward[0] - new.reward[0] == pytest.approx(cost, abs=1e-9)
        felt += cost
    assert felt > 0


# --- the engine's promises ---


@pytest.mark.parametrize("robot", ["halfcheetah", "ant"])
def test_bits_do_not_depend_on_threads_nor_on_company(robot):
    body, rng = ROBOTS[robot], np.random.default_rng(0)
    rows = simulator(robot).start(rng.uniform(-0.1, 0.1, (70, body.model.nq + body.model.nv)))
    controls = rng.uniform(-1, 1, (5, 70, body.model.nu))

    def run(threads, which):
        moving, rewards = rows[which], []
        for control in controls:
            moved = simulator(robot, threads).advance(
                moving, control[which], np.zeros((len(moving), 0))
            )
            moving = moved.rows
            rewards.append(moved.reward)
        return moving, moved.full, np.array(rewards)

    everyone = run(1, slice(None))
    for got in (run(3, slice(None)), run(2, slice(None))):
        jax.tree.map(np.testing.assert_array_equal, got, everyone)
    few = run(3, [5, 69, 33])
    np.testing.assert_array_equal(few[0], everyone[0][[5, 69, 33]])
    np.testing.assert_array_equal(few[2], everyone[2][:, [5, 69, 33]])


def test_episodes_are_the_same_bits_alone_vmapped_and_nested():
    env = catalog.make("mamujoco/3hopper").env
    env = env._replace(spec=dataclasses.replace(env.spec, horizon=12))
    act = lambda key, memory, seen: (jax.random.uniform(key, (3, 1), minval=-1, maxval=1), memory)
    keys = jax.random.split(jax.random.key(0), 4)
    flat = jax.jit(lambda k: episodes(env, act, (), k, k))(keys)
    nested = jax.jit(jax.vmap(lambda k: episodes(env, act, (), k, k)))(keys.reshape(2, 2))
    alone = jax.jit(lambda k: episodes(env, act, (), k, k))(keys[2:3])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.reshape(-1)), flat, nested)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2:3], b), flat, alone)


def test_what_diverges_ends_alone_and_is_counted(caplog):
    env = catalog.make("mamujoco/2halfcheetah").env
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    keys = jax.random.split(jax.random.key(0), 4)
    play, _ = reset(keys)
    words = np.array(play.sim)
    words.view(np.float64)[1, 12] = 1e11  # a velocity that MuJoCo gives up on
    action = np.full((4, 2, 3), 0.5, np.float32)
    action[3, 0, 1] = np.nan
    broken, then = step(keys, play._replace(sim=jnp.asarray(words)), jnp.asarray(action))
    _, whole = step(keys, play, jnp.full((4, 2, 3), 0.5))
    np.testing.assert_array_equal(then.done, [0, 1, 0, 1])
    np.testing.assert_array_equal(then.info["nonfinite"], [0, 1, 0, 1])
    np.testing.assert_array_equal(then.reward[1::2], 0.0)
    assert all(np.isfinite(x).all() for x in (then.obs, then.state, then.reward))
    for i in (0, 2):  # bitwise what they would have been
        np.testing.assert_array_equal(then.obs[i], whole.obs[i])
        np.testing.assert_array_equal(then.reward[i], whole.reward[i])
    assert "2 of 4 simulations diverged" in caplog.text
    again, still = step(keys, broken, jnp.full((4, 2, 3), 0.5))
    np.testing.assert_array_equal(still.done, [0, 1, 0, 1])
    np.testing.assert_array_equal(still.info["nonfinite"], [0, 1, 0, 1])
    np.testing.assert_array_equal(again.sim[1], broken.sim[1])  # it stands still


def test_a_policy_that_diverged_has_no_score():
    env = catalog.make("mamujoco/2halfcheetah").env
    env = env._replace(spec=dataclasses.replace(env.spec, horizon=3))
    act = lambda key, bad, seen: (jnp.where(bad > 0, jnp.nan, jnp.full((2, 3), 0.5)), bad)
    keys = jax.random.split(jax.random.key(0), 2)
    sound, lost = (
        jax.jit(lambda bad: episodes(env, act, bad, keys, keys))(jnp.float32(bad)) for bad in (0, 1)
    )
    assert np.isfinite(sound["return"]).all() and np.isnan(lost["return"]).all()
    np.testing.assert_array_equal(lost["nonfinite"], 1.0)


@pytest.mark.parametrize("name", ["2halfcheetah", "2ant", "3hopper", "walker2d"])
def test_reset_noise_is_gymnasiums(name):
    env, robot = catalog.make(f"mamujoco/{name}").env, ROBOTS[{"2halfcheetah": "halfcheetah", "2ant": "ant",
                                                               "3hopper": "hopper"}.get(name, name)]  # fmt: skip
    drawn = np.asarray(
        jax.vmap(lambda k: noise(k, robot))(jax.random.split(jax.random.key(0), 4000))
    )
    qpos, qvel = drawn[:, : robot.model.nq], drawn[:, robot.model.nq :]
    assert np.abs(qpos).max() <= robot.qpos_noise
    assert qpos.std() == pytest.approx(robot.qpos_noise / np.sqrt(3), rel=0.02)
    wide = robot.qvel_noise / (1 if robot.normal else np.sqrt(3))
    assert qvel.std() == pytest.approx(wide, rel=0.02)
    assert (np.abs(qvel).max() > robot.qvel_noise) == robot.normal
    assert env.spec.horizon == 1000
    assert env.spec.team == "first"


# --- shifts ---


def test_shifts_are_drawn_from_their_intervals():
    for shift, intervals in shifts.SHIFTS.items():
        drawn = np.asarray(
            jax.vmap(lambda k, s=shift: shifts.draw_ratios(k, s))(
                jax.random.split(jax.random.key(1), 500)
            )
        )
        if intervals is None:
            assert drawn.shape == (500, 0)
            continue
        for x, parts in zip(drawn.T, intervals, strict=True):
            within = [(x >= low) & (x <= high) for low, high in parts]
            assert np.logical_or.reduce(within).all()
            assert all(w.sum() > 200 for w in within)


def test_shifts_change_what_they_say_and_nothing_else():
    """Each row of a shifted batch steps as a MuJoCo model of its own that was changed by hand."""
    body, rng = ROBOTS["halfcheetah"], np.random.default_rng(0)
    sim, model = simulator("halfcheetah"), ROBOTS["halfcheetah"].model
    ratios = np.array([[1, 1, 1], [1.4, 1, 1], [1, 0.5, 1], [1, 1, 0.25], [0.6, 1.5, 1.75]], float)
    rows = np.repeat(sim.start(rng.uniform(-0.1, 0.1, (1, 18))), 5, axis=0)
    rows[:, 2] -= 0.1  # on the ground
    plain, moving = rows, rows
    for _ in range(6):
        control = np.repeat(rng.uniform(-1, 1, (1, 6)), 5, axis=0)
        plain = sim.advance(plain, control, np.zeros((5, 0))).rows
        before, moving = moving, sim.advance(moving, control, ratios).rows
        for i, (power, density, friction) in enumerate(ratios):
            own = copy.copy(model)
            own.actuator_gear *= power
            own.body_mass[1] *= density
            own.body_inertia[1] *= density
            own.geom_friction[:, 0] *= friction
            data = mujoco.MjData(own)
            mujoco.mj_setConst(own, data)
            mujoco.mj_resetData(own, data)
            data.qpos[:], data.qvel[:] = before[i, sim.qpos], before[i, sim.qvel]
            data.qacc_warmstart[:], data.ctrl[:] = before[i, sim.qvel.stop : sim.width], control[i]
            mujoco.mj_step(own, data, body.frame_skip)
            np.testing.assert_array_equal(data.qpos, moving[i, sim.qpos])
    np.testing.assert_array_equal(moving[0], plain[0])
    assert all(np.abs(moving[i] - plain[0]).max() > 1e-4 for i in range(1, 5))
    np.testing.assert_array_equal(sim.advance(rows, control, np.zeros((5, 0))).rows[0], sim.advance(
        rows[:1], control[:1], np.ones((1, 3))).rows[0])  # fmt: skip


def test_a_shift_is_drawn_once_per_episode():
    env = catalog.make("mamujoco/2halfcheetah:shift=extreme").env
    play, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 6))
    then, _ = jax.jit(jax.vmap(env.step))(
        jax.random.split(jax.random.key(1), 6), play, jnp.ones((6, 2, 3))
    )
    assert len(np.unique(play.ratios, axis=0)) == 6
    np.testing.assert_array_equal(then.ratios, play.ratios)


# --- pictures, and bad input ---


def test_pictures_are_drawn_where_mujoco_cannot_render(monkeypatch, caplog):
    monkeypatch.setenv("MUJOCO_GL", "nothing")
    pictures._child.cache_clear()
    env = catalog.make("mamujoco/2ant").env
    play, _ = env.reset(jax.random.key(0))
    frame = env.render(play)
    env.render(play)
    pictures._child.cache_clear()
    assert frame.shape == (360, 360, 3)
    assert frame.dtype == np.uint8
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 10
    assert caplog.text.count("plain drawings") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("halfcheetah:partition=3x2", "2x3, 6x1, none"),
        ("ant:partition=8x1", "2x4, 2x4d, 4x2, none"),
        ("2halfcheetah:dialect=omiga", "gymnasium, omar, ogmarl"),
        ("2halfcheetah:dialect=brax", "gymnasium, omar, ogmarl"),
        ("walker2d:dialect=omar", "one of gymnasium"),
        ("2ant:obsk=9", "0 to 5"),
        ("2halfcheetah:dialect=omar,obsk=0", "its own"),
        ("2ant:engine=brax", "auto, c, mjx"),
        ("2ant:engine=warp", "mujoco_warp"),
        ("2ant:shift=wild", "deterministic, random, extreme"),
    ],
)
def test_a_wrong_name_says_the_way_out(name, says):
    with pytest.raises(JaxomarlError, match=says):
        catalog.make(f"mamujoco/{name}")

"""Engine mjx against engine c: single steps from the same states, off the rest pose. Compiling MJX takes long."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_environments import player, random_actions

from jaxomarl.envs import catalog
from jaxomarl.envs.mamujoco import engine_c, engine_mjx
from jaxomarl.envs.mamujoco.robots import ROBOTS

STATES = 16
TOLERANCE = {"halfcheetah": (1e-5, 2e-3), "hopper": (1e-5, 1e-3), "walker2d": (1e-4, 2e-2)}
"""Of positions (m, rad) and velocities (m/s, rad/s) after one environment step."""
long = pytest.mark.long


@functools.cache
def compiled(robot, shifted):
    return jax.jit(jax.vmap(engine_mjx.engine(ROBOTS[robot], old=False).step))


def both(robot, ratios=None):
    """(c's step, mjx's) from the states after eight random ones; the last two are over and given a bad action."""
    body, rng = ROBOTS[robot], np.random.default_rng(0)
    sim, none = engine_c.simulator(robot, False), np.zeros((STATES, 0))
    rows = sim.start(
        rng.uniform(-body.qpos_noise, body.qpos_noise, (STATES, body.model.nq + body.model.nv))
    )
    for _ in range(8):
        rows = sim.advance(rows, rng.uniform(-1, 1, (STATES, body.model.nu)), none).rows
    control = rng.uniform(-1, 1, (STATES, body.model.nu)).astype(np.float32)
    parts = (sim.qpos, sim.qvel, slice(sim.qvel.stop, sim.width), -1)
    state = engine_mjx.Simulation(*(jnp.asarray(rows[:, part], jnp.float32) for part in parts))
    over, given = jnp.zeros(STATES).at[-2].set(1.0), jnp.asarray(control).at[-1, 0].set(jnp.nan)
    ratios = none if ratios is None else np.tile(ratios, (STATES, 1))
    c = sim.advance(rows, control.astype(np.float64), ratios)
    mjx = compiled(robot, ratios.shape[1] > 0)(state, given, over, jnp.asarray(ratios, jnp.float32))
    return c, jax.tree.map(np.asarray, mjx), state


def close(robot, c, mjx):
    nq, nv = ROBOTS[robot].model.nq, ROBOTS[robot].model.nv
    apart = np.abs(mjx[1] - c.full)[:-2]
    position, velocity = TOLERANCE[robot]
    assert apart[:, :nq].max() < position
    assert apart[:, nq : nq + nv].max() < velocity
    assert np.abs(mjx[2] - c.reward)[:-2].max() < 1e-3
    np.testing.assert_array_equal(mjx[3][:-2], c.ended[:-2])


def apart_from_the_rest(mjx, state):
    """What is over stands still, what diverges ends at the initial state, and nothing else is touched."""
    np.testing.assert_array_equal(mjx[0].qpos[-2], state.qpos[-2])
    assert (mjx[2][-2], mjx[3][-2], mjx[4][-2]) == (0.0, 1.0, 0.0)
    assert (mjx[2][-1], mjx[3][-1], mjx[4][-1]) == (0.0, 1.0, 1.0)
    assert not np.any(mjx[0].qvel[-1])
    assert not mjx[4][:-1].any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(mjx))


def test_an_engines_time_steps_are_those_of_the_other_in_shape():
    """Traced; the long tests compile and compare them."""
    found = []
    for engine in ("mjx", "c"):
        env = catalog.make(f"mamujoco/2halfcheetah:engine={engine}").env
        key = jax.random.key(0)
        state, first = jax.eval_shape(env.reset, key)
        action = jax.ShapeDtypeStruct((env.spec.agents, env.spec.act_width), jnp.float32)
        after, then = jax.eval_shape(env.step, key, state, action)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), state
        )
        found.append([(x.shape, x.dtype) for x in jax.tree.leaves((first, then))])
    assert found[0] == found[1]


@long
def test_a_half_cheetahs_shifted_step():
    """Heavier, weaker and on ice; the shift's tables are interpolated."""
    c, mjx, state = both("halfcheetah", np.array([0.7, 1.3333, 0.4]))
    close("halfcheetah", c, mjx)
    apart_from_the_rest(mjx, state)


@long
@pytest.mark.parametrize("robot", ["halfcheetah", "hopper", "walker2d"])
def test_single_steps(robot):
    c, mjx, state = both(robot)
    close(robot, c, mjx)
    apart_from_the_rest(mjx, state)


@long
def test_an_ants_single_steps():
    """MJX turns the friction pyramid of a capsule within 30 degrees of upright differently: most states are close."""
    c, mjx, state = both("ant")
    apart = np.abs(mjx[1] - c.full)[:-2]
    assert np.quantile(apart[:, :29].max(axis=1), 0.6) < 1e-3
    assert apart[:, :15].max() < 0.05
    assert np.quantile(apart[:, 29:].max(axis=1), 0.6) < 1e-3  # contact forces
    apart_from_the_rest(mjx, state)


@long
@pytest.mark.parametrize("task", ["2halfcheetah", "3hopper", "2ant"])
def test_the_environment_keeps_to_the_contract(task):
    """The environment suite's demands, and the same starts as engine c."""
    name = f"mamujoco/{task}:engine=mjx"
    env, spec = catalog.make(name).env, catalog.make(name).env.spec
    keys = jax.random.split(jax.random.key(3), 3)
    single, many = player(name)
    first, again, all_three = single(keys[1]), single(keys[1]), many(keys)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    np.testing.assert_allclose(first.obs[:2], all_three.obs[1, :2], atol=2e-2)
    assert first.obs.shape[1:] == (spec.agents, spec.obs_width)
    assert first.state.shape[1:] == (spec.state_dim,)
    assert not np.any(np.asarray(first.obs) * (1 - spec.obs_mask))
    c = catalog.make(f"mamujoco/{task}:engine=c").env
    start = jax.jit(env.reset)(keys[0])[1], jax.jit(c.reset)(keys[0])[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), *start)
    before, action = jax.eval_shape(env.reset, keys[0])[0], random_actions(keys[0], spec, 1)[0]
    after = jax.eval_shape(env.step, keys[0], before, action)[0]
    assert jax.tree.leaves(before) == jax.tree.leaves(after)

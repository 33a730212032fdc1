"""The battle's rules: shots, cones, ends, masks, symmetry between sides and among units, and scripts' win rates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.envs import catalog
from jaxomarl.envs.battle import QUALITIES, rules, tasks, view
from jaxomarl.envs.battle.rules import FIRE, STAY, Battle
from jaxomarl.envs.battle.view import Units
from jaxomarl.envs.recipes import Behaviour, roll_out_rows

SIZE = 4


def eager(key, obs, legal):
    """Foes that fire where they can, and else stay."""
    return jnp.where(legal[:, FIRE], FIRE, STAY)


def side(position, heading=0, health=3.0):
    position = jnp.asarray(position, jnp.float32).reshape(-1, 2)
    n = len(position)
    return Units(
        position,
        jnp.broadcast_to(jnp.asarray(heading), (n,)),
        jnp.broadcast_to(jnp.asarray(health), (n,)),
        jnp.zeros(n),
    )


def facing(distance, health=3.0):
    """One against one, face to face."""
    return Battle(
        side([2.0, 3.0]), side([2.0 + distance, 3.0], heading=3, health=health), jnp.zeros((), bool)
    )


def duel(script, steps=7):
    """Rewards, done and info of an ally that fires where it can."""
    env = rules.environment(1, 100, "test", script)

    @jax.jit
    def step(battle):
        seen = view.look(battle.allies, battle.foes, False)
        ready = rules.legal_actions(battle.allies, seen)[0, FIRE]
        action = jax.nn.one_hot(jnp.where(ready, FIRE, STAY)[None], 6)
        return env.step(jax.random.key(0), battle, action)

    battle, out = facing(2.0), []
    for _ in range(steps):
        battle, t = step(battle)
        out.append(t)
    return out


def test_a_duel_is_a_draw_on_the_fifth_step():
    """Shots at steps 1, 3 and 5 on both sides: 3 - 3 + 10 - 10 + 50 - 4 times 3 = 38, and nobody wins."""
    times = duel(eager)
    assert [float(t.done) for t in times] == [0, 0, 0, 0, 1, 1, 1]
    assert sum(float(t.reward[0]) for t in times) == 38.0
    assert times[-1].info["win"] == 0 and times[-1].info["foes_left"] == 0
    assert not times[-1].obs.any()
    np.testing.assert_array_equal(times[-1].available[0], np.arange(6) == STAY)


def test_a_foe_that_stands_still_is_worth_51():
    """3 - 12 + 10 + 50; the ally lives, and so wins."""
    times = duel(tasks.still)
    assert sum(float(t.reward[0]) for t in times) == 51.0
    assert times[4].info["win"] == 1 and times[4].info["damage"] == 1.0
    dense = rules.payment(
        facing(2.0), facing(2.0)._replace(foes=side([4.0, 3.0], 3, 2.0)), dense=True
    )
    assert dense == 1.0


@pytest.mark.parametrize(
    ("angle", "seen"),
    [(0, True), (59.9, True), (60, True), (60.2, False), (180, False), (-60, True)],
)
def test_the_cone_has_its_edge_inside(angle, seen):
    turned = np.deg2rad(angle)
    foe = side([3 + 2 * np.cos(turned), 3 + 2 * np.sin(turned)])
    found = view.look(side([3.0, 3.0]), foe, same_side=False)
    assert bool(found.any_seen[0]) == bool(found.in_reach[0]) == seen
    far = view.look(side([3.0, 3.0]), side([7.0, 3.0]), same_side=False)
    assert far.any_seen[0] and not far.in_reach[0]
    beyond = view.look(side([3.0, 3.0]), side([9.1, 3.0]), same_side=False)
    assert not beyond.any_seen[0] and not beyond.features.any()


def test_what_is_seen_is_in_the_own_frame():
    """A unit that faces 60 degrees up sees one at its left ahead, which faces it: nearest first, the dead not at all."""
    who = side([5.0, 5.0], heading=1)
    u, left = view.FACING[1], np.array([-view.FACING[1][1], view.FACING[1][0]])
    at = side(
        np.array([5.0, 5.0]) + np.stack([3 * u, 2 * u + left, u]),
        jnp.array([4, 4, 0]),
        jnp.array([3.0, 2.0, 0.0]),
    )
    found = view.look(who, at, same_side=False)
    np.testing.assert_allclose(found.features[0, 0], [2 / 6, 1 / 6, 2 / 3, -1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found.features[0, 1], [3 / 6, 0, 1, -1, 0, 1], atol=1e-6)
    assert not found.features[0, 2:].any() and found.nearest[0] == 1


@functools.cache
def played(n, plan):
    """Battles of a scripted side against the foes' script."""
    env, act = actor(n)
    return roll_out_rows(env, Behaviour(act, plan), jax.random.key(1), 3200 * n // SIZE)


@functools.cache
def actor(n):
    env = catalog.make(f"battle/{n}").env

    def act(plan, key, seen):
        return jax.nn.one_hot(tasks.scripted(n, plan, key, seen.obs, seen.available), 6)

    return env, act


def outcomes(n, plan):
    """1 for a win, a half for a draw, 0 for a loss or a cut, of each battle; and the returns."""
    scores, returns = [], []
    for battles, steps in played(n, plan):
        for e, k in enumerate(steps):
            state = battles.state[e, k].reshape(2, n, 6)
            allies, foes = (state[..., 4] > 0).any(axis=1)
            scores.append(float(allies and not foes) + 0.5 * float(allies == foes))
            returns.append(battles.reward[e, :k, 0].sum())
    return np.array(scores), np.array(returns)


def test_the_script_against_itself_is_even():
    """Both sides have noise .1: wins and half of the draws are half of the battles, within three errors."""
    scores, returns = outcomes(SIZE, tasks.FOES)
    assert abs(scores.mean() - 0.5) < 3 * scores.std() / len(scores) ** 0.5
    # recorded: medium wins .43 and returns -21
    assert (scores == 1).mean() == pytest.approx(0.43, abs=0.13)
    error = float(returns.std()) / len(returns) ** 0.5
    assert float(returns.mean()) == pytest.approx(-21.0, abs=3 * error + 5)


@pytest.mark.long
def test_good_is_better_than_medium_and_medium_than_poor():
    """Recorded win rates of four: .71, .43, .03."""
    wins = [
        (outcomes(SIZE, plan)[0] == 1).mean()
        for plan in (tasks.Plan(0.0, 1.0), tasks.FOES, tasks.Plan(0.5))
    ]
    assert wins[0] > wins[1] + 0.1 > wins[2] + 0.2
    assert wins[0] == pytest.approx(0.71, abs=0.15) and wins[2] < 0.12


def test_sides_and_units_may_be_renamed():
    """Units of a side in another order: the same rewards, permuted rows. Sides swapped and turned by 180 degrees: damage swaps."""
    n, order = 4, np.array([2, 0, 3, 1])
    env = rules.environment(n, 100, "test", eager)
    battle, _ = jax.jit(env.reset)(jax.random.key(3))
    near = lambda side, x: side._replace(position=side.position * 0.1 + jnp.array([x, 5.0]))
    battle = battle._replace(allies=near(battle.allies, 4.0), foes=near(battle.foes, 4.5))
    permuted = battle._replace(allies=jax.tree.map(lambda x: x[order], battle.allies))
    width = rules.arena_width(n)
    turn = lambda side: side._replace(
        position=width - side.position, heading=(side.heading + 3) % 6
    )
    mirror = Battle(turn(battle.foes), turn(battle.allies), battle.over)
    step = jax.jit(lambda key, battle, fire: env.step(key, battle, jax.nn.one_hot(fire, 6)))

    @jax.jit
    def firing(battle):
        seen = view.look(battle.allies, battle.foes, False)
        return eager(None, None, rules.legal_actions(battle.allies, seen))

    rewards = []
    for t in range(4):
        fire, fire_mirror = firing(battle), firing(mirror)
        key = jax.random.key(t)
        battle, now = step(key, battle, fire)
        permuted, other = step(key, permuted, fire[order])
        mirror, _ = step(key, mirror, fire_mirror)
        np.testing.assert_array_equal(now.reward, other.reward)
        np.testing.assert_allclose(now.obs[order][:, :7], other.obs[:, :7], atol=1e-6)
        np.testing.assert_array_equal(mirror.foes.health, battle.allies.health)
        np.testing.assert_array_equal(mirror.allies.health, battle.foes.health)
        rewards.append(float(now.reward[0]))
    assert battle.foes.health.min() < 3 and battle.allies.health.min() < 3


def test_the_dead_are_zeros_and_stay():
    battles, _ = played(SIZE, tasks.FOES)[0]
    dead = battles.alive == 0
    assert dead.any() and not battles.obs[dead].any()
    np.testing.assert_array_equal(battles.available[dead], [np.arange(6) == STAY] * dead.sum())
    assert (battles.action[dead[:, :-1]].argmax(axis=-1) == STAY).all()
    assert ((battles.action * battles.available[:, :-1]).sum(axis=-1) == 1).all()


def test_widths_do_not_depend_on_the_number_of_units():
    for n in (1, 8, 64):
        spec = catalog.make(f"battle/{n}").env.spec
        assert spec.obs_dims == (55,) * n and spec.state_dim == 12 * n and spec.act_dims == (6,) * n
        shown = jax.eval_shape(catalog.make(f"battle/{n}").env.reset, jax.random.key(0))[1]
        assert shown.obs.shape == (n, 55) and shown.state.shape == (12 * n,)
    task = catalog.make("battle/8:foes=still,reward=dense")
    assert task.env.spec.dialect == "battle-v1-8-foes=still-reward=dense"
    assert tuple(task.recipes) == QUALITIES and len(task.fields.obs[0]) == 55
    for name, says in {
        "battle/0": "battle/8",
        "battle/x": "battle/8",
        "battle/8:foes=away": "script or still",
    }.items():
        with pytest.raises(JaxomarlError, match=says):
            catalog.make(name)


def test_a_frame_shows_the_living():
    env = catalog.make("battle/4").env
    battle, _ = jax.jit(env.reset)(jax.random.key(0))
    frame = env.render(battle)
    gone = battle._replace(foes=battle.foes._replace(health=jnp.zeros(4)))
    assert frame.dtype == np.uint8 and (env.render(gone) != frame).any()
    moved = battle._replace(allies=battle.allies._replace(position=battle.allies.position + 9.0))
    drawn = (env.render_trails([moved, battle]) != frame).any(axis=2)
    assert drawn.any() and (env.render_trails([battle]) == frame).all()

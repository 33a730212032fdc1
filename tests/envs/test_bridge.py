"""The bridge: what blocks a move, the two shortest ways, the data of both conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import Observation
from jaxomarl.data.catalog import load
from jaxomarl.envs import bridge, catalog

UP, RIGHT, DOWN, LEFT, STAY = range(5)


def after(first, second, a, b):
    """(row, column) of both agents after one joint action."""
    at = bridge.joint_moves()[bridge.number(first), bridge.number(second), a, b]
    return tuple(divmod(int(cell), bridge.COLUMNS) for cell in at)


@pytest.mark.parametrize(
    ("first", "second", "actions", "then"),
    [
        ((1, 1), (1, 3), (RIGHT, STAY), ((1, 2), (1, 3))),
        ((1, 1), (1, 3), (RIGHT, LEFT), ((1, 1), (1, 3))),  # both want the bridge
        ((1, 2), (1, 3), (RIGHT, LEFT), ((1, 2), (1, 3))),  # they want to swap
        ((1, 2), (1, 3), (RIGHT, STAY), ((1, 2), (1, 3))),  # it is taken
        ((1, 2), (1, 3), (RIGHT, UP), ((1, 3), (0, 3))),  # it is left free
        ((0, 1), (1, 3), (RIGHT, STAY), ((0, 1), (1, 3))),  # a wall beside the bridge
        ((0, 0), (2, 4), (UP, DOWN), ((0, 0), (2, 4))),  # the edge
        ((0, 0), (2, 4), (LEFT, RIGHT), ((0, 0), (2, 4))),
    ],
)
def test_moves(first, second, actions, then):
    assert after(first, second, *actions) == then


def test_the_fewest_steps_are_those_of_a_plain_search():
    """A queue from the starts, over all joint actions."""
    moves = bridge.joint_moves()
    start, goal = (tuple(map(bridge.number, cells)) for cells in (bridge.STARTS, bridge.GOALS))
    seen, front, steps = {start}, {start}, 0
    while goal not in front:
        front = {
            tuple(map(int, moves[i, j, a, b])) for i, j in front for a in range(5) for b in range(5)
        }
        front -= seen
        seen |= front
        steps += 1
    assert bridge.shortest().steps[start] == steps
    assert catalog.make("games/bridge").optimum == pytest.approx(-0.1 * (steps - 1))


def test_a_step_costs_until_both_are_there_and_nothing_after():
    task = catalog.make("games/bridge")
    act = bridge.convention(bridge.shortest(), 0).act
    state, now = task.env.reset(jax.random.key(0))
    paid, ended = [], []
    for _ in range(task.env.spec.horizon):
        state, now = task.env.step(
            jax.random.key(0),
            state,
            act((), jax.random.key(0), Observation(now.obs, now.available)),
        )
        paid.append(float(now.reward[0]))
        ended.append(float(now.done))
    assert sum(paid) == pytest.approx(task.optimum) and np.ptp(now.reward) == 0
    first = ended.index(1.0)
    assert (
        all(ended[first:])
        and not any(paid[first:])
        and paid[:first] == pytest.approx([-0.1] * first)
    )


def test_data_are_both_conventions_in_halves():
    """One crosses first, then the other: at the first step the left agent, or the right one, is on the bridge."""
    task = catalog.make("games/bridge")
    data, manifest = load(task, "optimal", 1000)
    assert manifest["return"]["mean"] == pytest.approx(task.optimum, abs=1e-5)
    assert np.unique(data.behaviour).tolist() == [0, 1]
    second = np.asarray(data.step) == 1
    cells = np.argmax(np.asarray(data.state)[second].reshape(-1, 2, bridge.CELLS), axis=-1)
    crossing = cells == bridge.number((1, 2))
    np.testing.assert_array_equal(np.argmax(crossing, axis=1), np.asarray(data.behaviour)[second])
    assert (crossing.sum(axis=1) == 1).all()


def test_the_mix_has_about_as_many_episodes_of_uniform_actions():
    data, _ = load(catalog.make("games/bridge"), "mix", 4000)
    first = np.asarray(data.step) == 0
    shares = np.bincount(np.asarray(data.behaviour)[first]) / first.sum()
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5], atol=0.05)


def test_agents_see_themselves_first():
    _, now = catalog.make("games/bridge").env.reset(jax.random.key(0))
    cells = jnp.argmax(now.obs.reshape(2, 2, bridge.CELLS), axis=-1)
    left, right = map(bridge.number, bridge.STARTS)
    assert cells.tolist() == [[left, right], [right, left]]
    assert now.state.tolist() == now.obs[0].tolist()

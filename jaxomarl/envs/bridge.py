"""A bridge that one agent at a time can cross: two conventions, and a deadlock where both insist.

Source: AlberDICE (Matsunaga et al. 2023), the Bridge game. Its drawing is not printed as numbers:
cells, starts and data are ours.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Environment, Observation, Spec, Task, TimeStep
from jaxomarl.envs.recipes import Behaviour, Part, mixture, random_play, uniform_behaviour
from jaxomarl.envs.stateless import DIALECT

ROWS, COLUMNS = 3, 5
CELLS = ROWS * COLUMNS
WALLS = ((0, 2), (2, 2))
"""Cells above and below the bridge, which nobody enters."""
STARTS = ((1, 1), (1, 3))
GOALS = ((1, 4), (1, 0))
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))
"""Up, right, down, left, stay: changes of (row, column)."""
HORIZON = 20
PRICE = -0.1
"""Reward of a step that does not end the episode."""
PREFERENCES = ((1, 0, 2, 3, 4), (3, 0, 2, 1, 4))
"""Convention -> the order in which its first agent's optimal actions are taken: it crosses first.
"""

Joint = tuple[int, int]
"""Cells, or actions, of both agents."""


def number(cell: tuple[int, int]) -> int:
    """A cell's number, row by row."""
    return cell[0] * COLUMNS + cell[1]


# --- the rules, as tables ---


def targets() -> Int[np.ndarray, "C A"]:
    """The cell that each action leads to from each cell; into a wall it stays."""
    out = np.empty((CELLS, len(MOVES)), np.int32)
    for row, column in itertools.product(range(ROWS), range(COLUMNS)):
        for a, (down, right) in enumerate(MOVES):
            then = (row + down, column + right)
            inside = 0 <= then[0] < ROWS and 0 <= then[1] < COLUMNS
            if not inside or then in WALLS:
                then = (row, column)
            out[number((row, column)), a] = number(then)
    return out


def joint_moves() -> Int[np.ndarray, "C C A A 2"]:
    """Where both agents are after a joint action.

    Neither moves where both want one cell, or each the other's.
    """
    own = targets()
    shape = (CELLS, CELLS, len(MOVES), len(MOVES))
    first = np.broadcast_to(own[:, None, :, None], shape)
    second = np.broadcast_to(own[None, :, None, :], shape)
    at = np.indices(shape)[:2]
    void = (first == second) | ((first == at[1]) & (second == at[0]))
    return np.where(void[..., None], np.moveaxis(at, 0, -1), np.stack([first, second], axis=-1))


class Paths(NamedTuple):
    """The fewest steps to both goals, and the joint action of each convention."""

    steps: Int[np.ndarray, "C C"]
    """-1 where the goals are out of reach."""
    actions: Int[np.ndarray, "2 C C 2"]


def shortest() -> Paths:
    """Optimal play by breadth-first search from the goals, ties by `PREFERENCES`."""
    moves = joint_moves()
    steps = np.full((CELLS, CELLS), -1, np.int32)
    steps[number(GOALS[0]), number(GOALS[1])] = 0
    after = steps[moves[..., 0], moves[..., 1]]
    while True:
        reached = (after >= 0).any(axis=(2, 3)) & (steps < 0)
        if not reached.any():
            break
        steps = np.where(reached, after.max(axis=(2, 3)) + 1, steps)
        after = steps[moves[..., 0], moves[..., 1]]

    best = (after >= 0) & (after == steps[..., None, None] - 1)
    actions = np.zeros((2, CELLS, CELLS, 2), np.int32)
    for mode in range(2):
        for i, j in np.argwhere(best.any(axis=(2, 3))):
            actions[mode, i, j] = next(a for a in preferred(mode) if best[i, j, a[0], a[1]])
    return Paths(steps, actions)


def preferred(mode: int) -> list[Joint]:
    """All joint actions in the order of a convention: its first agent's come first."""
    order = itertools.product(PREFERENCES[mode], PREFERENCES[1 - mode])
    return [pair if mode == 0 else (pair[1], pair[0]) for pair in order]


# --- the task ---


def bridge() -> Task:
    """Two agents have to pass one another where one cell joins both sides.

    A step costs 0.1, and the one that brings both to their goals costs nothing and ends the
    episode. The data `optimal` have the two shortest ways in halves: the left agent crosses first,
    or the right one. `mix` has about as many episodes of uniform actions besides.
    """
    paths = shortest()
    length = int(paths.steps[tuple(map(number, STARTS))])
    env = _environment(length)
    ways = [Part(convention(paths, mode), mode, 0.5) for mode in range(2)]
    # shares are of transitions: nearly all episodes of uniform actions are cut at the horizon
    random_share = HORIZON / (HORIZON + length)
    mixed = [part._replace(share=0.5 * (1.0 - random_share)) for part in ways]
    mixed.append(Part(uniform_behaviour(env), 2, random_share))
    recipes = {
        "optimal": mixture(env, ways),
        "mix": mixture(env, mixed),
        "random": random_play(env),
    }
    about = (
        f"two agents pass one another on a bridge of one cell, -0.1 a step; optimum "
        f"{PRICE * (length - 1):g}"
    )
    return Task(
        "games/bridge", env, recipes, "optimal", optimum=PRICE * (length - 1), about=about,
        rows=20_000,
    )  # fmt: skip


def convention(paths: Paths, mode: int) -> Behaviour:
    """The behaviour that takes the shortest way of a convention."""
    table = jnp.asarray(paths.actions[mode])

    def act(params: Any, key: Key[Array, ""], seen: Observation) -> Float[Array, "2 A"]:
        cell = jnp.argmax(seen.obs[:, :CELLS], axis=-1)
        return jax.nn.one_hot(table[cell[0], cell[1]], len(MOVES))

    return Behaviour(act)


def _environment(earliest: int) -> Environment:
    moves = jnp.asarray(joint_moves())
    goals = jnp.array([number(goal) for goal in GOALS])
    starts = jnp.array([number(start) for start in STARTS])
    spec = Spec(
        obs_dims=(2 * CELLS,) * 2,
        act_dims=(len(MOVES),) * 2,
        state_dim=2 * CELLS,
        horizon=HORIZON,
        discrete=True,
        dialect=DIALECT,
        terminates="may",
        earliest=earliest,
    )

    def timestep(at: Int[Array, " 2"], reward: Array) -> TimeStep:
        cells = jax.nn.one_hot(at, CELLS)
        solved = (at == goals).all()
        return TimeStep(
            # an agent's own cell comes first
            obs=jnp.stack([cells.reshape(-1), cells[::-1].reshape(-1)]),
            state=cells.reshape(-1),
            reward=jnp.full((2,), reward, jnp.float32),
            done=solved.astype(jnp.float32),
            alive=jnp.ones((2,), jnp.float32),
            available=jnp.ones((2, len(MOVES)), bool),
            info={"solved": solved.astype(jnp.float32)},
        )

    def reset(key: Key[Array, ""]) -> tuple[Int[Array, " 2"], TimeStep]:
        return starts, timestep(starts, jnp.zeros(()))

    def step(
        key: Key[Array, ""], at: Int[Array, " 2"], action: Float[Array, "2 A"]
    ) -> tuple[Int[Array, " 2"], TimeStep]:
        chosen = jnp.argmax(action, axis=-1)
        then = moves[at[0], at[1], chosen[0], chosen[1]]
        # a team that has arrived stays, and pays nothing
        arrived = (at == goals).all()
        then = jnp.where(arrived, at, then)
        ends = arrived | (then == goals).all()
        return then, timestep(then, jnp.where(ends, 0.0, PRICE))

    return Environment(spec, reset, step)

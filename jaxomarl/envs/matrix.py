"""Matrix games of two agents: climbing, an additive payoff, XOR, and two good cells with penalties.

A data set draws its cells independently, with the probabilities that its quality names.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Task, refuse
from jaxomarl.envs.stateless import EPISODES, Actions, Draw, Payoff, one_step_recipe, stateless

CLIMBING = np.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]])
ADDITIVE = np.array([1.0, 3.0, 0.0])[:, None] + np.array([0.0, 4.0, 2.0])
XOR = np.array([[0.0, 1.0], [1.0, -2.0]])

Cells = Float[np.ndarray, "A1 A2"]
"""Probabilities of the joint actions in a data set."""


def climbing(peak: float = 0.5) -> Task:
    """Payoff 8 at (0, 0) behind penalties of -12.

    The best additive value sends both agents away from (0, 0). The data `peak` have the share
    `peak` of their rows at (0, 0), and the rest uniform over all cells. Raises JaxomarlError for a
    share outside of [0, 1].

    Source: DoF (Diffusion Factorisation), Q-value reconstruction: a climbing-style matrix.
    """
    if not 0.0 <= peak <= 1.0:
        expected = "a share in [0, 1]"
        raise refuse("games/climbing, peak", expected, peak, "Leave it out for 0.5.")
    about = "8 at (0, 0), -12 where one agent plays it alone, else 0; optimum 8"
    cells = {"uniform": uniform_cells(CLIMBING), "peak": peak_cells(CLIMBING, peak)}
    return _matrix_game("climbing", CLIMBING, about, cells)


def xor() -> Task:
    """Two good cells, AB and BA, which no product of policies has both.

    The payoff is 0 at AA, 1 at AB and BA, and -2 at BB. The data `two` are AB and BA in halves,
    `three` have AA too, and `all` are uniform.

    Source: AlberDICE (Matsunaga et al. 2023), the XOR game.
    """
    about = "0 at AA, 1 at AB and BA, -2 at BB; optimum 1"
    cells = {
        "two": listed_cells(XOR, [(0, 1), (1, 0)]),
        "three": listed_cells(XOR, [(0, 0), (0, 1), (1, 0)]),
        "all": uniform_cells(XOR),
    }
    return _matrix_game("xor", XOR, about, cells)


def penalty(k: float = -10.0) -> Task:
    """Two best cells behind penalties: [[10, 0, k], [0, 2, 0], [k, 0, 10]].

    The data `two` are the cells that pay 10, in halves. Raises JaxomarlError for k above 0.

    Source: Claus and Boutilier 1998, the penalty game.
    """
    if k > 0:
        raise refuse("games/penalty, k", "at most 0", k, "It is a penalty.")
    matrix = np.array([[10.0, 0.0, k], [0.0, 2.0, 0.0], [k, 0.0, 10.0]])
    about = f"10 at (0, 0) and (2, 2), 2 at (1, 1), {k:g} at the other corners; optimum 10"
    cells = {"uniform": uniform_cells(matrix), "two": listed_cells(matrix, [(0, 0), (2, 2)])}
    return _matrix_game("penalty", matrix, about, cells)


def additive() -> Task:
    """Payoff (1, 3, 0)[a_1] + (0, 4, 2)[a_2]: an additive value is exact here."""
    about = "(1, 3, 0)[a_1] + (0, 4, 2)[a_2]; optimum 7 at (1, 1)"
    return _matrix_game("additive", ADDITIVE, about, {"uniform": uniform_cells(ADDITIVE)})


def uniform_cells(matrix: Float[np.ndarray, "A1 A2"]) -> Cells:
    """Equal probabilities of all joint actions."""
    return np.full(matrix.shape, 1.0 / matrix.size)


def listed_cells(matrix: Float[np.ndarray, "A1 A2"], cells: list[tuple[int, int]]) -> Cells:
    """Equal probabilities of the listed joint actions."""
    out = np.zeros(matrix.shape)
    out[tuple(zip(*cells, strict=True))] = 1.0 / len(cells)
    return out


def peak_cells(matrix: Float[np.ndarray, "A1 A2"], share: float) -> Cells:
    """The given share at the first cell, and the rest uniform over all cells."""
    out = (1.0 - share) * uniform_cells(matrix)
    out[0, 0] += share
    return out


def best_additive(matrix: Float[np.ndarray, "A1 A2"]) -> Float[np.ndarray, "A1 A2"]:
    """The least-squares fit f(a_1) + g(a_2): row mean + column mean - grand mean.

    Its root mean squared error on climbing is 7.11.
    """
    row_mean = matrix.mean(axis=1, keepdims=True)
    column_mean = matrix.mean(axis=0, keepdims=True)
    return row_mean + column_mean - matrix.mean()


def _matrix_game(name: str, matrix: np.ndarray, about: str, cells: Mapping[str, Cells]) -> Task:
    """The game of a payoff matrix; its first data set is the default."""
    widths = matrix.shape

    def rule(action: Float[Array, "2 A"]) -> Payoff:
        row, column = jnp.argmax(action, axis=-1)
        reward = jnp.asarray(matrix, jnp.float32)[row, column]
        best = reward == matrix.max()
        info = {"optimal": best, "action_1": row, "action_2": column}
        return reward, {name: x.astype(jnp.float32) for name, x in info.items()}

    def drawn(quality: str) -> Draw:
        if quality == "uniform":
            return uniform
        probability = jnp.asarray(cells[quality].reshape(-1), jnp.float32)

        def draw(key: Key[Array, ""], rows: int) -> Actions:
            cell = jax.random.choice(key, matrix.size, (rows,), p=probability)
            index = jnp.stack(jnp.unravel_index(cell, widths), axis=-1)
            return jax.nn.one_hot(index, max(widths)), cell

        return draw

    def uniform(key: Key[Array, ""], rows: int) -> Actions:
        index = jax.random.randint(key, (rows, 2), 0, jnp.array(widths))
        action = jax.nn.one_hot(index, max(widths))
        return action, jnp.zeros(rows, jnp.int32)

    env = stateless(widths, rule, discrete=True)
    recipes = {quality: one_step_recipe(env, drawn(quality)) for quality in cells}
    return Task(
        f"games/{name}",
        env,
        recipes,
        next(iter(cells)),
        optimum=float(matrix.max()),
        about=about,
        episodes=EPISODES,
    )

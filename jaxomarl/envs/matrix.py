"""Matrix games of two agents with three actions each: climbing, and a game of additive payoff."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Task
from jaxomarl.envs.stateless import EPISODES, Actions, Payoff, one_step_recipe, stateless

CLIMBING = np.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]])
ADDITIVE = np.array([1.0, 3.0, 0.0])[:, None] + np.array([0.0, 4.0, 2.0])


def climbing() -> Task:
    """Payoff 8 at (0, 0) behind penalties of -12.

    The best additive value sends both agents away from (0, 0).

    Source: DoF (Diffusion Factorisation), Q-value reconstruction: a climbing-style matrix.
    """
    about = "8 at (0, 0), -12 where one agent plays it alone, else 0; optimum 8"
    return _matrix_game("climbing", CLIMBING, about)


def additive() -> Task:
    """Payoff (1, 3, 0)[a_1] + (0, 4, 2)[a_2]: an additive value is exact here."""
    about = "(1, 3, 0)[a_1] + (0, 4, 2)[a_2]; optimum 7 at (1, 1)"
    return _matrix_game("additive", ADDITIVE, about)


def best_additive(matrix: Float[np.ndarray, "A1 A2"]) -> Float[np.ndarray, "A1 A2"]:
    """The least-squares fit f(a_1) + g(a_2): row mean + column mean - grand mean.

    Its root mean squared error on climbing is 7.11.
    """
    row_mean = matrix.mean(axis=1, keepdims=True)
    column_mean = matrix.mean(axis=0, keepdims=True)
    return row_mean + column_mean - matrix.mean()


def _matrix_game(name: str, matrix: np.ndarray, about: str) -> Task:
    widths = matrix.shape

    def rule(action: Float[Array, "2 A"]) -> Payoff:
        row, column = jnp.argmax(action, axis=-1)
        reward = jnp.asarray(matrix, jnp.float32)[row, column]
        best = reward == matrix.max()
        info = {"optimal": best, "action_1": row, "action_2": column}
        return reward, {name: x.astype(jnp.float32) for name, x in info.items()}

    def uniform(key: Key[Array, ""], rows: int) -> Actions:
        index = jax.random.randint(key, (rows, 2), 0, jnp.array(widths))
        action = jax.nn.one_hot(index, max(widths))
        return action, jnp.zeros(rows, jnp.int32)

    env = stateless(widths, rule, discrete=True)
    recipe = one_step_recipe(env, uniform)
    return Task(
        f"games/{name}",
        env,
        {"uniform": recipe},
        "uniform",
        optimum=float(matrix.max()),
        about=about,
        episodes=EPISODES,
    )

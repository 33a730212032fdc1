"""Payoffs rebuilt from what each agent generates for its own action, Q_tot = h(Q_1, Q_2)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.diffusion.factorise import factorisation
from jaxomarl.diffusion.samplers import ddim
from jaxomarl.networks.agents import separate
from jaxomarl.networks.mlp import mish, mlp
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof.models import (
    SCHEDULE,
    TIME_FEATURES,
    UPDATES,
    compiled,
    descended,
    spread_text,
    time_features,
)
from jaxomarl.papers.measured import Measure, Part, of_seeds
from jaxomarl.results.clouds import matrices

GAMES = {
    "additive": np.array([[1.0, 0.0], [18.0, 17.0]]),
    "the paper's second": np.array([[-4.0, 0.0], [14.0, 2.0]]),
    "climbing": np.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]]),
}
"""Payoffs by (agent 1's action, agent 2's).

The paper's are garbled in print. The second's entries can be read, of the first only 1, 0 and 18,
to which 17 makes an additive matrix here.
"""
MIXES = {"wconcat": "h = k₁Q₁ + k₂Q₂", "atten": "h attends to both actions"}
CALLS = 5
RATE = 4e-3
ROWS_PER_CELL = 8
"""Rows of a training batch for each joint action."""
SAMPLES_PER_CELL = 64
"""Samples of which a generated payoff is the mean."""

Matrices = Float[np.ndarray, "R A A"]
"""One matrix for each seed."""


def payoffs(asked: Asked) -> Part:
    """Rebuilt matrices and their errors, next to the least squares of an additive one."""
    # --- training: games of one size share a program ---
    rebuilt_by: dict[tuple[str, str], Matrices] = {}
    for size in sorted({len(payoff) for payoff in GAMES.values()}):
        same_size = {name: payoff for name, payoff in GAMES.items() if len(payoff) == size}
        for mix in MIXES:
            asked.say(f"payoffs: {size} x {size}, {mix}")
            results = rebuilt(np.stack(list(same_size.values())), mix, asked)
            for name, matrices_of_seeds in zip(same_size, results, strict=True):
                rebuilt_by[name, mix] = matrices_of_seeds

    # --- table and picture ---
    rows = []
    measures = []
    shown = {}
    for name, payoff in GAMES.items():
        best = additive(payoff)
        game = f"payoffs, {name}"
        measures.append(Measure(game, "additive least squares", "", "", "rmse", rmse(best, payoff)))
        for mix in MIXES:
            errors = [rmse(matrix, payoff) for matrix in rebuilt_by[name, mix]]
            measures += of_seeds(game, mix, "", asked.seeds, {"rmse": errors})
        weighted = rebuilt_by[name, "wconcat"]
        attention = rebuilt_by[name, "atten"]
        distance = max(rmse(matrix, best) for matrix in weighted)
        rows.append(
            (
                name,
                f"{rmse(best, payoff):.3f}",
                errors_text(weighted, payoff),
                f"{distance:.3f}",
                errors_text(attention, payoff),
            )
        )
        shown[name] = [payoff, best, nearest(weighted, payoff), nearest(attention, payoff)]
    titles = ("payoff", "additive least squares", *MIXES.values())
    asked.draw(matrices, "payoffs.png", shown, titles)
    head = (
        "payoff",
        "additive least squares",
        MIXES["wconcat"],
        "its distance from least squares, at most",
        MIXES["atten"],
    )
    text = (
        f"## Payoffs\n\n{markdown_table(head, rows)}\n"
        "Root mean square error over the matrix. Each agent's diffusion generates Q_i from its own "
        "action alone, and h puts them together; both are trained through the sampler on "
        "(h - payoff)^2. A constant weighted sum holds additive matrices only, the nearest of "
        "which is row mean + column mean - grand mean: it rebuilds the first payoff and can not "
        "rebuild the others, whatever is trained. The nearly exact numbers of the paper's Table 1 "
        "need weights that depend on the joint action, as those of attention do (which some seeds "
        "do not find). The picture shows the best seed.\n\n![](payoffs.png)"
    )
    return Part(text, measures)


def errors_text(matrices_of_seeds: Matrices, payoff: Float[np.ndarray, "A A"]) -> str:
    """The error's mean over seeds and its spread."""
    errors = np.array([rmse(matrix, payoff) for matrix in matrices_of_seeds])
    return " ± ".join(spread_text(errors))


def nearest(
    matrices_of_seeds: Matrices, payoff: Float[np.ndarray, "A A"]
) -> Float[np.ndarray, "A A"]:
    """The matrix of the seed with the least error."""
    return sorted(matrices_of_seeds, key=lambda matrix: rmse(matrix, payoff))[0]


def rebuilt(
    payoffs: Float[np.ndarray, "G A A"], mix: str, asked: Asked
) -> Float[np.ndarray, "G R A A"]:
    """The matrices that agents generate after training on each payoff, for each seed.

    They are means over noise.
    """
    actions = payoffs.shape[1]
    net = separate(mlp(1 + actions + TIME_FEATURES, (32, 32), 1, mish), 2)
    h = factorisation(mix, 2, 1, actions)
    sample = ddim(SCHEDULE, CALLS)
    axis = jnp.arange(actions)
    joint_actions = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)

    def generated(params: dict, key: Array, joint_action: Array) -> Array:
        """The team's Q at joint actions, each agent's generated from its own action."""
        y = jax.nn.one_hot(joint_action, actions)

        def denoise(x: Array, t: Array) -> Array:
            return net.apply(params["parts"], jnp.concatenate([x, y, time_features(t, x)], axis=-1))

        own_q = sample(key, denoise, (*joint_action.shape, 1))
        return h.train(params["data"], own_q, y).sum(axis=(-2, -1))

    def one_matrix(table_and_seed: tuple[Array, Array]) -> Array:
        table, seed = table_and_seed
        k_net, k_mix, k_steps, k_end = jax.random.split(jax.random.key(seed), 4)
        start = {"parts": net.init(k_net), "data": h.init(k_mix)}
        batch = jnp.tile(joint_actions, (ROWS_PER_CELL, 1))
        wanted = table[batch[:, 0], batch[:, 1]]

        def loss(params: dict, key: Array) -> Array:
            return jnp.mean((generated(params, key, batch) - wanted) ** 2)

        params = descended(loss, start, k_steps, asked.updates(UPDATES), RATE)
        samples = generated(params, k_end, jnp.tile(joint_actions, (SAMPLES_PER_CELL, 1)))
        return samples.reshape(SAMPLES_PER_CELL, actions, actions).mean(axis=0)

    # networks see payoffs in [-1, 1]
    largest = np.abs(payoffs).max(axis=(1, 2))[:, None, None]
    scaled = jnp.asarray(payoffs / largest, jnp.float32)
    tables = jnp.repeat(scaled, len(asked.seeds), axis=0)
    seeds = jnp.tile(jnp.asarray(asked.seeds, jnp.uint32), len(payoffs))
    program = compiled(lambda lanes: jax.lax.map(one_matrix, lanes))
    flat = np.asarray(program((tables, seeds)))
    return largest[:, None] * flat.reshape(len(payoffs), -1, actions, actions)


def additive(payoff: Float[np.ndarray, "A A"]) -> Float[np.ndarray, "A A"]:
    """The nearest Q_1(u_1) + Q_2(u_2) in the mean square: row mean + column mean - grand mean."""
    return payoff.mean(axis=1, keepdims=True) + payoff.mean(axis=0) - payoff.mean()


def rmse(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((one - other) ** 2)))

"""Values with one mixing network, written apart, and agents that act independently: for OMIGA and OMAC."""

import alone
import jax
import numpy as np
from alone import MODE

ACTIONS = np.array([-MODE, 0.1, MODE])


def independent(rows=4000, seed=1):
    """Agents draw from three actions independently, and the team is paid the sum of what each earns."""
    rng = np.random.default_rng(seed)
    at = np.stack([rng.choice(3, rows, p=p) for p in ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6])], axis=1)
    paid = np.array([[0.0, 0.4, 1.0], [1.0, 0.3, 0.0]])[[0, 1], at].sum(axis=1)
    return at, alone.bandit(ACTIONS[at][..., None] * np.ones(2), np.stack([paid, paid], axis=1))


def mixing(params, x):
    """[w, b] of the mixing network."""
    h = np.maximum(np.asarray(x) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    out = h @ params["out"]["kernel"] + params["out"]["bias"]
    return np.abs(out[:, :-1]), out[:, -1]


def each_agents(params, *inputs):
    """[B, N] of agents' networks, or of the first member of each."""
    given = np.concatenate(inputs, axis=-1)
    one = lambda i: jax.tree.map(lambda x: np.asarray(x)[i], params)
    return np.stack([alone.layers(one(i), given[:, i])[..., 0] for i in range(2)], axis=-1)


def first_member(params):
    return jax.tree.map(lambda x: x[:, 0], params)

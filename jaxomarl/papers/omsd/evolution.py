"""OMSD's Figures 4 (c) and 9: where policies act while they train, next to their data.

A run's folder keeps its last policy alone. So each point of training is a run that ends there: the
number of the policy's updates is swept, and its random numbers are those of the longest run, update
by update. The other stages are trained once.

A point of the figure is an observation and an action of the whole team. t-SNE (van der Maaten and
Hinton, 2008) lays points that are near one another near one another in a plane. It has no scale, so
the table has the distance itself.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from jaxomarl.api import evaluate, policy
from jaxomarl.api.evaluate import RunBatch
from jaxomarl.api.session import Results
from jaxomarl.base import Dataset, refuse
from jaxomarl.config import flag
from jaxomarl.envs.rollout import recorded
from jaxomarl.papers import cells, points, shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.omsd import table2
from jaxomarl.papers.shown import Content
from jaxomarl.results import clouds

SHARES = (0.02, 0.1, 0.3, 1.0)
"""Parts of the policy's training after which it is looked at."""
EPISODES = 4
"""Episodes of each seed at each point of training."""
MOST = 1500
"""Pairs of the data, and of the policies at each point of training, that are drawn."""
SEED = 0
"""Seed of the starts, of the pairs that are drawn, and of t-SNE."""
WANTED = Content(
    ("omsd",),
    table2.TASKS,
    table2.DATA,
    (
        *table2.DIFFERENCES,
        "The paper's figure is a picture, without numbers. It does not say which pairs it takes, "
        "nor the settings of t-SNE.",
    ),
    table2.THEIRS,
)
HEAD = ("task and data", "updates", "return", "distance to the data")

Pairs = Float[np.ndarray, "P C"]
"""Observations and actions of whole teams, side by side."""


class Panel(NamedTuple):
    """A task and quality: its pairs in the plane, and how far policies are from the data."""

    name: str
    data: Float[np.ndarray, "P 2"]
    policies: dict[int, Float[np.ndarray, "P 2"]]
    """The policy's updates -> its pairs."""
    distances: dict[int, float]
    among_data: float


def fig9(asked: Asked) -> str:
    """Draw what policies do after more and more updates; the table of distances to the data."""
    refuse_several(asked)
    trained = []
    panels = []
    rows = []
    for name, quality in shown.wanted_cells(asked, WANTED):
        swept = with_shares(asked, name, quality)
        cell, results = cells.train(swept, swept.systems, name, quality)
        panel = looked_at(f"{cell.task.name} {cell.quality}", results)
        rows += panel_rows(panel, results)
        panels.append(panel)
        trained.append(cell)
        # the results hold the data
        del results
    drawn = {panel.name: (panel.data, panel.policies) for panel in panels}
    asked.draw(clouds.evolutions, "evolution.png", drawn, points.scale_note(asked))
    before = cells.preface(asked, trained, WANTED.notes, WANTED.theirs)
    return f"{before}\n{markdown_table(HEAD, rows)}\n{note()}\n"


def refuse_several(asked: Asked) -> None:
    """Raise JaxomarlError where a panel would be of more than one system or setting."""
    several = {flag(field): values for field, values in asked.overrides.items()}
    several["--systems"] = asked.systems
    for name, values in several.items():
        if len(values) > 1:
            raise refuse(name, "one value", values, "Call it for each: a panel is of one.")


def with_shares(asked: Asked, task: str, quality: str) -> Asked:
    """What was asked, with the numbers of updates at which policies are looked at."""
    systems = asked.systems or WANTED.systems
    groups, asked, _ = cells.resolve(asked, systems, task, quality, "")
    cfg = groups[0].cfgs[0]
    steps = [max(1, round(share * cfg.policy_steps / cfg.chunk)) * cfg.chunk for share in SHARES]
    # the random numbers of an update are those of its chunk
    overrides = {"policy_steps": list(dict.fromkeys(steps)), "chunk": [cfg.chunk]}
    overrides = {**asked.overrides, **overrides}
    return dataclasses.replace(asked, systems=systems, overrides=overrides)


# --- pairs ---


def looked_at(name: str, results: Results) -> Panel:
    """The pairs of a cell in one plane, and how far the policies' are from the data's."""
    group, _ = results.past[0]
    assert group.data is not None
    data = thinned(data_pairs(group.data))
    batches = evaluate.batches(results.runs)
    policies = {batch.cfgs[0].policy_steps: thinned(policy_pairs(batch)) for batch in batches}

    # --- each column in the data's deviations; one that never changes says nothing ---
    mean = data.mean(0)
    deviation = data.std(0)
    changes = deviation > 1e-6
    scaled = lambda pairs: ((pairs - mean) / np.where(changes, deviation, 1.0))[:, changes]
    data = scaled(data)
    policies = {steps: scaled(pairs) for steps, pairs in sorted(policies.items())}

    # --- distances, and the plane ---
    tree = KDTree(data)
    distances = {steps: float(tree.query(pairs)[0].mean()) for steps, pairs in policies.items()}
    # the nearest pair of the data to one of its own is itself
    among_data = float(tree.query(data, k=2)[0][:, 1].mean())
    placed = plane(np.concatenate([data, *policies.values()]))
    ends = np.cumsum([len(data), *map(len, policies.values())])[:-1]
    first, *others = np.split(placed, ends)
    return Panel(name, first, dict(zip(policies, others, strict=True)), distances, among_data)


def data_pairs(data: Dataset) -> Pairs:
    """The pairs of all transitions, without the noise of padding."""
    obs = np.asarray(data.obs[data.starts])
    action = np.asarray(data.action[data.starts])
    return np.concatenate([obs.reshape(len(obs), -1), action.reshape(len(action), -1)], axis=1)


def policy_pairs(batch: RunBatch) -> Pairs:
    """The pairs of policies with the same settings, in EPISODES episodes of each seed."""
    env = batch.task.env
    algorithm = batch.last.algorithm
    players = [policy.load_policy(run.path) for run in batch.runs]
    trees = [(player.state, player.past) for player in players]
    trained = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def one(tree: Any, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        state, past = tree

        def act(key, memory, now):
            assert algorithm.act is not None
            return algorithm.act(key, state, past, memory, now)

        played = recorded(env, act, algorithm.memory, key)
        return played.obs, played.action, played.alive

    keys = jax.random.split(jax.random.key(SEED), EPISODES)
    of_all = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    with jax.default_matmul_precision("highest"):
        played = jax.jit(of_all)(trained, keys)
    obs, action, alive = map(np.asarray, played)
    pairs = [x.reshape(*alive.shape, -1) for x in (obs, action)]
    return np.concatenate(pairs, axis=-1)[alive > 0]


def thinned(pairs: Pairs) -> Pairs:
    """At most MOST of the pairs, drawn without replacement."""
    if len(pairs) <= MOST:
        return pairs
    return np.random.default_rng(SEED).choice(pairs, MOST, replace=False)


def plane(pairs: Pairs) -> Float[np.ndarray, "P 2"]:
    """t-SNE of the pairs; JaxomarlError where scikit-learn is missing."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        way_out = "pip install 'jaxomarl[plot]'"
        raise refuse("t-SNE", "scikit-learn", "no such package", way_out) from error
    perplexity = min(30.0, (len(pairs) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(pairs)


# --- the table ---


def panel_rows(panel: Panel, results: Results) -> Iterator[tuple[str, ...]]:
    """A row for the data, and one for each point of training."""
    yield panel.name, "data", "", f"{panel.among_data:.2f}"
    scores = {record.step: record for record in results.records}
    for steps, distance in panel.distances.items():
        record = scores[steps]
        yield panel.name, f"{steps:,}", f"{record.mean:.1f}", f"{distance:.2f}"


def note() -> str:
    """What the table's distance is."""
    return (
        "Distance: from a policy's observation and joint action to the nearest of the data's "
        f"(at most {MOST:,}), in their deviations, mean over pairs. The data's own row is from "
        "each of these to the nearest other."
    )

"""`reproduce omsd-scores`: what score models have learned, by diffusion time, agent and prefix.

A score model predicts the clean action, x_0 = (x_t - sigma eps) / alpha, of held-out rows of the data. At small t the
noisy action shows it; at large t only the condition does, so that behaviour cloning's error is the reference there.
Conditional models are given the row's own preceding actions, another row's, and those of the policies that were
trained with them: what the first two differ by is how much the prefix matters to the model.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.api.plan import Group
from jaxomarl.base import Dataset, Observation, Past
from jaxomarl.data.catalog import load
from jaxomarl.diffusion.parameterise import noised, x0_from_eps
from jaxomarl.diffusion.schedules import vp
from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown
from jaxomarl.papers.omsd.oracle import EPISODES, PRESET, ROWS, SYSTEMS, TASK
from jaxomarl.results import tables
from jaxomarl.results.tables import Record
from jaxomarl.stages import scores

TIMES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 0.98)
HELD, HELD_SEED = 20_000, 1
"""Rows that no model was trained on, and the recipe's seed for them."""
PREDICTIONS = ["noise", "edm"]


def omsd_scores(asked: Asked) -> str:
    """The table of errors and returns, a data set at a time."""
    given = {
        "score_predict": PREDICTIONS,
        "weighting": ["vds"],
        "control_variate": [True],
        **asked.overrides,
    }
    asked = dataclasses.replace(
        asked, overrides=given, episodes=asked.episodes or EPISODES, rows=asked.rows or ROWS
    )
    systems = asked.systems or (*SYSTEMS, "bc")
    qualities = asked.data or ("expert",)
    task = asked.tasks[0] if asked.tasks else TASK
    out, made = [], []
    for quality in qualities:
        cell, done = cells.train(asked, systems, task, quality, PRESET)
        held, _ = load(cell.task, quality, min(HELD, asked.rows), seed=HELD_SEED)
        made.append(cell)
        for group, past in done.past:
            record = record_of(group, done.records)
            out += [(quality, *row) for row in rows(group, past, held, record)]
        out += [(quality, *row) for row in constant(held)]
    head = ("data", "model", "prefix", *(f"t = {t:g}" for t in TIMES), "by agent", "return")
    small = tables.reduced(asked.scale) if asked.scale != 1.0 else f"Scale: the preset `{PRESET}`."
    changed = ", ".join(f"{k} = {', '.join(map(str, v))}" for k, v in asked.overrides.items())
    means = ", ".join(f"{c.quality} {c.manifest['return']['mean']:.1f}" for c in made)
    return (
        f"{task}, {len(asked.seeds)} seed(s). {small} {changed}. Mean return of the data: {means}.\n\n"
        "Root mean square error of the predicted clean action, over all agents' columns of held-out rows, by diffusion "
        "time; `by agent` is that at t = 0.5. Return: of the policies that the regulariser alone (beta 0) makes of "
        f"these scores, mean [95 %].\n\n{markdown(head, out)}"
    )


def record_of(group: Group, records: Sequence[Record]) -> Record | None:
    """A group's record; its runs differ in seeds alone where nothing traced was swept."""
    for record in records:
        same = record.system == group.name and record.data == group.quality
        if same and record.swept == " ".join(f"{k}={v}" for k, v in group.swept[0].items()):
            return record
    return None


def rows(
    group: Group, past: Past, held: Dataset, record: Record | None
) -> Iterator[tuple[str, ...]]:
    """A group's rows of the table: one for each prefix, or one."""
    name = " ".join([group.name, *(f"{k}={v}" for k, v in group.swept[0].items())])
    score = (
        tables.interval(record, record.mean, record.mean_low, record.mean_high) if record else ""
    )
    kind = SYSTEMS.get(group.name)
    if kind is None:
        error = jnp.broadcast_to(
            distance(held, actions(group, past, held)), (len(TIMES), held.layout.agents)
        )
        yield (name, "", *cells_of(error), score)
        return
    own = held.action[held.starts]
    prefixes = {"": own}
    if kind == "conditional":
        other = jax.random.permutation(jax.random.key(0), own)
        prefixes = {"data": own, "another row's": other, "policies'": actions(group, past, held)}
    for prefix, given in prefixes.items():
        yield (name, prefix, *cells_of(errors(group, past, held, kind, given)), score)


def constant(held: Dataset) -> list[tuple[str, ...]]:
    """What needs no training: the mean action."""
    mean = held.action[held.starts].mean(axis=0)
    error = jnp.broadcast_to(distance(held, mean[None, None]), (len(TIMES), held.layout.agents))
    return [("mean action", "", *cells_of(error), "")]


def cells_of(error: Float[Array, "T N"]) -> list[str]:
    """One number for each time, and the agents' own at t = 0.5."""
    every = np.sqrt(np.mean(np.square(error), axis=1))
    agents = " ".join(f"{x:.3f}" for x in np.asarray(error)[TIMES.index(0.5)])
    return [*(f"{x:.3f}" for x in every), agents]


def distance(held: Dataset, action: Float[Array, "R M N A"]) -> Float[Array, " N"]:
    """Root mean square distance of each agent's columns to the data's, over runs and rows."""
    square = jnp.square(action - held.action[held.starts])
    return jnp.sqrt(square.mean(axis=(0, 1, 3)))


def actions(group: Group, past: Past, held: Dataset) -> Float[Array, "R M N A"]:
    """What each run's final policy does at held-out observations."""
    spec, obs = group.task.env.spec, held.obs[held.starts]
    final = group.system.pipeline(spec, group.cfgs[0], None)[-1]
    act = final.algorithm.act
    assert act is not None
    available = jnp.ones((spec.agents, spec.act_width), bool)

    def one(run: Past, row: Array) -> Array:
        seen = Observation(row, available)
        return act(jax.random.key(0), run[final.name], run, final.algorithm.memory, seen)[0]

    return jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(past, obs)


def errors(group: Group, past: Past, held: Dataset, kind: str, prefix: Any) -> Float[Array, "T N"]:
    """Root mean square error of the clean prediction, over runs, rows and columns.

    `prefix` is the joint action [M, N, A] that preceding agents are taken to have chosen, or one of each run.
    """
    model = scores.scores(group.task.env.spec, group.cfgs[0], kind)
    obs, state, own = (x[held.starts] for x in (held.obs, held.state, held.action))
    z = jax.random.normal(jax.random.key(1), own.shape)
    z_prefix = jax.random.normal(jax.random.key(2), own.shape)

    def one(run: Past, given: Array, t: Array) -> Array:
        times = jnp.full(len(own), t)
        x = noised(vp(), own, times, z)
        given = (
            scores.policy_prefix(group.cfgs[0], given, times, z_prefix)
            if kind == "conditional"
            else given
        )
        clean = x0_from_eps(vp(), x, times, model.every(run, x, times, obs, state, given))
        return jnp.square(clean - own).mean(axis=(0, 2))

    axes = (0, 0 if prefix.ndim == 4 else None, None)
    compiled = jax.jit(lambda run, given, t: jax.vmap(one, axes)(run, given, t).mean(axis=0))
    return jnp.sqrt(jnp.stack([compiled(past, prefix, jnp.asarray(t)) for t in TIMES]))

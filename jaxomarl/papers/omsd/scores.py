"""`reproduce omsd-scores`: what score models have learned, by diffusion time, agent and prefix.

A score model predicts the clean action, x_0 = (x_t - sigma eps) / alpha, of held-out rows of the
data. At small t the noisy action shows it. At large t only the condition does, so that behaviour
cloning's error is the reference there. Conditional models are given the row's own preceding
actions, another row's, and those of the policies that were trained with them. The difference of the
first two says how much the prefix matters to the model.
"""

import dataclasses
from collections.abc import Iterator, Sequence

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
from jaxomarl.papers.asked import Asked, one_name
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.omsd.oracle import EPISODES, PRESET, ROWS, SYSTEMS, TASK
from jaxomarl.results import tables
from jaxomarl.results.tables import Record
from jaxomarl.stages import scores

TIMES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 0.98)
BY_AGENT = 0.5
"""The time at which each agent's own error is shown."""
HELD = 20_000
"""Rows that no model was trained on."""
HELD_SEED = 1
"""The recipe's seed for held-out rows."""
PREDICTIONS = ["noise", "edm"]


def omsd_scores(asked: Asked) -> str:
    """The table of errors and returns, a data set at a time."""
    overrides = {
        "score_predict": PREDICTIONS,
        "weighting": ["vds"],
        "control_variate": [True],
        **asked.overrides,
    }
    asked = dataclasses.replace(
        asked,
        overrides=overrides,
        episodes=asked.episodes or EPISODES,
        rows=asked.rows or ROWS,
    )
    task = one_name("--tasks", asked.tasks, TASK)
    rows = []
    trained = []
    for quality in asked.data or ("expert",):
        systems = asked.systems or (*SYSTEMS, "bc")
        cell, results = cells.train(asked, systems, task, quality, PRESET)
        held, _ = load(cell.task, quality, min(HELD, asked.rows), seed=HELD_SEED)
        trained.append(cell)
        for group, past in results.past:
            record = record_of(group, results.records)
            rows += [(quality, *row) for row in group_rows(group, past, held, record)]
        rows.append((quality, *mean_action_row(held)))
    times = [f"t = {t:g}" for t in TIMES]
    head = ("data", "model", "prefix", *times, "by agent", "return")
    records = [record for cell in trained for record in cell.records]
    notes = "".join(f"\n{note}\n" for note in tables.notes(records))
    return f"{scores_preface(asked, task, trained)}\n\n{markdown_table(head, rows)}{notes}"


def scores_preface(asked: Asked, task: str, trained: Sequence[cells.Cell]) -> str:
    """What has to be known to read the table."""
    scale = f"Scale: the preset `{PRESET}`."
    if asked.scale != 1.0:
        scale = tables.reduced(asked.scale)
    settings = [f"{k} = {', '.join(map(str, v))}" for k, v in asked.overrides.items()]
    means = [f"{c.quality} {c.manifest['return']['mean']:.1f}" for c in trained]
    return (
        f"{task}, {len(asked.seeds)} seed(s). {scale} {', '.join(settings)}. Mean return of the "
        f"data: {', '.join(means)}.\n\n"
        "Root mean square error of the predicted clean action, over all agents' columns of "
        f"held-out rows, by diffusion time; `by agent` is that at t = {BY_AGENT:g}. Return: of "
        "the policies that the regulariser alone (beta 0) makes of these scores, mean [95 %]."
    )


def record_of(group: Group, records: Sequence[Record]) -> Record | None:
    """A group's record; its runs differ in seeds alone where nothing traced was swept."""
    swept = " ".join(f"{k}={v}" for k, v in group.swept[0].items())
    for r in records:
        if (r.system, r.data, r.swept) == (group.name, group.quality, swept):
            return r
    return None


def group_rows(
    group: Group, past: Past, held: Dataset, record: Record | None
) -> Iterator[tuple[str, ...]]:
    """A group's rows of the table: one for each prefix, or one."""
    name = " ".join([group.name, *(f"{k}={v}" for k, v in group.swept[0].items())])
    score = ""
    if record:
        score = tables.interval(record, record.mean, record.mean_low, record.mean_high)
        score += tables.marks(record)
    kind = SYSTEMS.get(group.name)
    if kind is None:
        error = at_all_times(action_error(held, final_actions(group, past, held)))
        yield (name, "", *error_cells(error), score)
        return
    own = held.action[held.starts]
    prefixes = {"": own}
    if kind == "conditional":
        other = jax.random.permutation(jax.random.key(0), own)
        policies = final_actions(group, past, held)
        prefixes = {"data": own, "another row's": other, "policies'": policies}
    for prefix, given in prefixes.items():
        error = model_error(group, past, held, kind, given)
        yield (name, prefix, *error_cells(error), score)


def mean_action_row(held: Dataset) -> tuple[str, ...]:
    """The row of what needs no training: the mean action."""
    mean = held.action[held.starts].mean(axis=0)
    error = at_all_times(action_error(held, mean[None, None]))
    return ("mean action", "", *error_cells(error), "")


def at_all_times(error: Float[Array, " N"]) -> Float[Array, "T N"]:
    """An error that does not depend on the diffusion time, repeated for each."""
    return jnp.broadcast_to(error, (len(TIMES), len(error)))


def error_cells(error: Float[Array, "T N"]) -> list[str]:
    """One number for each time, and the agents' own at t = 0.5."""
    over_agents = np.sqrt(np.mean(np.square(error), axis=1))
    agents = np.asarray(error)[TIMES.index(BY_AGENT)]
    return [*(f"{x:.3f}" for x in over_agents), " ".join(f"{x:.3f}" for x in agents)]


def action_error(held: Dataset, action: Float[Array, "R M N A"]) -> Float[Array, " N"]:
    """Root mean square distance of each agent's columns to the data's, over runs and rows."""
    square = jnp.square(action - held.action[held.starts])
    return jnp.sqrt(square.mean(axis=(0, 1, 3)))


def final_actions(group: Group, past: Past, held: Dataset) -> Float[Array, "R M N A"]:
    """Each run's final policy at held-out observations."""
    spec = group.task.env.spec
    obs = held.obs[held.starts]
    final = group.system.pipeline(spec, group.cfgs[0], None)[-1]
    act = final.algorithm.act
    assert act is not None
    available = jnp.ones((spec.agents, spec.act_width), bool)

    def one_action(run: Past, row: Array) -> Array:
        observation = Observation(row, available)
        key = jax.random.key(0)
        action, _ = act(key, run[final.name], run, final.algorithm.memory, observation)
        return action

    over_rows = jax.vmap(one_action, (None, 0))
    return jax.jit(jax.vmap(over_rows, (0, None)))(past, obs)


def model_error(
    group: Group, past: Past, held: Dataset, kind: str, prefix: Array
) -> Float[Array, "T N"]:
    """Root mean square error of the clean prediction, over runs, rows and columns.

    `prefix` is the joint action [M, N, A] that preceding agents are taken to have chosen, or one of
    each run.
    """
    cfg = group.cfgs[0]
    model = scores.behaviour_model(group.task.env.spec, cfg, kind)
    obs = held.obs[held.starts]
    state = held.state[held.starts]
    own = held.action[held.starts]
    z = jax.random.normal(jax.random.key(1), own.shape)
    z_prefix = jax.random.normal(jax.random.key(2), own.shape)

    def square_error(run: Past, given: Array, t: Array) -> Float[Array, " N"]:
        times = jnp.full(len(own), t)
        x = noised(vp(), own, times, z)
        if kind == "conditional":
            given = scores.policy_prefix(cfg, given, times, z_prefix)
        eps = model.every(run, x, times, obs, state, given)
        clean = x0_from_eps(vp(), x, times, eps)
        return jnp.square(clean - own).mean(axis=(0, 2))

    prefix_axis = 0 if prefix.ndim == 4 else None
    over_runs = jax.vmap(square_error, (0, prefix_axis, None))
    mean_error = jax.jit(lambda run, given, t: over_runs(run, given, t).mean(axis=0))
    return jnp.sqrt(jnp.stack([mean_error(past, prefix, jnp.asarray(t)) for t in TIMES]))

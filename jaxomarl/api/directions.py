"""The direction that each system follows: learned score fields over joint actions (OMSD, Fig. 2).

The paths of the policies are drawn over the fields.
"""

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.api.plan import Group
from jaxomarl.base import Past, Spec
from jaxomarl.diffusion.schedules import vp
from jaxomarl.numerics import run_once
from jaxomarl.results import figures
from jaxomarl.results.canvas import Figure
from jaxomarl.results.store import Row
from jaxomarl.stages import scores

TIME = 0.02
"""Diffusion time of the field, which is the paper's."""
GRID = 15
"""Points of the field along each axis."""
SAMPLES = 1500
"""Actions of the data that are drawn."""


def draw_directions(
    path: str | Path | None, groups: list[tuple[Group, Past]], rows: list[Row], note: str = ""
) -> Figure | None:
    """Draw the score fields of a one-step game of two agents with one action each.

    The field is -eps at t = 0.02, that is sigma times the score, of the first seed's models: joint
    for JAL, the product of marginals for IND and CTDE, sequential for OMSD. The result is None
    where no group is on such a game, or none has score models.
    """
    fields: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    paths: dict[str, np.ndarray] = {}
    for group, past in groups:
        kind = _score_kind(past)
        if kind is None or group.swept[0] or not _can_be_drawn(group.task.env.spec):
            continue
        title = f"{group.name}: {kind}"
        if kind == "conditional":
            title = f"{group.name}: sequential"
        fields[title] = field(group, past, kind)
        means = policy_paths(group, rows)
        if means is not None:
            paths[title] = means
    if not fields:
        return None

    data = groups[0][0].data
    # a behaviour model has data
    assert data is not None
    starts = np.asarray(data.starts)[:SAMPLES]
    actions = np.asarray(data.action)[starts, :, 0]
    return figures.score_fields(path, actions, fields, paths, note=note)


def _can_be_drawn(spec: Spec) -> bool:
    """Whether a task is a one-step game of two agents with one continuous action each."""
    return spec.act_dims == (1, 1) and spec.horizon == 1 and not spec.discrete


def _score_kind(past: Past) -> str | None:
    """The kind of the trained score models; None where there are none."""
    for name in past:
        if name.startswith("scores-"):
            return name.removeprefix("scores-")
    return None


def field(
    group: Group, past: Past, kind: str
) -> tuple[Float[np.ndarray, "G 2"], Float[np.ndarray, "G 2"]]:
    """(points, directions) of the first run's behaviour model."""
    data = group.data
    assert data is not None
    spec = group.task.env.spec
    cfg = group.cfgs[0]
    axis = np.linspace(-1.0, 1.0, GRID, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    count = len(points)
    obs = jnp.repeat(jnp.asarray(data.obs[:1]), count, axis=0)
    state = jnp.repeat(jnp.asarray(data.state[:1]), count, axis=0)
    action = jnp.asarray(points)[..., None]

    every = scores.behaviour_model(spec, cfg, kind).every

    def first_run(past: Past) -> Array:
        first = jax.tree.map(lambda leaf: leaf[0], past)
        x = action
        if cfg.score_model != "mixture":
            x = vp().alpha(jnp.float32(TIME)) * action
        return every(first, x, jnp.full(count, TIME), obs, state, action)

    eps = jax.jit(first_run, compiler_options=run_once())(past)
    return points, -np.asarray(eps)[..., 0]


def policy_paths(group: Group, rows: list[Row]) -> Float[np.ndarray, "seeds V 2"] | None:
    """The mean action of each evaluation; None where the task does not report its actions."""
    seeds = sorted(set(group.seeds))
    own = (group.name, group.task.name, group.quality)
    actions: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for row in rows:
        if (row.system, row.task, row.data) == own and row.metric.startswith("action_"):
            agent = int(row.metric[-1]) - 1
            actions[row.seed, row.step, agent].append(row.value)

    steps = sorted({step for _, step, _ in actions})
    if not steps:
        return None
    means = [
        [[np.mean(actions[seed, step, agent]) for agent in range(2)] for step in steps]
        for seed in seeds
    ]
    return np.array(means)

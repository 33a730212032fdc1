"""What each system follows: learned score fields over joint actions, and the policies' paths (OMSD, Fig. 2)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.api.plan import Group
from jaxomarl.base import Past
from jaxomarl.diffusion.schedules import vp
from jaxomarl.results import figures
from jaxomarl.results.canvas import Figure
from jaxomarl.results.store import Row
from jaxomarl.stages import scores

TIME = 0.02  # of the drawn noise level, the paper's
GRID = 15
SAMPLES = 1500


def draw(
    path: str | Path | None, groups: list[tuple[Group, Past]], rows: list[Row]
) -> Figure | None:
    """Draw a one-step game of two agents with one action each; None where the task is none or has no score models.

    The field is -eps at t = 0.02, that is sigma times the score, of the first seed's models: joint for JAL, the
    product of marginals for IND and CTDE, sequential for OMSD.
    """
    fields, paths = {}, {}
    for group, past in groups:
        spec = group.task.env.spec
        if spec.act_dims != (1, 1) or spec.horizon != 1 or spec.discrete or group.swept[0]:
            continue
        found = [name for name in past if name.startswith("scores-")]
        if not found:
            continue
        kind = found[0].removeprefix("scores-")
        title = f"{group.name}: {'sequential' if kind == 'conditional' else kind}"
        fields[title] = field(group, past, kind)
        walk = policy_paths(group, rows)
        if walk is not None:
            paths[title] = walk
    if not fields:
        return None
    group = groups[0][0]
    assert group.data is not None  # it has a behaviour model
    actions = np.asarray(group.data.action)[np.asarray(group.data.starts)[:SAMPLES], :, 0]
    return figures.score_fields(path, actions, fields, paths)


def field(group: Group, past: Past, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(points [G, 2], directions [G, 2]) of the first run's behaviour model."""
    assert group.data is not None
    spec, cfg = group.task.env.spec, group.cfgs[0]
    one = jax.tree.map(lambda x: x[0], past)
    axis = np.linspace(-1.0, 1.0, GRID, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    count = len(points)
    obs, state = jnp.asarray(group.data.obs[:1]), jnp.asarray(group.data.state[:1])
    obs, state = jnp.repeat(obs, count, axis=0), jnp.repeat(state, count, axis=0)
    action, t = jnp.asarray(points)[..., None], jnp.full(count, TIME)
    x = action if cfg.score_model == "mixture" else vp().alpha(t)[:, None, None] * action
    eps = scores.scores(spec, cfg, kind).every(one, x, t, obs, state, action)
    return points, -np.asarray(eps)[..., 0]


def policy_paths(group: Group, rows: list[Row]) -> np.ndarray | None:
    """[seeds, V, 2]: mean action of each evaluation, for tasks that report their actions."""
    seeds, config = sorted(set(group.seeds)), {}
    for row in rows:
        if (row.system, row.task, row.data) == (
            group.name,
            group.task.name,
            group.quality,
        ) and row.metric.startswith("action_"):
            config.setdefault((row.seed, row.step, int(row.metric[-1]) - 1), []).append(row.value)
    steps = sorted({step for _, step, _ in config})
    if not steps:
        return None
    return np.array([[[np.mean(config[s, v, a]) for a in range(2)] for v in steps] for s in seeds])

"""What `--dry-run` says: the groups, stages, updates and memory of a command, without training."""

from pathlib import Path

import jax

from jaxomarl.api.plan import Group
from jaxomarl.base import Dataset, Past
from jaxomarl.data.stats import identity
from jaxomarl.results import tables


def plan_text(groups: list[Group], out: Path) -> str:
    """The plan of a command; raises JaxomarlError where a system cannot prepare its data."""
    lines = [f"into {out}"]
    lines += [tables.reduced(scale) for scale in sorted({g.scale for g in groups} - {1.0})]
    for group in groups:
        env = group.task.env
        online = env if group.system.online else None
        stages = group.system.pipeline(env.spec, group.cfgs[0], online)
        steps = ", ".join(f"{stage.name} {stage.steps}" for stage in stages)
        memory = memory_estimate(group) / 2**20
        where = f"{group.name} on {group.task.name}/{group.quality}"
        lines.append(
            f"  {where}: {len(group.seeds)} runs; updates: {steps}; about {memory:.0f} MiB"
        )
    return "\n".join(lines)


def memory_estimate(group: Group) -> int:
    """Bytes of all stages' states of all runs, and of the data as the system prepares them."""
    env, cfg = group.task.env, group.cfgs[0]
    data: Dataset | None = None
    if group.data:
        data = group.system.prepare(env.spec, cfg, group.data)
    shapes = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    past: Past = {"stats": shapes(identity(env.spec))}
    state_bytes = 0
    for stage in group.system.pipeline(env.spec, cfg, env if group.system.online else None):
        state = jax.eval_shape(stage.algorithm.init, jax.random.key(0), past, data)
        state_bytes += sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        past[stage.name] = jax.eval_shape(stage.kept, state)
    data_bytes = sum(x.nbytes for x in jax.tree.leaves(data))
    return state_bytes * len(group.seeds) + data_bytes

"""What `--dry-run` prints: groups, stages, updates and memory of a command, without training."""

from pathlib import Path
from typing import TypeVar

import jax

from jaxomarl.api.plan import Group
from jaxomarl.base import Dataset, Past, Stage
from jaxomarl.data.stats import identity
from jaxomarl.results import tables

Arrays = TypeVar("Arrays")


def plan_text(groups: list[Group], out: Path) -> str:
    """The plan of a command; raises JaxomarlError where a system cannot prepare its data."""
    lines = [f"into {out}"]
    lines += [tables.reduced(scale) for scale in sorted({g.scale for g in groups} - {1.0})]
    for group in groups:
        where = f"{group.name} on {group.task.name}/{group.quality}"
        steps = ", ".join(f"{stage.name} {stage.steps}" for stage in stages(group))
        memory = memory_estimate(group) / 2**20
        lines.append(
            f"  {where}: {len(group.seeds)} runs; updates: {steps}; about {memory:.0f} MiB"
        )
    return "\n".join(lines)


def stages(group: Group) -> tuple[Stage, ...]:
    """The stages that a group trains."""
    env = group.task.env
    online_env = env if group.system.online else None
    return group.system.pipeline(env.spec, group.cfgs[0], online_env)


def memory_estimate(group: Group) -> int:
    """Bytes of all stages' states of all runs, and of the data as the system prepares them."""
    env = group.task.env
    data: Dataset | None = None
    if group.data:
        data = group.system.prepare(env.spec, group.cfgs[0], group.data)
    data_bytes = sum(x.nbytes for x in jax.tree.leaves(data))

    past: Past = {"stats": shapes(identity(env.spec))}
    state_bytes = 0
    for stage in stages(group):
        state = jax.eval_shape(stage.algorithm.init, jax.random.key(0), past, data)
        state_bytes += sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        past[stage.name] = jax.eval_shape(stage.kept, state)

    return state_bytes * len(group.seeds) + data_bytes


def shapes(tree: Arrays) -> Arrays:
    """Shapes and types in place of a tree's arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

"""What `--dry-run` prints: groups, stages, updates and memory of a command, without training."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import jax

from jaxomarl.api import portions, session
from jaxomarl.api.plan import Group
from jaxomarl.base import Dataset, Past, Stage
from jaxomarl.data.stats import identity
from jaxomarl.results import tables
from jaxomarl.training import memory
from jaxomarl.training.library import StageCache

Arrays = TypeVar("Arrays")
SMALL = 0.05
"""Share of the memory below which a group's states and data surely leave room for the rest."""


def plan_lines(groups: list[Group], out: Path, allowed: int) -> Iterator[str]:
    """The plan of a command, and how a group is trained that may not fit into memory.

    `allowed` is in bytes; 0: what is free. A group whose states take a small share of it compiles
    nothing here. Raises JaxomarlError where a system cannot prepare its data, and
    MemoryTooSmallError where not even one run of a group fits.
    """
    yield f"into {out}"
    yield from (tables.reduced(scale) for scale in sorted({g.scale for g in groups} - {1.0}))
    most = memory.limit(allowed)
    for group in groups:
        where = f"{group.name} on {group.task.name}/{group.quality}"
        steps = ", ".join(f"{stage.name} {stage.steps}" for stage in stages(group))
        size = memory_estimate(group)
        mib = f"about {size / 2**20:.0f} MiB"
        yield f"  {where}: {len(group.seeds)} runs; updates: {steps}; {mib}"
        if size > SMALL * most:
            library = StageCache(out / "stages")
            job = session.job_of(group, library, bytes_allowed=allowed)
            plan = portions.fitted(job, group.name, session.group_folder(out, group), dry=True)
            yield f"  {group.name}: {memory.told(plan, len(group.seeds))}"


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

"""Groups whose runs do not fit into memory at once, and what is kept of them.

GROUP/portions.json    of a group that is trained in portions: how many runs each has
"""

from pathlib import Path

import jax
import numpy as np

from jaxomarl import documents
from jaxomarl.base import Past, refuse
from jaxomarl.training import hosts, memory
from jaxomarl.training.program import Job

FILE = "portions.json"


def fitted(job: Job, name: str, folder: Path | None, dry: bool = False) -> memory.Plan:
    """How many of the runs of a group called `name` are trained at once.

    A group that began in portions continues in them, as far as they fit: its numbers do not
    depend on how much memory is free today. `dry` writes and says nothing.

    Raises MemoryTooSmallError where not even one run fits, and JaxomarlError where the finished
    stages have to lie in a folder and there is none.
    """
    at_most = 0
    file = folder / file_name() if folder else None
    if file and file.exists():
        at_most = begun_with(file)
    plan = memory.plan(job, at_most)
    if plan.portions > 1:
        # finished stages of other groups may take the room
        job.library.forget()
        plan = memory.plan(job, at_most)
    if plan.portions == 1 or dry:
        return plan

    job.say(f"  {name}: {memory.told(plan, len(job.seeds))}")
    if file is None and not fits_on_host(plan):
        expected = f"a folder for {memory.words(plan.kept)} of finished stages"
        raise refuse("--out", expected, None, "Name it, or take fewer seeds at once.")
    if file and at_most != plan.runs:
        file.parent.mkdir(parents=True, exist_ok=True)
        documents.write_sealed(file, {"runs": plan.runs})
    return plan


def begun_with(file: Path) -> int:
    """How many runs a portion of a group has; JaxomarlError where the file is damaged."""
    way = "Delete the file."
    runs = documents.read_sealed(file, way, runs=int)["runs"]
    if runs < 1:
        raise refuse(f"{file}, runs", "1 or more", runs, way)
    return runs


def file_name() -> str:
    """The file of this host's portions: hosts have different runs."""
    if hosts.count() == 1:
        return FILE
    return f"{hosts.index()}-of-{hosts.count()}-{FILE}"


def fits_on_host(plan: memory.Plan) -> bool:
    """Whether the finished stages of all runs fit into memory next to a portion that trains."""
    return 2 * plan.kept <= plan.limit


def kept_on_host(states: list[Past | None], plan: memory.Plan) -> Past | None:
    """The stages of all portions so far in the host's memory; None where they would not fit."""
    parts = [part for part in states if part is not None]
    if len(parts) < len(states) or not fits_on_host(plan):
        return None
    join = lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])
    return jax.tree.map(join, *parts)

"""Data sets by name, once their rows are known to fit into memory."""

import math
from typing import Any

from jaxomarl.base import Dataset, Layout, Task, check_count, refuse
from jaxomarl.data import catalog
from jaxomarl.data.catalog import MOST_ROWS
from jaxomarl.training import memory


def load(
    task: Task, quality: str = "", rows: int = 0, seed: int = 0
) -> tuple[Dataset, dict[str, Any]]:
    """As `data.catalog.load`.

    Raises MemoryTooSmallError too, where the rows of a generated set alone need more than is free.
    """
    check_count("--rows", rows, MOST_ROWS)
    if not catalog.is_path(quality):
        check_rows(task, rows or task.rows)
    return catalog.load(task, quality, rows, seed)


def check_rows(task: Task, rows: int) -> None:
    """Raise MemoryTooSmallError where so many rows of a task need more memory than is free."""
    most = memory.limit()
    fit = most // row_bytes(task)
    if rows > fit:
        expected = f"at most {fit:,}, which fit into {memory.words(most)}"
        text = str(refuse("--rows", expected, rows, "Take fewer."))
        error = memory.MemoryTooSmallError(text)
        error.field = "--rows"
        raise error


def row_bytes(task: Task) -> int:
    """Bytes of a row of a task's data."""
    spec = task.env.spec
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    return 4 * sum(math.prod(shape) for shape in layout.blocks.values())

"""Data sets on demand: a recipe's name -> a packed data set and its manifest."""

import dataclasses
import difflib
import zlib
from typing import Any

import jax

from jaxomarl.base import Dataset, Source, Task, check_count, refuse
from jaxomarl.data import files, formats
from jaxomarl.data.dataset import pack
from jaxomarl.data.fit import fit
from jaxomarl.data.manifest import manifest
from jaxomarl.numerics import pinned
from jaxomarl.paths import user_path

__all__ = ["MOST_ROWS", "load", "manifest"]

MOST_ROWS = 1_000_000_000
"""Transitions of a set made on demand at most; more are beyond any memory, and JAX waits for them for ever."""


@pinned()
def load(
    task: Task, quality: str = "", rows: int = 0, seed: int = 0
) -> tuple[Dataset, dict[str, Any]]:
    """Make the data set `<task>/<quality>` with `rows` transitions, or read it from a path, and its manifest.

    "" and 0 take the task's own defaults. The same arguments give the same bits on the same backend,
    whatever JAX is set to. A path (it has a slash) is a folder of our own or anything that
    `formats.read` knows. Raises JaxomarlError for a quality that the task has no recipe for, and for
    data that do not fit the task.
    """
    if "/" in quality or quality.startswith((".", "~")):
        if rows or seed:
            raise refuse(
                "--rows", "nothing beside a path", rows or seed, "A file's rows are what they are."
            )
        path = user_path(quality)
        if (path / files.MANIFEST).is_file():
            return with_source(*files.load(path, task.env.spec))
        return fit(formats.read(path), task)
    check_count("--rows", rows, MOST_ROWS)
    quality, rows = quality or task.quality, rows or task.rows
    if not task.recipes:
        way = "Name a folder, or in Python give data=jaxomarl.from_arrays(episodes, task)."
        raise refuse("--data", f"a path, as {task.name} has no recipe", quality or "none", way)
    if quality not in task.recipes:
        near = difflib.get_close_matches(quality, task.recipes, n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise refuse(
            "--data",
            f"one of {', '.join(task.recipes)} for {task.name}",
            quality,
            f"{hint}A folder needs a slash.",
        )
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(quality.encode()))
    with jax.default_matmul_precision(
        "highest"
    ):  # a set has the same bits whatever its user's networks round to
        data = pack(task.recipes[quality](key, rows), task.env.spec)
    return with_source(
        data, manifest(task, quality, data, origin={"recipe": quality, "rows": rows, "seed": seed})
    )


def with_source(data: Dataset, found: dict[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """The data set, told which recipe made it where its manifest names one, and the manifest."""
    recipe = found.get("origin", {}).get("recipe")
    if recipe is None:
        return data, found
    return dataclasses.replace(data, source=Source(found["task"], recipe)), found

"""Data sets on demand: the name of a recipe -> a packed data set and its manifest."""

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
"""Most transitions of a generated set. More fit no memory, and JAX would not return."""


@pinned()
def load(
    task: Task, quality: str = "", rows: int = 0, seed: int = 0
) -> tuple[Dataset, dict[str, Any]]:
    """Generate the data set `<task>/<quality>` with `rows` transitions, or read one from a path.

    The second result is the set's manifest. "" and 0 stand for the task's own defaults. The same
    arguments give the same bits on the same backend, whatever JAX is set to. A path is a `quality`
    with a slash: a folder of our own, or anything that `formats.read` knows.

    Raises JaxomarlError for a quality that the task has no recipe for, and for data that do not fit
    the task.
    """
    if is_path(quality):
        if rows or seed:
            way = "All rows of a file are used."
            raise refuse("--rows", "no value, as the set is a path", rows or seed, way)
        path = user_path(quality)
        if (path / files.MANIFEST).is_file():
            return with_source(*files.load_folder(path, task.env.spec))
        return fit(formats.read(path), task)

    check_count("--rows", rows, MOST_ROWS)
    quality = quality or task.quality
    rows = rows or task.rows
    _check_recipe(task, quality)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(quality.encode()))
    # a set has the same bits whatever its user's networks round to
    with jax.default_matmul_precision("highest"):
        data = pack(task.recipes[quality](key, rows), task.env.spec)
    origin = {"recipe": quality, "rows": rows, "seed": seed}
    return with_source(data, manifest(task, quality, data, origin))


def is_path(quality: str) -> bool:
    """Whether a quality is a path, and no recipe of a task."""
    return "/" in quality or quality.startswith((".", "~"))


def with_source(data: Dataset, found: dict[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """The data set and its manifest; the set gets its source where the manifest names a recipe."""
    recipe = found.get("origin", {}).get("recipe")
    if recipe is None:
        return data, found
    return dataclasses.replace(data, source=Source(found["task"], recipe)), found


def _check_recipe(task: Task, quality: str) -> None:
    """Raise JaxomarlError where the task has no recipe of that quality."""
    if not task.recipes:
        way = "Name a folder, or in Python give data=jaxomarl.from_arrays(episodes, task)."
        raise refuse("--data", f"a path, as {task.name} has no recipe", quality or "none", way)
    if quality not in task.recipes:
        expected = f"one of {', '.join(task.recipes)} for {task.name}"
        way = "A folder needs a slash."
        near = difflib.get_close_matches(quality, task.recipes, n=3)
        if near:
            way = f"Did you mean {' or '.join(near)}? {way}"
        raise refuse("--data", expected, quality, way)

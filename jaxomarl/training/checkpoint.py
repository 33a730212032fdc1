"""Arrays to disk and back by Orbax v1: a checkpoint is committed whole or does not exist.

Beside `<step>/` lies `<step>.sha256`, a digest of its arrays, since a flipped bit in them reads as another number.
Checkpoints of 0.1.0 have none.
"""

import hashlib
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

KEEP = 2  # a torn newest one leaves the one before


def save(folder: Path, step: int, tree: Any) -> None:
    """Commit `tree` (arrays only) as checkpoint `step` of `folder` and drop all but the newest two."""
    from orbax.checkpoint import v1 as ocp

    folder = Path(folder).absolute()
    arrays = jax.tree.map(np.asarray, tree)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(
            folder / f"{step}.sha256", digest(arrays)
        )  # first: a committed checkpoint has its digest
        ocp.save(str(folder / str(step)), {"tree": arrays}, overwrite=True)
    except OSError:
        raise
    except Exception as error:  # a full disk surfaces as many kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise OSError(f"checkpoint {folder / str(step)} cannot be written: {reason}") from error
    kept = {name for k in steps(folder)[-KEEP:] for name in (str(k), f"{k}.sha256")}
    for path in folder.iterdir():  # older ones, and what a kill has left of a save or of a removal
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def digest(tree: Any) -> str:
    """Of the tree's arrays: their places, types, shapes and bytes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def steps(folder: Path) -> list[int]:
    """Committed checkpoints, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if p.name.isdigit() and (p / "commit_success.txt").exists()
    )


def restore(folder: Path, like: Any, say: Any = print) -> tuple[int, Any] | None:
    """The newest checkpoint that can be read, as (step, tree of arrays); None where there is none.

    `like` gives structure, shapes and dtypes. A checkpoint that cannot be read is passed over with a line.
    """
    from orbax.checkpoint import v1 as ocp

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    chatter = logging.getLogger(
        "asyncio"
    )  # which prints a traceback for each array of a torn checkpoint
    for step in reversed(steps(folder)):
        before, chatter.disabled = chatter.disabled, True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ocp.load(str(Path(folder).absolute() / str(step)), {"tree": target})["tree"]
            said = Path(folder) / f"{step}.sha256"
            if said.exists() and said.read_text(encoding="utf-8", errors="replace") != digest(tree):
                raise ValueError("its arrays are damaged")
            return step, tree
        except Exception as error:  # torn files surface as many kinds of error
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            say(
                f"checkpoint {Path(folder).name}/{step} cannot be read ({reason}); taking the one before"
            )
        finally:
            chatter.disabled = before
    return None

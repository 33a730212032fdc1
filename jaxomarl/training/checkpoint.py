"""Arrays to disk and back by Orbax v1: a checkpoint is committed whole or does not exist."""

import logging
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

    path = Path(folder).absolute() / str(step)
    try:
        ocp.save(str(path), {"tree": jax.tree.map(np.asarray, tree)}, overwrite=True)
    except OSError:
        raise
    except Exception as error:  # a full disk surfaces as many kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise OSError(f"checkpoint {path} cannot be written: {reason}") from error
    for old in steps(folder)[:-KEEP]:
        shutil.rmtree(path.parent / str(old), ignore_errors=True)


def steps(folder: Path) -> list[int]:
    """Committed checkpoints, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / "commit_success.txt").exists())


def restore(folder: Path, like: Any, say: Any = print) -> tuple[int, Any] | None:
    """The newest checkpoint that can be read, as (step, tree of arrays); None where there is none.

    `like` gives structure, shapes and dtypes. A checkpoint that cannot be read is passed over with a line.
    """
    from orbax.checkpoint import v1 as ocp

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    chatter = logging.getLogger("asyncio")  # which prints a traceback for each array of a torn checkpoint
    for step in reversed(steps(folder)):
        before, chatter.disabled = chatter.disabled, True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return step, ocp.load(str(Path(folder).absolute() / str(step)), {"tree": target})["tree"]
        except Exception as error:  # torn files surface as many kinds of error
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            say(f"checkpoint {Path(folder).name}/{step} cannot be read ({reason}); taking the one before")
        finally:
            chatter.disabled = before
    return None

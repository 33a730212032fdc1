"""Saves trees of arrays to disk and reads them back, with Orbax v1.

A checkpoint is committed completely or does not exist. Next to `<step>/` lies `<step>.sha256`, a
digest of its arrays, because a flipped bit in an array would read as another number. Checkpoints
of version 0.1.0 have no digest.
"""

import contextlib
import errno
import functools
import hashlib
import logging
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxomarl.paths import named_in_errors

KEEP = 2
"""Checkpoints that are kept: where the newest one is damaged, the one before it is still there."""


ONE_AT_A_TIME = threading.Lock()
"""Orbax 0.12.8 loses files of a save beside which another thread loads; test_torn meets it."""
FILES = 1 << 17
"""Bytes that a checkpoint's files take next to its arrays; a disk that has fewer is full."""
SHARE = 0.02
"""Share of the time that checkpoints between the first and the last of a stage may take."""


@dataclass
class Cadence:
    """When a checkpoint is due: so often that saves take a small share of the time.

    The last checkpoint of a stage, and that of a stopped one, are saved in any case.
    """

    every: float | None = None
    """Seconds between two checkpoints; None: by what the last one took, and SHARE."""
    cost: float = 0.1
    """Seconds that the last save took."""
    last: float = field(default_factory=lambda: time.monotonic())
    """When it ended, or when training began that has lost nothing yet."""

    def begin(self) -> None:
        """Count from now: training begins or continues."""
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last save."""
        pause = self.cost / SHARE if self.every is None else self.every
        return time.monotonic() - self.last >= pause

    @contextlib.contextmanager
    def save(self) -> Iterator[None]:
        """Take the time of a save."""
        began = time.monotonic()
        yield
        self.last = time.monotonic()
        self.cost = self.last - began


def save(folder: Path, step: int, tree: PyTree) -> None:
    """Commit `tree` (arrays only) as checkpoint `step`, and drop all but the newest two.

    Raises OSError, which names the checkpoint, where it cannot be written.
    """
    ocp = orbax()
    folder = Path(folder).absolute()
    path = folder / str(step)
    arrays = jax.tree.map(np.asarray, tree)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_room(folder, path, sum(x.nbytes for x in jax.tree.leaves(arrays)))
        # the digest is written first, so that every committed checkpoint has one
        _write(folder / f"{step}.sha256", digest_of_arrays(arrays))
        with ONE_AT_A_TIME, named_in_errors(path), on_this_host(ocp):
            ocp.save(str(path), {"tree": arrays}, overwrite=True)
    except OSError:
        raise
    except Exception as error:  # a full disk surfaces as many kinds of error
        raise OSError(f"checkpoint {path} cannot be written: {_reason(error, 300)}") from error
    clean(folder)


def check_room(folder: Path, path: Path, size: int) -> None:
    """Raise OSError where a disk has not the room for a checkpoint of so many bytes.

    Orbax would notice in its threads, of which some then print what they could not do.
    """
    if shutil.disk_usage(folder).free < size + FILES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@functools.cache
def orbax() -> Any:
    """Orbax, whose threads print no tracebacks: what they raise is raised to the caller too.

    That holds to the end of the process. A thread may come to a closed loop of events long after a
    read has failed, and asyncio tells of a failed task when it is collected.
    """
    from orbax.checkpoint import v1

    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(OrbaxFilter())
    uncaught, unraisable = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda *facts: _is_late(facts[1]) or uncaught(*facts)
    sys.unraisablehook = lambda facts: _is_late(facts.exc_value) or unraisable(facts)
    return v1


def _is_late(error: BaseException | None) -> bool:
    """Whether a thread of a checkpoint that is torn was too late for its loop of events."""
    return isinstance(error, RuntimeError) and "loop is closed" in str(error)


@contextlib.contextmanager
def on_this_host(ocp: Any) -> Iterator[None]:
    """Let Orbax save and load on this host alone: no array lies on two.

    Its options name the processes that take part, but a save compares folders over all of them,
    whatever the options say. So it is told that there is one.
    """
    if jax.process_count() == 1:
        yield
        return
    from orbax.checkpoint.experimental.v1._src.synchronization import multihost

    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"host-{own}"
    )
    before = multihost.process_count
    multihost.process_count = lambda: 1
    try:
        with ocp.Context(multiprocessing_options=options):
            yield
    finally:
        multihost.process_count = before


class OrbaxFilter(logging.Filter):
    """Drops what Orbax logs, and what asyncio logs of its tasks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is from elsewhere."""
        said = record.getMessage()
        of_task = record.name == "asyncio" and ("orbax" in said or "OCDBT" in said)
        return not of_task and "orbax" not in Path(record.pathname).parts


def clean(folder: Path) -> None:
    """Remove old checkpoints, and what a killed process left of a save or of a removal."""
    kept = set()
    for step in committed_steps(folder)[-KEEP:]:
        kept |= {str(step), f"{step}.sha256"}
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def digest_of_arrays(tree: PyTree) -> str:
    """A digest of the tree's arrays: of their places, types, shapes and bytes."""
    sha256 = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        sha256.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        # its bytes, without a copy of them
        sha256.update(array.reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with named_in_errors(part):
        part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _reason(error: Exception, length: int) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:length]


def committed_steps(folder: Path) -> list[int]:
    """The steps of the committed checkpoints, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    committed = [p for p in folder.iterdir() if (p / "commit_success.txt").exists()]
    return sorted(int(path.name) for path in committed if path.name.isdecimal())


def restore(
    folder: Path, like: PyTree, say: Callable[[str], None] = print
) -> tuple[int, Any] | None:
    """The newest checkpoint that can be read, as (step, tree of arrays); None where there is none.

    `like` gives structure, shapes and dtypes. A checkpoint that cannot be read is passed over, and
    `say` gets a line about it.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    struct = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
    target = jax.tree.map(struct, like)
    name = Path(folder).name
    for step in reversed(committed_steps(folder)):
        try:
            with ONE_AT_A_TIME, on_this_host(orbax()):
                return step, _load(Path(folder), step, target)
        except Exception as error:  # torn files surface as many kinds of error
            reason = _reason(error, 160)
            say(f"checkpoint {name}/{step} cannot be read ({reason}); taking the one before")
    return None


def _load(folder: Path, step: int, target: PyTree) -> Any:
    """The arrays of one checkpoint; ValueError where they do not have its digest."""
    ocp = orbax()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ocp.load(str(folder.absolute() / str(step)), {"tree": target})["tree"]
    recorded = folder / f"{step}.sha256"
    if recorded.exists():
        text = recorded.read_text(encoding="utf-8", errors="replace")
        if text != digest_of_arrays(tree):
            raise ValueError("its arrays are damaged")
    return tree

"""What a call leaves to be taken away: archives of the small files that last, within bounds.

    OUT/take/queue.md      the cells with their states, and what was left out
    OUT/take/card-1.zip    tables and csv, then run.json, health and logs, then final policies

Together they are at most so many files and MiB, and no file is larger than its equal share. Names
in an archive are those below OUT, so that archives of several calls can be unpacked into one
folder. Files that no earlier call has packed come first. Checkpoints and compiled programs stay.
"""

import functools
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxomarl.paths import replace_file

TAKE = "take"
"""The folder below OUT."""
LISTED = "queue.md"
MIB = 2**20
KINDS = ("tables", "runs", "policies")
"""What is packed, the most important first."""
RUNS = ("run.json", "health.csv", "DONE")
"""A run's files that are no table."""
TABLES = (".md", ".csv", ".jsonl")
ENTRY = 256
"""Bytes that an entry of an archive takes besides its content and twice its name."""
END = 64
"""Bytes of an archive's end."""


class Item(NamedTuple):
    """A file that may be packed."""

    name: str
    """Its path below OUT."""
    kind: int
    """Its place in KINDS."""
    digest: str
    size: int
    """Bytes in an archive, at most."""
    before: bool
    """Whether an earlier call has packed the same content."""


class Bounds(NamedTuple):
    """What a call may leave."""

    files: int
    mib: float

    @property
    def each(self) -> int:
        """Most bytes of a file: all files of this size are within the bounds."""
        return int(self.mib * MIB / self.files)


class Packed(NamedTuple):
    """What was packed, and what was not."""

    digests: dict[str, str]
    """Name -> digest of what is in the archives."""
    left: tuple[Item, ...]
    """What did not fit."""


# --- which files ---


def kind_of(path: Path) -> int | None:
    """The kind of a file below OUT; None where it stays."""
    if "stages" in path.parts:
        return None
    if path.name == "policy.safetensors":
        return 2
    if path.name in RUNS or path.suffix in (".json", ".log"):
        return 1
    if path.suffix in TABLES:
        return 0
    return None


def items(out: Path, folders: Iterable[str], before: dict[str, str]) -> list[Item]:
    """The files below OUT that may be packed, in the order in which they are.

    `folders` are those of the cells, in the queue's order. `before` has the digests of what earlier
    calls have packed.
    """
    paths = [out / "queue.json"]
    for folder in dict.fromkeys(folders):
        paths += sorted((out / "cells" / folder).rglob("*"))
    paths += sorted((out / "logs").glob("*"))
    found = []
    for path in paths:
        below = path.relative_to(out)
        kind = kind_of(below)
        # a link could bring a file from elsewhere into the archive
        if kind is None or not path.is_file() or not path.resolve().is_relative_to(out.resolve()):
            continue
        digest, size = digest_and_size(path, path.stat().st_mtime_ns)
        name = below.as_posix()
        size += 2 * len(name.encode()) + ENTRY
        found.append(Item(name, kind, digest, size, before.get(name) == digest))
    # a run's tables are deeper than those of its cell; the sort is stable
    return sorted(found, key=lambda item: (item.before, item.kind, item.name.count("/") > 2))


@functools.cache
def digest_and_size(path: Path, changed: int) -> tuple[str, int]:
    """The digest of a file that was `changed` then, and its compressed bytes."""
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), len(zlib.compress(content))


# --- the archives ---


def pack(out: Path, found: Sequence[Item], bounds: Bounds) -> Packed:
    """Write the archives; each file goes into the first that has room for it."""
    archives: list[list[Item]] = [[] for _ in range(bounds.files - 1)]
    room = [bounds.each - END] * len(archives)
    left = []
    for item in found:
        fitting = (k for k, free in enumerate(room) if item.size <= free)
        k = next(fitting, None)
        if k is None:
            left.append(item)
            continue
        archives[k].append(item)
        room[k] -= item.size

    folder = out / TAKE
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("card-*.zip"):
        old.unlink()
    for k, members in enumerate(filter(None, archives), 1):
        replace_file(folder / f"card-{k}.zip", zipped(out, members))
    digests = {item.name: item.digest for members in archives for item in members}
    return Packed(digests, tuple(left))


def zipped(out: Path, members: Sequence[Item]) -> bytes:
    """An archive of files below OUT."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in members:
            archive.writestr(item.name, (out / item.name).read_bytes())
    return content.getvalue()


def left_out(left: Sequence[Item]) -> list[str]:
    """A line for each folder and kind that did not fit, the most important first."""
    groups: dict[tuple[int, str, bool], list[Item]] = {}
    for item in left:
        parts = item.name.split("/")
        folder = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        groups.setdefault((item.kind, folder, item.before), []).append(item)
    lines = []
    for (kind, folder, before), own in groups.items():
        size = sum(item.size for item in own) / MIB
        note = ", packed by an earlier call" if before else ""
        lines.append(f"- {KINDS[kind]} of {folder}: {len(own)} files, {size:.2f} MiB{note}")
    return lines

"""Folders of other people's files: no link out of them is followed, and what is written is new."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxomarl import documents
from jaxomarl.base import refuse

NOTE = "jaxomarl.json"
"""What our writers add where a format has no place for it. Readers take it as a hint."""
QUALITIES = (
    "medium-replay",
    "medium-expert",
    "random-medium",
    "expert",
    "medium",
    "random",
    "replay",
    "mixed",
    "good",
    "poor",
    "uniform",
)
COPY = "Copy the set again."


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder; JaxomarlError where a link leads out of the folder."""
    path = folder / name
    root = Path(os.path.realpath(folder))
    if not Path(os.path.realpath(path)).is_relative_to(root):
        way = "A data set must lie in its own folder: copy the file."
        raise refuse(str(path), "a file within its folder", "a link that leaves it", way)
    return path


def contents(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Links to folders are not followed; links out are refused."""
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            inside(folder, str((Path(top) / name).relative_to(folder)))
        yield from (Path(top) / name for name in names)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of somebody else's set; JaxomarlError for anything else."""
    return documents.read(path, COPY)


def read_note(folder: Path) -> dict[str, Any]:
    """What our writer left next to the files; {} where there is nothing."""
    path = inside(folder, NOTE)
    return read_json(path) if path.is_file() else {}


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Write what a format has no place for next to its files."""
    (path / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def check_texts(found: object, where: str) -> tuple[str, ...]:
    """A list of short texts, as notes have it; JaxomarlError for anything else."""
    if not isinstance(found, list) or not all(isinstance(x, str) and len(x) < 1000 for x in found):
        raise refuse(where, "a list of texts", type(found).__name__, COPY)
    return tuple(found)


def check_widths(found: object, agents: int, where: str) -> tuple[int, ...]:
    """A list of positive widths, one per agent; JaxomarlError for anything else."""
    widths = tuple(found) if isinstance(found, list) else ()
    if len(widths) != agents or not all(type(x) is int and 0 < x < 1 << 20 for x in widths):
        raise refuse(where, f"{agents} widths", str(found)[:80], COPY)
    return widths


def guess_quality(path: Path) -> str:
    """The quality that a path's names speak of, the nearest name first; "" where none does."""
    for name in reversed(Path(os.path.abspath(path)).parts):
        text = name.lower().removesuffix(".hdf5").removesuffix(".h5").replace("_", "-")
        for quality in QUALITIES:
            if text == quality or text.endswith(f"-{quality}"):
                return quality
    return ""


def make_new(path: Path) -> None:
    """Create a folder to write in; JaxomarlError where it has contents."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        found = "something that is there"
        raise refuse(str(path), "a new or an empty folder", found, "Choose another name.")
    path.mkdir(parents=True, exist_ok=True)

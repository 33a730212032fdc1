"""File paths as people write them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jaxomarl.base import refuse


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~name` replaced by that home folder.

    A shell does so too, but not within quotes, nor in a flag like `--task mpe/tag:prey=~/file`.
    Raises JaxomarlError where there is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise refuse("path", "a home folder", str(path), f"{error} Write it in full.") from None


@contextlib.contextmanager
def named_in_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the path to an OSError that names no file, as that of a write does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def folder_name(*parts: object) -> str:
    """The name of a folder, from a task, a quality and other parts that tell folders apart."""
    return "-".join(map(str, parts)).translate(str.maketrans("/:=, ", "-----"))

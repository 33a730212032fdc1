"""Paths as people write them."""

import os
from pathlib import Path

from jaxomarl.base import refuse


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~name` as the home folder that it means.

    A shell expands it too, but not within quotes, nor in a flag like `--task mpe/tag:prey=~/file`.
    Raises JaxomarlError where there is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise refuse("path", "a home folder", str(path), f"{error} Write it in full.") from None


def folder_name(*parts: object) -> str:
    """A folder's name from a task, a quality and what else tells two of them apart."""
    return "-".join(map(str, parts)).translate(str.maketrans("/:=, ", "-----"))

"""File paths as people write them."""

import contextlib
import os
import secrets
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


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file in one step: a reader, or a killed writer, leaves the old content or the new.

    OSError (a full disk, say) passes through and leaves the old file as it was.
    """
    path = Path(path)
    # in the same folder, so that os.replace is atomic
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with named_in_errors(path), open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def folder_name(*parts: object) -> str:
    """The name of a folder, from a task, a quality and other parts that tell folders apart."""
    return "-".join(map(str, parts)).translate(str.maketrans("/:=, ", "-----"))

"""File paths as people write them."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jaxomarl.base import refuse

LARGEST = 1 << 28
"""Most bytes of a file that is read whole, a policy's and a data set's arrays apart."""


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


def check_regular(path: str | os.PathLike[str]) -> int:
    """The bytes of a regular file, before it is opened.

    Raises OSError where it is missing or something else: a pipe would be waited for, and a device
    may have no end.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "No regular file", str(path))
    return found.st_size


def read_file(path: str | os.PathLike[str], most: int = LARGEST) -> bytes:
    """The content of a regular file.

    Raises OSError as of `check_regular`, and where it has more than `most` bytes.
    """
    if check_regular(path) > most:
        raise OSError(errno.EFBIG, f"More than {most} bytes", str(path))
    return Path(path).read_bytes()


def open_own(path: str | os.PathLike[str], flags: int = 0) -> TextIO:
    """Open a file of a folder of results for writing in place; `flags` are more of `os.open`.

    Raises OSError where the file is a link, which may lead to another folder's file, or is no
    regular file.
    """
    # without O_NONBLOCK, a pipe would be waited for
    more = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, more | flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "A link, which is not written through", str(path)) from None
        raise
    file = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "No regular file", str(path))
    return file


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
        if path.is_dir() and not path.is_symlink():
            # os.replace would name the part first
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def folder_name(*parts: object) -> str:
    """The name of a folder, from a task, a quality and other parts that tell folders apart."""
    return "-".join(map(str, parts)).translate(str.maketrans("/:=, ", "-----"))

"""Output that never fails: in any encoding, to a terminal or a pipe, to a reader that leaves.

`take` replaces the process's two streams. A character that the encoding does not have is shown by
another. Once a reader has left (`| head -1`), the rest is dropped and the command continues.
"""

import codecs
import errno
import io
import os
import sys
from typing import Any

PLAIN = str.maketrans(
    {
        "±": "+-", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "•": "*",  # noqa: RUF001
        "·": ".", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',  # noqa: RUF001
        "é": "e", "ö": "o", "ü": "u",
        "─": "-", "━": "-", "│": "|", "┃": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+",
        "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+", "┬": "+", "┴": "+", "┼": "+",
        "█": "#", "▁": "_", "▂": "_", "▃": "-", "▄": "-", "▅": "=", "▆": "=", "▇": "#",
    }
)  # fmt: skip
"""What stands for a character that the encoding lacks; a question mark stands for any other."""

ESCAPED = range(0xDC80, 0xDD00)
"""Python's own stand-ins for the bytes of a file name that is not text (PEP 383)."""


def plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace the first character that cannot be encoded; a handler for `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if ord(character) in ESCAPED:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    shown = character.translate(PLAIN)
    if shown == character or not shown.isascii():
        shown = "?"
    return shown, error.start + 1


class Reader(io.RawIOBase):
    """A file descriptor whose reader may leave; what is written after that is dropped."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.terminal = os.isatty(descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.terminal

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: object) -> int:
        """Write bytes; OSError for any fault but a reader that has left."""
        data = memoryview(content)  # type: ignore[arg-type]
        try:
            return os.write(self.descriptor, data)
        except OSError as error:
            closed = error.errno == errno.EPIPE
            hung_up = error.errno == errno.EIO and self.terminal
            if not (closed or hung_up):
                raise
            # the libraries that write there too must not fail either
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.descriptor)
            os.close(nowhere)
            return len(data)


def open_stream(stream: Any) -> io.TextIOBase:
    """A stream to print to in place of one of the process's own, which may be closed (None)."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    try:
        descriptor = stream.fileno()
    # it is no file: a test's, or a notebook's
    except (OSError, ValueError):
        return stream
    stream.flush()
    buffer = io.BufferedWriter(Reader(descriptor))
    lines = stream is sys.stderr or os.isatty(descriptor)
    return io.TextIOWrapper(buffer, stream.encoding, "jaxomarl.plain", line_buffering=lines)


def take() -> None:
    """Replace stdout and stderr of this process."""
    codecs.register_error("jaxomarl.plain", plain)
    sys.stdout = open_stream(sys.stdout)  # type: ignore[assignment]
    sys.stderr = open_stream(sys.stderr)  # type: ignore[assignment]

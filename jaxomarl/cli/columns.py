"""Plain text in columns, as wide as the terminal.

An output that is no terminal has each row on one line, which `grep` finds.
"""

import shutil
import textwrap
from collections.abc import Iterable, Sequence

UNBOUNDED = 100_000
"""Columns of an output that is no terminal."""
NARROW = 30
"""Columns below which a last cell stands under its row."""


def width(otherwise: int = UNBOUNDED) -> int:
    """Columns of the terminal; `otherwise` where there is none and COLUMNS is not set."""
    return max(20, shutil.get_terminal_size((otherwise, 24)).columns)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], columns: int) -> str:
    """Rows under a head.

    The last cell of a row is wrapped. It stands next to the other cells, or below them where they
    are wide.
    """
    lines = [tuple(head), *(tuple(row) for row in rows)]
    sizes = [max(len(line[k]) for line in lines) for k in range(len(head) - 1)]
    indent = sum(sizes) + 2 * len(sizes)
    fits = columns - indent >= NARROW

    shown = []
    for line in lines:
        cells = "".join(f"{cell:<{size}}  " for cell, size in zip(line, sizes, strict=False))
        if fits:
            shown.append(wrapped(line[-1], columns, cells, " " * indent))
        else:
            shown.append(wrapped(cells, columns, "", "    "))
            shown.append(wrapped(line[-1], columns, "    ", "    "))
    return "\n".join(line for line in shown if line.strip())


def wrapped(text: str, columns: int, first: str = "", later: str = "") -> str:
    """A text in lines of at most so many columns; long words, such as paths, are not cut."""
    lines = textwrap.wrap(
        " ".join(text.split()),
        columns,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(line.rstrip() for line in lines or [first])

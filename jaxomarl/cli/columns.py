"""Plain text in columns, as wide as the terminal; where there is none, each row is one line that `grep` finds."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence

UNBOUNDED = 100_000
"""Columns of an output that is no terminal."""
NARROW = 30
"""Columns below which a last cell stands under its row."""


def width(otherwise: int = UNBOUNDED) -> int:
    """Columns of the terminal; `otherwise` where the output goes elsewhere and COLUMNS is not set."""
    return max(20, shutil.get_terminal_size((otherwise, 24)).columns)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], columns: int) -> str:
    """Rows under a head; the last cell of each is wrapped, beside the others or, where they are wide, below them."""
    body = [tuple(row) for row in rows]
    sizes = [max(len(row[k]) for row in (tuple(head), *body)) for k in range(len(head) - 1)]
    indent = sum(sizes) + 2 * len(sizes)
    beside = columns - indent >= NARROW
    lines = []
    for row in (tuple(head), *body):
        cells = "".join(f"{cell:<{size}}  " for cell, size in zip(row, sizes, strict=False))
        if beside:
            lines.append(wrapped(row[-1], columns, cells, " " * indent))
        else:
            lines.append(wrapped(cells, columns, "", "    "))
            lines.append(wrapped(row[-1], columns, "    ", "    "))
    return "\n".join(line for line in lines if line.strip())


def wrapped(text: str, columns: int, first: str = "", later: str = "") -> str:
    """A text in lines of at most so many columns; long words, such as paths, are left as they are."""
    lines = textwrap.wrap(
        " ".join(text.split()),
        columns,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(line.rstrip() for line in lines or [first])

"""Tables of text as Markdown, CSV, LaTeX (booktabs) and HTML, and from Markdown back.

A cell is a text as a reader sees it. LaTeX and HTML escape it; Markdown escapes its bars.
"""

import csv
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from jaxomarl.results.store import write_bytes

RULE = re.compile(r"^\|(\s*:?-{3,}:?\s*\|)+\s*$")
"""The second line of a table in Markdown."""
CELL = re.compile(r"(?<!\\)\|")
"""What parts two cells in Markdown: a bar that is not escaped."""
NUMBER = re.compile(r"^[-+!*† ]*(nan|[\d.,]*\d(e[-+]?\d+)?)(?!\w)")
"""How a cell of a number begins; a digest may begin with a digit."""
CODE = re.compile(r"`([^`]+)`")
"""A command or a name in a sentence."""
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
"""A flag, which no line is to break in two."""
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"''",
        "±": r"$\pm$", "†": r"$\dagger$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$",  # noqa: RUF001
        "→": r"$\to$", "·": r"$\cdot$", "–": "--", "—": "---", "…": r"\dots{}", "−": "$-$",  # noqa: RUF001
    }
)  # fmt: skip
"""What stands for a character in LaTeX."""


LONG = 48
"""Letters above which a cell of HTML is wrapped."""


class Table(NamedTuple):
    """Rows of text under a head, and sentences that belong below."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Table:
    """A table from any sequences."""
    return Table(tuple(head), tuple(tuple(row) for row in rows), tuple(notes))


def numeric(shown: Table) -> tuple[bool, ...]:
    """Whether each column holds numbers: every cell that is not empty begins with one."""
    columns = zip(*shown.rows, strict=True) if shown.rows else [()] * len(shown.head)
    return tuple(
        any(cells) and all(NUMBER.match(cell) for cell in cells if cell) for cells in columns
    )


# --- to text ---


def markdown(shown: Table) -> str:
    """The table as Markdown, its notes as paragraphs below."""
    rule = ["---:" if number else "---" for number in numeric(shown)]
    lines = [_markdown_row(row) for row in (shown.head, rule, *shown.rows)]
    lines += [f"\n{note}" for note in shown.notes]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def csv_text(shown: Table) -> str:
    """The head and the rows as CSV; notes are left out, so that every line is a row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([shown.head, *shown.rows])
    return text.getvalue()


def latex(shown: Table) -> str:
    """A tabular of booktabs, with the notes below in small print."""
    columns = "".join("r" if number else "l" for number in numeric(shown))
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(shown.head),
        r"\midrule",
        *map(_latex_row, shown.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    lines += [rf"\par\smallskip{{\footnotesize {note.translate(LATEX)}}}" for note in shown.notes]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    escaped = [cell.translate(LATEX) for cell in cells]
    # a bracket at the start of a row would be read as an argument of the row before it
    if escaped[0].startswith("["):
        escaped[0] = f"{{}}{escaped[0]}"
    return rf"{' & '.join(escaped)} \\"


def html(shown: Table, name: str = "", grey: Sequence[int] = ()) -> str:
    """A table of HTML whose columns of numbers are marked; rows of `grey` are not judged.

    `name` is its caption. Every text is escaped. What stands in backticks is code.
    """
    numbers = numeric(shown)
    caption = f"<caption>{escape(name)}</caption>" if name else ""
    head = "".join(_html_cell("th", x, n) for x, n in zip(shown.head, numbers, strict=True))
    body = []
    for k, row in enumerate(shown.rows):
        cells = "".join(_html_cell("td", x, n) for x, n in zip(row, numbers, strict=True))
        style = ' class="grey"' if k in grey else ""
        body.append(f"<tr{style}>{cells}</tr>")
    below = "".join(f'<p class="note">{html_text(note)}</p>' for note in shown.notes)
    rows = "\n".join(body)
    return (
        f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>{below}"
    )


def html_text(text: str) -> str:
    """A sentence as HTML: `names` as code, and flags in one piece."""
    return FLAG.sub(r'<span class="flag">\g<0></span>', CODE.sub(r"<code>\1</code>", escape(text)))


def _html_cell(kind: str, text: str, number: bool) -> str:
    style = ' class="number"' if number else ""
    if len(text) > LONG:
        style = ' class="long"'
    scope = ' scope="col"' if kind == "th" else ""
    return f"<{kind}{scope}{style}>{html_text(text)}</{kind}>"


def write(path: str | Path, shown: Table) -> list[Path]:
    """Write a table next to `path` as .csv and .tex, and return the files."""
    contents = {".csv": csv_text(shown), ".tex": latex(shown)}
    files = [Path(path).with_suffix(suffix) for suffix in contents]
    for file, text in zip(files, contents.values(), strict=True):
        write_bytes(file, text.encode(errors="surrogateescape"))
    return files


# --- from Markdown ---


def parsed(text: str) -> list[Table]:
    """Every table of a text in Markdown, in order, without notes.

    A row that is shorter than its head is filled with empty cells.
    """
    lines = text.splitlines()
    found = []
    for k, line in enumerate(lines):
        if k == 0 or not RULE.match(line.strip()):
            continue
        head = _cells(lines[k - 1])
        rows = []
        for below in lines[k + 1 :]:
            if not below.lstrip().startswith("|"):
                break
            cells = _cells(below)
            rows.append([*cells, *[""] * (len(head) - len(cells))][: len(head)])
        found.append(table(head, rows))
    return found


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in CELL.split(inner)]

"""Pages that are made from the package: docstrings, and a table of each system's fields.

A docstring of the package is prose with backticks, lists and indented formulas. Sphinx reads
reStructuredText, where `|x|`, `a_` and `*B` mean other things: `as_rst` says the same in it.
"""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jaxomarl.algorithms import REGISTRY
from jaxomarl.cli import boxes
from jaxomarl.cli.fields import described
from jaxomarl.cli.show import shown_value

INDENT = 4
"""A paragraph that is indented this far is a formula or a program."""
ARGUMENT = re.compile(r"\s+(\w+): (.*)")
BOLD = re.compile(r"\\\*\\\*([\w][\w -]*)\\\*\\\*")
"""An escaped `**word**`."""
LINK = re.compile(r"\[([^\]]+)\]\(([^()\s#]+)\)")
HEADINGS = ["Field", "Default", "Takes", "What it is", "A sweep is"]
WIDTHS = [20, 12, 18, 40, 10]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("source-read", _give_title)
    app.connect("source-read", _unlink)
    app.add_directive("system-fields", SystemFields)
    return {"parallel_read_safe": True}


# --- docstrings ---


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace a docstring's lines, as autodoc asks."""
    # what Python says of a named tuple's field without a docstring
    if len(lines) > 0 and lines[0].startswith("Alias for field number"):
        lines[:] = []
    lines[:] = as_rst("\n".join(lines)).split("\n")


def as_rst(docstring: str) -> str:
    """A docstring in reStructuredText: paragraphs, lists, arguments and literal blocks."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(_paragraph(text) for text in paragraphs)


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    indents = [len(line) - len(line.lstrip()) for line in lines]
    if min(indents) >= INDENT:
        return "::\n\n" + text
    if lines[0] == "Args:":
        return "\n".join(_argument(line) for line in lines[1:])
    found: list[str] = []
    for line in lines:
        # a list needs an empty line before it
        starts = line.lstrip().startswith("- ")
        if starts and found and not found[-1].lstrip().startswith("- ") and not _in_list(found):
            found.append("")
        found.append(escaped(line))
    return "\n".join(found)


def _in_list(lines: list[str]) -> bool:
    """Whether the paragraph so far has begun a list."""
    return any(line.lstrip().startswith("- ") for line in lines)


def _argument(line: str) -> str:
    """A line below "Args:" as a field; a line that continues one stays indented."""
    match = ARGUMENT.match(line)
    if match is None:
        return "    " + escaped(line.strip())
    return f":param {match[1]}: {escaped(match[2])}"


def escaped(line: str) -> str:
    """A line whose signs mean what they look like; `code` becomes ``code``."""
    parts = re.split(r"`([^`]*)`", line)
    for k, part in enumerate(parts):
        if k % 2:
            parts[k] = f"``{part}``"
            continue
        part = re.sub(r"([\\*|])", r"\\\1", part)
        part = re.sub(r"_(?=\W|$)", r"\\_", part)
        parts[k] = BOLD.sub(r"**\1**", part)
    return "".join(parts)


# --- what the pages of a code host have and built ones have not ---


def _give_title(app: Sphinx, docname: str, source: list[str]) -> None:
    """Head the tables that commands have written: they begin with their command."""
    if docname.startswith("tables/"):
        source[0] = f"# {docname.removeprefix('tables/')}\n\n{source[0]}"


def _unlink(app: Sphinx, docname: str, source: list[str]) -> None:
    """Name a folder, or a page outside docs/, in place of a link: neither is a built page."""
    folder = (app.srcdir / docname).parent

    def named(link: re.Match) -> str:
        target = (folder / link[2]).resolve()
        outside = target.suffix == ".md" and not target.is_relative_to(app.srcdir)
        if not target.is_dir() and not outside:
            return link[0]
        path = target.relative_to(Path(app.srcdir).parent)
        if link[1].strip("`") == str(path):
            return f"`{path}`"
        return f"{link[1]} (`{path}`)"

    source[0] = LINK.sub(named, source[0])


# --- systems ---


class SystemFields(SphinxDirective):
    """Every system: what its file says, and a table of its fields."""

    def run(self) -> list[nodes.Node]:
        """One section for each row of the registry."""
        told: dict[str, str] = {}
        return [self._section(name, told) for name in REGISTRY]

    def _section(self, name: str, told: dict[str, str]) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title("", name)
        box = boxes.box(name)
        section += nodes.paragraph("", f"{box.sentence} It is {boxes.kind(name)}.")
        if box.file in told:
            text = f"Its paper and pseudo-code stand under ``{told[box.file]}``."
        else:
            told[box.file] = name
            text = as_rst(_said(name))
        section += self.parse_text_to_nodes(text)
        section += _table(name)
        return section


def _said(name: str) -> str:
    """The docstring of a system's file, from its paper on."""
    pipeline = REGISTRY[name].pipeline
    pipeline = getattr(pipeline, "func", pipeline)
    docstring = sys.modules[pipeline.__module__].__doc__ or ""
    _, paper, rest = docstring.partition("**Paper**")
    return paper + rest


def _table(name: str) -> nodes.table:
    table = nodes.table()
    group = nodes.tgroup(cols=len(HEADINGS))
    table += group
    group += [nodes.colspec(colwidth=width) for width in WIDTHS]
    heading = nodes.thead()
    heading += _row([nodes.inline("", word) for word in HEADINGS])
    body = nodes.tbody()
    for field in described(name):
        body += _row(
            [
                nodes.literal("", field.name),
                nodes.literal("", shown_value(field.default)),
                nodes.inline("", field.expected),
                nodes.inline("", field.sentence.replace("`", "")),
                nodes.inline("", "one program" if field.traced else "one a value"),
            ]
        )
    group += [heading, body]
    return table


def _row(cells: list[nodes.Node]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        row += nodes.entry("", nodes.paragraph("", "", cell))
    return row

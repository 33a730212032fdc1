"""The command `cite`: the papers behind runs, as text and as BibTeX.

A paper's facts are those that the docstring of the system's file states. What is not stated there,
such as the other authors, is left to its reader.
"""

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxomarl.api.evaluate import found_runs
from jaxomarl.cli import boxes, columns

REFERENCE = re.compile(r'(?:(?P<who>[A-Z][\w-]+(?: et al\.| and [A-Z][\w-]+)?) (?P<year>\d{4}), )?'
                       r'"(?P<title>[^"]+)"(?:, (?P<after>\d{4}))?')  # fmt: skip
"""A paper in a docstring: "Li et al. 2023, "Title"", or its title with the year behind."""


class Reference(NamedTuple):
    """A paper as a docstring names it."""

    who: str
    year: str
    title: str

    @property
    def key(self) -> str:
        """The key of its BibTeX entry."""
        words = [word for word in re.findall(r"\w+", self.title.lower()) if len(word) > 3]
        first = [*self.who.lower().split(), *words][0]
        return re.sub(r"\W", "", f"{first}{self.year}{words[-1]}")

    @property
    def bibtex(self) -> str:
        """Its BibTeX entry, with what is known."""
        authors = self.who.replace(" et al.", " and others")
        fields = {"author": authors, "title": f"{{{self.title}}}", "year": self.year}
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return "@misc{" + ",\n".join([self.key, *lines]) + "\n}"


def references(paper: str) -> list[Reference]:
    """The papers that a docstring's part names by their titles, in order."""
    flat = " ".join(paper.split())
    found = []
    for match in REFERENCE.finditer(flat):
        # a word in quotation marks is no title
        if len(match["title"].split()) > 3:
            year = match["year"] or match["after"] or ""
            found.append(Reference(match["who"] or "", year, match["title"].rstrip(".,")))
    return found


def text(paths: Sequence[Path]) -> str:
    """The papers of the systems below the folders, then BibTeX of them and of this software.

    Raises JaxomarlError where a folder does not exist or holds no run.
    """
    systems = sorted({run.info["system"] for run in found_runs(paths)})
    lines = []
    cited: dict[str, Reference] = {}
    for name in systems:
        paper = boxes.box(name).paper
        lines.append(columns.wrapped(f"{name}: {paper or 'names no paper'}", 100, "", "  "))
        for reference in references(paper):
            cited.setdefault(reference.key, reference)
    entries = [reference.bibtex for reference in cited.values()]
    return "\n".join([*lines, "", *entries, software()])


def software() -> str:
    """The BibTeX entry of this software."""
    version = importlib.metadata.version("jaxomarl")
    title = "jaxomarl: offline multi-agent reinforcement learning with diffusion models"
    lines = [
        "author = {{The jaxomarl authors}}",
        f"title = {{{title}}}",
        f"version = {{{version}}}",
    ]
    return "@software{jaxomarl,\n" + ",\n".join(f"  {line}" for line in lines) + "\n}"

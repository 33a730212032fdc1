"""One self-contained page of HTML: sections, tables that sort, and matplotlib's figures as SVG.

Nothing is fetched: style, script, figures and the files behind links stand in the page. The colours
of a figure's text, axes and paper follow the page, light or dark.
"""

import base64
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import NamedTuple

from jaxomarl.results import canvas, tabular
from jaxomarl.results.canvas import Figure
from jaxomarl.results.tabular import Table

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing that does not stand in the page."""
FONTS = '"DejaVu Sans", Verdana, system-ui, sans-serif'
"""Fonts of a figure's text; those after matplotlib's own are as wide."""
THEMED = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#e6e6e6": "var(--grid)",
    "#cccccc": "var(--line)",
    "#0072b2": "var(--blue)",
    "#555555": "var(--muted)",
    "#4c4c4c": "var(--muted)",
    "#808080": "var(--muted)",
}
"""Colours of matplotlib -> those of the page."""
LEAST = 0.75
"""Share of its width to which a figure shrinks; where there is less room, it scrolls."""
IDENTIFIER = re.compile(r'\bid="([^"]+)"')
REFERENCE = re.compile(r'(url\(#|href="#)([^)"]+)')


class Section(NamedTuple):
    """A part of the page: its anchor, heading and HTML."""

    name: str
    title: str
    content: str


# --- parts ---


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of text."""
    return f"<p{_class(style)}>{tabular.html_text(text)}</p>"


def bullets(texts: Sequence[str], style: str = "") -> str:
    """A list of texts."""
    items = "".join(f"<li>{tabular.html_text(text)}</li>" for text in texts)
    return f"<ul{_class(style)}>{items}</ul>"


def details(title: str, content: str, shown: bool = False) -> str:
    """HTML that opens on demand, or with `shown` closes on demand."""
    opened = " open" if shown else ""
    return f"<details{opened}><summary>{escape(title)}</summary>{content}</details>"


def preformatted(text: str) -> str:
    """Text as it is laid out."""
    return f'<pre tabindex="0">{escape(text)}</pre>'


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


def table(name: str, caption: str, shown: Table, grey: Sequence[int] = ()) -> str:
    """A table that sorts, with links to it as CSV, Markdown and LaTeX; `grey` rows are not judged.

    `name` is that of the files.
    """
    body = tabular.html(shown, caption, grey)
    files = {
        "CSV": (f"{name}.csv", "text/csv", tabular.csv_text(shown)),
        "Markdown": (f"{name}.md", "text/markdown", tabular.markdown(shown)),
        "LaTeX": (f"{name}.tex", "text/x-tex", tabular.latex(shown)),
    }
    links = ", ".join(_download(kind, *file) for kind, file in files.items())
    return f'{body}<p class="downloads">This table as {links}</p>'


def _download(word: str, name: str, kind: str, content: str) -> str:
    """A link to a file that stands in the page."""
    coded = base64.b64encode(content.encode(errors="replace")).decode()
    return f'<a download="{escape(name)}" href="data:{kind};base64,{coded}">{word}</a>'


def figure(name: str, shown: Figure, caption: str) -> str:
    """A figure as SVG, with what it says for those who do not see it."""
    drawing = inline_svg(shown, name)
    words = escape(caption)
    label = escape(caption, quote=True)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return (
        f'<figure id="figure-{name}"><div class="scroll" tabindex="0">{drawing}</div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def picture(name: str, kind: str, content: bytes, caption: str) -> str:
    """A picture of a media type whose bytes stand in the page."""
    coded = base64.b64encode(content).decode()
    words = escape(caption)
    label = escape(caption, quote=True)
    return (
        f'<figure id="picture-{name}"><div class="scroll" tabindex="0">'
        f'<img src="data:{kind};base64,{coded}" alt="{label}"></div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def inline_svg(shown: Figure, name: str) -> str:
    """A figure as an element of HTML.

    Its identifiers begin with `name`, and its words are text that can be selected.
    """
    content = canvas.encoded(shown, ".svg", **{"svg.fonttype": "none"}).decode()
    drawing = content[content.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, flags=re.DOTALL)
    drawing = IDENTIFIER.sub(rf'id="{name}-\g<1>"', drawing)
    drawing = REFERENCE.sub(rf"\g<1>{name}-\g<2>", drawing)
    # drawn as wide as on paper where there is room, and less where there is not
    width = re.search(r'width="([\d.]+)pt"', drawing)
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing, count=1)
    if width:
        least = LEAST * float(width[1])
        style = f"width: {width[1]}pt; min-width: {least:.0f}pt"
        drawing = drawing.replace("<svg ", f'<svg style="{style}" ', 1)
    for colour, themed in THEMED.items():
        drawing = re.sub(rf"(fill|stroke): {colour}", rf"\1: {themed}", drawing)
    return re.sub(r"'DejaVu Sans'[^;\"]*", FONTS.replace('"', "'"), drawing)


# --- the page ---


def page(title: str, facts: str, sections: Sequence[Section]) -> str:
    """The page: a title, a line of facts, links to the sections, and these."""
    links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections)
    parts = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-title">'
        f'<h2 id="{s.name}-title">{escape(s.title)}</h2>{s.content}</section>\n'
        for s in sections
    )
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('style.css')}</style></head>\n"
        f'<body><header><h1>{escape(title)}</h1><p class="facts">{escape(facts)}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>{parts}</main>\n<script>\n{_asset('sort.js')}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    file = resources.files("jaxomarl").joinpath("assets", "report", name)
    return file.read_text(encoding="utf-8")

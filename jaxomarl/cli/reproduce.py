"""The command `reproduce`: a paper's table or figure measured again, printed and saved."""

from jaxomarl.api import provenance
from jaxomarl.base import nearest, refuse
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.papers.asked import Asked
from jaxomarl.results import store

NAMES = "\n\n".join(f"{name}: {entry.about}" for name, entry in REPRODUCTIONS.items())
"""Every table and figure with its sentence, for `--help`."""


def known() -> dict[str, str]:
    """The name of each table or figure, and its sentence."""
    return {name: entry.about for name, entry in REPRODUCTIONS.items()}


def table(name: str, asked: Asked, command: str) -> None:
    """Measure a table, print it as Markdown and save it in `out`.

    The `command` that measures it again stands above it. Raises JaxomarlError for an unknown name.
    """
    if name not in REPRODUCTIONS:
        way = nearest(name, REPRODUCTIONS, cutoff=0.3)
        raise refuse("TABLE", f"one of {', '.join(REPRODUCTIONS)}", name, way)
    # asked for now and remembered: a checkout may change while a table is measured
    provenance.source()
    text = f"`{command}`\n\n{REPRODUCTIONS[name].load()(asked)}"
    store.write_bytes(asked.out / f"{name}.md", text.encode(errors="surrogateescape"))
    print(f"\n{text}\n{asked.out / name}.md")

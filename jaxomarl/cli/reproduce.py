"""`reproduce`: a paper's table or figure measured again. `keep`: what lasts of its runs."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from jaxomarl.base import nearest, refuse
from jaxomarl.papers import ALIASES, REPRODUCTIONS, keep, measured
from jaxomarl.papers.asked import Asked
from jaxomarl.results import report, store, tabular

NAMES = "\n\n".join(f"{name}: {entry.about}" for name, entry in REPRODUCTIONS.items())
"""Every table and figure with its sentence, for `--help`."""


def known() -> dict[str, str]:
    """The name of each table or figure, and its sentence."""
    return {name: entry.about for name, entry in REPRODUCTIONS.items()}


def folder(name: str) -> Path:
    """Where a table is written if nobody says where."""
    name = ALIASES.get(name, name)
    entry = REPRODUCTIONS.get(name)
    if entry and entry.out:
        return Path(entry.out)
    return Path("runs") / name


def printed() -> list[report.Printed]:
    """The papers' tables of final scores, for reports."""
    module = importlib.import_module("jaxomarl.papers.printed")
    return module.printed()


def table(name: str, asked: Asked, command: str) -> None:
    """Measure a table, print it as Markdown and save it in `out`, as CSV and LaTeX too.

    The `command` that measures it again stands above it, or below the heading of a page. A figure
    that another command draws is written under that one's name. Raises JaxomarlError for an
    unknown name.
    """
    name = ALIASES.get(name, name)
    if name not in REPRODUCTIONS:
        way = nearest(name, [*REPRODUCTIONS, *ALIASES], cutoff=0.3)
        raise refuse("TABLE", f"one of {', '.join(REPRODUCTIONS)}", name, way)
    entry = REPRODUCTIONS[name]
    facts = measured.provenance(asked, command)
    text = with_command(entry.load()(asked), command)
    if not entry.out:
        store.write_json(asked.out / measured.PROVENANCE, facts)
        write_tables(asked.out / name, text)
    store.write_bytes(asked.out / f"{name}.md", text.encode(errors="surrogateescape"))
    print(f"\n{text}\n{asked.out / name}.md")


def keep_runs(folders: Sequence[Path], out: Path) -> None:
    """Keep what lasts of the runs in folders of `reproduce`, and say how many these are."""
    print(f"{keep.keep(folders, out)} runs\n{out}")


def write_tables(path: Path, text: str) -> None:
    """Write each table of a text in Markdown as .csv and .tex, numbered where there are several."""
    found = tabular.parsed(text)
    for k, shown in enumerate(found, 1):
        number = f"-{k}" if len(found) > 1 else ""
        # a name may have a dot
        tabular.write(path.with_name(f"{path.name}{number}.csv"), shown)


def with_command(text: str, command: str) -> str:
    """A table under its command, or a page whose command stands below its heading."""
    if not text.startswith("# "):
        return f"`{command}`\n\n{text}"
    heading, below = text.split("\n\n", 1)
    return f"{heading}\n\n`{command}`\n\n{below}"

"""Pictures that lie in folders of results, for a page that shows them: films, and drawn figures.

Nothing is drawn or rolled out here.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxomarl.paths import user_path
from jaxomarl.results import film

LARGEST = 300_000
"""Bytes above which a picture is named, and not shown."""
MOST = 12
"""Pictures of a kind that are shown."""
FIGURES = {
    "*directions": "Directions of each regularisation on joint actions, and the policies' paths.",
    "evolution*": "Where policies act while they train, next to the data.",
}
"""Names of figures of coordination, without suffix -> what they show."""
KINDS = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}


class Picture(NamedTuple):
    """A file that a page can hold."""

    name: str
    """Its place below the folder that was asked for."""
    kind: str
    """Its media type."""
    content: bytes
    caption: str


class Pictures(NamedTuple):
    """What was found."""

    shown: list[Picture]
    left_out: list[str]
    """Names of further ones, and why they are not shown."""


def films(folders: Iterable[str | Path]) -> Pictures:
    """The loops and contact sheets below the folders that `render` wrote.

    Raises JaxomarlError without Pillow.
    """
    found = []
    for folder, file in _below(folders, ("*.gif", "*.png")):
        said = film.about(file)
        if said:
            found.append(([file], _name(folder, file), said))
    return _chosen(found)


def figures(folders: Iterable[str | Path]) -> Pictures:
    """The figures of coordination below the folders; of several formats, the first that fits."""
    found = []
    for pattern, said in FIGURES.items():
        for folder, file in _below(folders, (f"{pattern}.png",)):
            copies = [file, file.with_suffix(".svg")]
            found.append(([x for x in copies if is_own(folder, x)], _name(folder, file), said))
    return _chosen(found)


def _below(folders: Iterable[str | Path], patterns: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Files below each folder, once each."""
    seen = set()
    for folder in map(user_path, folders):
        for file in sorted(file for pattern in patterns for file in folder.rglob(pattern)):
            if is_own(folder, file) and file.resolve() not in seen:
                seen.add(file.resolve())
                yield folder, file


def is_own(folder: Path, file: Path) -> bool:
    """Whether it is a file of the folder: a link could bring any other file into the page."""
    return file.is_file() and file.resolve().is_relative_to(folder.resolve())


def _name(folder: Path, file: Path) -> str:
    return str(file.relative_to(folder))


def _chosen(found: Sequence[tuple[list[Path], str, str]]) -> Pictures:
    """The first pictures that are small enough, each in the first format that is."""
    shown = []
    left_out = []
    for files, name, said in found:
        small = [file for file in files if file.stat().st_size <= LARGEST]
        if not small:
            kilobytes = files[0].stat().st_size / 1000
            left_out.append(f"{name} has {kilobytes:,.0f} kB, more than {LARGEST // 1000}")
        elif len(shown) == MOST:
            left_out.append(f"{name} is one of more than {MOST}")
        else:
            file = small[0]
            shown.append(Picture(name, KINDS[file.suffix], file.read_bytes(), f"{said} ({name})"))
    return Pictures(shown, left_out)

"""Other people's formats by name: recognise one, read it, write it. Reading executes nothing that a file says.

Every failure is a JaxomarlError. A reader checks what the format alone can tell; `fit` compares with a task.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.data import (
    folder,
    hdf5,
    madiff,
    minari,
    minari_writer,
    omar,
    omiga,
    pymarl,
    rules,
    vault,
    vault_writer,
)
from jaxomarl.data.raw import Raw, still_states
from jaxomarl.paths import user_path


class Format(NamedTuple):
    """A registry row."""

    about: str
    recognises: Callable[[Path], bool]
    """Whether a path looks like it; it raises nothing but OSError."""
    read: Callable[[Path], Raw]
    write: Callable[[Path, Raw], None] | None = None


FORMATS: dict[str, Format] = {
    "vault": Format(
        "OG-MARL's vault: a folder with metadata.json and manifest.ocdbt",
        vault.recognises,
        vault.read,
        vault_writer.write,
    ),
    "minari": Format(
        "a Minari set in our layout of several agents: data/metadata.json and data/main_data.hdf5",
        minari.recognises,
        minari.read,
        minari_writer.write,
    ),
    "madiff": Format(
        "MADiff's and DoF's preprocessed folder: obs.npy, actions.npy and path_lengths.npy",
        madiff.recognises,
        madiff.read,
    ),
    "omar": Format(
        "OMAR's folder: obs_0.npy, acs_0.npy, ... in it, or in the folders seed_<k>_data of it",
        omar.recognises,
        omar.read,
        omar.write,
    ),
    "omiga": Format("OMIGA's HDF5 file: s, o, a, r, d", omiga.recognises, omiga.read),
    "pymarl": Format(
        "pymarl's and CFCQL's HDF5 file: obs, actions, avail_actions, reward, terminated, filled",
        pymarl.recognises,
        pymarl.read,
    ),
}
"""Format -> row; the first that recognises a path reads it."""


def read(path: str | Path) -> Raw:
    """What a file or folder of a known format holds; JaxomarlError that lists what was looked for when none fits."""
    path = user_path(path)
    name = _recognise(path)
    try:
        raw = FORMATS[name].read(path)
    except JaxomarlError:
        raise
    except (OSError, MemoryError) as error:
        raise refuse(
            str(path), "a set that can be read", str(error)[:200], "Check the disk and the memory."
        ) from None
    raw = raw._replace(quality=folder.guess_quality(path))
    moving, still = still_states(raw)
    if still:
        warning = f"WARNING: the state never changes in {still} of {moving} episodes, while the observations do"
        raw = raw._replace(evidence=(*raw.evidence, warning))
    if raw.dialects:
        return raw._replace(evidence=(*raw.evidence, "the set names its dialect"))
    found, seen = rules.candidates(raw), rules.seen_of(raw)
    if not found:
        return raw._replace(evidence=(*raw.evidence, f"no known rules fit {seen}"))
    said = f"{seen}: as in {' or '.join(dict.fromkeys(x.task for x in found))}"
    dialects = tuple(dict.fromkeys(x.dialect for x in found))
    return raw._replace(dialects=dialects, evidence=(*raw.evidence, said))


def _recognise(path: Path) -> str:
    field = f"--data {path}"
    try:
        if not path.exists():
            raise refuse(
                field,
                "a file or a folder",
                "nothing there",
                "Check the path; our own folders have manifest.json.",
            )
        for name, row in FORMATS.items():
            if row.recognises(path):
                return name
        if hdf5.is_hdf5(path):
            with hdf5.opened(path) as file:  # a damaged one says so here
                found = f"HDF5 with {sorted(file)[:20]}"
        else:
            found = (
                f"{sorted(p.name for p in path.iterdir())[:20]}"
                if path.is_dir()
                else "another file"
            )
        below = [p for p in sorted(path.iterdir())[:200] if p.is_dir()] if path.is_dir() else []
        near = [p for p in below if any(row.recognises(p) for row in FORMATS.values())]
    except OSError as error:
        raise refuse(
            field, "a file or a folder that can be read", str(error)[:200], "Check the path."
        ) from None
    looked = "".join(f"\n  {name}: {row.about}" for name, row in FORMATS.items())
    ours = "\n  our own folder: manifest.json and rows.safetensors"
    hint = f"Did you mean {', '.join(map(str, near[:4]))}? " if near else ""
    raise refuse(
        field,
        f"one of these{looked}{ours}\n",
        found,
        f"{hint}Name the folder that holds the files.",
    )


def write(path: str | Path, raw: Raw, format: str) -> None:
    """Write `raw` in a format that has a writer, into a new or empty folder.

    Raises JaxomarlError for a format without a writer, a place that holds something, and data that the format cannot
    hold.
    """
    writer = FORMATS[format].write if format in FORMATS else None
    if writer is None:
        known = [name for name, row in FORMATS.items() if row.write]
        way = "It can only be read." if format in FORMATS else "Name a format."
        raise refuse("format", f"one of {', '.join(known)}", format, way)
    if not len(raw.step):
        raise refuse(f"to {path}", "at least one row", 0, "The set is empty.")
    try:
        writer(user_path(path), raw)
    except OSError as error:
        raise refuse(
            f"to {path}", "a place to write in", str(error)[:200], "Check the disk."
        ) from None

"""Other people's formats by name: recognise one, read it, write it.

Reading executes nothing that a file says. Every failure is a JaxomarlError. A reader checks what
the format alone can tell; `fit` compares with a task.
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
from jaxomarl.data.raw import Raw, count_constant_states
from jaxomarl.paths import user_path


class Format(NamedTuple):
    """A registry row."""

    about: str
    """The format in one line, for a person who looks for theirs."""
    recognises: Callable[[Path], bool]
    """Whether a path looks like the format. It raises nothing but OSError."""
    read: Callable[[Path], Raw]
    """Reads a path."""
    write: Callable[[Path, Raw], None] | None = None
    """Writes to a path; None where we only read the format."""


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
"""Format -> row. The first that recognises a path reads it."""


# --- reading ---


def read(path: str | Path) -> Raw:
    """The rows of a file or folder of a known format, with a guess of the rules they follow.

    Raises JaxomarlError, which lists what was looked for, where no format fits.
    """
    path = user_path(path)
    name = _recognise(path)
    try:
        raw = FORMATS[name].read(path)
    except JaxomarlError:
        raise
    except (OSError, MemoryError) as error:
        way = "Check the disk and the memory."
        raise refuse(str(path), "a set that can be read", str(error)[:200], way) from None

    raw = raw._replace(quality=folder.guess_quality(path))
    moving, constant = count_constant_states(raw)
    if constant:
        raw = _with_evidence(
            raw,
            f"WARNING: the state never changes in {constant} of {moving} episodes, "
            "while the observations do",
        )
    return _with_dialects(raw)


def _with_dialects(raw: Raw) -> Raw:
    """The rows with the dialects that they name, or else with those that fit them."""
    if raw.dialects:
        return _with_evidence(raw, "the set names its dialect")
    known = rules.candidates(raw)
    widths = rules.describe_widths(raw)
    if not known:
        return _with_evidence(raw, f"no known rules fit {widths}")
    tasks = dict.fromkeys(row.task for row in known)
    dialects = dict.fromkeys(row.dialect for row in known)
    raw = _with_evidence(raw, f"{widths}: as in {' or '.join(tasks)}")
    return raw._replace(dialects=tuple(dialects))


def _with_evidence(raw: Raw, line: str) -> Raw:
    """The rows with one more line of evidence."""
    return raw._replace(evidence=(*raw.evidence, line))


# --- recognising ---


def _recognise(path: Path) -> str:
    """The name of the path's format; JaxomarlError where there is none, or nothing at all."""
    field = f"--data {path}"
    try:
        if not path.exists():
            way = "Check the path; our own folders have manifest.json."
            raise refuse(field, "a file or a folder", "nothing there", way)
        for name, row in FORMATS.items():
            if row.recognises(path):
                return name
        found = _describe_contents(path)
        near = _recognised_below(path)
    except OSError as error:
        expected = "a file or a folder that can be read"
        raise refuse(field, expected, str(error)[:200], "Check the path.") from None

    known = "".join(f"\n  {name}: {row.about}" for name, row in FORMATS.items())
    ours = "\n  our own folder: manifest.json and rows.safetensors"
    way = "Name the folder that holds the files."
    if near:
        way = f"Did you mean {', '.join(map(str, near[:4]))}? {way}"
    raise refuse(field, f"one of these{known}{ours}\n", found, way)


def _describe_contents(path: Path) -> str:
    """What a path of no known format contains."""
    if hdf5.is_hdf5(path):
        # a damaged file is refused here
        with hdf5.opened(path) as file:
            return f"HDF5 with {sorted(file)[:20]}"
    if path.is_dir():
        return f"{sorted(entry.name for entry in path.iterdir())[:20]}"
    return "another file"


def _recognised_below(path: Path) -> list[Path]:
    """Folders right below a path that are of a known format."""
    if not path.is_dir():
        return []
    return [
        entry
        for entry in sorted(path.iterdir())[:200]
        if entry.is_dir() and any(row.recognises(entry) for row in FORMATS.values())
    ]


# --- writing ---


def write(path: str | Path, raw: Raw, format: str) -> None:
    """Write `raw` in a format that has a writer, into a new or empty folder.

    Raises JaxomarlError for a format without a writer, a folder with contents, and data that the
    format cannot hold.
    """
    writer = FORMATS[format].write if format in FORMATS else None
    if writer is None:
        writable = [name for name, row in FORMATS.items() if row.write]
        way = "Name a format."
        if format in FORMATS:
            way = "It can only be read."
        raise refuse("format", f"one of {', '.join(writable)}", format, way)
    if not len(raw.step):
        raise refuse(f"to {path}", "at least one row", 0, "The set is empty.")
    try:
        writer(user_path(path), raw)
    except OSError as error:
        found = str(error)[:200]
        raise refuse(
            f"to {path}", "a folder that can be written", found, "Check the disk."
        ) from None

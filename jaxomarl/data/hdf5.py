"""HDF5 files, opened so that nothing outside of them is read and nothing in them can take all memory.

Refused: soft and external links, external storage, virtual sets, filters other than gzip, lzf, shuffle and fletcher32,
types other than plain numbers, and shapes that the stored bytes cannot hold (a deflated byte makes 1032 at most).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxomarl.base import JaxomarlError, refuse

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
RATIO = 1100
SMALL = 1 << 20  # bytes of a chunk that any file may have
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def h5py() -> ModuleType:
    """The library; JaxomarlError where it is not installed."""
    try:
        import h5py as library
    except ImportError as error:
        raise refuse("HDF5", "h5py installed", str(error), "pip install jaxomarl[data]") from None
    return library


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file open for reading; whatever the library makes of a damaged one becomes a JaxomarlError."""
    library = h5py()
    try:
        if not is_hdf5(path):
            raise refuse(
                str(path), "an HDF5 file", "no signature of one", "Is it whole? Copy it again."
            )
        with library.File(path, "r") as file:
            yield file
    except JaxomarlError:
        raise
    except Exception as error:  # the library raises what its C code happens to meet
        shown = f"{type(error).__name__}: {error}"[:200]
        raise refuse(
            str(path), "a whole HDF5 file", shown, "It is truncated or damaged: copy it again."
        ) from None


def is_hdf5(path: Path) -> bool:
    """Whether the file has HDF5's signature at its beginning, or after a user's block of 512, 1024, 2048, ... bytes.

    Source: HDF5 file format specification, version 3, section II.A.
    """
    if not path.is_file():
        return False
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + len(SIGNATURE) <= size:
            file.seek(at)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            at = max(512, 2 * at)
    return False


def keys(path: Path) -> set[str]:
    """Names at the root of a file, none where it cannot be read."""
    if not is_hdf5(path):
        return set()
    with contextlib.suppress(JaxomarlError), opened(path) as file:
        return set(file)
    return set()


def child(group: Any, name: str, where: str) -> Any:
    """What hangs in a group under a name, by a hard link; JaxomarlError for any other."""
    link = group.get(name, getlink=True) if name in group else None
    if link is None:
        raise refuse(
            f"{where}, {name}",
            "an entry of this name",
            f"{sorted(group)[:20]}",
            "Is it of this format?",
        )
    if not isinstance(link, h5py().HardLink):
        way = "A link can lead to any file of this machine: copy the data themselves."
        raise refuse(f"{where}, {name}", "the data themselves", type(link).__name__, way)
    return group[name]


def array(group: Any, name: str, where: str, axes: tuple[int, ...], rows: int = -1) -> np.ndarray:
    """The numbers of a set in a group, all of them; JaxomarlError as `checked` raises it."""
    return np.asarray(checked(group, name, where, axes, rows)[()])


def checked(group: Any, name: str, where: str, axes: tuple[int, ...], rows: int = -1) -> Any:
    """A set of numbers in a group, not yet read; JaxomarlError for what is refused here or has other axes or rows."""
    library, found, field = h5py(), child(group, name, where), f"{where}, {name}"
    if not isinstance(found, library.Dataset):
        raise refuse(field, "an array", type(found).__name__, "Is it of this format?")
    plan = found.id.get_create_plist()
    if found.is_virtual or found.external:
        way = "External storage can read any file of this machine: copy the data themselves."
        raise refuse(field, "its own storage", "external or virtual storage", way)
    if found.dtype.kind not in "fiub" or found.dtype.itemsize > 8 or found.dtype.subdtype:
        raise refuse(field, "numbers of at most 8 bytes", str(found.dtype), "Save it as float32.")
    if found.shape is None or len(found.shape) not in axes:
        way = "Is it of this format? `python -m experiments.data --help` lists those that are read."
        raise refuse(field, f"{' or '.join(map(str, axes))} axes", f"shape {found.shape}", way)
    if rows >= 0 and found.shape[0] != rows:
        raise refuse(field, f"{rows} rows", found.shape[0], "The arrays must go together.")
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if set(filters) - set(FILTERS):
        raise refuse(field, f"filters {list(FILTERS.values())}", filters, "Save it with gzip.")
    stored = min(found.id.get_storage_size(), Path(found.file.filename).stat().st_size)
    most = stored * (RATIO if filters else 1)
    claimed = int(np.prod([int(n) for n in found.shape], dtype=object)) * found.dtype.itemsize
    if claimed > most:
        raise refuse(
            field,
            f"at most {most} bytes for {stored} stored",
            claimed,
            "It is half-written, or damaged.",
        )
    if found.chunks:
        chunk = int(np.prod([int(n) for n in found.chunks], dtype=object)) * found.dtype.itemsize
        if chunk > max(SMALL, most):
            raise refuse(
                field, f"chunks of at most {max(SMALL, most)} bytes", chunk, "The file is damaged."
            )
    return found


def flat(group: Any, name: str, where: str, rows: int) -> np.ndarray:
    """One number per row, [rows]; a column [rows, 1] is taken for it."""
    found = array(group, name, where, (1, 2), rows)
    if found.ndim == 2 and found.shape[1] != 1:
        raise refuse(f"{where}, {name}", f"shape ({rows}, 1)", found.shape, "One number per row.")
    return found.reshape(-1)

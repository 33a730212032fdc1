"""HDF5 files, opened so that they can neither lead to other files nor take all memory.

Refused are soft and external links, external storage, virtual sets, filters other than gzip, lzf,
shuffle and fletcher32, types other than plain numbers, and shapes that the stored bytes cannot hold
(a deflated byte becomes 1032 at most).
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.paths import check_regular

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
RATIO = 1100
"""Bytes that one stored byte can become, with some room."""
SMALL = 1 << 20
"""Bytes of a chunk that any file may have."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"
OTHER_FORMAT = "Is it of this format?"


def h5py() -> ModuleType:
    """The library; JaxomarlError where it is not installed."""
    try:
        import h5py as library
    except ImportError as error:
        raise refuse("HDF5", "h5py installed", str(error), "pip install 'jaxomarl[data]'") from None
    return library


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file that is open for reading. Whatever the library raises becomes a JaxomarlError."""
    library = h5py()
    try:
        check_regular(path)
        if not is_hdf5(path):
            way = "Is it complete? Copy it again."
            raise refuse(str(path), "an HDF5 file", "no HDF5 signature", way)
        with library.File(path, "r") as file:
            yield file
    except JaxomarlError:
        raise
    # the library raises whatever its C code meets in a damaged file
    except Exception as error:
        found = f"{type(error).__name__}: {error}"[:200]
        way = "It is truncated or damaged: copy it again."
        raise refuse(str(path), "a complete HDF5 file", found, way) from None


def is_hdf5(path: Path) -> bool:
    """Whether the file has HDF5's signature at its beginning, or after a user's block.

    Such a block has 512, 1024, 2048, ... bytes. Source: HDF5 file format specification, version 3,
    section II.A.
    """
    if not path.is_file():
        return False
    size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + len(SIGNATURE) <= size:
            file.seek(position)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            position = max(512, 2 * position)
    return False


def keys(path: Path) -> set[str]:
    """Names at the root of a file; none where it cannot be read."""
    if not is_hdf5(path):
        return set()
    with contextlib.suppress(JaxomarlError), opened(path) as file:
        return set(file)
    return set()


# --- entries of a group ---


def child(group: Mapping[str, Any], name: str, where: str) -> Any:
    """The entry of a group that a hard link leads to; JaxomarlError for any other."""
    field = f"{where}, {name}"
    if name not in group:
        found = f"{sorted(group)[:20]}"
        raise refuse(field, "an entry of this name", found, OTHER_FORMAT)
    link = group.get(name, getlink=True)  # type: ignore[call-overload]
    if not isinstance(link, h5py().HardLink):
        way = "A link can lead to any file of this machine: copy the data themselves."
        raise refuse(field, "the data themselves", type(link).__name__, way)
    return group[name]


def read_array(
    group: Mapping[str, Any], name: str, where: str, axes: tuple[int, ...], rows: int = -1
) -> np.ndarray:
    """All numbers of an array in a group; JaxomarlError as `open_array` raises it."""
    return np.asarray(open_array(group, name, where, axes, rows)[()])


def open_array(
    group: Mapping[str, Any], name: str, where: str, axes: tuple[int, ...], rows: int = -1
) -> Any:
    """An array of numbers in a group, not yet read.

    Raises JaxomarlError for what is refused here, for another number of axes than those in `axes`,
    and for another number of rows, unless `rows` is -1.
    """
    found = child(group, name, where)
    field = f"{where}, {name}"
    if not isinstance(found, h5py().Dataset):
        raise refuse(field, "an array", type(found).__name__, OTHER_FORMAT)
    if found.is_virtual or found.external:
        way = "External storage can read any file of this machine: copy the data themselves."
        raise refuse(field, "data stored in the file itself", "external or virtual storage", way)
    if found.dtype.kind not in "fiub" or found.dtype.itemsize > 8 or found.dtype.subdtype:
        raise refuse(field, "numbers of at most 8 bytes", str(found.dtype), "Save it as float32.")
    if found.shape is None or len(found.shape) not in axes:
        expected = f"{' or '.join(map(str, axes))} axes"
        way = f"{OTHER_FORMAT} `python -m experiments.data --help` lists those that are read."
        raise refuse(field, expected, f"shape {found.shape}", way)
    if rows >= 0 and found.shape[0] != rows:
        raise refuse(field, f"{rows} rows", found.shape[0], "The arrays must go together.")
    _check_storage(found, field)
    return found


def _check_storage(found: Any, field: str) -> None:
    """Raise JaxomarlError for unknown filters, and for more bytes than the stored ones can hold."""
    plan = found.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if set(filters) - set(FILTERS):
        raise refuse(field, f"filters {list(FILTERS.values())}", filters, "Save it with gzip.")

    file_size = Path(found.file.filename).stat().st_size
    stored = min(found.id.get_storage_size(), file_size)
    most = stored * RATIO if filters else stored
    claimed = _bytes(found.shape, found.dtype)
    if claimed > most:
        expected = f"at most {most} bytes for {stored} stored"
        raise refuse(field, expected, claimed, "It is half-written, or damaged.")
    if found.chunks:
        most_chunk = max(SMALL, most)
        chunk = _bytes(found.chunks, found.dtype)
        if chunk > most_chunk:
            expected = f"chunks of at most {most_chunk} bytes"
            raise refuse(field, expected, chunk, "The file is damaged.")


def _bytes(shape: Iterable[int], dtype: np.dtype) -> int:
    """Size of an array, in whole numbers that cannot overflow."""
    return math.prod(int(n) for n in shape) * dtype.itemsize


def read_column(group: Mapping[str, Any], name: str, where: str, rows: int) -> np.ndarray:
    """One number per row, [rows]; a column [rows, 1] is taken for it."""
    found = read_array(group, name, where, (1, 2), rows)
    if found.ndim == 2 and found.shape[1] != 1:
        raise refuse(f"{where}, {name}", f"shape ({rows}, 1)", found.shape, "One number per row.")
    return found.reshape(-1)

"""NumPy's .npy files of plain numbers: mapped, not loaded, and nothing in them is executed.

Layout (NumPy's own format description, versions 1.0 to 3.0): 6 bytes of magic, 2 of version, the
header's length (2 bytes, from version 2.0 on 4), a header of text that names dtype, order and
shape, then the elements.
"""

import math
import mmap
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.paths import check_regular

MAGIC = b"\x93NUMPY"
VERSIONS = (b"\1\0", b"\2\0", b"\3\0")
HEADER_LIMIT = 10_000
"""Bytes of a header, at most."""
HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']{2,40})',"
    r"\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(([0-9, L]*)\),?\s*\}\s*"
)
NUMBER = re.compile(r"(?:[<>=]?[iuf][248]|[|<>=]?[iub]1)")
WAY_OUT = "Is it complete, and written by numpy.save from an array of numbers?"


class Header(NamedTuple):
    """What a file says of its array."""

    dtype: np.dtype
    fortran: bool
    """Whether the first axis varies fastest."""
    shape: tuple[int, ...]


def map_array(path: Path) -> np.ndarray:
    """The array of numbers or booleans in a file, read-only, mapped from the disk.

    Raises JaxomarlError for anything else, object arrays (pickles) included. It is also raised
    where the header's shape is not exactly what the file holds, which is compared before anything
    is allocated.
    """
    field = str(path)
    try:
        size = check_regular(path)
        text, start = _read_header(path, size)
    except OSError as error:
        raise refuse(field, "a file that can be read", error.strerror, "Check the path.") from None

    dtype, fortran, shape = _parse_header(field, text)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - start:
        expected = f"{claimed} bytes for shape {shape} of {dtype}"
        way = "The file is truncated or damaged: copy it again."
        raise refuse(f"{field}, size", expected, size - start, way)
    if not claimed:
        return np.zeros(shape, dtype)
    try:
        order = "F" if fortran else "C"
        mapped = np.memmap(path, dtype, "r", start, shape or (1,), order)
        return mapped if shape else mapped.reshape(())
    except (OSError, ValueError, OverflowError) as error:
        raise refuse(field, f"an array of shape {shape}", str(error), WAY_OUT) from None


def _read_header(path: Path, size: int) -> tuple[str, int]:
    """The header's text, and where the elements start."""
    field = str(path)
    with path.open("rb") as file:
        head = file.read(12)
        if head[:6] != MAGIC:
            raise refuse(field, "a .npy file", "another signature", WAY_OUT)
        version = head[6:8]
        if version not in VERSIONS or len(head) < 12:
            raise refuse(field, "version 1.0, 2.0 or 3.0", tuple(version), WAY_OUT)
        if version == VERSIONS[0]:
            (length,) = struct.unpack("<H", head[8:10])
            text_start = 10
        else:
            (length,) = struct.unpack("<I", head[8:12])
            text_start = 12
        if length > min(HEADER_LIMIT, size - text_start):
            expected = f"a header of at most {min(HEADER_LIMIT, size)} bytes"
            raise refuse(field, expected, length, WAY_OUT)
        file.seek(text_start)
        return file.read(length).decode("latin-1"), text_start + length


def _parse_header(field: str, text: str) -> Header:
    """Dtype, order and shape; JaxomarlError for anything but an array of numbers."""
    matched = HEADER.fullmatch(text)
    if not matched:
        expected = "dtype, order and shape of an array of numbers"
        found = text[:80]
        if "'descr': [" in text:
            found = "an array with fields"
        raise refuse(f"{field}, header", expected, found, WAY_OUT)

    dtype = matched[1]
    if "O" in dtype:
        way = "It would be unpickled, and a pickle can run anything: save numbers instead."
        raise refuse(f"{field}, dtype", "numbers", "Python objects", way)
    if not NUMBER.fullmatch(dtype):
        expected = "numbers of 1, 2, 4 or 8 bytes"
        raise refuse(f"{field}, dtype", expected, dtype, "Save it as float32.")

    sizes = matched[3]
    try:
        shape = tuple(int(x.strip().removesuffix("L")) for x in sizes.split(",") if x.strip())
    except ValueError:
        raise refuse(f"{field}, shape", "whole numbers", sizes[:80], WAY_OUT) from None
    if len(shape) > 8 or any(n > 1 << 48 for n in shape):
        raise refuse(f"{field}, shape", "at most 8 axes", sizes[:80], WAY_OUT)
    return Header(np.dtype(dtype), matched[2] == "True", shape)


def map_table(path: Path, axes: tuple[int, ...], rows: int = -1) -> np.ndarray:
    """An array whose number of axes is one of `axes`, with `rows` rows unless that is -1."""
    array = map_array(path)
    if array.ndim not in axes:
        expected = f"{' or '.join(map(str, axes))} axes"
        raise refuse(str(path), expected, f"shape {array.shape}", "Is it of this format?")
    if rows >= 0 and len(array) != rows:
        expected = f"{rows} rows, as in the first file"
        raise refuse(str(path), expected, len(array), "Save as many rows in each.")
    return array


def map_column(path: Path, rows: int) -> np.ndarray:
    """One number per row, [rows]; a column [rows, 1] is taken for it."""
    array = map_table(path, (1, 2), rows)
    if array.ndim == 2 and array.shape[1] != 1:
        raise refuse(str(path), f"shape ({rows},)", array.shape, "One number per row.")
    return np.asarray(array).reshape(-1)


def release(array: np.ndarray) -> None:
    """Release the memory that a mapped file takes; its pages are read again when needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)

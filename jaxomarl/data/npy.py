"""NumPy's .npy files of plain numbers, mapped and not loaded; nothing in them is executed.

Layout (NumPy's own format description, versions 1.0 to 3.0): 6 bytes of magic, 2 of version, the header's length
(2 bytes, from version 2.0 on 4), a header of text that names dtype, order and shape, then the elements.
"""

import math
import mmap
import re
import struct
from pathlib import Path

import numpy as np

from jaxomarl.base import refuse

MAGIC = b"\x93NUMPY"
HEADER_LIMIT = 10_000
HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']{2,40})',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([0-9, L]*)\),?\s*\}\s*"
)
NUMBER = re.compile(r"(?:[<>=]?[iuf][248]|[|<>=]?[iub]1)")
WAY_OUT = "Is it whole, and written by numpy.save from an array of numbers?"


def load(path: Path) -> np.ndarray:
    """The array of numbers or booleans in a file, read-only, mapped from the disk.

    Raises JaxomarlError for anything else, object arrays (pickles) among it, and where the header's shape is not
    exactly what the file holds: that is compared before anything is allocated.
    """
    field = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(12)
            if head[:6] != MAGIC:
                raise refuse(field, "a .npy file", "another beginning", WAY_OUT)
            version, wide = head[6:8], head[6:7] != b"\1"
            if version not in (b"\1\0", b"\2\0", b"\3\0") or len(head) < 12:
                raise refuse(field, "version 1.0, 2.0 or 3.0", tuple(version), WAY_OUT)
            length = (
                struct.unpack("<I", head[8:12])[0] if wide else struct.unpack("<H", head[8:10])[0]
            )
            start = 12 if wide else 10
            if length > min(HEADER_LIMIT, size - start):
                raise refuse(
                    field, f"a header of at most {min(HEADER_LIMIT, size)} bytes", length, WAY_OUT
                )
            file.seek(start)
            text = file.read(length).decode("latin-1")
    except OSError as error:
        raise refuse(field, "a file that can be read", error.strerror, "Check the path.") from None
    dtype, fortran, shape = _parse(field, text)
    claimed, held = math.prod(shape) * dtype.itemsize, size - start - length
    if claimed != held:
        way = "The file is truncated or damaged: copy it again."
        raise refuse(f"{field}, size", f"{claimed} bytes for shape {shape} of {dtype}", held, way)
    if not claimed:
        return np.zeros(shape, dtype)
    try:
        mapped = np.memmap(path, dtype, "r", start + length, shape or (1,), "F" if fortran else "C")
        return mapped if shape else mapped.reshape(())
    except (OSError, ValueError, OverflowError) as error:
        raise refuse(field, f"an array of shape {shape}", str(error), WAY_OUT) from None


def _parse(field: str, text: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    found = HEADER.fullmatch(text)
    if not found:
        shown = "an array with fields" if "'descr': [" in text else text[:80]
        raise refuse(
            f"{field}, header", "dtype, order and shape of an array of numbers", shown, WAY_OUT
        )
    if "O" in found[1]:
        way = "It would be unpickled, and a pickle can run anything: save numbers instead."
        raise refuse(f"{field}, dtype", "numbers", "Python objects", way)
    if not NUMBER.fullmatch(found[1]):
        raise refuse(
            f"{field}, dtype", "numbers of 1, 2, 4 or 8 bytes", found[1], "Save it as float32."
        )
    try:
        shape = tuple(int(x.strip().removesuffix("L")) for x in found[3].split(",") if x.strip())
    except ValueError:
        raise refuse(f"{field}, shape", "whole numbers", found[3][:80], WAY_OUT) from None
    if len(shape) > 8 or any(n > 1 << 48 for n in shape):
        raise refuse(f"{field}, shape", "at most 8 axes", found[3][:80], WAY_OUT)
    return np.dtype(found[1]), found[2] == "True", shape


def table(path: Path, axes: tuple[int, ...], rows: int = -1) -> np.ndarray:
    """An array of a number of axes out of `axes`, with `rows` rows unless that is -1."""
    array = load(path)
    if array.ndim not in axes:
        raise refuse(
            str(path),
            f"{' or '.join(map(str, axes))} axes",
            f"shape {array.shape}",
            "Is it of this format?",
        )
    if rows >= 0 and len(array) != rows:
        raise refuse(
            str(path),
            f"{rows} rows, as in the first file",
            len(array),
            "Save as many rows in each.",
        )
    return array


def flat(path: Path, rows: int) -> np.ndarray:
    """One number per row, [rows]; a column [rows, 1] is taken for it."""
    array = table(path, (1, 2), rows)
    if array.ndim == 2 and array.shape[1] != 1:
        raise refuse(str(path), f"shape ({rows},)", array.shape, "One number per row.")
    return np.asarray(array).reshape(-1)


def release(array: np.ndarray) -> None:
    """Let go of the memory that the mapped file takes; its pages are read again when they are wanted."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)

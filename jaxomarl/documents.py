"""JSON files that may be damaged or foreign: they are read with checked types, or refused."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxomarl.base import refuse
from jaxomarl.paths import replace_file

LIMIT = 1 << 24
"""Most bytes of a file; the largest that this package writes holds a few thousand."""
SHOWN = 200
"""Most characters of a message that repeats the text of a file."""
NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    type(None): "null",
}
"""What messages call each type."""


def read(path: str | Path, way: str, **entries: type) -> dict[str, Any]:
    """The object in a JSON file, once the named entries are known to have the given types.

    A float entry may be a whole number. `way` is what the reader of a refusal can do.
    Raises JaxomarlError where the file is missing, larger than LIMIT, no JSON or nested too deep,
    where it holds no object, and where an entry is missing or has another type.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise refuse(str(path), "a JSON object", "lists nested too deep", way) from None
    except (OSError, ValueError) as error:
        raise refuse(str(path), "a JSON object", str(error)[:SHOWN], way) from None

    if not isinstance(content, dict):
        raise refuse(str(path), "a JSON object", NAMES[type(content)], way)
    return check(str(path), content, way, **entries)


SEAL = "sha256"
"""Entry with the digest of a file's other entries, of the files that `write_sealed` writes."""


def seal(entries: Mapping[str, Any]) -> str:
    """A digest of an object's entries, whatever their order."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def write_sealed(path: str | Path, entries: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step, with a digest of its entries among them."""
    # as they are read: tuples become lists, and numbers that name entries become texts
    plain = json.loads(json.dumps(entries))
    text = json.dumps({**plain, SEAL: seal(plain)}, indent=1)
    replace_file(path, f"{text}\n".encode())


def read_sealed(path: str | Path, way: str, **entries: type) -> dict[str, Any]:
    """As `read`, of a file of `write_sealed`; an older one has no digest.

    Raises JaxomarlError also where the digest is not that of the other entries.
    """
    found = read(path, way, **entries)
    written = found.pop(SEAL, None)
    if written is not None and written != seal(found):
        raise refuse(f"{path}", "the entries that were written", "others: it is damaged", way)
    return found


def check(where: str, found: Mapping[str, Any], way: str, **entries: type) -> dict[str, Any]:
    """A copy of the object `found`, once its named entries are known to have the given types.

    Raises JaxomarlError where an entry is missing, has another type, or is a number that is not
    finite.
    """
    missing = sorted(set(entries) - set(found))
    if missing:
        expected = "the entries " + ", ".join(sorted(entries))
        raise refuse(where, expected, f"no {', '.join(missing)}", way)

    for name, wanted in entries.items():
        value = found[name]
        kind = type(value)
        if wanted is float:
            accepted = kind in (int, float) and math.isfinite(value)
        else:
            accepted = kind is wanted
        if not accepted:
            given = f"{NAMES[kind]} {str(value)[:40]}"
            raise refuse(f"{where}, {name}", NAMES[wanted], given, way)
    return dict(found)

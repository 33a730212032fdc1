"""JSON files that may be damaged or come from elsewhere: read with the right types, or refused in short words."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxomarl.base import refuse

LIMIT = 1 << 24
"""Bytes of a file; the largest that this package writes holds a few thousand."""
SHOWN = 200
"""Characters of a message that repeats what a file says."""
NAMES: dict[type, str] = {
    str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "an object", bool: "true or false",
    type(None): "null",
}  # fmt: skip


def read(path: str | Path, way: str, **entries: type) -> dict[str, Any]:
    """The object in a JSON file, with the entries asked for, each of its type; a float may be a whole number.

    `way` is what the reader of a refusal can do. Raises JaxomarlError where the file is missing, larger than LIMIT,
    no JSON, nested too deep, no object, or lacks an entry or has it of another type.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise refuse(str(path), "a JSON object", "lists nested too deep", way) from None
    except (OSError, ValueError) as error:
        raise refuse(str(path), "a JSON object", str(error)[:SHOWN], way) from None
    if not isinstance(found, dict):
        raise refuse(str(path), "a JSON object", NAMES[type(found)], way)
    return check(str(path), found, way, **entries)


def check(where: str, found: Mapping[str, Any], way: str, **entries: type) -> dict[str, Any]:
    """The object again; JaxomarlError where it lacks an entry, or has it of another type or not finite."""
    missing = sorted(set(entries) - set(found))
    if missing:
        raise refuse(
            where, "the entries " + ", ".join(sorted(entries)), f"no {', '.join(missing)}", way
        )
    for name, wanted in entries.items():
        value, kind = found[name], type(found[name])
        number = wanted is float and kind in (int, float) and math.isfinite(value)
        if not number and (kind is not wanted or wanted is float):
            raise refuse(f"{where}, {name}", NAMES[wanted], f"{NAMES[kind]} {str(value)[:40]}", way)
    return dict(found)

"""JSON files that may be damaged or foreign: they are read with checked types, or refused.

What an entry may be is a kind:

| kind | the value |
|---|---|
| str, int, bool, list, dict | of this type; a whole number has at most 64 bits |
| float | a finite number, whole or not |
| None | null |
| [kind] | a list of such values |
| {name: kind} | an object with these entries, and maybe others |
| (kind, kind) | one of these |
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxomarl.base import refuse
from jaxomarl.paths import read_file, replace_file

Kind = Any
"""What an entry may be: a type, or a structure of types."""
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


def read(path: str | Path, way: str, **entries: Kind) -> dict[str, Any]:
    """The object in a JSON file, once the named entries are known to be of the given kinds.

    `way` is what the reader of a refusal can do.
    Raises JaxomarlError where the file is missing, larger than LIMIT, no JSON or nested too deep,
    where it holds no object, and where an entry is missing or of another kind.
    """
    path = Path(path)
    try:
        content = json.loads(read_file(path, LIMIT).decode())
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


def read_sealed(path: str | Path, way: str, **entries: Kind) -> dict[str, Any]:
    """As `read`, of a file of `write_sealed`; an older one has no digest.

    Raises JaxomarlError also where the digest is not that of the other entries.
    """
    found = read(path, way, **entries)
    written = found.pop(SEAL, None)
    if written is not None and written != seal(found):
        raise refuse(f"{path}", "the entries that were written", "others: it is damaged", way)
    return found


def check(where: str, found: Mapping[str, Any], way: str, **entries: Kind) -> dict[str, Any]:
    """A copy of the object `found`, once its named entries are known to be of the given kinds.

    Raises JaxomarlError where an entry is missing or of another kind.
    """
    missing = sorted(set(entries) - set(found))
    if missing:
        expected = "the entries " + ", ".join(sorted(entries))
        raise refuse(where, expected, f"no {', '.join(missing)}", way)
    check_known(where, found, way, **entries)
    return dict(found)


def check_known(where: str, found: Mapping[str, Any], way: str, **entries: Kind) -> None:
    """Raise JaxomarlError where one of the named entries is there, and of another kind."""
    for name, kind in entries.items():
        if name in found and not is_of(found[name], kind):
            value = found[name]
            given = f"{NAMES[type(value)]} {str(value)[:40]}"
            raise refuse(f"{where}, {name}", words(kind), given, way)


def is_of(value: Any, kind: Kind) -> bool:
    """Whether a JSON value is of a kind."""
    if isinstance(kind, tuple):
        return any(is_of(value, one) for one in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(is_of(x, kind[0]) for x in value)
    if isinstance(kind, dict):
        entries = kind.items()
        return isinstance(value, dict) and all(
            n in value and is_of(value[n], k) for n, k in entries
        )
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and abs(value) < 1 << 63
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is kind


def words(kind: Kind) -> str:
    """A kind in the words of a message."""
    if isinstance(kind, tuple):
        return " or ".join(map(words, kind))
    if isinstance(kind, list):
        return f"a list of which each is {words(kind[0])}"
    if isinstance(kind, dict):
        return "an object with " + ", ".join(f"{name}: {words(of)}" for name, of in kind.items())
    return NAMES[type(None) if kind is None else kind]

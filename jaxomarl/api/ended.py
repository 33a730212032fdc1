"""What a finished sweep leaves in OUT/DONE, so that the same command prints it again at once.

DONE has the digest of the plan, the records of the summary, and the size and a digest of every file
below OUT. Where one of them differs, the command is carried out again: it trains what is missing
and mends what is damaged.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from jaxomarl import documents
from jaxomarl.api.plan import Group
from jaxomarl.api.session import Writer
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.config import digest
from jaxomarl.results.tables import Record
from jaxomarl.training import hosts

FILE = "DONE"
KINDS: dict[str, documents.Kind] = {
    "plan": str,
    "sizes": dict,
    "files": dict,
    "records": [list],
    "pictures": [str],
    # unlike older files, each has its digest
    documents.SEAL: str,
}
"""What it holds, and its kinds."""
WAY = "Delete it: --resume writes it again."


class Ended(NamedTuple):
    """A sweep that has nothing left to do."""

    records: list[Record]
    pictures: list[Path]


def write(out: Path, groups: Sequence[Group], ended: Ended) -> None:
    """Write DONE, where one host has written the folder."""
    if hosts.count() > 1:
        return
    facts = {
        "plan": plan_digest(out, groups),
        "sizes": {name: path.stat().st_size for name, path in files_of(out).items()},
        "files": {name: digest_of(path) for name, path in files_of(out).items()},
        "records": ended.records,
        "pictures": [path.name for path in ended.pictures],
    }
    documents.write_sealed(out / FILE, facts)


def find(out: Path, groups: Sequence[Group]) -> Ended | None:
    """The same sweep's end, where all of its files are as they were written; else None."""
    if hosts.count() > 1 or not (out / FILE).exists():
        return None
    try:
        found = documents.read_sealed(out / FILE, WAY, **KINDS)
        records = [record_of(values) for values in found["records"]]
        if found["plan"] != plan_digest(out, groups):
            return None
        # a file of another size needs no digest
        files = files_of(out)
        if found["sizes"] != {name: path.stat().st_size for name, path in files.items()}:
            return None
        if found["files"] != {name: digest_of(path) for name, path in files.items()}:
            return None
    except (JaxomarlError, OSError):
        return None
    if not set(found["pictures"]) <= set(found["files"]):
        return None
    return Ended(records, [out / name for name in found["pictures"]])


def record_of(values: list[Any]) -> Record:
    """A record from its values; JaxomarlError where one is missing or of another type."""
    kinds = get_type_hints(Record)
    alike = [is_like(value, kind) for value, kind in zip(values, kinds.values(), strict=False)]
    if len(values) != len(kinds) or not all(alike):
        raise refuse(FILE, f"records of {len(kinds)} values", values, WAY)
    return Record(*values)


def is_like(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type: a whole number is a number, of at most 64 bits."""
    kinds = get_args(kind) or (kind,)
    if type(value) is int:
        return documents.is_of(value, int) and not {int, float}.isdisjoint(kinds)
    return type(value) in kinds


def plan_digest(out: Path, groups: Sequence[Group]) -> str:
    """A digest of all that is known of the runs before their training, and of their folders."""
    facts: list[Any] = []
    for group in groups:
        writer = Writer(out, group)
        facts += zip(writer.folders, writer.infos, strict=True)
    return digest(*[(str(folder.relative_to(out)), info) for folder, info in facts])


def files_of(out: Path) -> dict[str, Path]:
    """Name -> file below OUT, but for DONE, the lock, and sweep.json, which is checked."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and name not in (FILE, "sweep.json", ".lock"):
            found[name] = path
    return found


def digest_of(path: Path) -> str:
    """A digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

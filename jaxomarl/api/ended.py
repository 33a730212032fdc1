"""What a finished sweep leaves in OUT/DONE, so that the same command prints it again at once.

DONE has the digest of the plan, the records of the summary, and a digest of every file below OUT.
Where one of them differs, the command is carried out again: it trains what is missing and mends
what is damaged.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxomarl import documents
from jaxomarl.api.plan import Group
from jaxomarl.api.session import Writer
from jaxomarl.base import JaxomarlError
from jaxomarl.config import digest
from jaxomarl.results.tables import Record
from jaxomarl.training import hosts

FILE = "DONE"
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
        "files": file_digests(out),
        "records": ended.records,
        "pictures": [path.name for path in ended.pictures],
    }
    documents.write_sealed(out / FILE, facts)


def find(out: Path, groups: Sequence[Group]) -> Ended | None:
    """The same sweep's end, where all of its files are as they were written; else None."""
    if hosts.count() > 1 or not (out / FILE).exists():
        return None
    try:
        # unlike older files, each has its digest
        kinds = {"plan": str, "files": dict, "records": [list], "pictures": [str]}
        found = documents.read_sealed(out / FILE, WAY, **kinds, **{documents.SEAL: str})
        records = [Record(*record) for record in found["records"]]
    except (JaxomarlError, TypeError):
        return None
    if found["plan"] != plan_digest(out, groups) or found["files"] != file_digests(out):
        return None
    return Ended(records, [out / name for name in found["pictures"]])


def plan_digest(out: Path, groups: Sequence[Group]) -> str:
    """A digest of all that is known of the runs before their training, and of their folders."""
    facts: list[Any] = []
    for group in groups:
        writer = Writer(out, group)
        facts += zip(writer.folders, writer.infos, strict=True)
    return digest(*[(str(folder.relative_to(out)), info) for folder, info in facts])


def file_digests(out: Path) -> dict[str, str]:
    """A digest of each file below OUT, but for DONE, the lock, and sweep.json, which is checked."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and name not in (FILE, "sweep.json", ".lock"):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found

"""Why `--resume` reuses nothing: what the results in a folder were made of, compared with what is asked for now."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxomarl.base import JaxomarlError
from jaxomarl.cli import session
from jaxomarl.cli.plan import Group
from jaxomarl.cli.provenance import source
from jaxomarl.config import static_fields
from jaxomarl.results import store


def tell(groups: Sequence[Group], out: Path) -> None:
    """Print the reasons to stderr."""
    for line in reasons(groups, out):
        print(line, file=sys.stderr)


def reasons(groups: Sequence[Group], out: Path) -> Iterator[str]:
    """One line for each group that a folder has results like, none of which can be continued.

    A group that only adds values to a sweep has no line.
    """
    for group in groups:
        before = list(_runs(group, out))
        if not before or any(info["group"] == group.digest for info in before):
            continue
        changed = [_changes(info, group) for info in before]
        if all(changed):
            found = "; ".join(min(changed, key=len))
            name = f"{group.name} on {group.task.name}/{group.quality}"
            yield f"nothing of {name} is resumed, it is trained again beside what is there: {found}"


def _runs(group: Group, out: Path) -> Iterator[dict[str, Any]]:
    """run.json of one run of each group of this system, task and quality, with its group's digest."""
    folder = out / group.task.name.replace("/", "-") / group.quality
    for found in sorted(folder.glob(f"{group.name}-*")):
        name, _, digest = found.name.rpartition("-")
        runs = sorted(found.glob("*/run.json"))
        if name != group.name or not runs:
            continue
        try:
            info = store.read_json(runs[0])
        except (OSError, JaxomarlError):
            continue
        if isinstance(info, dict):
            yield {**info, "group": digest}


def _changes(info: dict[str, Any], group: Group) -> list[str]:
    """What differs, in words, apart from the values of a sweep."""
    lines = []
    was, now = str(info.get("data_sha256", "")), str(group.manifest["sha256"])
    if was != now:
        lines.append(f"its data were {was[:8]} and are {now[:8]}")
    swept = set(info.get("swept") or {}) | {name for values in group.swept for name in values}
    cfg = info.get("cfg") or {}
    for name, value in static_fields(group.cfgs[0]).items():
        if name not in swept and cfg.get(name) != value:
            lines.append(f"{name} was {cfg.get(name)!r} and is {value!r}")
    return lines + _other_code(info) if lines else []


def _other_code(info: dict[str, Any]) -> list[str]:
    """Versions and commit that are not those of a run: why its data or defaults may differ."""
    made, here = info.get("versions") or {}, session.versions()
    lines = []
    for name in sorted({*made, *here}):
        if made.get(name) != here.get(name):
            lines.append(f"{name} was {made.get(name)} and is {here.get(name)}")
    before, now = (info.get("source") or {}).get("commit"), source().get("commit")
    if before != now:
        lines.append(f"the commit was {before} and is {now}")
    return lines

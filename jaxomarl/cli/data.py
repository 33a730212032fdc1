"""What is in a data set, whether it fits a task, and the same set in another format: the command `data`."""

import difflib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxomarl.base import JaxomarlError, Task, refuse
from jaxomarl.cli.data_flags import Convert, Data, Describe, Diff, Validate
from jaxomarl.data import card, catalog, compare, files, formats
from jaxomarl.data.fit import fit
from jaxomarl.data.raw import Raw, seen
from jaxomarl.envs.catalog import make, names
from jaxomarl.paths import user_path
from jaxomarl.results import card_text, cards
from jaxomarl.results.store import write_bytes

OURS = "jaxomarl"
"""Name of our own folder format among the others."""


class Found(NamedTuple):
    """A set that was asked for."""

    raw: Raw
    task: Task | None
    """Its task, where the user or the set itself names one."""
    manifest: dict[str, Any] | None
    """Of a recipe and of our own folder: it is fitted already."""


def run(asked: Data) -> int:
    """Do it; the exit code."""
    command = asked.command
    if isinstance(command, Describe):
        return describe(command)
    if isinstance(command, Validate):
        return validate(command)
    if isinstance(command, Convert):
        return convert(command)
    return diff(command)


def find(source: str, task: str = "", rows: int = 0) -> Found:
    """The set at a path, or of a recipe; JaxomarlError where it is neither."""
    path = user_path(source)
    if not path.exists():
        return _recipe(source, task, rows)
    if rows:
        raise refuse("--rows", "nothing beside a path", rows, "A file's rows are what they are.")
    named = make(task) if task else None
    if not (path / files.MANIFEST).is_file():
        return Found(formats.read(path), named, None)
    named = named or _own_task(path)
    data, manifest = files.load(path, named.env.spec)
    origin = manifest.get("origin")
    raw = seen(data, named.env.spec, str(manifest["quality"]))
    held = tuple(origin.get("repairs", ())) if isinstance(origin, dict) else ()
    return Found(
        raw._replace(evidence=("the folder's manifest says so",), repairs=held), named, manifest
    )


def mixed(source: str, task: str, rows: int) -> Found:
    """One of several sets: `task` is meant for the paths among them, and `rows` for the recipes."""
    path = user_path(source).exists()
    return find(source, task if path else "", 0 if path else rows)


def _own_task(path: Path) -> Task:
    """The task that our own folder names, before the folder is checked against it."""
    return make(files.read_manifest(path)["task"])


def _recipe(source: str, task: str, rows: int) -> Found:
    """The set TASK/QUALITY, or a task's default quality."""
    base, _, quality = source.rpartition("/")
    known = names()
    if source.partition(":")[0] in known:
        base, quality = source, ""
    if base.partition(":")[0] not in known or source.startswith((".", "/", "~")):
        near = difflib.get_close_matches(
            source, [f"{t}/{make(t).quality}" for t in known if t.startswith(source[:3])]
        )
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        way = f"{hint}A recipe is TASK/QUALITY, like mpe/spread/medium."
        raise refuse("PATH|RECIPE", "a path that exists, or a recipe", source, way)
    found = make(base)
    if task and make(task).name != found.name:
        raise refuse(
            "--task",
            f"{found.name}, or nothing beside a recipe",
            task,
            "The recipe names its task.",
        )
    data, manifest = catalog.load(found, quality, rows)
    raw = seen(data, found.env.spec, manifest["quality"])
    return Found(raw._replace(evidence=("the recipe's task has these rules",)), found, manifest)


# --- the four commands ---


def describe(asked: Describe) -> int:
    """Print the cards, and write them where --out says."""
    if not asked.sources:
        raise refuse("PATH|RECIPE", "at least one", "none", "For example mpe/spread/medium.")
    if asked.out:
        _folder("--out", asked.out)
    made = []
    for source in asked.sources:
        found = mixed(source, asked.task, asked.rows)
        made.append(card.describe(found.raw, source, found.task))
    text = "\n\n".join(map(card_text.text, made))
    as_json = json.dumps(made, indent=1, allow_nan=False)
    print(as_json if asked.json else text)
    if asked.out:
        write_bytes(asked.out / "card.txt", f"{text}\n".encode())
        write_bytes(asked.out / "card.json", f"{as_json}\n".encode())
        try:
            cards.picture(asked.out / "card.png", made)
        except JaxomarlError as error:
            print(f"no picture: {error}", file=sys.stderr)
    return 0


def validate(asked: Validate) -> int:
    """Say what training on the set would find; a refusal is raised."""
    if not user_path(asked.source).exists():
        raise refuse("PATH", "a file or a folder", asked.source, "A recipe always fits its task.")
    found = find(asked.source, asked.task)
    assert found.task is not None
    manifest = found.manifest or fit(found.raw, found.task)[1]
    origin = manifest["origin"]
    repairs = origin.get("repairs", [])
    lines = [
        f"fits {found.task.name}: {manifest['transitions']:,} transitions in {manifest['episodes']:,} episodes"
    ]
    lines += [f"  evidence: {x}" for x in found.raw.evidence]
    lines += [f"  repaired: {x}" for x in repairs] or ["  nothing had to be repaired"]
    lost = origin.get(
        "unknown_successors", int(((found.raw.left > 0) & (found.raw.known == 0)).sum())
    )
    lines += (
        [f"  {lost:,} transitions have no known successor: they are not bootstrapped"]
        if lost
        else []
    )
    print("\n".join(lines))
    return 0


def convert(asked: Convert) -> int:
    """Read, fit where a task is named, write."""
    writers = [name for name, row in formats.FORMATS.items() if row.write] + [OURS]
    if asked.to not in writers:
        near = difflib.get_close_matches(asked.to, writers, n=1)
        reads = "It can only be read. " if asked.to in formats.FORMATS else ""
        way = f"{reads}Did you mean {near[0]}?" if near else f"{reads}Name one of them."
        raise refuse("--to", f"one of {', '.join(writers)}", asked.to, way)
    if asked.to_path.exists() and (not asked.to_path.is_dir() or any(asked.to_path.iterdir())):
        raise refuse("DST", "a new folder, or an empty one", str(asked.to_path), "Name another.")
    found = find(asked.source, asked.task, asked.rows)
    if asked.to != OURS:
        formats.write(asked.to_path, _fitted(found) if asked.task else found.raw, asked.to)
    elif found.task is None:
        raise refuse(
            "--task",
            "a task that the set is fitted to",
            "none",
            "Our own folder holds data of a task.",
        )
    else:
        data, manifest = fit(found.raw, found.task)
        if found.manifest:
            manifest["origin"] = found.manifest["origin"]
        _folder("DST", asked.to_path)
        files.save(asked.to_path, data, manifest)
    print(asked.to_path)
    return 0


def diff(asked: Diff) -> int:
    """Print how two sets differ; 1 where they do."""
    found = [mixed(source, asked.task, asked.rows) for source in (asked.a, asked.b)]
    task = make(asked.task) if asked.task else found[0].task or found[1].task
    a, b = (_fitted(x) if asked.task else x.raw for x in found)
    result = compare.compare(a, b, task)
    print(
        json.dumps(result, indent=1, allow_nan=False)
        if asked.json
        else card_text.difference(result)
    )
    return 0 if result["same"] else 1


def _fitted(found: Found) -> Raw:
    """The rows as training sees them, in the set's own format's name."""
    if found.manifest or found.task is None:
        return found.raw
    data, manifest = fit(found.raw, found.task)
    return seen(data, found.task.env.spec, manifest["quality"])


def _folder(field: str, path: Path) -> None:
    """Make a folder to write in; JaxomarlError where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise refuse(
            field, "a folder to write in", str(path), f"{error.strerror}. Name another."
        ) from None

"""The command `data`: describe, validate, convert and compare data sets."""

import difflib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxomarl.api import generated
from jaxomarl.base import JaxomarlError, Task, refuse
from jaxomarl.cli.data_flags import Convert, Data, Describe, Diff, Validate
from jaxomarl.data import card, compare, files, formats
from jaxomarl.data.fit import fit
from jaxomarl.data.raw import Raw, from_dataset
from jaxomarl.envs.catalog import is_known, make, names
from jaxomarl.paths import user_path
from jaxomarl.results import canvas, card_text, cards
from jaxomarl.results.store import write_bytes

OURS = "jaxomarl"
"""Name of our own folder format among the others."""


class Found(NamedTuple):
    """A set that was asked for."""

    raw: Raw
    task: Task | None
    """Its task, where the user or the set itself names one."""
    manifest: dict[str, Any] | None
    """The manifest of a recipe or of our own folder, which are fitted already; else None."""


def run(asked: Data) -> int:
    """Do what was asked; the exit code."""
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
        raise refuse("--rows", "nothing with a path", rows, "A file's rows are what they are.")
    named = None
    if task:
        named = make(task)
    if not (path / files.MANIFEST).is_file():
        return Found(formats.read(path), named, None)
    named = named or _own_task(path)
    data, manifest = files.load_folder(path, named.env.spec)
    raw = from_dataset(data, named.env.spec, str(manifest["quality"]))
    raw = raw._replace(evidence=("the folder's manifest says so",), repairs=_repairs(manifest))
    return Found(raw, named, manifest)


def _repairs(manifest: dict[str, Any]) -> tuple[str, ...]:
    """The repairs that a manifest lists."""
    origin = manifest.get("origin")
    if not isinstance(origin, dict):
        return ()
    return tuple(origin.get("repairs", ()))


def mixed(source: str, task: str, rows: int) -> Found:
    """One of several sets: `task` is meant for the paths among them, and `rows` for the recipes."""
    if user_path(source).exists():
        return find(source, task)
    return find(source, rows=rows)


def _own_task(path: Path) -> Task:
    """The task that our own folder names, before the folder is checked against it."""
    return make(files.read_manifest(path)["task"])


def _recipe(source: str, task: str, rows: int) -> Found:
    """The set TASK/QUALITY, or a task's default quality."""
    base, _, quality = source.rpartition("/")
    known = names()
    if is_known(source.partition(":")[0]):
        base, quality = source, ""
    if not is_known(base.partition(":")[0]) or source.startswith((".", "/", "~")):
        recipes = [f"{t}/{make(t).quality}" for t in known if t.startswith(source[:3])]
        near = difflib.get_close_matches(source, recipes)
        way = "A recipe is TASK/QUALITY, like mpe/spread/medium."
        if near:
            way = f"Did you mean {' or '.join(near)}? {way}"
        raise refuse("PATH|RECIPE", "a path that exists, or a recipe", source, way)
    found = make(base)
    if task and make(task).name != found.name:
        expected = f"{found.name}, or nothing with a recipe"
        raise refuse("--task", expected, task, "The recipe names its task.")
    data, manifest = generated.load(found, quality, rows)
    raw = from_dataset(data, found.env.spec, manifest["quality"])
    return Found(raw._replace(evidence=("the recipe's task has these rules",)), found, manifest)


# --- the four commands ---


def describe(asked: Describe) -> int:
    """Print the cards, and write them into the folder of --out."""
    if not asked.sources:
        raise refuse("PATH|RECIPE", "at least one", "none", "For example mpe/spread/medium.")
    if asked.out:
        _folder("--out", asked.out)
    described = []
    for source in asked.sources:
        found = mixed(source, asked.task, asked.rows)
        described.append(card.describe(found.raw, source, found.task))

    text = "\n\n".join(map(card_text.text, described))
    as_json = json.dumps(described, indent=1, allow_nan=False)
    print(as_json if asked.json else text)
    if asked.out:
        write_bytes(asked.out / "card.txt", f"{text}\n".encode())
        write_bytes(asked.out / "card.json", f"{as_json}\n".encode())
        try:
            path = asked.out / "card.png"
            canvas.save_copies(cards.picture(path, described), path)
        except JaxomarlError as error:
            print(f"no picture: {error}", file=sys.stderr)
    return 0


def validate(asked: Validate) -> int:
    """Print what training on the set would find; a refusal is raised."""
    if not user_path(asked.source).exists():
        way = "There is no such path; a set that is generated always fits its task."
        raise refuse("PATH", "a file or a folder", asked.source, way)
    found = find(asked.source, asked.task)
    assert found.task is not None
    manifest = found.manifest or fit(found.raw, found.task)[1]
    origin = manifest["origin"]
    repairs = origin.get("repairs", [])
    transitions = f"{manifest['transitions']:,} transitions"
    lines = [f"fits {found.task.name}: {transitions} in {manifest['episodes']:,} episodes"]
    lines += [f"  evidence: {x}" for x in found.raw.evidence]
    lines += [f"  repaired: {x}" for x in repairs] or ["  nothing had to be repaired"]
    unknown = (found.raw.left > 0) & (found.raw.known == 0)
    lost = origin.get("unknown_successors", int(unknown.sum()))
    if lost:
        lines.append(f"  {lost:,} transitions have no known successor: they are not bootstrapped")
    print("\n".join(lines))
    return 0


def convert(asked: Convert) -> int:
    """Read a set, fit it to the task that is named, and write it."""
    writers = [name for name, row in formats.FORMATS.items() if row.write] + [OURS]
    if asked.to not in writers:
        near = difflib.get_close_matches(asked.to, writers, n=1)
        way = "Name one of them."
        if near:
            way = f"Did you mean {near[0]}?"
        if asked.to in formats.FORMATS:
            way = f"It can only be read. {way}"
        raise refuse("--to", f"one of {', '.join(writers)}", asked.to, way)
    if asked.to_path.exists() and (not asked.to_path.is_dir() or any(asked.to_path.iterdir())):
        raise refuse("DST", "a new folder, or an empty one", str(asked.to_path), "Name another.")
    found = find(asked.source, asked.task, asked.rows)
    if asked.to != OURS:
        raw = _fitted(found) if asked.task else found.raw
        formats.write(asked.to_path, raw, asked.to)
    elif found.task is None:
        way = "Our own folder has data of a task."
        raise refuse("--task", "a task that the set is fitted to", "none", way)
    else:
        data, manifest = fit(found.raw, found.task)
        if found.manifest:
            manifest["origin"] = found.manifest["origin"]
        _folder("DST", asked.to_path)
        files.save_folder(asked.to_path, data, manifest)
    print(asked.to_path)
    return 0


def diff(asked: Diff) -> int:
    """Print how two sets differ; 1 where they do."""
    found = [mixed(source, asked.task, asked.rows) for source in (asked.a, asked.b)]
    if asked.task:
        task = make(asked.task)
        a, b = map(_fitted, found)
    else:
        task = found[0].task or found[1].task
        a, b = (one.raw for one in found)
    result = compare.compare(a, b, task)
    if asked.json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        print(card_text.difference(result))
    return int(not result["same"])


def _fitted(found: Found) -> Raw:
    """The rows as training reads them, under the name of the set's own format."""
    if found.manifest or found.task is None:
        return found.raw
    data, manifest = fit(found.raw, found.task)
    return from_dataset(data, found.task.env.spec, manifest["quality"])


def _folder(field: str, path: Path) -> None:
    """Create a folder to write in; raises JaxomarlError where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        way = f"{error.strerror}. Name another."
        raise refuse(field, "a folder to write in", str(path), way) from None

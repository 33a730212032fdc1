"""Provenance: which code and data made a result, and why `--resume` reuses nothing of it.

Both are compared with what is asked for now.
"""

import contextlib
import functools
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jaxomarl.base
from jaxomarl.api.plan import Group
from jaxomarl.base import JaxomarlError
from jaxomarl.config import static_fields
from jaxomarl.results import store

PACKAGES = ("jaxomarl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
FILE = "provenance.json"
FOLDERS = ("--out", "--from")
"""Flags whose value is a folder."""
PACKAGE = Path(jaxomarl.base.__file__).resolve().parent


@functools.cache
def source(package: Path = PACKAGE) -> dict[str, Any]:
    """{"commit", "dirty"} where the package lies in a checkout of its own repository, else {}.

    A repository that contains the package without tracking it does not count, such as that of
    another project with an environment inside. `dirty` says whether a file of the package differs
    from the commit.
    """
    if _git(package, "ls-files", "--error-unmatch", "base.py") is None:
        return {}
    top = _git(package, "rev-parse", "--show-toplevel")
    commit = _git(package, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != package.parent:
        return {}
    return {"commit": commit, "dirty": _git(package, "status", "--porcelain", "--", ".") != ""}


def _git(folder: Path, *words: str) -> str | None:
    """The output of git in a folder; None where it fails, is not there, or takes too long."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def versions() -> dict[str, str]:
    """Versions of Python and the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


# --- of a command ---


def facts(command: str, seeds: Sequence[int], scale: float) -> dict[str, Any]:
    """What provenance.json says of a command, without any path; timings have no seeds."""
    return {
        "command": without_paths(command),
        "seeds": list(seeds),
        "scale": scale,
        "cores": os.cpu_count(),
        "source": source(),
        "versions": versions(),
    }


def without_paths(command: str) -> str:
    """A command line without its folders, which mean nothing elsewhere."""
    words = []
    value_follows = False
    for word in shlex.split(command):
        flag = word.partition("=")[0]
        if not value_follows and flag not in FOLDERS:
            words.append(word)
        value_follows = word in FOLDERS
    return shlex.join(words)


def of_lines(path: Path) -> Path:
    """Where the provenance of a file of lines lies: next to it, under its name."""
    return path.with_name(f"{path.stem}.{FILE}")


# --- why nothing is resumed ---


def tell(groups: Sequence[Group], out: Path) -> None:
    """Print the reasons to stderr."""
    for line in reasons(groups, out):
        print(line, file=sys.stderr)


def reasons(groups: Sequence[Group], out: Path) -> Iterator[str]:
    """One line for each group whose earlier results in the folder cannot be continued.

    A group that only adds values to a sweep has no line.
    """
    for group in groups:
        before = list(_runs(group, out))
        if not before or any(info["group"] == group.digest for info in before):
            continue
        changed = [_changes(info, group) for info in before]
        if all(changed):
            differences = "; ".join(min(changed, key=len))
            name = f"{group.name} on {group.task.name}/{group.quality}"
            again = "it is trained again next to what is there"
            yield f"nothing of {name} is resumed, {again}: {differences}"


def _runs(group: Group, out: Path) -> Iterator[dict[str, Any]]:
    """One run.json of each group of this system, task and quality, with its group's digest."""
    parent = out / group.task.name.replace("/", "-") / group.quality
    for folder in sorted(parent.glob(f"{group.name}-*")):
        name, _, digest = folder.name.rpartition("-")
        runs = sorted(folder.glob("*/run.json"))
        if name != group.name or not runs:
            continue
        try:
            info = store.read_json(runs[0])
        except (OSError, JaxomarlError):
            continue
        if isinstance(info, dict):
            yield {**info, "group": digest}


def _changes(info: dict[str, Any], group: Group) -> list[str]:
    """The differences in words, apart from the values of a sweep."""
    lines = []
    was = str(info.get("data_sha256", ""))
    now = str(group.manifest["sha256"])
    if was != now:
        lines.append(f"its data were {was[:8]} and are {now[:8]}")

    swept = set(info.get("swept") or {}) | {name for values in group.swept for name in values}
    cfg = info.get("cfg") or {}
    for name, value in static_fields(group.cfgs[0]).items():
        if name not in swept and cfg.get(name) != value:
            lines.append(f"{name} was {cfg.get(name)!r} and is {value!r}")
    if not lines:
        return []
    return lines + _other_code(info)


def _other_code(info: dict[str, Any]) -> list[str]:
    """Versions and commit that differ from those of a run: why its data or defaults may differ."""
    before = info.get("versions") or {}
    here = versions()
    lines = []
    for name in sorted({*before, *here}):
        if before.get(name) != here.get(name):
            lines.append(f"{name} was {before.get(name)} and is {here.get(name)}")

    before = (info.get("source") or {}).get("commit")
    now = source().get("commit")
    if before != now:
        lines.append(f"the commit was {before} and is {now}")
    return lines

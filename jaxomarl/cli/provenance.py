"""Which code made a result: a commit of this package's repository, or a released version."""

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import jaxomarl.base

PACKAGE = Path(jaxomarl.base.__file__).resolve().parent


@functools.cache
def source(package: Path = PACKAGE) -> dict[str, Any]:
    """{"commit", "dirty"} where the package lies in a checkout of its own repository, else {}.

    A repository around it that does not track the package (an environment within another project)
    is none of its own. `dirty` says whether a file of the package differs from the commit.
    """
    if _git(package, "ls-files", "--error-unmatch", "base.py") is None:
        return {}
    top = _git(package, "rev-parse", "--show-toplevel")
    commit = _git(package, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != package.parent:
        return {}
    return {"commit": commit, "dirty": _git(package, "status", "--porcelain", "--", ".") != ""}


def _git(folder: Path, *words: str) -> str | None:
    """What git says in a folder; None where it fails, is not there, or takes too long."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()

"""What trainings of behaviours share: parameters by name, and the file of measurements."""

import json
from pathlib import Path
from typing import Any

from jaxomarl.envs import stored

RUNGS = 4
"""Number of snapshots of a ladder."""


def layers(params: dict[str, Any]) -> stored.Params:
    """An actor's parameters under the names that the stored behaviours have."""
    names = [*sorted(name for name in params if name != "out"), "out"]
    return {
        f"{leaf}_{k}": params[name][leaf]
        for k, name in enumerate(names)
        for leaf in ("kernel", "bias")
    }


def write_references(path: Path, name: str, measured: dict[str, Any]) -> None:
    """Add a task's measurements to the file."""
    references = {}
    if path.exists():
        references = json.loads(path.read_text(encoding="utf-8"))
    references[name] = measured
    text = json.dumps(references, indent=1, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")

"""What a study cost: seconds on the device and to compile, updates, and numbers in a policy."""

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxomarl import documents
from jaxomarl.results import study, tabular
from jaxomarl.results.store import Run
from jaxomarl.results.study import Study
from jaxomarl.results.tabular import Table

HEADER = 8
"""Bytes in front of a safetensors file, which say how long its description is."""
MOST = 2**26
"""Bytes of a description above which a file is not read."""
HEAD = (
    "system",
    "task",
    "data",
    "runs",
    "device",
    "device s",
    "compile s",
    "updates",
    "updates x runs / s",
    "numbers in a policy",
)
NOTES = (
    "A stage that several systems share is trained once, and its seconds stand in each row.",
    "Numbers in a policy: those that its file holds, statistics of the data included.",
)


def table(read: Study) -> Table:
    """A row for each group of runs, which is one program for each stage."""
    rows = [_row(runs) for runs in study.groups(read).values()]
    return tabular.table(HEAD, sorted(rows), NOTES)


def _row(runs: Sequence[Run]) -> tuple[str, ...]:
    info = runs[0].info
    seconds = info.get("seconds")
    compiled = info.get("compile_seconds")
    updates = info.get("updates_executed", 0)
    rate = ""
    if seconds and updates:
        rate = f"{updates * len(runs) / seconds:,.0f}"
    numbers = [policy_numbers(run.path / "policy.safetensors") for run in runs]
    known = [count for count in numbers if count is not None]
    return (
        info["system"],
        info["task"],
        info["data"],
        str(len(runs)),
        str(info.get("device", "")),
        _seconds(seconds),
        _seconds(compiled),
        f"{updates:,}" if updates else "",
        rate,
        f"{known[0]:,}" if known else "",
    )


def _seconds(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.1f}"


def policy_numbers(path: Path) -> int | None:
    """How many numbers a safetensors file holds, by its description; None where there is none."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(HEADER))
            if length > MOST:
                return None
            described = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError, struct.error):
        return None
    if not isinstance(described, dict):
        return None
    arrays = [of for name, of in described.items() if name != "__metadata__"]
    if not documents.is_of(arrays, [{"shape": [int]}]):
        return None
    return sum(math.prod(array["shape"]) for array in arrays)

"""What a study cost: seconds, updates, memory, and numbers in a policy."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxomarl import documents
from jaxomarl.paths import check_regular
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
    "memory, MiB",
    "peak, MiB",
    "numbers in a policy",
)
MEBIBYTE = 2**20
SHARED = "A stage that several systems share is trained once, and its seconds stand in each row."
NOTES = {
    "memory, MiB": "Memory: what the most demanding compiled program needs on each device, with "
    "the data and all runs that train at once.",
    "peak, MiB": "Peak: the most that a device had in use, earlier groups of the same command "
    "included.",
    "numbers in a policy": "Numbers in a policy: those that its file holds, statistics of the data "
    "included.",
}
"""What has to be known of a column; without a number in it, column and note are left out."""


def table(read: Study) -> Table:
    """A row for each group of runs, which is one program for each stage."""
    rows = sorted(_row(runs) for runs in study.groups(read).values())
    columns = dict(zip(HEAD, zip(*rows, strict=True), strict=True)) if rows else {}
    shown = {name: cells for name, cells in columns.items() if name not in NOTES or any(cells)}
    notes = [SHARED, *(note for name, note in NOTES.items() if name in shown)]
    return tabular.table(list(shown), list(zip(*shown.values(), strict=True)), notes)


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
        _mebibytes(runs, "program_bytes"),
        _mebibytes(runs, "peak_bytes"),
        f"{known[0]:,}" if known else "",
    )


def _mebibytes(runs: Sequence[Run], name: str) -> str:
    """The largest of the stages' numbers of bytes of this name; "" where no stage has one."""
    found = [facts.get(name) for run in runs for facts in stages_of(run)]
    known = [count for count in found if isinstance(count, int) and count > 0]
    if not known:
        return ""
    return f"{max(known) / MEBIBYTE:,.1f}"


def stages_of(run: Run) -> list[Mapping[str, Any]]:
    """The facts of each batch of each trained stage."""
    stages = run.info.get("stages", {}).values()
    return [batch for facts in stages for batch in facts.get("batches", [facts])]


def _seconds(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.1f}"


def policy_numbers(path: Path) -> int | None:
    """How many numbers a safetensors file holds, by its description; None where there is none."""
    try:
        check_regular(path)
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

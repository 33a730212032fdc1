"""Lines of benchmarks as numbers of measured.csv, so that costs become evidence as returns do.

`python -m benchmarks.NAME --out OUT/NAME.jsonl` writes lines, and NAME.provenance.json next to
them. `keep OUT` takes them along:

    game       the benchmark
    system     what was timed: a system, or how agents' noise is combined
    setting    its sizes, as "agents=64 calls=15 sampler=ddim width=128"
    seed       "": a timing has samples, and its range has metrics of its own
    metric     seconds (or seconds_per_update), with _low and _high; program_mib; load
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxomarl import documents
from jaxomarl.base import refuse
from jaxomarl.papers.measured import PROVENANCE, Measure
from jaxomarl.paths import read_file

LINES = "*.jsonl"
LOAD = "load"
"""Mean number of busy processes in the minute before a line was written."""


class Kind(NamedTuple):
    """The fields of a benchmark's lines that become evidence."""

    system: str
    setting: tuple[str, ...]
    metrics: tuple[str, ...]


SECONDS = ("seconds", "seconds_low", "seconds_high")
PER_UPDATE = ("seconds_per_update", "seconds_per_update_low", "seconds_per_update_high")
SAMPLED = ("agents", "sampler", "calls", "width")
KINDS = {
    "updates": Kind("system", ("size", "stage", "agents", "runs"), PER_UPDATE),
    "acting": Kind("system", ("size", "agents", "teams", "calls"), SECONDS),
    "planning": Kind("system", SAMPLED, (*SECONDS, "program_mib")),
    "reverse_process": Kind("f", SAMPLED, (*SECONDS, "program_mib")),
}
"""Benchmark -> what its lines are evidence of; others judge no claim."""


def cost_measures(folder: Path) -> list[Measure]:
    """The rows of all lines of a folder; lines of other benchmarks have none.

    Raises JaxomarlError where a file is torn.
    """
    rows = []
    for path in sorted(folder.glob(LINES)):
        for line in read_lines(path):
            rows += line_measures(line)
    return rows


def line_measures(line: Mapping[str, Any]) -> list[Measure]:
    """The rows of one line: none where it was skipped, or is not of a kind that is kept."""
    kind = KINDS.get(line["benchmark"])
    if kind is None or not {kind.system, *kind.setting, *kind.metrics} <= set(line):
        return []
    setting = " ".join(f"{field}={line[field]}" for field in sorted(kind.setting))
    name = (line["benchmark"], line[kind.system], setting, "")
    metrics = [metric for metric in (*kind.metrics, LOAD) if metric in line]
    return [Measure(*name, metric, float(line[metric])) for metric in metrics]


def fact_files(folder: Path) -> list[Path]:
    """The provenance files of a folder: of a table, and of each file of lines."""
    own = [folder / PROVENANCE] if (folder / PROVENANCE).exists() else []
    return [*own, *sorted(folder.glob(f"*.{PROVENANCE}"))]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; JaxomarlError where one is torn."""
    way_out = "Time it again."
    try:
        content = read_file(path).decode(errors="replace")
    except OSError as error:
        raise refuse(str(path), "lines of a benchmark", str(error)[:200], way_out) from None
    for number, text in enumerate(content.splitlines(), 1):
        where = f"{path}, line {number}"
        try:
            line = json.loads(text)
        except RecursionError:
            raise refuse(where, "JSON", "lists nested too deep", way_out) from None
        except ValueError as error:
            raise refuse(where, "JSON", str(error), way_out) from None
        if not documents.is_of(line, {"benchmark": str}):
            raise refuse(where, "a benchmark's line", text, way_out)
        kind = KINDS.get(line["benchmark"])
        if kind is not None:
            kinds: dict[str, documents.Kind] = dict.fromkeys((*kind.metrics, LOAD), float)
            documents.check_known(where, line, way_out, **{kind.system: str, **kinds})
        yield line

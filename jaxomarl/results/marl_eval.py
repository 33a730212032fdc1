"""Results in the JSON that marl-eval reads (Gorsane et al. 2022, "Towards a Standardised
Performance Evaluation Protocol for Cooperative MARL").

environment -> task -> algorithm -> run -> step -> `step_count`, `elapsed_time`, and each metric's
values. A run is a seed. Its `absolute_metrics` are those of its final evaluation.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxomarl.results import study
from jaxomarl.results.store import Row, write_bytes
from jaxomarl.results.study import Study

ABSOLUTE = "absolute_metrics"
Document = dict[str, dict[str, dict[str, dict[str, dict[str, Any]]]]]
"""environment -> task -> algorithm -> run -> its evaluations."""


def write(path: str | Path, read: Study) -> None:
    """Write the document of a study; OSError passes through."""
    text = json.dumps(document(read), indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, f"{text}\n".encode(errors="replace"))


def document(read: Study) -> Document:
    """Every evaluation of the study's records.

    `elapsed_time` is in seconds: the final stage's, in proportion to its updates. A value that is
    not finite is null, since JSON has no other word for it.
    """
    names = {(r.system, r.task, r.data, r.config): name for r, name in _named(read)}
    seconds = {study.run_key(run.info): _seconds(run.info) for run in read.runs}
    lasts = {study.run_key(run.info): str(run.info["final_stage"]) for run in read.runs}
    evaluated = [row for row in read.rows if row.stage == lasts[row[:5]]]
    last_steps = _last_steps(evaluated)

    found: Document = {}
    for row in evaluated:
        evaluations = _run(found, names, row)
        step = evaluations.setdefault(f"step_{row.step}", {})
        step["step_count"] = row.step
        share = row.step / max(last_steps[row[:5]], 1)
        step["elapsed_time"] = round(seconds[row[:5]] * share, 3)
        _add(step, row)
    for row in read.final:
        _add(_run(found, names, row).setdefault(ABSOLUTE, {}), row)
    return found


def _named(read: Study) -> Iterable[tuple[Any, str]]:
    return study.names(read.records).items()


def _seconds(info: Mapping[str, Any]) -> float:
    """Seconds of a run's final stage; 0 where its run.json has none."""
    facts = info.get("stages", {}).get(info["final_stage"], {})
    return float(facts.get("seconds", 0.0))


def _last_steps(rows: Iterable[Row]) -> dict[tuple, int]:
    """The last step of each run's evaluations."""
    last: dict[tuple, int] = defaultdict(int)
    for row in rows:
        last[row[:5]] = max(last[row[:5]], row.step)
    return last


def _run(found: Document, names: Mapping[tuple, str], row: Row) -> dict[str, Any]:
    """The evaluations of a row's run, new ones where there are none."""
    environment, _, task = row.task.partition("/")
    algorithm = names[row.system, row.task, row.data, row.config]
    tasks = found.setdefault(environment, {}).setdefault(f"{task}/{row.data}", {})
    return tasks.setdefault(algorithm, {}).setdefault(f"run_{row.seed}", {})


def _add(step: dict[str, Any], row: Row) -> None:
    value = row.value if math.isfinite(row.value) else None
    step.setdefault(row.metric, []).append(value)

"""What lasts of finished runs: their numbers, the health of their stages, their policies.

A folder of runs is large, and nobody keeps it for years. `keep` writes a small one from several,
such as the parts of a table that were trained apart by seeds:

    measured.csv                each run's final scores, and the data's (`papers.measured`)
    stages.csv                  whether the trained stages have learned
    provenance.json             the commands, the commit, versions, the machine
    TASK-DATA/SYSTEM/SWEPT/seed-S/    run.json, health.csv, policy.safetensors

In measured.csv a "game" is a task and its data, and a setting is what was swept.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl import documents
from jaxomarl.base import refuse
from jaxomarl.papers import measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.paths import folder_name
from jaxomarl.results import statistics, store
from jaxomarl.results.store import Run

DATA = "data"
"""The system's name in rows of the data's own return."""
RETURN, ERROR = "return", "standard error"
LASTING = ("run.json", "health.csv", "policy.safetensors")
"""Files of a run that are kept where it has them."""
FACTS: dict[str, type] = {
    "command": str,
    "seeds": list,
    "scale": float,
    "cores": int,
    "source": dict,
    "versions": dict,
}
"""What provenance.json holds."""


def keep(folders: Sequence[Path], out: Path) -> int:
    """Keep what lasts of the runs in OUT folders of `reproduce`; how many runs these are.

    Raises JaxomarlError where `out` has something in it, a folder has no finished run, two folders
    have the same run, or one is of another scale.
    """
    if out.exists() and any(out.iterdir()):
        raise refuse("-o", "a new or empty folder", str(out), "Take another, or delete it.")
    facts = joint_facts(folders)
    runs = scored_runs(folders)
    by_cell: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_cell[game(run), run.info["system"], setting(run)].append(run)
    measures = [*data_measures(runs)]
    stages: list[StageWord] = []
    for (of_game, _, of_setting), own_runs in by_cell.items():
        for run in own_runs:
            measures += run_measures(run)
        stages += measured.stage_words(of_game, of_setting, own_runs)
    measured.save_measures(out, measures, stages)
    store.write_json(out / measured.PROVENANCE, facts)
    for run in runs:
        copy_lasting(run, out)
    return len(runs)


# --- what is there ---


def joint_facts(folders: Sequence[Path]) -> dict[str, Any]:
    """The provenance of several OUT folders: their commands, and all their seeds."""
    parts = []
    for folder in folders:
        way_out = "Give the --out folder of a finished `reproduce`."
        parts.append(documents.read(folder / measured.PROVENANCE, way_out, **FACTS))
    scales = {part["scale"] for part in parts}
    if len(scales) > 1:
        raise refuse("OUT", "folders of one scale", sorted(scales), "Keep each scale by itself.")
    commands = dict.fromkeys(part["command"] for part in parts)
    seeds = {seed for part in parts for seed in part["seeds"]}
    return {**parts[0], "command": "; ".join(commands), "seeds": sorted(seeds)}


def scored_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs with a final evaluation, each once; those without one are not finished."""
    runs = [run for run in store.find_runs(folders) if (run.path / store.FINAL).exists()]
    if not runs:
        way_out = "Finish them with the command that began them."
        raise refuse("OUT", f"runs with a {store.FINAL}", "none", way_out)
    seen: dict[Path, Path] = {}
    for run in runs:
        place = lasting_folder(run)
        if place in seen:
            both = f"{place} in {seen[place]} and {run.path}"
            raise refuse("OUT", "each run once", both, "Leave one of the folders out.")
        seen[place] = run.path
    return runs


def game(run: Run) -> str:
    """A run's task and data, as measured.csv has them."""
    return f"{run.info['task']} {run.info['data']}"


def setting(run: Run) -> str:
    """A run's swept values, as "beta=0.01 lr=0.0003"."""
    return " ".join(f"{name}={value}" for name, value in sorted(run.info["swept"].items()))


def lasting_folder(run: Run) -> Path:
    """Where a run is kept, below the kept folder."""
    info = run.info
    swept = [f"{name}-{value}" for name, value in sorted(info["swept"].items())]
    own = [folder_name(*swept)] if swept else []
    parts = [folder_name(info["task"], info["data"]), folder_name(info["system"]), *own]
    return Path(*parts, f"seed-{info['seed']}")


# --- numbers ---


def run_measures(run: Run) -> list[Measure]:
    """Means over the episodes of a run's final evaluation, a row for each metric."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in store.read_rows(run.path / store.FINAL):
        values[row.metric].append(row.value)
    means = {metric: [float(np.mean(of_metric))] for metric, of_metric in values.items()}
    system, seed = run.info["system"], int(run.info["seed"])
    return measured.of_seeds(game(run), system, setting(run), [seed], means)


def data_measures(runs: Iterable[Run]) -> list[Measure]:
    """The mean return of each data set, with its standard error; none where run.json lacks it."""
    rows = {}
    for run in runs:
        returns = run.info.get("data_return")
        if isinstance(returns, dict) and game(run) not in rows:
            values = {RETURN: [returns["mean"]]}
            error = statistics.standard_error(returns["std"], returns["episodes"])
            if error is not None:
                values[ERROR] = [error]
            rows[game(run)] = measured.of_seeds(game(run), DATA, "", [""], values)
    return [row for of_game in rows.values() for row in of_game]


def copy_lasting(run: Run, out: Path) -> None:
    """Copy a run's small files."""
    for name in LASTING:
        if (run.path / name).exists():
            store.write_bytes(out / lasting_folder(run) / name, (run.path / name).read_bytes())

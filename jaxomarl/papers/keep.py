"""What lasts of finished runs: their numbers, the health of their stages, their policies.

A folder of runs is large, and nobody keeps it for years. `keep` writes a small one from several,
such as the parts of a table that were trained apart by seeds:

    measured.csv                each run's final scores, and the data's (`papers.measured`)
    stages.csv                  whether the trained stages have learned
    provenance.json             the commands, the commit, versions, the machine
    TASK-DATA/SYSTEM/SETTING/seed-S/    run.json, health.csv, policy.safetensors

In measured.csv a "game" is a task and its data. A setting is what was swept, and else what sets
runs of one system and game apart, such as a planner's history or the episodes of its data.

A folder's own measured.csv and stages.csv are taken along: returns of finished policies in other
tasks, counts of good episodes. So are lines of benchmarks (`papers.cost_lines`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl import documents
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.papers import cost_lines, measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.paths import folder_name
from jaxomarl.results import statistics, store
from jaxomarl.results.store import Run

DATA = "data"
"""The system's name in rows of the data's own return."""
RETURN, ERROR = "return", "standard error"
SECONDS = "training seconds"
"""Seconds of a run's stages, without compilation; stages that train side by side share them."""
EPISODES = "episodes"
"""The word of a setting that counts the episodes of the data, where runs differ in it."""
NO_SETTING = ("chunk", "every")
"""Config fields that say how a run is cut and reported, which is no setting."""
LASTING = ("run.json", "health.csv", "policy.safetensors")
"""Files of a run that are kept where it has them."""
WAY_OUT = "Give the --out folder of a finished `reproduce`."
FACTS: dict[str, documents.Kind] = {
    "command": str,
    "seeds": [int],
    "scale": float,
    "cores": int,
    "source": dict,
    "versions": dict,
}
"""What provenance.json holds."""


def keep(folders: Sequence[Path], out: Path) -> int:
    """Keep what lasts of OUT folders of `reproduce` and of benchmarks; how many runs these have.

    Raises JaxomarlError where `out` has something in it, a folder has nothing that is finished, two
    folders have the same run, or one is of another scale.
    """
    if not folders:
        raise refuse("OUT", "at least one folder", "none", "For example runs/omsd-table2.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise refuse("-o", "a new or empty folder", str(out), "Take another, or delete it.")
    facts = joint_facts(folders)
    others, stages = other_measures(folders)
    runs = scored_runs(folders, needed=not others)
    settings = settings_of(runs)
    check_once(runs, settings)
    by_cell: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_cell[game(run), run.info["system"], settings[run.path]].append(run)
    measures = [*data_measures(runs)]
    for (of_game, _, of_setting), own_runs in by_cell.items():
        for run in own_runs:
            measures += run_measures(run, of_setting)
        stages += measured.stage_words(of_game, of_setting, own_runs)
    measures = measured.joined([*measures, *others], "OUT")
    measured.save_measures(out, measures, measured.joined_stages(stages))
    store.write_json(out / measured.PROVENANCE, facts)
    for run in runs:
        copy_lasting(run, out / lasting_folder(run, settings[run.path]))
    return len(runs)


# --- what is there ---


def joint_facts(folders: Sequence[Path]) -> dict[str, Any]:
    """The provenance of several OUT folders: their commands, and all their seeds."""
    parts = []
    for folder in folders:
        files = cost_lines.fact_files(folder)
        if not files:
            raise unfinished(folder)
        parts += [documents.read(path, WAY_OUT, **FACTS) for path in files]
    scales = {part["scale"] for part in parts}
    if len(scales) > 1:
        raise refuse("OUT", "folders of one scale", sorted(scales), "Keep each scale by itself.")
    commands = dict.fromkeys(part["command"] for part in parts)
    seeds = {seed for part in parts for seed in part["seeds"]}
    return {**parts[0], "command": "; ".join(commands), "seeds": sorted(seeds)}


def unfinished(folder: Path) -> JaxomarlError:
    """The error of a folder that no command has ended in: it has no provenance."""
    if not any(folder.rglob("run.json")):
        return refuse(f"{folder}", "what `reproduce` writes", "no run of a table", WAY_OUT)
    expected = f"the table of a command that has ended, with its {measured.PROVENANCE}"
    way_out = (
        "The table's command has not ended. Wait for it, or call `jaxomarl reproduce TABLE "
        f"--out {folder}` again with the same flags: it continues, and then `keep` takes it."
    )
    return refuse(f"{folder}", expected, "runs without one", way_out)


def other_measures(folders: Sequence[Path]) -> tuple[list[Measure], list[StageWord]]:
    """What folders hold besides their runs: their own numbers and stages, and lines of costs."""
    rows: list[Measure] = []
    stages: list[StageWord] = []
    for folder in folders:
        if (folder / measured.MEASURED).exists():
            rows += measured.read(folder)
            stages += measured.read_stages(folder)
        rows += cost_lines.cost_measures(folder)
    return rows, stages


def scored_runs(folders: Sequence[Path], needed: bool = True) -> list[Run]:
    """The runs with a final evaluation; those without one are not finished."""
    runs = [run for run in store.find_runs(folders) if (run.path / store.FINAL).exists()]
    if needed and not runs:
        way_out = "Finish them with the command that began them."
        raise refuse("OUT", f"runs with a {store.FINAL}", "none", way_out)
    return runs


def check_once(runs: Iterable[Run], settings: Mapping[Path, str]) -> None:
    """Raise JaxomarlError where two folders are of one run."""
    seen: dict[Path, Path] = {}
    for run in runs:
        place = lasting_folder(run, settings[run.path])
        if place in seen:
            both = f"{place} in {seen[place]} and {run.path}"
            raise refuse("OUT", "each run once", both, "Leave one of the folders out.")
        seen[place] = run.path


def game(run: Run) -> str:
    """A run's task and data, as measured.csv has them."""
    return f"{run.info['task']} {run.info['data']}"


def setting(run: Run, fields: Collection[str] = ()) -> str:
    """A run's swept values and those of more fields, as "beta=0.01 lr=0.0003"."""
    known = setting_fields(run)
    values = {field: known[field] for field in fields if field in known}
    values |= run.info["swept"]
    # a setting's words are parted by spaces
    words = [f"{name}={value}".replace(" ", "") for name, value in sorted(values.items())]
    return " ".join(words)


def setting_fields(run: Run) -> dict[str, Any]:
    """What may set a run apart from others of its system: its config, and the size of its data."""
    fields = {name: x for name, x in run.info["cfg"].items() if name not in NO_SETTING}
    returns = run.info.get("data_return")
    if isinstance(returns, dict):
        fields[EPISODES] = returns["episodes"]
    return fields


def settings_of(runs: Iterable[Run]) -> dict[Path, str]:
    """Each run's setting: what was swept, and the fields in which runs of its system differ."""
    by_system: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_system[game(run), run.info["system"]].append(run)
    settings = {}
    for own_runs in by_system.values():
        fields = differing(own_runs)
        for run in own_runs:
            settings[run.path] = setting(run, fields)
    return settings


def differing(runs: Sequence[Run]) -> set[str]:
    """Fields that have several values among runs.

    A field that a later commit has added does not differ from the runs without it.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, value in setting_fields(run).items():
            values[name].add(repr(value))
    return {name for name, of_runs in values.items() if len(of_runs) > 1}


def lasting_folder(run: Run, of_setting: str) -> Path:
    """Where a run is kept, below the kept folder."""
    info = run.info
    own = [folder_name(*of_setting.replace("=", "-").split())] if of_setting else []
    parts = [folder_name(info["task"], info["data"]), folder_name(info["system"]), *own]
    return Path(*parts, f"seed-{info['seed']}")


# --- numbers ---


def run_measures(run: Run, of_setting: str) -> list[Measure]:
    """Means over the episodes of a run's final evaluation, and the seconds of its training."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in store.read_rows(run.path / store.FINAL):
        values[row.metric].append(row.value)
    means = {metric: [float(np.mean(of_metric))] for metric, of_metric in values.items()}
    seconds = training_seconds(run)
    if seconds is not None:
        means[SECONDS] = [seconds]
    system, seed = run.info["system"], int(run.info["seed"])
    return measured.of_seeds(game(run), system, of_setting, [seed], means)


def training_seconds(run: Run) -> float | None:
    """Seconds of a run's stages, shared among the runs of each; None where run.json has none."""
    stages = run.info.get("stages")
    if not isinstance(stages, dict):
        return None
    facts = [*stages.values()]
    if not documents.is_of(facts, [{"seconds": float, "runs": int}]):
        return None
    return sum(stage["seconds"] / max(1, stage["runs"]) for stage in facts)


def data_measures(runs: Iterable[Run]) -> list[Measure]:
    """The mean return of each data set, with its standard error; none where run.json lacks it.

    Where runs have shares of a set, it is that of the largest.
    """
    largest: dict[str, dict[str, Any]] = {}
    for run in runs:
        returns = run.info.get("data_return")
        if not isinstance(returns, dict):
            continue
        before = largest.get(game(run))
        if before is None or returns["episodes"] > before["episodes"]:
            largest[game(run)] = returns
    rows: list[Measure] = []
    for of_game, returns in largest.items():
        values = {RETURN: [returns["mean"]]}
        error = statistics.standard_error(returns["std"], returns["episodes"])
        if error is not None:
            values[ERROR] = [error]
        rows += measured.of_seeds(of_game, DATA, "", [""], values)
    return rows


def copy_lasting(run: Run, out: Path) -> None:
    """Copy a run's small files into a folder."""
    for name in LASTING:
        if (run.path / name).exists():
            store.write_bytes(out / name, (run.path / name).read_bytes())

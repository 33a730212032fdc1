"""Results as plain files: CSV and JSON only, every write atomic, equal numbers give equal bytes."""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Num

from jaxomarl import documents
from jaxomarl.base import refuse
from jaxomarl.health.verdict import WORDS
from jaxomarl.paths import read_file, replace_file, user_path
from jaxomarl.results import card_text

COLUMNS = (
    "system",
    "task",
    "data",
    "config",
    "seed",
    "stage",
    "step",
    "metric",
    "episode",
    "value",
)
FORMAT = 2
"""Of run.json and sweep.json, as this version writes them; it reads older ones too."""
INFO: dict[str, type] = {
    "system": str,
    "task": str,
    "data": str,
    "config": str,
    "cfg": dict,
    "swept": dict,
    "seed": int,
    "final_stage": str,
}
"""What every run.json holds, and its types; a runner may add more."""
KNOWN: dict[str, documents.Kind] = {
    "compile_seconds": float,
    "data_return": ({"mean": float, "std": float, "episodes": int}, None),
    "data_sha256": str,
    "device": str,
    "dialect": str,
    "diverged": [{"stage": str, "update": int, "metric": str, "leaf": str}],
    "final_episodes": int,
    "format": int,
    "held_out": {"episodes": int, "of": int},
    "imports": [str],
    "normaliser": ({"random": float, "expert": float, "source": str}, None),
    "optimum": (float, None),
    "scale": float,
    "seconds": float,
    "source": dict,
    "spec": dict,
    "stages": dict,
    "updates_executed": int,
    "versions": dict,
}
"""What a run.json may hold besides, and its kinds: what readers look for."""
FINAL = "final.csv"
"""A run's final evaluation, on starts of its own: rows of its final stage and last step."""


class Row(NamedTuple):
    """One number of one run. `config` is the digest of all hyper-parameters, the seed apart."""

    system: str
    task: str
    data: str
    config: str
    seed: int
    stage: str
    step: int
    metric: str
    episode: int | str
    """An evaluation's episode; "" in metrics.csv, which holds means over a chunk."""
    value: float


class Run(NamedTuple):
    """A run's folder and what its run.json says."""

    path: Path
    info: dict[str, Any]


# --- files ---


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a killed writer, leaves the old content or the new.

    Missing folders are created. OSError (a full disk, say) passes through and leaves the old file
    as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON with sorted keys.

    Numpy values become plain ones, and a float that is not finite becomes "nan", "inf" or "-inf".
    TypeError where a value is no data (a function, an object).
    """
    text = json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


AGAIN = "Delete the file, or run the cell again."
"""What to do with a damaged file."""


def read_json(path: str | Path, **entries: type) -> dict[str, Any]:
    """The object that `write_json` wrote, with the entries asked for.

    JaxomarlError as of `documents.read`.
    """
    return documents.read(path, AGAIN, **entries)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Path):
        return str(value)
    return value


def write_table(path: str | Path, rows: Iterable[Iterable[Any]], columns: Sequence[str]) -> None:
    """Write a CSV.

    Floats are written as `repr(float(x))`, which reads back to the same bits, and None as an empty
    cell.

    JaxomarlError where a row is not as long as `columns`.
    """
    written = []
    for row in rows:
        cells = [_cell(x) for x in row]
        if len(cells) != len(columns):
            wanted = f"{len(columns)} cells"
            raise refuse(f"a row of {path}", wanted, cells, f"The columns are {tuple(columns)}.")
        written.append(cells)
    _write_csv(path, columns, written)


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write the rows of a metrics.csv, returns.csv, health.csv or final.csv, as `write_table`."""
    _write_csv(path, COLUMNS, rows)


def _write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of text, whole numbers and Python's floats, of which `str` is `repr`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return str(value)


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV as text by column; JaxomarlError where it is torn."""
    header, rows = _read(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a metrics.csv or returns.csv.

    JaxomarlError where a column or a cell is not as `Row` has it.
    """
    header, rows = _read(path)
    if tuple(header) != COLUMNS:
        way_out = "Read other tables with read_table."
        raise refuse(f"the columns of {path}", repr(COLUMNS), tuple(header), way_out)
    try:
        return [_parsed(row) for row in rows]
    except ValueError as error:
        wanted = "whole numbers and a value"
        raise refuse(str(path), wanted, str(error), "Run the cell again.") from error


def _parsed(row: Sequence[str]) -> Row:
    """A row from its cells; ValueError where one is no number."""
    system, task, data, config, seed, stage, step, metric, episode, value = row
    return Row(
        system=system,
        task=task,
        data=data,
        config=config,
        seed=int(seed),
        stage=stage,
        step=int(step),
        metric=metric,
        episode=int(episode) if episode else "",
        value=float(value),
    )


def _read(path: str | Path) -> tuple[list[str], list[list[str]]]:
    try:
        content = read_file(path)
    except OSError as error:
        raise refuse(str(path), "a table", str(error)[:200], AGAIN) from None
    check_seal(Path(path), content)
    try:
        header, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        wanted = "a CSV with a header"
        raise refuse(str(path), wanted, str(error), "Run the cell again.") from error
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            way_out = "The file is torn: run the cell again."
            raise refuse(f"{path}, row {line}", f"{len(header)} cells", row, way_out)
    return header, rows


# --- digests of a run's files ---

SUMS = "SHA256SUMS"
"""A run folder's digests of its tables and of run.json, as `sha256sum -c` reads them."""


def unseal(folder: Path) -> None:
    """Forget the digests of a folder whose files are about to change."""
    (folder / SUMS).unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Write the digests of a folder's tables and of its run.json."""
    files = sorted([*folder.glob("*.csv"), *folder.glob("run.json")])
    lines = [f"{hashlib.sha256(read_file(path)).hexdigest()}  {path.name}\n" for path in files]
    write_bytes(folder / SUMS, "".join(lines).encode())


def check_seal(path: Path, content: bytes) -> None:
    """Raise JaxomarlError where a file's content has not the digest that its folder says.

    A folder without digests is of an older version, or is being written.
    """
    try:
        lines = read_file(path.parent / SUMS).decode(errors="replace").splitlines()
    except OSError:
        return
    said = [line.partition("  ")[0] for line in lines if line.endswith(f"  {path.name}")]
    if said and said != [hashlib.sha256(content).hexdigest()]:
        way = f"--resume makes it again. If you edited it on purpose, delete {SUMS}."
        raise refuse(str(path), "the content that was written", "another: it is damaged", way)


# --- from arrays to rows ---


def metrics_rows(
    info: Mapping[str, Any],
    stage: str,
    steps: Int[np.ndarray, " C"],
    metrics: Mapping[str, Num[np.ndarray, " C"]],
) -> list[Row]:
    """Rows of one run's training metrics, by step, then by name.

    `info` is the run's run.json; steps [C] counts the updates at the end of each chunk; metrics
    name -> [C]. JaxomarlError where a metric has not one value per step.
    """
    _check_shapes("metrics", metrics, (len(steps),))
    cell = _identity(info)
    columns = [(name, metrics[name].tolist()) for name in sorted(metrics)]
    return [
        Row(*cell, stage, step, name, "", float(values[c]))
        for c, step in enumerate(steps.tolist())
        for name, values in columns
    ]


def returns_rows(
    info: Mapping[str, Any],
    stage: str,
    steps: Int[np.ndarray, " V"],
    evaluations: Mapping[str, Num[np.ndarray, "V E"]],
) -> list[Row]:
    """Rows of one run's evaluations, by step, then by metric, then by episode.

    steps [V] counts the updates at each evaluation; evaluations metric -> [V, E], "return" among
    them. JaxomarlError where a metric has not one row per step, or metrics differ in episodes.
    """
    episodes = 0
    if evaluations:
        episodes = next(iter(evaluations.values())).shape[-1]
    _check_shapes("evaluations", evaluations, (len(steps), episodes))
    cell = _identity(info)
    tables = [(name, evaluations[name].astype(float)) for name in sorted(evaluations)]
    rows: list[Row] = []
    for v, step in enumerate(steps.tolist()):
        for name, table in tables:
            place = map(repeat, (*cell, stage, step, name))
            values = table[v].tolist()
            rows += map(Row._make, zip(*place, range(episodes), values, strict=False))
    return rows


def _identity(info: Mapping[str, Any]) -> tuple[str, str, str, str, int]:
    return info["system"], info["task"], info["data"], info["config"], int(info["seed"])


def _check_shapes(field: str, arrays: Mapping[str, np.ndarray], expected: tuple[int, ...]) -> None:
    for name, array in arrays.items():
        if array.shape != expected:
            way_out = "Give one value per step."
            raise refuse(f"{field}[{name!r}]", f"shape {expected}", array.shape, way_out)


# --- many runs ---


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Every run at or below the given folders, once each.

    They are in the order of system, task, data, config, seed.

    JaxomarlError where a path does not exist or a run.json lacks an entry of `INFO`.
    """
    folders = set()
    for path in map(user_path, paths):
        if not path.exists():
            way_out = "Give the --out folder of a sweep, or a run's folder."
            raise refuse("path", "a folder of runs", str(path), way_out)
        if path.name == "run.json":
            folders.add(path.parent.resolve())
        for folder, _, files in os.walk(path):
            if "run.json" in files:
                folders.add(Path(folder).resolve())
    runs = [Run(folder, read_info(folder)) for folder in folders]
    return sorted(runs, key=lambda run: (*_identity(run.info), str(run.path)))


def read_info(folder: Path, **entries: type) -> dict[str, Any]:
    """A folder's run.json, with the entries of `INFO` and others asked for.

    JaxomarlError where it is not as it was written, lacks an entry, or has one of another kind.
    """
    path = folder / "run.json"
    info = read_json(path, **INFO, **entries)
    documents.check_known(f"{path}", info, AGAIN, **KNOWN)
    check_format(path, info, "Use the version that wrote it.")
    check_seal(path, read_file(path))
    return info


def check_format(path: Path, found: Mapping[str, Any], way: str) -> None:
    """Raise JaxomarlError where a newer version has written a file, or its format is no number."""
    documents.check_known(f"{path}", found, way, format=int)
    if found.get("format", 1) > FORMAT:
        raise refuse(f"{path}, format", f"at most {FORMAT}", found["format"], way)


NOT_FINITE = ("nan", "inf", "-inf")
"""Numbers that are not finite, as JSON files have them."""
HEALTH: dict[str, documents.Kind] = {
    "stage": str,
    "verdict": str,
    "figures": dict,
    "failed": [str],
    "raise": [str],
}
"""What run.json says of each trained stage, and its kinds."""


def health_of(run: Run) -> list[dict[str, Any]]:
    """What run.json says of the health of each stage, in the order of training; [] of older runs.

    JaxomarlError where it is not as `HEALTH` has it.
    """
    stages = run.info.get("health", [])
    for stage in stages if isinstance(stages, list) else [stages]:
        if not _is_health(stage):
            expected = f"stages with {', '.join(HEALTH)}"
            raise refuse(f"{run.path / 'run.json'}, health", expected, stage, AGAIN)
    return stages


def _is_health(stage: Any) -> bool:
    """Whether an entry has a verdict that there is, and numbers as figures."""
    if not documents.is_of(stage, HEALTH) or stage["verdict"] not in WORDS:
        return False
    return all(map(_is_figure, stage["figures"].values()))


def _is_figure(x: Any) -> bool:
    """Whether a value is a number; in a file, one that is not finite is a text."""
    if isinstance(x, float) and not math.isfinite(x):
        return True
    return documents.is_of(x, float) or x in NOT_FINITE


def load_returns(runs: Iterable[Run]) -> list[Row]:
    """The rows of every run's returns.csv.

    A run that has none yet gives no row (`tables.summary` counts it).
    """
    files = [run.path / "returns.csv" for run in runs]
    return [row for file in files if file.exists() for row in read_rows(file)]


def load_final(runs: Iterable[Run]) -> list[Row]:
    """The rows of every run's final evaluation; a run that has none gives no row.

    Raises JaxomarlError where a file is torn or its columns are not those of `Row`.
    """
    files = [run.path / FINAL for run in runs]
    return [row for file in files if file.exists() for row in read_rows(file)]


def read_cards(folders: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The cards of data sets in every card.json below the folders, each set once.

    A file that holds no cards is left out, and so is a card that cannot be told.
    """
    files = [file for folder in folders for file in sorted(user_path(folder).rglob("card.json"))]
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            listed = json.loads(read_file(file).decode())
        except (OSError, ValueError, RecursionError):
            continue
        for card in listed if isinstance(listed, list) else ():
            if is_card(card):
                found.setdefault(str(card["name"]), card)
    return list(found.values())


def is_card(card: object) -> bool:
    """Whether a value is a card: its text can be written.

    It has some hundred entries, of which an edited one may be anything.
    """
    try:
        card_text.text(card)  # type: ignore[arg-type]
    except Exception:
        return False
    return True

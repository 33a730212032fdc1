"""A packed data set on disk: a folder with rows.safetensors and manifest.json.

It is checked before it is used.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxomarl import documents
from jaxomarl.base import Dataset, Layout, Spec, refuse
from jaxomarl.data.dataset import content_hash
from jaxomarl.data.fit import refit
from jaxomarl.paths import check_regular, named_in_errors, user_path

FORMAT = 1
ARRAYS = "rows.safetensors"
MANIFEST = "manifest.json"
FIELDS = ("rows", "step", "left", "starts", "behaviour")
SEAL = "manifest_sha256"
"""The manifest's entry for a digest of all its others; sets of 0.1.0 have none."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""What a quality may be: results lie in a folder of that name."""
COLLECT = "Collect it again."
ENTRIES: dict[str, type] = {
    "format": int,
    "task": str,
    "quality": str,
    "dialect": str,
    "agents": int,
    "obs_dims": list,
    "act_dims": list,
    "state_dim": int,
    "transitions": int,
    "episodes": int,
    "sha256": str,
    "origin": dict,
    "return": dict,
}
"""Entries that every manifest has, and their types."""


def write_arrays(
    path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Write named arrays to a file; OSError, which names the file, where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def save_folder(folder: str | Path, data: Dataset, manifest: dict[str, Any]) -> None:
    """Write a data set, arrays first. The folder counts as one once its manifest is there."""
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)

    # --- arrays ---
    arrays = {name: np.ascontiguousarray(getattr(data, name)) for name in FIELDS}
    for name, values in data.extra.items():
        arrays[f"extra.{name}"] = np.ascontiguousarray(values)
    part = folder / f".{ARRAYS}.part"
    write_arrays(part, arrays)
    os.replace(part, folder / ARRAYS)

    # --- manifest ---
    entries: dict[str, Any] = {"format": FORMAT}
    entries.update((name, value) for name, value in manifest.items() if name != SEAL)
    text = json.dumps({**entries, SEAL: documents.seal(entries)}, indent=1)
    part = folder / f".{MANIFEST}.part"
    with named_in_errors(part):
        part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, folder / MANIFEST)


def left_by_a_kill(folder: Path) -> bool:
    """Whether a folder holds nothing but what `save_folder` leaves when it is killed."""
    names = {ARRAYS, MANIFEST}
    return all(
        path.name.removeprefix(".").removesuffix(".part") in names for path in folder.iterdir()
    )


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder that `save` wrote.

    Raises JaxomarlError where there is none, where it is damaged or was edited, where an entry is
    missing or of another type, and where the quality cannot be the name of a folder.
    """
    path = user_path(folder) / MANIFEST
    way = f"`jaxomarl collect` writes such a folder: {MANIFEST} and {ARRAYS}."
    entries = documents.read(path, way, **ENTRIES)
    if entries["format"] != FORMAT:
        way = "Use the version that wrote it."
        raise refuse(f"{path}, format", str(FORMAT), entries["format"], way)
    statistics = {"mean": float, "std": float, "min": float, "max": float}
    documents.check(f"{path}, return", entries["return"], COLLECT, **statistics)
    if not NAME.fullmatch(entries["quality"]):
        expected = (
            "letters, digits, '.', '_', '+' and '-', at most 100, the first a letter or a digit"
        )
        raise refuse(f"{path}, quality", expected, entries["quality"][:80], COLLECT)

    written_seal = entries.pop(SEAL, None)
    if written_seal is not None and written_seal != documents.seal(entries):
        found = "another: the manifest is damaged or was edited"
        way = f"{COLLECT} If you edited it on purpose, delete this entry."
        raise refuse(f"{path}, {SEAL}", "the digest of the other entries", found, way)
    return entries


def load_folder(folder: str | Path, spec: Spec) -> tuple[Dataset, dict[str, Any]]:
    """The data set in a folder, and its manifest.

    Raises JaxomarlError where it is none of ours, is damaged, was made for other widths or under
    another dialect than the task's, or has ends that the task's rules do not allow. Ends and states
    that `fit` would repair today are repaired, and the manifest says so.
    """
    folder = user_path(folder)
    manifest = read_manifest(folder)
    task_facts = {
        "dialect": spec.dialect,
        "obs_dims": list(spec.obs_dims),
        "act_dims": list(spec.act_dims),
        "state_dim": spec.state_dim,
    }
    for name, expected in task_facts.items():
        if manifest[name] != expected:
            field = f"{folder}, {name}"
            raise refuse(
                field,
                f"the task's {expected}",
                manifest[name],
                "Name the task that the data are of.",
            )

    data = _read_arrays(folder / ARRAYS, spec)
    if content_hash(data) != manifest["sha256"]:
        expected = f"content {manifest['sha256'][:12]}"
        raise refuse(f"{folder / ARRAYS}", expected, "other content", COLLECT)
    return refit(data, manifest, spec)


def _read_arrays(path: Path, spec: Spec) -> Dataset:
    """The data set in a file; JaxomarlError where the file is damaged or lacks an array."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    try:
        check_regular(path)
        arrays = {name: jnp.asarray(values) for name, values in load_file(path).items()}
        fields: dict[str, Any] = {name: arrays[name] for name in FIELDS}
        extra = {
            name.removeprefix("extra."): values
            for name, values in arrays.items()
            if name.startswith("extra.")
        }
        return Dataset(**fields, extra=extra, layout=layout)
    except (OSError, SafetensorError, KeyError) as error:
        raise refuse(str(path), "the arrays of a data set", str(error), COLLECT) from None

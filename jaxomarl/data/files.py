"""A packed data set on disk: a folder with rows.safetensors and manifest.json, checked before it is used."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Layout, Spec, refuse
from jaxomarl.data.dataset import content_hash
from jaxomarl.data.fit import again
from jaxomarl.paths import user_path

FORMAT = 1
ARRAYS, MANIFEST = "rows.safetensors", "manifest.json"
FIELDS = ("rows", "step", "left", "starts", "behaviour")


def save(folder: str | Path, data: Dataset, manifest: dict[str, Any]) -> None:
    """Write a data set, arrays first; the folder counts as one once its manifest is there."""
    from safetensors.numpy import save_file

    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    arrays = {name: getattr(data, name) for name in FIELDS} | {f"extra.{k}": v for k, v in data.extra.items()}
    part = folder / f".{ARRAYS}.part"
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, part)
    os.replace(part, folder / ARRAYS)
    part = folder / f".{MANIFEST}.part"
    part.write_text(json.dumps({"format": FORMAT, **manifest}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / MANIFEST)


def load(folder: str | Path, spec: Spec) -> tuple[Dataset, dict[str, Any]]:
    """The data set in a folder and its manifest.

    Raises JaxomarlError where it is none of ours, is damaged, was made for other widths or under another dialect
    than the task's, or has ends that the task's rules cannot give. Ends and states that `fit` would repair today are
    repaired, and the manifest says so.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = user_path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wanted = {"format", "dialect", "agents", "obs_dims", "act_dims", "state_dim", "sha256", "quality"}
        if not isinstance(manifest, dict) or wanted - set(manifest):
            raise ValueError(f"no entries {sorted(wanted - set(manifest))}")
    except (OSError, ValueError) as error:
        way = f"`jaxomarl collect` writes such a folder: {MANIFEST} and {ARRAYS}."
        raise refuse(f"--data {folder}", f"a folder with {MANIFEST}", str(error), way) from None
    if manifest["format"] != FORMAT:
        raise refuse(f"{folder}, format", str(FORMAT), manifest["format"], "Use the version that wrote it.")
    for name, expected in {
        "dialect": spec.dialect,
        "obs_dims": list(spec.obs_dims),
        "act_dims": list(spec.act_dims),
        "state_dim": spec.state_dim,
    }.items():
        if manifest[name] != expected:
            raise refuse(f"{folder}, {name}", f"the task's {expected}", manifest[name], "Name its own task.")
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    try:
        held = {k: jnp.asarray(v) for k, v in load_file(folder / ARRAYS).items()}
        extra = {k.removeprefix("extra."): v for k, v in held.items() if k.startswith("extra.")}
        arrays: dict[str, Any] = {k: held[k] for k in FIELDS}
        data = Dataset(**arrays, extra=extra, layout=layout)
    except (OSError, SafetensorError, KeyError) as error:
        raise refuse(f"{folder / ARRAYS}", "the arrays of a data set", str(error), "Collect it again.") from None
    if content_hash(data) != manifest["sha256"]:
        raise refuse(f"{folder / ARRAYS}", f"content {manifest['sha256'][:12]}", "other content", "Collect it again.")
    return again(data, manifest, spec)

"""A packed data set on disk: a folder with rows.safetensors and manifest.json, checked before it is used."""

import hashlib
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
from jaxomarl.data.fit import again
from jaxomarl.paths import user_path

FORMAT = 1
ARRAYS, MANIFEST = "rows.safetensors", "manifest.json"
FIELDS = ("rows", "step", "left", "starts", "behaviour")
SEAL = "manifest_sha256"
"""The manifest's entry for a digest of all its others; sets of 0.1.0 have none."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""What a quality may be: results lie in a folder of that name."""
COLLECT = "Collect it again."


def save(folder: str | Path, data: Dataset, manifest: dict[str, Any]) -> None:
    """Write a data set, arrays first; the folder counts as one once its manifest is there."""
    from safetensors.numpy import save_file

    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    arrays = {name: getattr(data, name) for name in FIELDS} | {
        f"extra.{k}": v for k, v in data.extra.items()
    }
    part = folder / f".{ARRAYS}.part"
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, part)
    os.replace(part, folder / ARRAYS)
    part = folder / f".{MANIFEST}.part"
    said = {"format": FORMAT, **{name: value for name, value in manifest.items() if name != SEAL}}
    part.write_text(json.dumps({**said, SEAL: seal(said)}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / MANIFEST)


def seal(said: dict[str, Any]) -> str:
    """A digest of a manifest's entries, in whatever order."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder that `save` wrote.

    Raises JaxomarlError where there is none, where it is damaged or was edited, where an entry is missing or of
    another type, and where the quality is no name for a folder.
    """
    path = user_path(folder) / MANIFEST
    way = f"`jaxomarl collect` writes such a folder: {MANIFEST} and {ARRAYS}."
    found = documents.read(
        path, way, format=int, task=str, quality=str, dialect=str, agents=int, obs_dims=list, act_dims=list,
        state_dim=int, transitions=int, episodes=int, sha256=str, origin=dict, **{"return": dict},
    )  # fmt: skip
    if found["format"] != FORMAT:
        raise refuse(
            f"{path}, format", str(FORMAT), found["format"], "Use the version that wrote it."
        )
    documents.check(
        f"{path}, return", found["return"], COLLECT, mean=float, std=float, min=float, max=float
    )
    if not NAME.fullmatch(found["quality"]):
        expected = (
            "letters, digits, '.', '_', '+' and '-', at most 100, the first a letter or a digit"
        )
        raise refuse(f"{path}, quality", expected, found["quality"][:80], COLLECT)
    sealed = found.pop(SEAL, None)
    if sealed is not None and sealed != seal(found):
        edited = f"{COLLECT} Who edited it on purpose deletes this entry."
        raise refuse(
            f"{path}, {SEAL}",
            "the digest of the other entries",
            "another: it is damaged or edited",
            edited,
        )
    return found


def load(folder: str | Path, spec: Spec) -> tuple[Dataset, dict[str, Any]]:
    """The data set in a folder and its manifest.

    Raises JaxomarlError where it is none of ours, is damaged, was made for other widths or under another dialect
    than the task's, or has ends that the task's rules cannot give. Ends and states that `fit` would repair today are
    repaired, and the manifest says so.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = user_path(folder)
    manifest = read_manifest(folder)
    for name, expected in {
        "dialect": spec.dialect,
        "obs_dims": list(spec.obs_dims),
        "act_dims": list(spec.act_dims),
        "state_dim": spec.state_dim,
    }.items():
        if manifest[name] != expected:
            raise refuse(
                f"{folder}, {name}", f"the task's {expected}", manifest[name], "Name its own task."
            )
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    try:
        held = {k: jnp.asarray(v) for k, v in load_file(folder / ARRAYS).items()}
        extra = {k.removeprefix("extra."): v for k, v in held.items() if k.startswith("extra.")}
        arrays: dict[str, Any] = {k: held[k] for k in FIELDS}
        data = Dataset(**arrays, extra=extra, layout=layout)
    except (OSError, SafetensorError, KeyError) as error:
        raise refuse(
            f"{folder / ARRAYS}", "the arrays of a data set", str(error), COLLECT
        ) from None
    if content_hash(data) != manifest["sha256"]:
        raise refuse(
            f"{folder / ARRAYS}", f"content {manifest['sha256'][:12]}", "other content", COLLECT
        )
    return again(data, manifest, spec)

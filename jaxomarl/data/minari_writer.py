"""Writes Minari sets of several agents, in the layout that `minari` describes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.data import folder, hdf5
from jaxomarl.data.minari import ARRAYS, LAYOUT, METADATA
from jaxomarl.data.raw import Raw

LIMIT = float(np.finfo(np.float32).max)


def write(path: Path, raw: Raw) -> None:
    """Write a set `<root>/<name>` with its `data` folder.

    `minari.load_dataset(name)` finds it below MINARI_DATASETS_PATH.
    """
    folder.make_new(path)
    home = path / "data"
    home.mkdir()
    first = np.flatnonzero(raw.step == 0)
    lengths = raw.left[first]
    with hdf5.h5py().File(home / ARRAYS, "w", track_order=True) as file:
        for number, (start, steps) in enumerate(zip(first, lengths, strict=True)):
            group = file.create_group(f"episode_{number}")
            _write_episode(group, raw, number, int(start), int(steps))

    # --- metadata ---
    choices: list[int | None] = [None] * raw.agents
    action_spaces = [_box(x.shape[1], 1.0) for x in raw.action]
    if raw.discrete:
        choices = [x.shape[1] for x in raw.action]
        action_spaces = [_discrete(x.shape[1]) for x in raw.action]
    name = path.name
    if not re.search(r"-v\d+$", name):
        name += "-v0"
    metadata = {
        "total_episodes": len(first),
        "total_steps": int(lengths.sum()),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _spaces([_box(x.shape[1], LIMIT) for x in raw.obs]),
        "action_space": _spaces(action_spaces),
        "dataset_id": name,
        "minari_version": "0.5.0",
        "dataset_size": round((home / ARRAYS).stat().st_size / 1e6, 1),
        "jaxomarl": {
            "layout": LAYOUT,
            "choices": choices,
            "dialects": list(raw.dialects),
            "distinct": raw.distinct,
        },
    }
    (home / METADATA).write_text(json.dumps(metadata) + "\n", encoding="utf-8")


def _write_episode(group: Any, raw: Raw, number: int, start: int, steps: int) -> None:
    """Write one episode of so many steps, whose first row is `start`, into an HDF5 group."""
    rows = slice(start, start + steps + 1)
    transitions = slice(start, start + steps)
    final = start + steps - 1
    group.attrs.update(
        id=number,
        total_steps=steps,
        behaviour=int(raw.behaviour[start]),
        known=int(raw.known[final] > 0),
    )
    observations = group.create_group("observations")
    actions = group.create_group("actions")
    infos = group.create_group("infos")
    for i, (obs, action) in enumerate(zip(raw.obs, raw.action, strict=True)):
        observations[f"agent_{i}"] = np.asarray(obs[rows], np.float32)
        taken = action[transitions]
        if raw.discrete:
            taken = taken.argmax(axis=-1).astype(np.int64)
        actions[f"agent_{i}"] = taken

    reward = raw.reward[transitions]
    last = np.arange(steps) == steps - 1
    terminated = bool(raw.done[final] > 0)
    group["rewards"] = reward.mean(axis=1, dtype=np.float64)
    group["terminations"] = last & terminated
    group["truncations"] = last & (not terminated)
    of_reset = np.zeros((1, raw.agents), np.float32)
    infos["rewards"] = np.concatenate([of_reset, reward])
    for name in ("state", "available"):
        if getattr(raw, name) is not None:
            infos[name] = getattr(raw, name)[rows]


# --- spaces, as Minari writes them ---


def _spaces(agents: list[dict[str, Any]]) -> str:
    subspaces = {f"agent_{i}": space for i, space in enumerate(agents)}
    return json.dumps({"type": "Dict", "subspaces": subspaces})


def _box(width: int, bound: float) -> dict[str, Any]:
    return {
        "type": "Box",
        "dtype": "float32",
        "shape": [width],
        "low": [-bound] * width,
        "high": [bound] * width,
    }


def _discrete(choices: int) -> dict[str, Any]:
    return {"type": "Discrete", "dtype": "int64", "start": 0, "n": choices}

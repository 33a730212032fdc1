"""Minari sets of several agents, in the layout that `minari` describes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.data import folder, hdf5
from jaxomarl.data.minari import FILES, LAYOUT
from jaxomarl.data.raw import Raw

LIMIT = float(np.finfo(np.float32).max)


def write(path: Path, raw: Raw) -> None:
    """A set `<root>/<name>` with its `data` folder; `minari.load_dataset(name)` finds it below MINARI_DATASETS_PATH."""
    folder.make_new(path)
    home = path / "data"
    home.mkdir()
    first = np.flatnonzero(raw.step == 0)
    lengths = raw.left[first]
    choices = [x.shape[1] if raw.discrete else None for x in raw.action]
    with hdf5.h5py().File(home / FILES[1], "w", track_order=True) as file:
        for k, (start, steps) in enumerate(zip(first, lengths, strict=True)):
            _episode(file.create_group(f"episode_{k}"), raw, k, int(start), int(steps))
    said = {
        "total_episodes": len(first),
        "total_steps": int(lengths.sum()),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _spaces([_box(x.shape[1], LIMIT) for x in raw.obs]),
        "action_space": _spaces(
            [
                _discrete(c) if c else _box(x.shape[1], 1.0)
                for c, x in zip(choices, raw.action, strict=True)
            ]
        ),
        "dataset_id": path.name if re.search(r"-v\d+$", path.name) else f"{path.name}-v0",
        "minari_version": "0.5.0",
        "dataset_size": round((home / FILES[1]).stat().st_size / 1e6, 1),
        "jaxomarl": {
            "layout": LAYOUT,
            "choices": choices,
            "dialects": list(raw.dialects),
            "distinct": raw.distinct,
        },
    }
    (home / FILES[0]).write_text(json.dumps(said) + "\n", encoding="utf-8")


def _episode(group: Any, raw: Raw, number: int, start: int, steps: int) -> None:
    rows, now = slice(start, start + steps + 1), slice(start, start + steps)
    final = start + steps - 1
    group.attrs.update(
        id=number,
        total_steps=steps,
        behaviour=int(raw.behaviour[start]),
        known=int(raw.known[final] > 0),
    )
    observations, actions, infos = (
        group.create_group(n) for n in ("observations", "actions", "infos")
    )
    for i, (obs, action) in enumerate(zip(raw.obs, raw.action, strict=True)):
        observations[f"agent_{i}"] = np.asarray(obs[rows], np.float32)
        chosen = action[now].argmax(axis=-1).astype(np.int64) if raw.discrete else action[now]
        actions[f"agent_{i}"] = chosen
    group["rewards"] = raw.reward[now].mean(axis=1, dtype=np.float64)
    last = np.arange(steps) == steps - 1
    group["terminations"] = last & (raw.done[final] > 0)
    group["truncations"] = last & (raw.done[final] == 0)
    infos["rewards"] = np.concatenate([np.zeros((1, raw.agents), np.float32), raw.reward[now]])
    for name in ("state", "available"):
        if getattr(raw, name) is not None:
            infos[name] = getattr(raw, name)[rows]


def _spaces(agents: list[dict[str, Any]]) -> str:
    return json.dumps(
        {"type": "Dict", "subspaces": {f"agent_{i}": space for i, space in enumerate(agents)}}
    )


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

"""Vaults, written through TensorStore so that flashbax and OG-MARL read them."""

import json
from pathlib import Path

import numpy as np

from jaxomarl.data import folder
from jaxomarl.data.raw import Raw, side_by_side
from jaxomarl.data.vault import FILES, STEPS, tensorstore

VERSION = 1.2
CHUNK = 1 << 22  # bytes


def write(path: Path, raw: Raw) -> None:
    """A vault with B = 1: the folder is its uid, the folder above its name. Last successors are lost.

    A time-out is a truncation, not a terminal.
    """
    folder.make_new(path)
    leaves = _leaves(raw)
    steps = len(leaves["rewards"][0])
    tree = {"shape": {}, "dtype": {}}
    for name, array in leaves.items():
        for kind, value in (("shape", str(array.shape)), ("dtype", array.dtype.name)):
            at = tree[kind]
            *above, leaf = name.split(".")
            for part in above:
                at = at.setdefault(part, {})
            at[leaf] = value
    said = {
        "version": VERSION,
        "structure_shape": tree["shape"],
        "structure_dtype": tree["dtype"],
        "jaxomarl": {
            "dialects": list(raw.dialects),
            "distinct": raw.distinct,
            "obs_dims": [x.shape[1] for x in raw.obs],
            "act_dims": [x.shape[1] for x in raw.action],
        },
    }
    for name, array in leaves.items():
        _put(path, f"{name}.", array, (1, STEPS, *array.shape[2:]))
    _put(path, "vault_index", np.array([steps], np.int32), (1,))
    (path / FILES[0]).write_text(json.dumps(said) + "\n", encoding="utf-8")


def _leaves(raw: Raw) -> dict[str, np.ndarray]:
    """Name -> [1, T, ...] without the successor rows."""
    rows, n = raw.left > 0, raw.agents
    obs = side_by_side(raw.obs, max(x.shape[1] for x in raw.obs))[rows]
    action = side_by_side(raw.action, max(x.shape[1] for x in raw.action))[rows]
    cut = ((raw.left == 1) & (raw.done == 0))[rows]
    leaves = {
        "observations": obs,
        "actions": action.argmax(axis=-1).astype(np.int32) if raw.discrete else action,
        "rewards": np.asarray(raw.reward[rows], np.float32),
        "terminals": np.repeat(raw.done[rows, None], n, axis=1).astype(np.float32),
        "truncations": np.repeat(cut[:, None], n, axis=1).astype(np.float32),
        "infos.behaviour": np.asarray(raw.behaviour[rows], np.int32),
    }
    if raw.state is not None:
        leaves["infos.state"] = np.asarray(raw.state[rows], np.float32)
    if raw.available is not None:
        leaves["infos.legals"] = np.asarray(raw.available[rows], np.float32)
    return {name: x[None] for name, x in leaves.items()}


def _put(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    steps = array.shape[1] if array.ndim > 1 else 1
    row = array.nbytes // max(steps, 1)
    chunks = (
        (1,) if array.ndim == 1 else (1, max(1, min(steps, CHUNK // max(row, 1))), *array.shape[2:])
    )
    compressor = {"id": "gzip", "level": 5}
    spec = {
        "driver": "zarr",
        "kvstore": {
            "driver": "ocdbt",
            "base": {"driver": "file", "path": f"{path.resolve()}/"},
            "path": name,
        },
        "metadata": {
            "shape": shape,
            "chunks": chunks,
            "dtype": array.dtype.str,
            "compressor": compressor,
            "fill_value": None,
            "filters": None,
            "order": "C",
        },
    }
    store = tensorstore().open(spec, create=True).result()
    (store if array.ndim == 1 else store[:, :steps]).write(array).result()

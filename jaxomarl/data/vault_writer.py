"""Writes vaults through TensorStore, so that flashbax and OG-MARL read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.data import folder
from jaxomarl.data.raw import Raw, stack_agents
from jaxomarl.data.vault import METADATA, STEPS, tensorstore

VERSION = 1.2
CHUNK = 1 << 22
"""Bytes of a chunk, at most about."""


def write(path: Path, raw: Raw) -> None:
    """Write a vault with B = 1: the folder is its uid, the folder above it its name.

    The last successors are lost. A time-out is a truncation, not a terminal.
    """
    folder.make_new(path)
    leaves = _leaves(raw)
    steps = len(leaves["rewards"][0])
    metadata = {
        "version": VERSION,
        "structure_shape": _tree({name: str(x.shape) for name, x in leaves.items()}),
        "structure_dtype": _tree({name: x.dtype.name for name, x in leaves.items()}),
        "jaxomarl": {
            "dialects": list(raw.dialects),
            "distinct": raw.distinct,
            "obs_dims": [x.shape[1] for x in raw.obs],
            "act_dims": [x.shape[1] for x in raw.action],
        },
    }
    for name, array in leaves.items():
        write_array(path, f"{name}.", array, (1, STEPS, *array.shape[2:]))
    write_array(path, "vault_index", np.array([steps], np.int32), (1,))
    (path / METADATA).write_text(json.dumps(metadata) + "\n", encoding="utf-8")


def _tree(flat: dict[str, str]) -> dict[str, Any]:
    """Nested dictionaries of names with dots: {"infos.state": x} -> {"infos": {"state": x}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *above, leaf = name.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[leaf] = value
    return tree


def _leaves(raw: Raw) -> dict[str, np.ndarray]:
    """Name -> [1, T, ...] without the successor rows."""
    transitions = raw.left > 0
    obs_width = max(x.shape[1] for x in raw.obs)
    action_width = max(x.shape[1] for x in raw.action)
    action = stack_agents(raw.action, action_width)[transitions]
    if raw.discrete:
        action = action.argmax(axis=-1).astype(np.int32)
    timed_out = (raw.left == 1) & (raw.done == 0)
    leaves = {
        "observations": stack_agents(raw.obs, obs_width)[transitions],
        "actions": action,
        "rewards": np.asarray(raw.reward[transitions], np.float32),
        "terminals": _for_every_agent(raw.done[transitions], raw.agents),
        "truncations": _for_every_agent(timed_out[transitions], raw.agents),
        "infos.behaviour": np.asarray(raw.behaviour[transitions], np.int32),
    }
    if raw.state is not None:
        leaves["infos.state"] = np.asarray(raw.state[transitions], np.float32)
    if raw.available is not None:
        leaves["infos.legals"] = np.asarray(raw.available[transitions], np.float32)
    return {name: x[None] for name, x in leaves.items()}


def _for_every_agent(flags: np.ndarray, agents: int) -> np.ndarray:
    """Flags [T] as [T, N], float32."""
    return np.repeat(flags[:, None], agents, axis=1).astype(np.float32)


def write_array(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Write an array under a name of the store; it claims to have `shape`.

    An array with more than one axis fills the first steps of that shape.
    """
    chunks = (1,)
    if array.ndim > 1:
        steps = array.shape[1]
        bytes_of_step = array.nbytes // max(steps, 1)
        chunk_steps = max(1, min(steps, CHUNK // max(bytes_of_step, 1)))
        chunks = (1, chunk_steps, *array.shape[2:])
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
            "compressor": {"id": "gzip", "level": 5},
            "fill_value": None,
            "filters": None,
            "order": "C",
        },
    }
    store = tensorstore().open(spec, create=True).result()
    if array.ndim > 1:
        store = store[:, : array.shape[1]]
    store.write(array).result()

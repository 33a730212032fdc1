"""OG-MARL's Vaults (flashbax): one zarr array per leaf in a TensorStore "ocdbt" folder, read without flashbax.

Leaves [B, T, ...]: `observations` [.., N, O], `actions` [.., N, A] or whole numbers [.., N], `rewards`, `terminals` and
`truncations` [.., N], `infos.state` [.., S] or [.., N, S], `infos.legals` [.., N, A]; arrays claim 10^13 steps, of
which `vault_index` are there. B is the seed in OMAR's vaults, and becomes the behaviour; all of it is read.

A row's successor is the next row, so an episode's last one is lost. Flags: terminals = 1 at a time limit too, unless
the vault marks truncations of its own. What `write` adds: `infos.behaviour` and an entry "jaxomarl" of metadata.json.
"""

import itertools
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.data import folder
from jaxomarl.data.raw import Raw, ends_to_lengths, lay, one_hot, places

FILES = ("metadata.json", "manifest.ocdbt")
STEPS = 10**13  # of an array, as flashbax makes them
RATIO = 1100  # a deflated byte makes 1032 at most
SMALL = 1 << 23  # bytes of a chunk that any vault may have: flashbax's own are 4 MiB, however few steps are in them
COMPRESSORS = (None, "gzip", "zlib", "blosc")
NEEDED = ("observations", "actions", "rewards", "terminals")
WAY_OUT = "Is the vault whole?"


def recognises(path: Path) -> bool:
    """Whether the folder holds metadata.json and manifest.ocdbt."""
    return all((path / name).exists() for name in FILES)


def tensorstore() -> ModuleType:
    """The library; JaxomarlError where it is not installed."""
    try:
        import tensorstore as library
    except ImportError as error:
        raise refuse("vault", "tensorstore installed", str(error), "pip install tensorstore") from None
    return library


def read(path: Path) -> Raw:
    """The rows of a vault; raises JaxomarlError where a leaf is missing, of another shape, or cannot be held."""
    said = folder.read_json(folder.inside(path, FILES[0]))
    version, ours = said.get("version"), said.get("jaxomarl", {})
    if not isinstance(version, int | float) or isinstance(version, bool) or int(version) not in (0, 1):
        raise refuse(f"{path}/{FILES[0]}, version", "0.1 to 1.x", str(version)[:40], "Convert it with flashbax.")
    if not isinstance(ours, dict):
        raise refuse(f"{path}/{FILES[0]}, jaxomarl", "an object", type(ours).__name__, "Copy the vault again.")
    size = sum(file.stat().st_size for file in folder.contents(path))
    try:
        leaves = _leaves(path, size)
    except JaxomarlError:
        raise
    except Exception as error:  # the library raises what its C++ code happens to meet
        shown = f"{type(error).__name__}: {error}"[:200]
        raise refuse(str(path), "a whole vault", shown, "It is truncated or damaged: copy it again.") from None
    _check(leaves, str(path))
    return _rows(leaves, ours, str(path))


# --- the store ---


def _leaves(path: Path, size: int) -> dict[str, np.ndarray]:
    """Name -> [B, T, ...] of the valid steps."""
    library = tensorstore()
    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path.resolve()}/"}}
    store = library.KvStore.open(base).result()
    held = {key.decode() for key in store.list().result()}
    arrays = {}  # v0.1 has bracketed names, ['infos']['state'], later ones infos.state with a dot at the end
    for prefix in sorted(key.removesuffix("/.zarray") for key in held if key.endswith("/.zarray")):
        arrays[".".join(re.findall(r"\w+", prefix))] = prefix
    if "vault_index" not in arrays:
        raise refuse(str(path), "an array vault_index", sorted(arrays), WAY_OUT)

    def load(name: str, steps: int) -> np.ndarray:
        prefix = arrays[name]
        raw = store.read(f"{prefix}/.zarray").result().value
        shape = _planned(f"{path}, {name}", json.loads(raw), steps, size, held, prefix)
        found = library.open({"driver": "zarr", "kvstore": {**base, "path": prefix}}, open=True).result()
        if tuple(found.shape)[:1] + tuple(found.shape)[2:] != shape[:1] + shape[2:]:
            raise refuse(f"{path}, {name}", f"shape {shape}", tuple(found.shape), WAY_OUT)
        return np.asarray((found if name == "vault_index" else found[:, :steps]).read().result())

    index = load("vault_index", -1)
    steps = int(index[0]) if index.shape == (1,) else 0
    if steps < 1:
        raise refuse(f"{path}, vault_index", "at least one step", steps, "The vault is empty.")
    wanted = {*NEEDED, "truncations", "infos.state", "infos.legals", "infos.behaviour"}
    return {name: load(name, steps) for name in arrays if name in wanted}


def _planned(field: str, meta: dict[str, Any], steps: int, size: int, held: set[str], prefix: str) -> tuple[int, ...]:
    """The shape that will be read, compared with what is stored before a byte of it is allocated."""
    shape, chunks, kind = meta["shape"], meta["chunks"], meta["dtype"]
    if not isinstance(kind, str) or not re.fullmatch(r"[<>|][fiub][1248]", kind):
        raise refuse(f"{field}, dtype", "numbers of at most 8 bytes", str(kind)[:40], WAY_OUT)
    compressor = meta["compressor"]["id"] if meta.get("compressor") else None
    if compressor not in COMPRESSORS or meta.get("filters"):
        raise refuse(f"{field}, compressor", f"one of {COMPRESSORS}", compressor, "Write the vault with gzip.")
    if steps >= 0:
        if len(shape) < 2 or steps > shape[1]:
            raise refuse(field, f"{steps} steps", f"shape {shape}", WAY_OUT)
        shape = [shape[0], steps, *shape[2:]]
    if len(shape) != len(chunks) or len(shape) > 6 or min(*shape, *chunks, 1) < 1:
        raise refuse(field, "a shape and its chunks", f"{shape} and {chunks}", WAY_OUT)
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    width, many = int(kind[2]), math.prod(counts)
    most = max(RATIO * size, SMALL)
    claimed = max(math.prod(shape), math.prod(chunks)) * width
    if claimed > most or many > size:
        raise refuse(field, f"at most {most} bytes for {size} stored", claimed, WAY_OUT)
    between = meta.get("dimension_separator", ".")
    missing = [c for c in itertools.product(*map(range, counts)) if f"{prefix}/{between.join(map(str, c))}" not in held]
    if missing:
        raise refuse(field, f"{many} chunks", f"{len(missing)} missing", "It is half-written: copy it again.")
    return tuple(shape)


# --- the rows ---


def _check(leaves: dict[str, np.ndarray], where: str) -> None:
    for name in NEEDED:
        if name not in leaves:
            raise refuse(f"{where}, {name}", "a leaf of this name", sorted(leaves), "Is it a vault of OG-MARL's?")
    if leaves["observations"].ndim != 4:
        raise refuse(f"{where}, observations", "axes B, T, N, O", leaves["observations"].shape, WAY_OUT)
    lead = leaves["observations"].shape[:3]
    axes = {
        "observations": (4,),
        "actions": (3, 4),
        "infos.state": (3, 4),
        "infos.legals": (4,),
        "infos.behaviour": (2,),
    }
    for name, array in leaves.items():
        front = lead[:2] if array.ndim == 2 or name == "infos.state" else lead
        if array.shape[: len(front)] != front or array.ndim not in axes.get(name, (3,)):
            raise refuse(f"{where}, {name}", f"shape {front} and more", array.shape, WAY_OUT)
    for name in ("terminals", "truncations"):
        flags = leaves.get(name, np.zeros(lead, np.int8))
        if not np.isin(flags, (0, 1)).all():
            raise refuse(f"{where}, {name}", "zeros and ones", "other numbers", "Is it damaged?")
        odd = np.argwhere(flags != flags[:, :, :1])
        if len(odd):
            way = "The agents of a task end together: contradictory flags cannot be repaired."
            raise refuse(f"{where}, {name}, B {odd[0][0]}, row {odd[0][1]}", "one flag for all agents", "two", way)


def _rows(leaves: dict[str, np.ndarray], ours: dict[str, Any], where: str) -> Raw:
    batch, steps, agents, width = leaves["observations"].shape
    flat = {name: x.reshape(batch * steps, *x.shape[2:]) for name, x in leaves.items()}
    done = flat["terminals"][:, 0] != 0
    cut = flat["truncations"][:, 0] != 0 if "truncations" in flat else np.zeros_like(done)
    at = places(np.concatenate([ends_to_lengths(e) for e in (done | cut).reshape(batch, steps)]), where)
    discrete, legals = flat["actions"].ndim == 2, flat.get("infos.legals")
    if discrete:
        choices = legals.shape[2] if legals is not None else int(min(flat["actions"].max(), 1 << 12)) + 1
        flat["actions"] = one_hot(flat["actions"], max(choices, 1), f"{where}, actions")
    field = f"{where}/{FILES[0]}, jaxomarl"
    obs_dims = folder.widths(ours.get("obs_dims", [width] * agents), agents, field)
    act_dims = folder.widths(ours.get("act_dims", [flat["actions"].shape[2]] * agents), agents, field)
    behaviour = flat["infos.behaviour"] if "infos.behaviour" in flat else np.repeat(np.arange(batch), steps)
    state = flat.get("infos.state")
    own = state is not None and state.ndim == 3 and bool((state != state[:, :1]).any())
    if state is not None and state.ndim == 3:
        state = state[:, 0]
    last = at.final
    obs, action = lay([flat["observations"]], at, flat["observations"][last]), lay([flat["actions"]], at)
    partial = int((~(done | cut)).reshape(batch, steps)[:, -1].sum())
    return Raw(
        "vault",
        tuple(obs[:, i, :w] for i, w in enumerate(obs_dims)),
        tuple(action[:, i, :w] for i, w in enumerate(act_dims)),
        lay([flat["rewards"]], at),
        lay([done], at),
        at.step,
        at.left,
        np.where(at.left == 1, 0, 1).astype(np.float32),
        lay([behaviour], at, behaviour[last]).astype(np.int32),
        None if state is None else lay([state], at, state[last]),
        lay([legals], at, legals[last]) if discrete and legals is not None else None,
        discrete,
        dialects=folder.names(ours.get("dialects", []), field),
        evidence=(
            f"B = {batch}, {int(done.sum())} rows with terminals, {int(cut.sum())} with truncations",
            *((f"{partial} last episodes without an end",) if partial else ()),
        ),
        repairs=(
            f"{len(last)} last successors are lost: copies of the row before, known = 0",
            *(("each agent has a state of its own: the first agent's is kept",) if own else ()),
        ),
        distinct=ours.get("distinct") is True or bool(cut.any()),
    )

"""OG-MARL's Vaults (flashbax): one zarr array per leaf in a TensorStore "ocdbt" folder, read without flashbax.

Leaves [B, T, ...]: `observations` [.., N, O], `actions` [.., N, A] or whole numbers [.., N], `rewards`, `terminals` and
`truncations` [.., N], `infos.state` [.., S] or [.., N, S], `infos.legals` [.., N, A]; arrays claim 10^13 steps, of
which `vault_index` are there. B is the seed in OMAR's vaults, and becomes the behaviour; all of it is read. Rewards and
flags may be the team's, [B, T]. OG-MARL's ExperienceRecorder writes one leaf for each agent, `observations.agent_0`.

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
SMALL = (
    1 << 23
)  # bytes of a chunk that any vault may have: flashbax's own are 4 MiB, however few steps are in them
COMPRESSORS = (None, "gzip", "zlib", "blosc")
NEEDED = ("observations", "actions", "rewards", "terminals")
OF_AGENTS = (*NEEDED, "truncations", "infos.state", "infos.legals")
"""Leaves that may be one for each agent."""
WAY_OUT = "Is the vault whole?"


def recognises(path: Path) -> bool:
    """Whether the folder holds metadata.json and manifest.ocdbt."""
    return all((path / name).exists() for name in FILES)


def tensorstore() -> ModuleType:
    """The library; JaxomarlError where it is not installed."""
    try:
        import tensorstore as library
    except ImportError as error:
        raise refuse(
            "vault", "tensorstore installed", str(error), "pip install tensorstore"
        ) from None
    return library


def read(path: Path) -> Raw:
    """The rows of a vault; raises JaxomarlError where a leaf is missing, of another shape, or cannot be held."""
    said = folder.read_json(folder.inside(path, FILES[0]))
    version, ours = said.get("version"), said.get("jaxomarl", {})
    if type(version) not in (int, float) or not 0 <= version < 2:  # type: ignore[operator]
        raise refuse(
            f"{path}/{FILES[0]}, version",
            "0.1 to 1.x",
            str(version)[:40],
            "Convert it with flashbax.",
        )
    if not isinstance(ours, dict):
        raise refuse(
            f"{path}/{FILES[0]}, jaxomarl",
            "an object",
            type(ours).__name__,
            "Copy the vault again.",
        )
    size = sum(file.stat().st_size for file in folder.contents(path))
    try:
        leaves, names = _leaves(path, size)
    except JaxomarlError:
        raise
    except Exception as error:  # the library raises what its C++ code happens to meet
        shown = f"{type(error).__name__}: {error}"[:200]
        raise refuse(
            str(path), "a whole vault", shown, "It is truncated or damaged: copy it again."
        ) from None
    leaves, own = _joined(leaves, names, str(path))
    leaves, teams = _checked(leaves, names, str(path))
    return _rows(leaves, own, teams, ours, str(path))


# --- the store ---


def _leaves(path: Path, size: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Name -> [B, T, ...] of the valid steps, for the leaves that are read; and the names of all."""
    library = tensorstore()
    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path.resolve()}/"}}
    store = library.KvStore.open(base).result()
    held = {key.decode() for key in store.list().result()}
    arrays = {}  # v0.1 has bracketed names, ['infos']['state'], later ones infos.state with a dot at the end
    for prefix in sorted(key.removesuffix("/.zarray") for key in held if key.endswith("/.zarray")):
        arrays[".".join(re.findall(r"\w+", prefix))] = prefix
    if "vault_index" not in arrays:
        raise refuse(str(path), "an array vault_index", sorted(arrays)[:40], WAY_OUT)

    def load(name: str, steps: int) -> np.ndarray:
        prefix = arrays[name]
        raw = store.read(f"{prefix}/.zarray").result().value
        shape = _planned(f"{path}, {name}", json.loads(raw), steps, size, held, prefix)
        found = library.open(
            {"driver": "zarr", "kvstore": {**base, "path": prefix}}, open=True
        ).result()
        if tuple(found.shape)[:1] + tuple(found.shape)[2:] != shape[:1] + shape[2:]:
            raise refuse(f"{path}, {name}", f"shape {shape}", tuple(found.shape), WAY_OUT)
        return np.asarray((found if name == "vault_index" else found[:, :steps]).read().result())

    index = load("vault_index", -1)
    steps = int(index[0]) if index.shape == (1,) else 0
    if steps < 1:
        raise refuse(f"{path}, vault_index", "at least one step", steps, "The vault is empty.")
    names = sorted(set(arrays) - {"vault_index"})
    wanted = [
        n
        for n in names
        if n == "infos.behaviour" or any(n == x or n.startswith(f"{x}.") for x in OF_AGENTS)
    ]
    return {name: load(name, steps) for name in wanted}, names


def _planned(
    field: str, meta: dict[str, Any], steps: int, size: int, held: set[str], prefix: str
) -> tuple[int, ...]:
    """The shape that will be read, compared with what is stored before a byte of it is allocated."""
    shape, chunks, kind = meta["shape"], meta["chunks"], meta["dtype"]
    if not isinstance(kind, str) or not re.fullmatch(r"[<>|][fiub][1248]", kind):
        raise refuse(f"{field}, dtype", "numbers of at most 8 bytes", str(kind)[:40], WAY_OUT)
    compressor = meta["compressor"]["id"] if meta.get("compressor") else None
    if compressor not in COMPRESSORS or meta.get("filters"):
        raise refuse(
            f"{field}, compressor",
            f"one of {COMPRESSORS}",
            compressor,
            "Write the vault with gzip.",
        )
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
    missing = [
        c
        for c in itertools.product(*map(range, counts))
        if f"{prefix}/{between.join(map(str, c))}" not in held
    ]
    if missing:
        raise refuse(
            field, f"{many} chunks", f"{len(missing)} missing", "It is half-written: copy it again."
        )
    return tuple(shape)


# --- the rows ---


def _joined(
    leaves: dict[str, np.ndarray], names: list[str], where: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Leaves with one array for all agents, padded to the widest, and what was joined.

    The second has the agents' names, and "observations" and "actions": their true widths; {} where nothing was joined.
    """
    out, own = dict(leaves), {}
    for base in OF_AGENTS:
        parts = {
            name.removeprefix(f"{base}."): x
            for name, x in leaves.items()
            if name.startswith(f"{base}.")
        }
        if not parts:
            continue
        for agent in parts:
            del out[f"{base}.{agent}"]
        order = sorted(parts, key=_natural)
        if base in out or own.setdefault("agents", order) != order:
            expected = "one leaf, or one for each agent, and the same agents in all"
            way = "Record the vault again, or remove the leaves of other agents."
            raise refuse(f"{where}, {base}", expected, names[:40], way)
        shapes = {agent: parts[agent].shape for agent in order}
        if len({(len(x), x[:2]) for x in shapes.values()}) > 1 or len(shapes[order[0]]) not in (
            2,
            3,
        ):
            raise refuse(
                f"{where}, {base}",
                "axes B, T or B, T, width, the same for all agents",
                shapes,
                WAY_OUT,
            )
        if len(shapes[order[0]]) == 3:
            widths = [parts[agent].shape[2] for agent in order]
            own[base] = widths
            if base in ("rewards", "terminals", "truncations"):
                if set(widths) != {1}:
                    raise refuse(
                        f"{where}, {base}", "one number a row for each agent", shapes, WAY_OUT
                    )
                parts = {agent: x[..., 0] for agent, x in parts.items()}
            else:
                wide = max(widths)
                parts = {agent: _padded(x, wide) for agent, x in parts.items()}
        out[base] = np.stack([parts[agent] for agent in order], axis=2)
    return out, own


def _padded(x: np.ndarray, width: int) -> np.ndarray:
    """[B, T, C] with zeros up to `width` columns."""
    return np.pad(x, ((0, 0), (0, 0), (0, width - x.shape[2])))


def _natural(name: str) -> list[Any]:
    """A key that sorts agent_2 before agent_10."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _checked(
    leaves: dict[str, np.ndarray], names: list[str], where: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Leaves [B, T, N, ...] of the shapes and values that they must have, and which of them were the team's, [B, T]."""
    for name in NEEDED:
        if name not in leaves:
            way = f"A vault of OG-MARL's has {', '.join(NEEDED)}; rename the leaves, or record it again."
            raise refuse(f"{where}, {name}", "a leaf of this name", names[:40], way)
    if leaves["observations"].ndim != 4:
        found = f"shape {leaves['observations'].shape}"
        raise refuse(f"{where}, observations", "4 axes: B, T, N, O", found, WAY_OUT)
    batch, steps, agents = leaves["observations"].shape[:3]
    allowed: dict[str, list[tuple[Any, ...]]] = {
        "actions": [(batch, steps, agents, "A"), (batch, steps, agents)],
        "infos.state": [(batch, steps, "S"), (batch, steps, agents, "S")],
        "infos.legals": [(batch, steps, agents, "A")],
        "infos.behaviour": [(batch, steps)],
    }
    for name in TEAMS:
        allowed[name] = [
            (batch, steps, agents),
            (batch, steps),
            (batch, steps, 1),
            (batch, steps, agents, 1),
        ]
    out, teams = dict(leaves), []
    for name, array in leaves.items():
        if name == "observations":
            continue
        if not any(_is(array.shape, shape) for shape in allowed[name]):
            shapes = [f"({', '.join(map(str, shape))})" for shape in allowed[name][:2]]
            raise refuse(
                f"{where}, {name}", f"shape {' or '.join(shapes)}", f"shape {array.shape}", WAY_OUT
            )
        if name in TEAMS and array.shape != (batch, steps, agents):
            flat = array.reshape(batch, steps, -1)
            out[name] = np.broadcast_to(flat, (batch, steps, agents))
            teams += [name] if flat.shape[2] < agents else []
    for name in ("terminals", "truncations"):
        flags = out.get(name, np.zeros((batch, steps, agents), np.int8))
        if not np.isin(flags, (0, 1)).all():
            raise refuse(
                f"{where}, {name}",
                "zeros and ones",
                "other numbers",
                "It is damaged: copy the vault again.",
            )
        odd = np.argwhere(flags != flags[:, :, :1])
        if len(odd):
            way = "The agents of a task end together: save the same flags for all."
            raise refuse(
                f"{where}, {name}, B {odd[0][0]}, row {odd[0][1]}",
                "one flag for all agents",
                "two",
                way,
            )
    return out, teams


TEAMS = ("rewards", "terminals", "truncations")
"""Leaves that may be one for the team."""


def _is(found: tuple[int, ...], shape: tuple[Any, ...]) -> bool:
    """Whether a shape is another one, whose letters stand for any width."""
    return len(found) == len(shape) and all(
        isinstance(y, str) or x == y for x, y in zip(found, shape, strict=True)
    )


def _rows(
    leaves: dict[str, np.ndarray],
    own: dict[str, Any],
    teams: list[str],
    ours: dict[str, Any],
    where: str,
) -> Raw:
    batch, steps, agents, width = leaves["observations"].shape
    flat = {name: x.reshape(batch * steps, *x.shape[2:]) for name, x in leaves.items()}
    done = flat["terminals"][:, 0] != 0
    cut = flat["truncations"][:, 0] != 0 if "truncations" in flat else np.zeros_like(done)
    at = places(
        np.concatenate([ends_to_lengths(e) for e in (done | cut).reshape(batch, steps)]), where
    )
    discrete, legals = flat["actions"].ndim == 2, flat.get("infos.legals")
    if discrete:
        choices = (
            legals.shape[2] if legals is not None else int(min(flat["actions"].max(), 1 << 12)) + 1
        )
        flat["actions"] = one_hot(flat["actions"], max(choices, 1), f"{where}, actions")
    field = f"{where}/{FILES[0]}, jaxomarl"
    obs_dims = ours.get("obs_dims", own.get("observations", [width] * agents))
    act_dims = ours.get("act_dims", own.get("actions", [flat["actions"].shape[2]] * agents))
    obs_dims, act_dims = (
        folder.widths(obs_dims, agents, field),
        folder.widths(act_dims, agents, field),
    )
    behaviour = (
        flat["infos.behaviour"] if "infos.behaviour" in flat else np.repeat(np.arange(batch), steps)
    )
    state = flat.get("infos.state")
    several = state is not None and state.ndim == 3 and bool((state != state[:, :1]).any())
    if state is not None and state.ndim == 3:
        state = state[:, 0]
    last = at.final
    obs, action = (
        lay([flat["observations"]], at, flat["observations"][last]),
        lay([flat["actions"]], at),
    )
    partial = int((~(done | cut)).reshape(batch, steps)[:, -1].sum())
    named = f"a leaf for each agent, in the order {', '.join(own['agents'][:8])}" if own else ""
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
            *((named,) if named else ()),
        ),
        repairs=(
            f"{len(last)} last successors are lost: copies of the row before, known = 0",
            *(("each agent has a state of its own: the first agent's is kept",) if several else ()),
            *(
                ("rewards: one for the team, taken for every agent's",)
                if "rewards" in teams
                else ()
            ),
        ),
        distinct=ours.get("distinct") is True or bool(cut.any()),
        cut=lay([cut], at),
        sliced=True,
    )

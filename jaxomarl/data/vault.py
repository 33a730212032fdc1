"""OG-MARL's Vaults (flashbax), read without flashbax.

A vault is a TensorStore "ocdbt" folder with one zarr array per leaf:

| leaf | shape |
|---|---|
| observations | [B, T, N, O] |
| actions | [B, T, N, A], or whole numbers [B, T, N] |
| rewards, terminals, truncations | [B, T, N], or [B, T] where they are the team's |
| infos.state | [B, T, S] or [B, T, N, S] |
| infos.legals | [B, T, N, A] |

Arrays claim 10^13 steps, of which `vault_index` are there. B is the seed in OMAR's vaults and
becomes the behaviour; all of it is read. OG-MARL's ExperienceRecorder writes one leaf for each
agent, like `observations.agent_0`.

A row's successor is the next row, so an episode's last successor is lost. A terminal is 1 at a time
limit too, unless the vault marks truncations of its own. `write` adds `infos.behaviour` and an
entry "jaxomarl" of metadata.json.
"""

import itertools
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.data import folder
from jaxomarl.data.raw import Raw, RowIndex, ends_to_lengths, index_rows, interleave, one_hot

METADATA = "metadata.json"
MANIFEST = "manifest.ocdbt"
STEPS = 10**13
"""Steps that an array claims, as flashbax makes them."""
RATIO = 1100
"""Bytes that one stored byte can become: a deflated one 1032 at most."""
SMALL = 1 << 23
"""Bytes of a chunk that any vault may have: flashbax's are 4 MiB, however few steps they have."""
COMPRESSORS = (None, "gzip", "zlib", "blosc")
NEEDED = ("observations", "actions", "rewards", "terminals")
TEAMS = ("rewards", "terminals", "truncations")
"""Leaves that may be one for the team."""
OF_AGENTS = (*NEEDED, "truncations", "infos.state", "infos.legals")
"""Leaves that may be one for each agent."""
MOST_ACTIONS = 1 << 12
WAY_OUT = "Is the vault complete?"

Leaves = dict[str, np.ndarray]
"""Name -> [B, T, ...]."""


class Joined(NamedTuple):
    """Leaves of single agents as leaves of all."""

    leaves: Leaves
    agents: list[str]
    """The agents' names; [] where nothing was joined."""
    widths: dict[str, list[int]]
    """Name of a joined leaf -> true width of each agent."""


def recognises(path: Path) -> bool:
    """Whether the folder has metadata.json and manifest.ocdbt."""
    return (path / METADATA).exists() and (path / MANIFEST).exists()


def tensorstore() -> ModuleType:
    """The library; JaxomarlError where it is not installed."""
    try:
        import tensorstore as library
    except ImportError as error:
        way = "pip install tensorstore"
        raise refuse("vault", "tensorstore installed", str(error), way) from None
    return library


def read(path: Path) -> Raw:
    """The rows of a vault.

    Raises JaxomarlError where a leaf is missing, of another shape, or claims more than is stored.
    """
    where = str(path)
    ours = _read_metadata(path)
    size = sum(file.stat().st_size for file in folder.contents(path))
    try:
        leaves, names = _read_leaves(path, size)
    except JaxomarlError:
        raise
    # the library raises whatever its C++ code meets in a damaged vault
    except Exception as error:
        found = f"{type(error).__name__}: {error}"[:200]
        way = "It is truncated or damaged: copy it again."
        raise refuse(where, "a complete vault", found, way) from None

    joined = _join_agents(leaves, names, where)
    _check_needed(joined.leaves, names, where)
    _check_shapes(joined.leaves, where)
    leaves, of_team = _repeat_for_agents(joined.leaves)
    _check_flags(leaves, where)
    return _rows(joined._replace(leaves=leaves), of_team, ours, where)


def _read_metadata(path: Path) -> dict[str, Any]:
    """Our entry of the metadata, {} where there is none; JaxomarlError for an unknown version."""
    metadata = folder.read_json(folder.inside(path, METADATA))
    version = metadata.get("version")
    ours = metadata.get("jaxomarl", {})
    if not _is_supported(version):
        field = f"{path}/{METADATA}, version"
        raise refuse(field, "0.1 to 1.x", str(version)[:40], "Convert it with flashbax.")
    if not isinstance(ours, dict):
        field = f"{path}/{METADATA}, jaxomarl"
        raise refuse(field, "an object", type(ours).__name__, "Copy the vault again.")
    return ours


def _is_supported(version: object) -> bool:
    """Whether it is a number from 0 to below 2."""
    if isinstance(version, bool) or not isinstance(version, int | float):
        return False
    return 0 <= version < 2


# --- the store ---


class Store:
    """The arrays of a vault's folder."""

    def __init__(self, path: Path, size: int) -> None:
        library = tensorstore()
        self.path = path
        self.size = size
        """Bytes of all files."""
        self.driver = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path.resolve()}/"}}
        self.values = library.KvStore.open(self.driver).result()
        self.keys = {key.decode() for key in self.values.list().result()}
        self.arrays: dict[str, str] = {}
        """Name of an array -> prefix of its keys."""
        # v0.1 has names in brackets, ['infos']['state']; later versions have infos.state.
        for key in sorted(self.keys):
            if key.endswith("/.zarray"):
                prefix = key.removesuffix("/.zarray")
                self.arrays[".".join(re.findall(r"\w+", prefix))] = prefix

    def read(self, name: str, steps: int | None = None) -> np.ndarray:
        """An array, or its first steps; JaxomarlError where it claims more than is stored."""
        field = f"{self.path}, {name}"
        prefix = self.arrays[name]
        metadata = json.loads(self.values.read(f"{prefix}/.zarray").result().value)
        shape = self._checked_shape(field, metadata, prefix, steps)
        spec = {"driver": "zarr", "kvstore": {**self.driver, "path": prefix}}
        opened = tensorstore().open(spec, open=True).result()
        found = tuple(opened.shape)
        if found[:1] != shape[:1] or found[2:] != shape[2:]:
            raise refuse(field, f"shape {shape}", found, WAY_OUT)
        if steps is not None:
            opened = opened[:, :steps]
        return np.asarray(opened.read().result())

    def _checked_shape(
        self, field: str, metadata: dict[str, Any], prefix: str, steps: int | None
    ) -> tuple[int, ...]:
        """The shape that will be read.

        It is compared with what is stored before a byte is allocated.
        """
        shape = metadata["shape"]
        chunks = metadata["chunks"]
        dtype = metadata["dtype"]
        if not isinstance(dtype, str) or not re.fullmatch(r"[<>|][fiub][1248]", dtype):
            raise refuse(f"{field}, dtype", "numbers of at most 8 bytes", str(dtype)[:40], WAY_OUT)
        compressor = None
        if metadata.get("compressor"):
            compressor = metadata["compressor"]["id"]
        if compressor not in COMPRESSORS or metadata.get("filters"):
            expected = f"one of {COMPRESSORS}"
            way = "Write the vault with gzip."
            raise refuse(f"{field}, compressor", expected, compressor, way)
        if steps is not None:
            if len(shape) < 2 or steps > shape[1]:
                raise refuse(field, f"{steps} steps", f"shape {shape}", WAY_OUT)
            shape = [shape[0], steps, *shape[2:]]
        if len(shape) != len(chunks) or len(shape) > 6 or min(*shape, *chunks, 1) < 1:
            found = f"{shape} and {chunks}"
            raise refuse(field, "as many chunk lengths as axes", found, WAY_OUT)

        # --- bytes ---
        counts = [-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True)]
        most = max(RATIO * self.size, SMALL)
        claimed = max(math.prod(shape), math.prod(chunks)) * int(dtype[2])
        if claimed > most or math.prod(counts) > self.size:
            raise refuse(field, f"at most {most} bytes for {self.size} stored", claimed, WAY_OUT)

        # --- chunks ---
        separator = metadata.get("dimension_separator", ".")
        missing = 0
        for chunk in itertools.product(*map(range, counts)):
            missing += f"{prefix}/{separator.join(map(str, chunk))}" not in self.keys
        if missing:
            expected = f"{math.prod(counts)} chunks"
            way = "It is half-written: copy it again."
            raise refuse(field, expected, f"{missing} missing", way)
        return tuple(shape)


def _read_leaves(path: Path, size: int) -> tuple[Leaves, list[str]]:
    """The valid steps of the leaves that are used, and the names of all leaves."""
    store = Store(path, size)
    if "vault_index" not in store.arrays:
        raise refuse(str(path), "an array vault_index", sorted(store.arrays)[:40], WAY_OUT)
    index = store.read("vault_index")
    steps = int(index[0]) if index.shape == (1,) else 0
    if steps < 1:
        raise refuse(f"{path}, vault_index", "at least one step", steps, "The vault is empty.")
    names = sorted(set(store.arrays) - {"vault_index"})
    return {name: store.read(name, steps) for name in names if _is_used(name)}, names


def _is_used(name: str) -> bool:
    """Whether a leaf is one that we read, of all agents or of one."""
    if name == "infos.behaviour" or name in OF_AGENTS:
        return True
    return any(name.startswith(f"{base}.") for base in OF_AGENTS)


# --- leaves of single agents ---


def _join_agents(leaves: Leaves, names: list[str], where: str) -> Joined:
    """One array for all agents where there is one leaf for each, padded to the widest."""
    joined = Joined(dict(leaves), [], {})
    for base in OF_AGENTS:
        prefix = f"{base}."
        parts = {
            name.removeprefix(prefix): x for name, x in leaves.items() if name.startswith(prefix)
        }
        if not parts:
            continue
        for agent in parts:
            del joined.leaves[prefix + agent]
        order = sorted(parts, key=_natural)
        if base in joined.leaves or joined.agents not in ([], order):
            expected = "one leaf, or one for each agent, and the same agents in all"
            way = "Record the vault again, or remove the leaves of other agents."
            raise refuse(f"{where}, {base}", expected, names[:40], way)
        joined.agents[:] = order
        arrays = [parts[agent] for agent in order]
        shapes = {agent: parts[agent].shape for agent in order}
        joined.leaves[base] = _stack(f"{where}, {base}", base, arrays, shapes)
        if arrays[0].ndim == 3:
            joined.widths[base] = [x.shape[2] for x in arrays]
    return joined


def _stack(
    field: str, base: str, arrays: list[np.ndarray], shapes: dict[str, tuple[int, ...]]
) -> np.ndarray:
    """Agents' arrays [B, T] or [B, T, width] as [B, T, N] or [B, T, N, widest]."""
    axes = arrays[0].ndim
    alike = len({(x.ndim, x.shape[:2]) for x in arrays}) == 1
    if axes not in (2, 3) or not alike:
        expected = "axes B, T or B, T, width, the same for all agents"
        raise refuse(field, expected, shapes, WAY_OUT)
    if axes == 2:
        return np.stack(arrays, axis=2)
    if base in TEAMS:
        if any(x.shape[2] != 1 for x in arrays):
            raise refuse(field, "one number a row for each agent", shapes, WAY_OUT)
        return np.stack([x[..., 0] for x in arrays], axis=2)
    widest = max(x.shape[2] for x in arrays)
    stacked = np.zeros((*arrays[0].shape[:2], len(arrays), widest), np.result_type(*arrays))
    for i, x in enumerate(arrays):
        stacked[:, :, i, : x.shape[2]] = x
    return stacked


def _natural(name: str) -> list[tuple[bool, int | str]]:
    """A key that sorts agent_2 before agent_10."""
    key: list[tuple[bool, int | str]] = []
    for part in re.split(r"(\d+)", name):
        if part.isdigit():
            key.append((True, int(part)))
        elif part:
            key.append((False, part))
    return key


# --- checks ---


def _check_needed(leaves: Leaves, names: list[str], where: str) -> None:
    """Raise JaxomarlError where a leaf is missing, or the observations have other axes."""
    for name in NEEDED:
        if name not in leaves:
            way = (
                f"A vault of OG-MARL's has {', '.join(NEEDED)}; "
                "rename the leaves, or record it again."
            )
            raise refuse(f"{where}, {name}", "a leaf of this name", names[:40], way)
    shape = leaves["observations"].shape
    if len(shape) != 4:
        expected = "4 axes: B, T, N, O"
        raise refuse(f"{where}, observations", expected, f"shape {shape}", WAY_OUT)


def _check_shapes(leaves: Leaves, where: str) -> None:
    """Raise JaxomarlError for a leaf whose shape does not go with the observations'."""
    batch, steps, agents = leaves["observations"].shape[:3]
    allowed: dict[str, list[tuple[int | str, ...]]] = {
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
    for name, array in leaves.items():
        if name == "observations":
            continue
        if not any(_matches(array.shape, shape) for shape in allowed[name]):
            shapes = [f"({', '.join(map(str, shape))})" for shape in allowed[name][:2]]
            expected = f"shape {' or '.join(shapes)}"
            raise refuse(f"{where}, {name}", expected, f"shape {array.shape}", WAY_OUT)


def _matches(found: tuple[int, ...], allowed: tuple[int | str, ...]) -> bool:
    """Whether a shape is an allowed one, whose letters stand for any width."""
    if len(found) != len(allowed):
        return False
    return all(
        isinstance(wanted, str) or length == wanted
        for length, wanted in zip(found, allowed, strict=True)
    )


def _repeat_for_agents(leaves: Leaves) -> tuple[Leaves, list[str]]:
    """Leaves of the team as [B, T, N], and the names of those that were the team's."""
    batch, steps, agents = leaves["observations"].shape[:3]
    repeated = dict(leaves)
    of_team = []
    for name in TEAMS:
        if name not in leaves or leaves[name].shape == (batch, steps, agents):
            continue
        columns = leaves[name].reshape(batch, steps, -1)
        repeated[name] = np.broadcast_to(columns, (batch, steps, agents))
        if columns.shape[2] < agents:
            of_team.append(name)
    return repeated, of_team


def _check_flags(leaves: Leaves, where: str) -> None:
    """Raise JaxomarlError for flags other than 0 and 1, or not the same for all agents."""
    for name in ("terminals", "truncations"):
        if name not in leaves:
            continue
        flags = leaves[name]
        if not np.isin(flags, (0, 1)).all():
            way = "It is damaged: copy the vault again."
            raise refuse(f"{where}, {name}", "zeros and ones", "other numbers", way)
        unlike = np.argwhere(flags != flags[:, :, :1])
        if len(unlike):
            field = f"{where}, {name}, B {unlike[0][0]}, row {unlike[0][1]}"
            way = "The agents of a task end together: save the same flags for all."
            raise refuse(field, "one flag for all agents", "both 0 and 1", way)


# --- the rows ---


def _rows(joined: Joined, of_team: list[str], ours: dict[str, Any], where: str) -> Raw:
    """The rows of a vault's leaves, with B and T as one axis."""
    batch, steps, agents, width = joined.leaves["observations"].shape
    flat = {}
    for name, leaf in joined.leaves.items():
        flat[name] = leaf.reshape(batch * steps, *leaf.shape[2:])

    # --- episodes ---
    done = flat["terminals"][:, 0] != 0
    cut = np.zeros_like(done)
    if "truncations" in flat:
        cut = flat["truncations"][:, 0] != 0
    ends = (done | cut).reshape(batch, steps)
    index = index_rows(np.concatenate([ends_to_lengths(of_seed) for of_seed in ends]), where)
    final = index.final
    behaviour = flat.get("infos.behaviour", np.repeat(np.arange(batch), steps))
    known = np.ones(len(index.step), np.float32)
    known[index.successors - 1] = 0.0

    # --- arrays ---
    discrete = flat["actions"].ndim == 2
    legals = flat.get("infos.legals") if discrete else None
    if discrete:
        flat["actions"] = _one_hot_actions(flat["actions"], legals, f"{where}, actions")
    state, several_states = _one_state(flat.get("infos.state"))
    obs_dims = joined.widths.get("observations", [width] * agents)
    act_dims = joined.widths.get("actions", [flat["actions"].shape[2]] * agents)
    field = f"{where}/{METADATA}, jaxomarl"
    obs_dims = folder.check_widths(ours.get("obs_dims", obs_dims), agents, field)
    act_dims = folder.check_widths(ours.get("act_dims", act_dims), agents, field)
    obs = interleave([flat["observations"]], index, flat["observations"][final])
    action = interleave([flat["actions"]], index)

    # --- what was done ---
    repairs = [f"{len(final)} last successors are lost: copies of the row before, known = 0"]
    if several_states:
        repairs.append("each agent has a state of its own: the first agent's is kept")
    if "rewards" in of_team:
        repairs.append("rewards: one for the team, taken for every agent's")

    return Raw(
        format="vault",
        obs=tuple(obs[:, i, :columns] for i, columns in enumerate(obs_dims)),
        action=tuple(action[:, i, :columns] for i, columns in enumerate(act_dims)),
        reward=interleave([flat["rewards"]], index),
        done=interleave([done], index),
        step=index.step,
        left=index.left,
        known=known,
        behaviour=interleave([behaviour], index, behaviour[final]).astype(np.int32),
        state=_with_successors(state, index),
        available=_with_successors(legals, index),
        discrete=discrete,
        dialects=folder.check_texts(ours.get("dialects", []), field),
        evidence=_evidence(done, cut, ends, joined.agents),
        repairs=tuple(repairs),
        distinct=ours.get("distinct") is True or bool(cut.any()),
        cut=interleave([cut], index),
        sliced=True,
    )


def _evidence(
    done: np.ndarray, cut: np.ndarray, ends: np.ndarray, agents: list[str]
) -> tuple[str, ...]:
    """What tells how the vault was recorded: its flags, and whose leaves it has."""
    terminals = int(done.sum())
    truncations = int(cut.sum())
    lines = [f"B = {len(ends)}, {terminals} rows with terminals, {truncations} with truncations"]
    unfinished = int((~ends[:, -1]).sum())
    if unfinished:
        lines.append(f"{unfinished} last episodes without an end")
    if agents:
        lines.append(f"a leaf for each agent, in the order {', '.join(agents[:8])}")
    return tuple(lines)


def _with_successors(values: np.ndarray | None, index: RowIndex) -> np.ndarray | None:
    """Rows [M, ...] of values [T, ...], where there are any; a successor copies the row before."""
    if values is None:
        return None
    return interleave([values], index, values[index.final])


def _one_hot_actions(numbers: np.ndarray, legals: np.ndarray | None, where: str) -> np.ndarray:
    """One-hot rows [T, N, A] of numbers [T, N], as wide as the legal actions, if there are any."""
    choices = int(min(numbers.max(), MOST_ACTIONS)) + 1
    if legals is not None:
        choices = legals.shape[2]
    return one_hot(numbers, max(choices, 1), where)


def _one_state(state: np.ndarray | None) -> tuple[np.ndarray | None, bool]:
    """The state [T, S], the first agent's where each has one, and whether agents' states differ."""
    if state is None or state.ndim == 2:
        return state, False
    return state[:, 0], bool((state != state[:, :1]).any())

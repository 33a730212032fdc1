"""OMAR's folders of .npy files (also CFCQL's, MADiff's and DoF's for the particle tasks).

`<root>/seed_<k>_data/` has, for each agent i, `obs_i`, `acs_i`, `rews_i`, `next_obs_i` and
`dones_i`, and for the cheetah `states_i` and `next_states_i`. Row t of each file is one transition.
The prey of tag and world is one more agent. The path is one such folder, or the folder that has
them; k becomes the behaviour.

An episode ends where its successor is not the next row. That needs no flag, and flags cannot be
trusted here: the particle tasks' are all zero, and the cheetah's mark time-outs. Where there are
flags, they must agree with it.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import folder, npy
from jaxomarl.data.raw import (
    Raw,
    RowIndex,
    ends_to_lengths,
    index_rows,
    interleave,
    rows_differ,
    zeros_per_agent,
)

FIELDS = ("obs", "acs", "rews", "next_obs", "dones")
STATES = ("states", "next_states")
COLUMNS = ("rews", "dones")
"""Fields of one number per row."""
BLOCK_ROWS = 1 << 16
"""Rows that are compared at a time."""


class Seed(NamedTuple):
    """One seed's folder, whose files are mapped and not loaded."""

    number: int
    """k, which becomes the behaviour."""
    folder: Path
    arrays: dict[str, list[np.ndarray]]
    """Field -> one array per agent."""

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.arrays["obs"])

    @property
    def flags(self) -> np.ndarray:
        """The first agent's `dones`, which all others equal."""
        return self.arrays["dones"][0]


class Seeds(NamedTuple):
    """All seeds of a folder, and where their rows lie."""

    path: Path
    seeds: list[Seed]
    index: RowIndex
    final: list[np.ndarray]
    """Last transition of each episode, for each seed."""


# --- folders ---


def recognises(path: Path) -> bool:
    """Whether the folder, or one right below it, has obs_0.npy and acs_0.npy."""
    return bool(_seed_folders(path))


def _seed_folders(path: Path) -> list[tuple[int, Path]]:
    """(k, folder) of each seed."""
    if not path.is_dir():
        return []
    found = [entry for entry in (path, *sorted(path.iterdir())) if _has_files(entry)]
    if found[:1] == [path]:
        found = [path]
    numbered = []
    for entry in found:
        matched = re.fullmatch(r"seed_(\d{1,6})_data", entry.name)
        if not matched:
            return list(enumerate(found))
        numbered.append((int(matched[1]), entry))
    return sorted(numbered)


def _has_files(path: Path) -> bool:
    """Whether a folder has the first agent's files."""
    return path.is_dir() and (path / "obs_0.npy").exists() and (path / "acs_0.npy").exists()


# --- reading ---


def read(path: Path) -> Raw:
    """The rows of one seed, or of all.

    Raises JaxomarlError where files are missing, ragged or contradict another.
    """
    parts = _seed_folders(path)
    note = folder.read_note(path)
    for _, part in parts:
        folder.inside(path, str(part.relative_to(path)))
    seeds = [Seed(number, part, _open(part)) for number, part in parts]
    agents = {seed.folder.name: seed.agents for seed in seeds}
    if len(set(agents.values())) != 1:
        expected = "the same number of agents in every seed"
        raise refuse(str(path), expected, agents, "Is a file missing?")

    # --- episodes ---
    lengths = [ends_to_lengths(_ends(seed, bool(note))) for seed in seeds]
    index = index_rows(np.concatenate(lengths), str(path))
    episodes = len(index.successors)
    rows_of_seeds = [int((of_seed + 1).sum()) for of_seed in lengths]
    behaviour = np.repeat([seed.number for seed in seeds], rows_of_seeds)

    # --- arrays ---
    found = Seeds(path, seeds, index, [np.cumsum(of_seed) - 1 for of_seed in lengths])
    rewards = []
    for i in range(seeds[0].agents):
        rewards.append(interleave([seed.arrays["rews"][i] for seed in seeds], index))
    state = None
    if all("states" in seed.arrays for seed in seeds):
        state = _block(found, "states", 0)

    return Raw(
        format="omar",
        obs=_blocks(found, "obs"),
        action=_blocks(found, "acs"),
        reward=np.stack(rewards, axis=1),
        done=interleave([seed.flags for seed in seeds], index),
        step=index.step,
        left=index.left,
        known=_known(note, index.left, str(path)),
        behaviour=behaviour.astype(np.int32),
        state=state,
        dialects=folder.check_texts(note.get("dialects", []), f"{path}/{folder.NOTE}"),
        evidence=(f"{len(seeds)} seed folders of {seeds[0].agents} agents, {episodes} episodes",),
        repairs=tuple(_repairs(seeds, episodes)),
        distinct=note.get("distinct") is True,
    )


def _blocks(found: Seeds, name: str) -> tuple[np.ndarray, ...]:
    """The rows of a field for each agent, [M, width]."""
    widths = [x.shape[1] for x in found.seeds[0].arrays[name]]
    outs = zeros_per_agent(len(found.index.step), widths)
    return tuple(_block(found, name, i, out) for i, out in enumerate(outs))


def _block(found: Seeds, name: str, agent: int, out: np.ndarray | None = None) -> np.ndarray:
    """The rows [M, width] of a field, with the true successors where the files have them.

    `out` is filled where it is given.
    """
    parts = [seed.arrays[name][agent] for seed in found.seeds]
    successors = None
    if name != "acs":
        of_seeds = []
        for seed, final in zip(found.seeds, found.final, strict=True):
            of_seeds.append(seed.arrays[f"next_{name}"][agent][final])
        successors = np.concatenate(of_seeds)
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) != 1:
        field = f"{found.path}, {name}_{agent}"
        raise refuse(field, "one width in every seed", sorted(shapes), "Import them one by one.")
    rows = interleave(parts, found.index, successors, out)
    for part in parts:
        npy.release(part)
    return rows


def _repairs(seeds: list[Seed], episodes: int) -> list[str]:
    """What was changed in reading."""
    repairs = []
    if not any(seed.flags.any() for seed in seeds):
        repairs.append(
            f"dones are all zero: {episodes} ends found where a successor is not the next row"
        )
    empty = [seed.folder.name for seed in seeds if not len(seed.flags)]
    if empty:
        listed = ", ".join(empty[:5])
        repairs.append(f"{len(empty)} empty folders, without a row, are left out: {listed}")
    return repairs


def _known(note: dict[str, Any], left: np.ndarray, where: str) -> np.ndarray:
    """Ones [M], except at the rows whose successors our writer's note calls unknown."""
    known = np.ones(len(left), np.float32)
    rows = note.get("unknown", [])
    if not isinstance(rows, list) or not all(type(x) is int and 0 <= x < len(left) for x in rows):
        field = f"{where}/{folder.NOTE}, unknown"
        raise refuse(field, f"rows below {len(left)}", str(rows)[:80], "Copy it again.")
    known[rows] = 0.0
    return known


# --- one seed's files ---


def _open(part: Path) -> dict[str, list[np.ndarray]]:
    """Field -> one array per agent; nothing but the columns is loaded."""
    agents = _count_agents(part)
    rows = len(npy.map_table(folder.inside(part, "obs_0.npy"), (2,)))
    arrays = {}
    for name in FIELDS:
        arrays[name] = [_open_file(part, name, i, rows) for i in range(agents)]
    if (part / "states_0.npy").exists():
        for name in STATES:
            arrays[name] = [_open_file(part, name, 0, rows)]

    _check_successors(part, arrays)
    _check_dones(part, arrays["dones"])
    return arrays


def _count_agents(part: Path) -> int:
    """Number of agents, by the files of observations; JaxomarlError where one is missing."""
    numbers = set()
    for entry in part.iterdir():
        matched = re.fullmatch(r"obs_(\d{1,3})\.npy", entry.name)
        if matched:
            numbers.add(int(matched[1]))
    missing = set(range(len(numbers))) - numbers
    if missing:
        field = f"{part}/obs_{min(missing)}.npy"
        found = f"agents {sorted(numbers)}"
        raise refuse(field, "one file per agent", found, "Copy it again.")
    return len(numbers)


def _open_file(part: Path, name: str, agent: int, rows: int) -> np.ndarray:
    """One file's array of so many rows."""
    file = folder.inside(part, f"{name}_{agent}.npy")
    if not file.is_file():
        way = f"Each agent needs {', '.join(FIELDS)}."
        raise refuse(str(file), "a file of this name", "none", way)
    if name in COLUMNS:
        return npy.map_column(file, rows)
    return npy.map_table(file, (2,), rows)


def _check_successors(part: Path, arrays: dict[str, list[np.ndarray]]) -> None:
    """Raise JaxomarlError where successors have another shape than what they succeed."""
    for name in ("obs", "states"):
        if name not in arrays:
            continue
        for i, (now, after) in enumerate(zip(arrays[name], arrays[f"next_{name}"], strict=True)):
            if now.shape != after.shape:
                field = f"{part}/next_{name}_{i}.npy"
                way = "The two must go together."
                raise refuse(field, f"shape {now.shape}", after.shape, way)


def _check_dones(part: Path, dones: list[np.ndarray]) -> None:
    """Raise JaxomarlError for flags other than 0 and 1, or not the same for all agents."""
    for i, flags in enumerate(dones):
        field = f"{part}/dones_{i}.npy"
        if not np.isin(flags, (0, 1)).all():
            raise refuse(field, "zeros and ones", "other numbers", "Is the file damaged?")
        unlike = np.flatnonzero(flags != dones[0])
        if len(unlike):
            row = int(unlike[0])
            way = "The agents of these tasks end together: save the same dones for all."
            raise refuse(f"{field}, row {row}", "as in dones_0.npy", flags[row].item(), way)


# --- ends ---


def _ends(seed: Seed, ours: bool) -> np.ndarray:
    """Whether each row is its episode's last.

    `ours` says that our own writer made the files, whose flags are those of terminations. Raises
    JaxomarlError where flags and successors contradict each other.
    """
    flags = seed.flags != 0
    broken, moved = _compare_with_next(seed)

    wrong = flags & ~broken & moved
    wrong[-1:] = False
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        field = f"{seed.folder}/dones_0.npy, row {row}"
        way = "It is inside an episode that continues: clear it, or save its true successor."
        raise refuse(field, "0, because next_obs is the next row", 1, way)

    broken[-1:] = True
    ends = broken | flags
    if ours:
        return ends
    if flags.any():
        _check_unflagged(seed, broken & ~flags)
    else:
        _check_equal_lengths(seed, ends)
    return ends


def _compare_with_next(seed: Seed) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row's successor is not the next row, and whether the next row differs from it.

    Both are false for the last row.
    """
    rows = len(seed.flags)
    broken = np.zeros(rows, bool)
    moved = np.zeros(rows, bool)
    for obs, next_obs in zip(seed.arrays["obs"], seed.arrays["next_obs"], strict=True):
        for start in range(0, rows - 1, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows - 1)
            now = np.asarray(obs[start:stop], np.float32)
            successor = np.asarray(next_obs[start:stop], np.float32)
            next_row = np.asarray(obs[start + 1 : stop + 1], np.float32)
            broken[start:stop] |= rows_differ(successor, next_row)
            moved[start:stop] |= rows_differ(now, next_row)
        npy.release(obs)
        npy.release(next_obs)
    return broken, moved


def _check_unflagged(seed: Seed, unflagged: np.ndarray) -> None:
    """Raise JaxomarlError where an episode ends without a flag, before the last row."""
    rows = np.flatnonzero(unflagged[:-1])
    if len(rows):
        field = f"{seed.folder}/next_obs, row {int(rows[0])}"
        expected = "the next row's obs, because dones is 0"
        raise refuse(
            field, expected, "another row", "Rows were moved or lost: get the files again."
        )


def _check_equal_lengths(seed: Seed, ends: np.ndarray) -> None:
    """Raise JaxomarlError where episodes without flags differ in length.

    The last one may be shorter, as a file may be cut.
    """
    lengths = ends_to_lengths(ends)
    if len(lengths) < 2:
        return
    differs = lengths != lengths[0]
    differs[-1] = lengths[-1] > lengths[0]
    if differs.any():
        episode = int(np.flatnonzero(differs)[0])
        row = int(lengths[: episode + 1].sum()) - 1
        field = f"{seed.folder}/next_obs, row {row}"
        expected = f"an episode of {lengths[0]} rows"
        way = "Without dones all episodes are of one length: rows were lost."
        raise refuse(field, expected, int(lengths[episode]), way)


# --- writing ---


def write(path: Path, raw: Raw) -> None:
    """Write one folder seed_<k>_data per behaviour k; the episodes of each keep their order."""
    if raw.discrete:
        way = "This layout has no discrete actions: write a vault."
        raise refuse("--to omar", "continuous actions", "discrete ones", way)
    folder.make_new(path)
    unknown: list[int] = []
    written = 0
    for number in np.unique(raw.behaviour):
        mine = np.flatnonzero(raw.behaviour == number)
        unknown += (written + np.flatnonzero(raw.known[mine] == 0)).tolist()
        written += len(mine)
        part = path / f"seed_{number}_data"
        part.mkdir()
        _write_seed(part, raw, mine[raw.left[mine] > 0])
    note = {"dialects": list(raw.dialects), "distinct": raw.distinct, "unknown": unknown}
    folder.write_note(path, note)


def _write_seed(part: Path, raw: Raw, transitions: np.ndarray) -> None:
    """Write the files of these transitions."""
    for i in range(raw.agents):
        arrays = {
            "obs": raw.obs[i][transitions],
            "next_obs": raw.obs[i][transitions + 1],
            "acs": raw.action[i][transitions],
            "rews": raw.reward[transitions, i],
            "dones": raw.done[transitions],
        }
        if raw.state is not None:
            arrays["states"] = raw.state[transitions]
            arrays["next_states"] = raw.state[transitions + 1]
        for name, array in arrays.items():
            np.save(part / f"{name}_{i}.npy", np.asarray(array, np.float32))

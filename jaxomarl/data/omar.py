"""OMAR's folders of .npy files (also CFCQL's, MADiff's and DoF's for the particle tasks).

`<root>/seed_<k>_data/` holds, for each agent i, `obs_i`, `acs_i`, `rews_i`, `next_obs_i` and `dones_i`, and for the
cheetah `states_i` and `next_states_i`; row t of each file is one transition. The prey of tag and world is one more
agent. One such folder may be given, or the folder that holds them; k becomes the behaviour.

An episode ends where its successor is not the next row: that needs no flag, and flags cannot be trusted here (the
particle tasks' are all zero, the cheetah's mark time-outs). Where there are flags, they must agree with it.
"""

import re
from pathlib import Path

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import folder, npy
from jaxomarl.data.raw import Raw, ends_to_lengths, lay, places, room

FIELDS = ("obs", "acs", "rews", "next_obs", "dones")
BLOCK = 1 << 16


def recognises(path: Path) -> bool:
    """Whether the folder, or one right below it, holds obs_0.npy and acs_0.npy."""
    return bool(_parts(path))


def _parts(path: Path) -> list[tuple[int, Path]]:
    """(k, folder) of each seed."""
    found = [p for p in (path, *(sorted(path.iterdir()) if path.is_dir() else ())) if p.is_dir()]
    found = [p for p in found if (p / "obs_0.npy").exists() and (p / "acs_0.npy").exists()]
    if found[:1] == [path]:
        found = [path]
    seeds = [re.fullmatch(r"seed_(\d{1,6})_data", p.name) for p in found]
    numbered = [(int(m[1]), p) for m, p in zip(seeds, found, strict=True) if m]
    return sorted(numbered) if len(numbered) == len(found) else list(enumerate(found))


def read(path: Path) -> Raw:
    """The rows of one seed, or of all; raises JaxomarlError where files are missing, ragged or contradict another."""
    parts, held = _parts(path), folder.note(path)
    for _, part in parts:
        folder.inside(path, str(part.relative_to(path)))
    seeds = [_open(part) for _, part in parts]
    agents = {
        name: len(next(iter(seed.values()))) for (_, name), seed in zip(parts, seeds, strict=True)
    }
    if len(set(agents.values())) != 1:
        shown = {part.name: n for part, n in agents.items()}
        raise refuse(str(path), "as many agents in every seed", shown, "Is a file missing?")
    ends = [_ends(part, seed, bool(held)) for (_, part), seed in zip(parts, seeds, strict=True)]
    lengths = [ends_to_lengths(e) for e in ends]
    at, n = places(np.concatenate(lengths), str(path)), next(iter(agents.values()))
    last = [np.cumsum(x) - 1 for x in lengths]

    def block(name: str, i: int, out: np.ndarray | None = None) -> np.ndarray:
        """[M, width]; with the true successors where the files have them."""
        after = (
            [seed[f"next_{name}"][i][k] for seed, k in zip(seeds, last, strict=True)]
            if name != "acs"
            else None
        )
        shapes = {seed[name][i].shape[1:] for seed in seeds}
        if len(shapes) != 1:
            raise refuse(
                f"{path}, {name}_{i}",
                "one width in every seed",
                sorted(shapes),
                "Import them one by one.",
            )
        rows = lay(
            [seed[name][i] for seed in seeds],
            at,
            None if after is None else np.concatenate(after),
            out,
        )
        for seed in seeds:
            npy.release(seed[name][i])
        return rows

    def every(name: str) -> tuple[np.ndarray, ...]:
        outs = room(len(at.step), [x.shape[1] for x in seeds[0][name]])
        return tuple(block(name, i, out) for i, out in enumerate(outs))

    flags = [seed["dones"][0] for seed in seeds]
    repairs = []
    if not any(f.any() for f in flags):
        repairs = [
            f"dones are all zero: {len(at.ends)} ends found where a successor is not the next row"
        ]
    empty = [part.name for (_, part), f in zip(parts, flags, strict=True) if not len(f)]
    repairs += (
        [f"{len(empty)} empty folders, without a row, are left out: {', '.join(empty[:5])}"]
        if empty
        else []
    )
    behaviour = np.repeat([k for k, _ in parts], [int((x + 1).sum()) for x in lengths])
    return Raw(
        "omar",
        every("obs"),
        every("acs"),
        np.stack([lay([seed["rews"][i] for seed in seeds], at) for i in range(n)], axis=1),
        lay(flags, at),
        at.step,
        at.left,
        _known(held, at.left, str(path)),
        behaviour.astype(np.int32),
        block("states", 0) if all("states" in seed for seed in seeds) else None,
        dialects=folder.names(held.get("dialects", []), f"{path}/{folder.NOTE}"),
        evidence=(f"{len(parts)} seed folders of {n} agents, {len(at.ends)} episodes",),
        repairs=tuple(repairs),
        distinct=held.get("distinct") is True,
    )


def _known(held: dict, left: np.ndarray, where: str) -> np.ndarray:
    """Ones, except at the rows that our writer's note names."""
    known = np.ones(len(left), np.float32)
    rows = held.get("unknown", [])
    if not isinstance(rows, list) or not all(type(x) is int and 0 <= x < len(left) for x in rows):
        raise refuse(
            f"{where}/{folder.NOTE}, unknown",
            f"rows below {len(left)}",
            str(rows)[:80],
            "Copy it again.",
        )
    known[rows] = 0.0
    return known


def _open(part: Path) -> dict[str, list[np.ndarray]]:
    """Field -> one array per agent; nothing is loaded yet but the flags."""
    numbers = {
        int(m[1]) for p in part.iterdir() if (m := re.fullmatch(r"obs_(\d{1,3})\.npy", p.name))
    }
    if numbers != set(range(len(numbers))):
        missing = min(set(range(len(numbers))) - numbers)
        raise refuse(
            f"{part}/obs_{missing}.npy",
            "one file per agent",
            f"agents {sorted(numbers)}",
            "Copy it again.",
        )
    rows = len(npy.table(folder.inside(part, "obs_0.npy"), (2,)))
    found: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    states = (part / "states_0.npy").exists()
    for name in (*FIELDS, *(("states", "next_states") if states else ())):
        found[name] = []
        for i in range(1 if name.endswith("states") else len(numbers)):
            file = folder.inside(part, f"{name}_{i}.npy")
            if not file.is_file():
                raise refuse(
                    str(file),
                    "a file of this name",
                    "none",
                    f"Each agent needs {', '.join(FIELDS)}.",
                )
            flat = name in ("rews", "dones")
            found[name].append(npy.flat(file, rows) if flat else npy.table(file, (2,), rows))
    for name in ("obs", "states") if states else ("obs",):
        for i, (a, b) in enumerate(zip(found[name], found[f"next_{name}"], strict=True)):
            if a.shape != b.shape:
                raise refuse(
                    f"{part}/next_{name}_{i}.npy",
                    f"shape {a.shape}",
                    b.shape,
                    "The two must go together.",
                )
    for i, flags in enumerate(found["dones"]):
        if not np.isin(flags, (0, 1)).all():
            raise refuse(
                f"{part}/dones_{i}.npy", "zeros and ones", "other numbers", "Is the file damaged?"
            )
        if (flags != found["dones"][0]).any():
            row = int(np.flatnonzero(flags != found["dones"][0])[0])
            way = "The agents of these tasks end together: save the same dones for all."
            raise refuse(
                f"{part}/dones_{i}.npy, row {row}", "as in dones_0.npy", flags[row].item(), way
            )
    return found


def _ends(part: Path, seed: dict[str, list[np.ndarray]], ours: bool) -> np.ndarray:
    """Whether each row is its episode's last."""
    flags = seed["dones"][0] != 0
    rows = len(flags)
    broken, moved = np.zeros(rows, bool), np.zeros(rows, bool)
    for obs, after in zip(seed["obs"], seed["next_obs"], strict=True):
        for a in range(0, rows - 1, BLOCK):
            b = min(a + BLOCK, rows - 1)
            now, then, next_row = (
                np.asarray(x, np.float32) for x in (obs[a:b], after[a:b], obs[a + 1 : b + 1])
            )
            broken[a:b] |= ((then != next_row) & ~(np.isnan(then) & np.isnan(next_row))).any(axis=1)
            moved[a:b] |= ((now != next_row) & ~(np.isnan(now) & np.isnan(next_row))).any(axis=1)
        npy.release(obs)
        npy.release(after)
    wrong = flags & ~broken & moved
    wrong[-1:] = False
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        way = "It is inside an episode that goes on: clear it, or save its true successor."
        raise refuse(f"{part}/dones_0.npy, row {row}", "0, for next_obs is the next row", 1, way)
    broken[-1:] = True
    ends = broken | flags
    if flags.any() and not ours and (broken & ~flags)[:-1].any():
        row, way = (
            int(np.flatnonzero(broken & ~flags)[0]),
            "Rows were moved or lost: get the files again.",
        )
        raise refuse(
            f"{part}/next_obs, row {row}", "the next row's obs, for dones is 0", "another", way
        )
    lengths = ends_to_lengths(ends) if rows else np.zeros(0, int)
    if not flags.any() and not ours and len(lengths) > 1:
        odd = np.flatnonzero(lengths[:-1] != lengths[0])
        if len(odd) or lengths[-1] > lengths[0]:
            k = int(odd[0]) if len(odd) else len(lengths) - 1
            row, way = (
                int(lengths[: k + 1].sum()) - 1,
                "Without dones all episodes are of one length: rows were lost.",
            )
            raise refuse(
                f"{part}/next_obs, row {row}",
                f"an episode of {lengths[0]} rows",
                int(lengths[k]),
                way,
            )
    return ends


def write(path: Path, raw: Raw) -> None:
    """One folder seed_<k>_data per behaviour k; the episodes of each keep their order."""
    if raw.discrete:
        raise refuse(
            "--to omar",
            "continuous actions",
            "discrete ones",
            "This layout has no discrete actions: vault.",
        )
    folder.make_new(path)
    unknown, base = [], 0
    for k in np.unique(raw.behaviour):
        mine = np.flatnonzero(raw.behaviour == k)
        rows = mine[raw.left[mine] > 0]
        unknown += (base + np.flatnonzero(raw.known[mine] == 0)).tolist()
        base += len(mine)
        part = path / f"seed_{k}_data"
        part.mkdir()
        for i in range(raw.agents):
            arrays = {
                "obs": raw.obs[i][rows],
                "next_obs": raw.obs[i][rows + 1],
                "acs": raw.action[i][rows],
                "rews": raw.reward[rows, i],
                "dones": raw.done[rows],
            }
            if raw.state is not None:
                arrays |= {"states": raw.state[rows], "next_states": raw.state[rows + 1]}
            for name, array in arrays.items():
                np.save(part / f"{name}_{i}.npy", np.asarray(array, np.float32))
    said = {"dialects": list(raw.dialects), "distinct": raw.distinct, "unknown": unknown}
    folder.write_note(path, said)

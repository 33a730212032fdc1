"""Minari sets of several agents. Minari has no layout for them; this is ours, read and written with h5py and json.

`<id>/data/metadata.json` and `main_data.hdf5`, as Minari's own library reads them. Spaces are dictionaries with one
entry per agent, so that each keeps its true width:

    observations/agent_<i>  [T + 1, o_i] float32        actions/agent_<i>  [T, a_i] float32, or whole numbers [T]
    rewards                 [T] mean over the agents     terminations, truncations  [T] bool, at the last step only
    infos/rewards           [T + 1, N], of each agent; row 0 belongs to the reset and is zero
    infos/state             [T + 1, S], and infos/available [T + 1, N, A], where the set has them

An episode's attributes have `behaviour`, and `known`, 0 where the last observation is a copy because it was lost.
metadata.json has an entry "jaxomarl": the version of this layout, the dialects, and whether time-outs are told.
"""

from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.data import folder, hdf5
from jaxomarl.data.raw import Raw, lay, one_hot, places

LAYOUT = 1
FILES = ("metadata.json", "main_data.hdf5")
FLAGS = ("terminations", "truncations")


def _home(path: Path) -> Path:
    """The folder of the two files, for the set's own folder or its `data`."""
    return path / "data" if (path / "data" / FILES[0]).exists() else path


def recognises(path: Path) -> bool:
    """Whether the folder, or its `data`, holds metadata.json and main_data.hdf5."""
    return all((_home(path) / name).exists() for name in FILES)


def read(path: Path) -> Raw:
    """The rows of a set; raises JaxomarlError where it has another layout, or is damaged or unsafe to read."""
    home = _home(path)
    said = folder.read_json(folder.inside(home, FILES[0]))
    ours, field = said.get("jaxomarl"), f"{home / FILES[0]}"
    if not isinstance(ours, dict) or ours.get("layout") != LAYOUT:
        way = (
            "Minari has no layout for several agents; ours is described in jaxomarl/data/minari.py."
        )
        raise refuse(f"{field}, jaxomarl", f"an entry with layout {LAYOUT}", str(ours)[:80], way)
    choices = ours.get("choices")
    agents = len(choices) if isinstance(choices, list) else 0
    if not agents or not all(c is None or (type(c) is int and 0 < c < 1 << 12) for c in choices):  # type: ignore
        raise refuse(
            f"{field}, jaxomarl, choices",
            "null or a count for each agent",
            str(choices)[:80],
            "Copy again.",
        )
    file = folder.inside(home, FILES[1])
    with hdf5.opened(file) as opened:
        names = sorted((n for n in opened if n.startswith("episode_")), key=lambda n: (len(n), n))
        if not names:
            raise refuse(
                str(file),
                "groups episode_0, episode_1, ...",
                sorted(opened)[:20],
                "The set is empty.",
            )
        episodes = [_episode(opened, name, str(file), choices) for name in names]  # type: ignore[arg-type]
    moving = [e for e in episodes if e["steps"]]
    if not moving:
        raise refuse(
            str(file),
            "an episode with a step",
            f"{len(episodes)} without",
            "The set is empty: make it again.",
        )
    raw = _joined(moving, choices, ours, field)  # type: ignore[arg-type]
    if len(moving) == len(episodes):
        return raw
    return raw._replace(
        repairs=(f"{len(episodes) - len(moving)} empty episodes, of 0 steps, are left out",)
    )


def _episode(file: Any, name: str, where: str, choices: list[int | None]) -> dict[str, Any]:
    """One episode's arrays."""
    group, where = hdf5.child(file, name, where), f"{where}, {name}"
    inner = {key: hdf5.child(group, key, where) for key in ("observations", "actions", "infos")}
    for key, found in {**inner, "": group}.items():
        if not isinstance(found, hdf5.h5py().Group):
            raise refuse(f"{where}, {key}", "a group", type(found).__name__, "Is it of our layout?")
    steps = len(hdf5.array(group, "rewards", where, (1,)))
    out: dict[str, Any] = {"steps": steps, "obs": [], "action": []}
    for i, choice in enumerate(choices):
        agent = f"agent_{i}"
        out["obs"].append(
            hdf5.array(inner["observations"], agent, f"{where}, observations", (2,), steps + 1)
        )
        action = hdf5.array(
            inner["actions"], agent, f"{where}, actions", (2,) if choice is None else (1,), steps
        )
        out["action"].append(
            action if choice is None else one_hot(action, choice, f"{where}, actions, {agent}")
        )
    for key, axes in {"rewards": 2, "state": 2, "available": 3}.items():
        if key in inner["infos"]:
            out[key] = hdf5.array(inner["infos"], key, f"{where}, infos", (axes,), steps + 1)
    if "rewards" not in out or out["rewards"].shape[1:] != (len(choices),):
        found = f"shape {out['rewards'].shape}" if "rewards" in out else sorted(inner["infos"])[:20]
        way = "The layout is described in jaxomarl/data/minari.py."
        raise refuse(f"{where}, infos, rewards", f"shape ({steps + 1}, {len(choices)})", found, way)
    if "available" in out and out["available"].shape[1] != len(choices):
        expected, way = (
            f"shape ({steps + 1}, {len(choices)}, A)",
            "The layout is described in jaxomarl/data/minari.py.",
        )
        raise refuse(f"{where}, infos, available", expected, f"shape {out['available'].shape}", way)
    for key in FLAGS:
        flags = hdf5.flat(group, key, where, steps) != 0
        if flags[:-1].any():
            raise refuse(
                f"{where}, {key}",
                "an end at the last step only",
                "one before it",
                "Contradictory ends.",
            )
        out[key] = bool(flags[-1:].any())
    for key in ("behaviour", "known"):
        value = np.asarray(group.attrs.get(key, 0 if key == "behaviour" else 1))
        if value.shape or value.dtype.kind not in "iub" or not 0 <= int(value) < 1 << 31:
            raise refuse(
                f"{where}, {key}", "a whole number", str(value)[:40], "Is it of our layout?"
            )
        out[key] = int(value)
    return out


def _joined(
    episodes: list[dict[str, Any]], choices: list[int | None], ours: dict[str, Any], where: str
) -> Raw:
    at, agents = places([e["steps"] for e in episodes], where), range(len(choices))
    if len({c is None for c in choices}) != 1:
        raise refuse(
            f"{where}, choices",
            "discrete actions for all agents or none",
            str(choices)[:80],
            "Convert it.",
        )

    def whole(parts: list[np.ndarray], name: str) -> np.ndarray:
        shapes = {p.shape[1:] for p in parts}
        if len(shapes) != 1:
            raise refuse(
                f"{where}, {name}",
                "one width in every episode",
                sorted(shapes),
                "Is the set damaged?",
            )
        return np.concatenate(parts, dtype=np.float32, casting="unsafe")

    def maybe(name: str) -> np.ndarray | None:
        have = [name in e for e in episodes]
        if any(have) and not all(have):
            raise refuse(
                f"{where}, infos, {name}",
                "it in every episode",
                f"{sum(have)} of {len(have)}",
                "Repair it.",
            )
        return whole([e[name] for e in episodes], name) if all(have) else None

    lengths = [e["steps"] + 1 for e in episodes]
    done = np.zeros(len(at.step), np.float32)
    done[at.ends - 1] = [e["terminations"] for e in episodes]
    cut = np.zeros(len(at.step), np.float32)
    cut[at.ends - 1] = [e["truncations"] for e in episodes]
    known = np.ones(len(at.step), np.float32)
    known[at.ends - 1] = [bool(e["known"]) for e in episodes]
    gains = whole([e["rewards"][1:] for e in episodes], "rewards")
    return Raw(
        "minari",
        tuple(whole([e["obs"][i] for e in episodes], f"observations, agent_{i}") for i in agents),
        tuple(
            lay([whole([e["action"][i] for e in episodes], f"actions, agent_{i}")], at)
            for i in agents
        ),
        lay([gains], at),
        done,
        at.step,
        at.left,
        known,
        np.repeat([e["behaviour"] for e in episodes], lengths).astype(np.int32),
        maybe("state"),
        maybe("available"),
        choices[0] is not None,
        dialects=folder.names(ours.get("dialects", []), where),
        evidence=(f"{len(episodes)} episode groups, layout {LAYOUT}",),
        distinct=ours.get("distinct") is True,
        cut=cut,
    )

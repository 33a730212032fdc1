"""The fit of what a reader found to a task: checked, repaired where the format is known to need it, padded, packed."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Episodes, Spec, Task, refuse
from jaxomarl.data import ends, rules
from jaxomarl.data.dataset import content_hash, pack
from jaxomarl.data.manifest import manifest
from jaxomarl.data.raw import (
    Raw,
    blocks,
    padding,
    place,
    seen,
    side_by_side,
    still_states,
    where_to_look,
)

ROUNDING = 1e-4
"""An action beyond its bound by no more than this is float rounding: clipped and counted."""
PREYS = {16: 14, 24: 22}
"""Observation width of a predator -> of the prey, the fourth agent in the files of tag and world."""


def fit(raw: Raw, task: Task) -> tuple[Dataset, dict[str, Any]]:
    """The rows of `raw` as a data set of `task`, and its manifest, whose origin lists every repair with its count.

    Repaired: a prey among the agents (dropped), padded columns (cut off where they say nothing), rounded actions
    (clipped), one-step stubs of a sliced set (dropped), ends that the rules overrule (see `ends`), a state that stays
    the reset's (made from the observations). Raises JaxomarlError, naming field, expected, found and the way out, for
    whatever else differs from the task: agents, widths, the kind of actions, the dialect, values that are not finite,
    actions out of bounds, episodes that the task's rules cannot give.
    """
    spec, repairs = task.env.spec, list(raw.repairs)
    if raw.discrete != spec.discrete:
        kinds = {True: "discrete", False: "continuous"}
        way = f"{task.name} is another kind of task. {_hint(raw, task.env.spec, task.name)}"
        raise refuse("data, actions", f"{kinds[spec.discrete]} ones", kinds[raw.discrete], way)
    if not len(raw.step) or not (raw.left > 0).any():
        raise refuse(
            "data", "at least one transition", 0, "The set is empty: make or copy it again."
        )
    raw = _agents(raw, task, repairs)
    raw = _widths(raw, task, repairs)
    _dialect(raw, task)
    raw = ends.without_stubs(raw, spec, repairs)
    _finite(raw, spec.state_dim)
    action = _bounded(raw, spec, repairs)
    done, counts = ends.decide(raw, spec, task.name, repairs)
    obs = side_by_side(raw.obs, spec.obs_width)
    rows: dict[str, Any] = {
        "obs": obs,
        "state": _state(raw, obs, spec, task.name, repairs),
        "action": action,
        "done": done,
    }
    rows |= {name: getattr(raw, name) for name in ("reward", "step", "left", "behaviour")}
    data = pack(Episodes(**rows), spec, jnp.asarray(raw.known))
    if raw.available is not None:
        data = dataclasses.replace(
            data, extra={"available": jnp.asarray(_legal(raw, spec, action))}
        )
    origin = {
        "format": raw.format,
        "dialects": list(raw.dialects),
        "evidence": list(raw.evidence),
        "repairs": repairs,
        "unknown_successors": int(((raw.known == 0) & (raw.left == 1)).sum()),
        **counts,
    }
    return data, manifest(task, raw.quality or raw.format, data, origin)


def again(data: Dataset, manifest: dict[str, Any], spec: Spec) -> tuple[Dataset, dict[str, Any]]:
    """A set that was fitted once, perhaps by an earlier version: its ends and state as this version would take them.

    Where nothing changes, what was given is returned. Raises JaxomarlError as `fit` does for ends and state.
    """
    name, repairs = str(manifest.get("task", "the task")), []
    held = blocks(data)
    raw = seen(data, spec)
    done = ends.by_rules(raw, spec, name, repairs)
    state = _state(raw, held["obs"], spec, name, repairs)
    if np.array_equal(done, held["done"]) and np.array_equal(state, held["state"]):
        return data, manifest
    rows: dict[str, Any] = {name: held[name] for name in ("obs", "action", "reward")}
    rows |= {"state": state, "done": done} | {
        k: getattr(data, k) for k in ("step", "left", "behaviour")
    }
    fixed = dataclasses.replace(
        data, rows=pack(Episodes(**rows), spec, jnp.asarray(held["known"])).rows
    )
    origin = manifest.get("origin")
    origin = dict(origin) if isinstance(origin, dict) else {}
    last = np.asarray(data.left) == 1
    limit = np.asarray(data.step)[last] + 1 == spec.horizon
    counts = {
        "terminations": int(done[last].sum()),
        "time_outs": int((limit & (done[last] == 0)).sum()),
    }
    before = origin.get("repairs")
    origin |= {"repairs": [*(before if isinstance(before, list) else []), *repairs], **counts}
    return fixed, {**manifest, "sha256": content_hash(fixed), "origin": origin}


def _dialect(raw: Raw, task: Task) -> None:
    mine = task.env.spec.dialect
    if not raw.dialects or mine in raw.dialects:
        return
    way = f"Data and task must follow the same rules. {_hint(raw, task.env.spec, task.name)}"
    if mine == "mpe-own-prey" and "mpe-omar" in raw.dialects:
        way = f"This set was made with OMAR's prey: --task {task.name}:prey=FILE, its pretrained_adv_model.pt."
    elif mine.startswith("mpe-prey-") and "mpe-omar" in raw.dialects:
        way = "The file given as prey is not OMAR's: take the pretrained_adv_model.pt that came with the data."
    found = raw.dialects[0] if len(raw.dialects) == 1 else raw.dialects
    raise refuse("data, dialect", f"{mine}, the rules of {task.name}", found, way)


def _hint(raw: Raw, spec: Spec, name: str) -> str:
    """The tasks whose rules the set may follow, where they are not the task's own; else how to look at it."""
    others = [x.task for x in rules.candidates(raw) if x.dialect != spec.dialect or x.task != name]
    mine = name.partition(":")[0]
    others.sort(
        key=lambda other: other.partition(":")[0] != mine
    )  # the same robot under other rules comes first
    look = where_to_look(raw)
    return f"The set looks like --task {' or '.join(others[:3])}. {look}" if others else look


def _agents(raw: Raw, task: Task, repairs: list[str]) -> Raw:
    """Without the prey, where it is one more agent."""
    spec = task.env.spec
    extra = raw.agents - spec.agents
    if not extra:
        return raw
    filled = _prey(raw, spec) if extra == 1 else None
    if filled is None:
        missing = (
            "Files of some agents are missing" if extra < 0 else "It has more agents than the task"
        )
        found = f"{raw.agents}, whose observations have {[x.shape[1] for x in raw.obs]} columns"
        raise refuse(
            "data, agents",
            f"{spec.agents}, as {task.name} has",
            found,
            f"{missing}. {_hint(raw, task.env.spec, task.name)}",
        )
    padded = f" (its padding was {filled})" if filled else ""
    repairs.append(
        f"agent {spec.agents}, the prey, is dropped: it belongs to the environment{padded}"
    )
    keep = slice(spec.agents)
    return raw._replace(
        obs=raw.obs[keep],
        action=raw.action[keep],
        reward=raw.reward[:, keep],
        state=None,
        available=None if raw.available is None else raw.available[:, keep],
    )


def _prey(raw: Raw, spec: Spec) -> str | None:
    """What the prey's observation was padded with, "" where it was not; None where the last agent is no prey."""
    wide, last = spec.obs_dims[0], raw.obs[-1]
    hunted = spec.dialect.startswith("mpe-") and spec.dialect != "mpe-six" and wide in PREYS
    if not hunted or any(x.shape[1] != wide for x in raw.obs[:-1]):
        return None
    if last.shape[1] == PREYS[wide]:
        return ""
    if last.shape[1] != wide:
        return None
    return padding(last, PREYS[wide]) or padding(last[:, ::-1], PREYS[wide]) or None


def _widths(raw: Raw, task: Task, repairs: list[str]) -> Raw:
    """Cut off columns that are padding; refuse other widths, all of them side by side."""
    spec, cut, new, moves = task.env.spec, [], {}, raw.left > 0
    for name, expected in (("obs", spec.obs_dims), ("action", spec.act_dims)):
        arrays = list(getattr(raw, name))
        for i, width in enumerate(expected):
            found = arrays[i].shape[1]
            filled = ""
            if found > width:  # successor rows hold no action
                filled = padding(arrays[i] if name == "obs" else arrays[i][moves], width)
            if filled:
                cut.append(f"{found - width} of {name} {i} ({filled})")
                arrays[i] = arrays[i][:, :width]
            elif name == "action" and raw.discrete and raw.available is None and found < width:
                arrays[i] = np.pad(
                    arrays[i], ((0, 0), (0, width - found))
                )  # never the last actions
        widths = tuple(x.shape[1] for x in arrays)
        if widths != expected:
            way = "Another task, another number of neighbours, or an agent id among the columns? "
            way += _hint(raw, spec, task.name)
            raise refuse(f"data, {name} widths of the agents", str(expected), widths, way)
        new[name] = tuple(arrays)
    if cut:
        repairs.append(f"columns beyond an agent's own are cut off as padding: {', '.join(cut)}")
    return raw._replace(**new)


def _finite(raw: Raw, width: int) -> None:
    """Refuse NaN and infinity, naming the field, the agent, the first row and how many rows have them."""
    fields: list[tuple[str, np.ndarray | None]] = [
        (f"obs of agent {i}", x) for i, x in enumerate(raw.obs)
    ]
    fields += [(f"action of agent {i}", x) for i, x in enumerate(raw.action)]
    fields += [(f"reward of agent {i}", raw.reward[:, i]) for i in range(raw.agents)]
    state = (
        raw.state if raw.state is not None and raw.state.shape[1] == width else None
    )  # any other is not used
    fields += [("done", raw.done), ("state", state), ("available", raw.available)]
    for name, array in fields:
        if array is None or np.isfinite(array).all():
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        found = f"{int(bad.sum())} rows that are not, the first is {place(raw, int(np.flatnonzero(bad)[0]))}"
        raise refuse(
            f"data, {name}", "finite numbers", found, "Clean the set, or leave these episodes out."
        )


def _bounded(raw: Raw, spec: Spec, repairs: list[str]) -> np.ndarray:
    """Actions [M, N, A], clipped where rounding took them out of [-1, 1]; one-hot rows where discrete."""
    action = side_by_side(raw.action, spec.act_width)
    now = raw.left > 0
    if spec.discrete:
        for i in range(spec.agents):
            good = np.isin(action[now, i], (0, 1)).all(axis=1) & (action[now, i].sum(axis=1) == 1)
            if not good.all():
                way = "A discrete action is a single 1 among zeros."
                raise refuse(
                    f"data, action of agent {i}",
                    "one-hot rows",
                    f"{int((~good).sum())} others",
                    way,
                )
        return action
    size = np.abs(action).max(axis=2)
    if (size > 1 + ROUNDING).any():
        agent = int(size.max(axis=0).argmax())
        beyond = size[:, agent] > 1 + ROUNDING
        found = (
            f"up to {float(size[:, agent].max()):.6g} in {int(beyond.sum())} rows, "
            f"the first is {place(raw, int(np.flatnonzero(beyond)[0]))}"
        )
        way = "Actions in other units, or of another environment; rescale or clip them before the import."
        raise refuse(f"data, action of agent {agent}", "numbers in [-1, 1]", found, way)
    many = int((size > 1).any(axis=1).sum())
    if many:
        repairs.append(
            f"actions of {many} rows are beyond 1 by rounding, {float(size.max()) - 1:.1e} at most: clipped"
        )
        action = np.clip(action, -1.0, 1.0)
    return action


def _state(raw: Raw, obs: np.ndarray, spec: Spec, name: str, repairs: list[str]) -> np.ndarray:
    """The set's state, or the observations side by side where that is the task's and the set's is none or stale."""
    rows = len(obs)
    made = None
    if obs.shape[1] * obs.shape[2] == spec.state_dim:
        made = obs.reshape(rows, -1)
    elif sum(spec.obs_dims) == spec.state_dim:
        made = np.concatenate([x.astype(np.float32) for x in raw.obs], axis=1)
    if raw.state is not None and raw.state.shape[1] == spec.state_dim:
        moving, still = still_states(raw)
        stale = f"in {still} of {moving} episodes, while the observations do"
        if not still:
            return raw.state
        if made is not None:
            repairs.append(
                f"state: it never changes {stale}; made of the agents' observations side by side"
            )
            return made
        if still < moving:
            repairs.append(
                f"WARNING, state: it never changes {stale}; kept, for it cannot be made from them"
            )
            return raw.state
        way = "Its recorder kept the reset's state in every row: record the set again with the state of each step."
        raise refuse(
            "data, state", "one that changes within an episode", f"none that does {stale}", way
        )
    if made is not None:
        repairs.append("state: the agents' observations side by side")
        return made
    found = "no state" if raw.state is None else raw.state.shape[1]
    way = f"This set has no such state and it cannot be made from the observations. {_hint(raw, spec, name)}"
    raise refuse("data, state width", str(spec.state_dim), found, way)


def _legal(raw: Raw, spec: Spec, action: np.ndarray) -> np.ndarray:
    """Legal actions [M, N, A]; an action that was not legal is refused."""
    legal = np.asarray(raw.available, np.float32)
    shape = (len(raw.step), spec.agents, spec.act_width)
    if legal.shape != shape:
        raise refuse(
            "data, legal actions",
            f"shape {shape}",
            legal.shape,
            f"Masks and actions belong together. {where_to_look(raw)}",
        )
    if not np.isin(legal, (0, 1)).all():
        odd = ~np.isin(legal, (0, 1)).all(axis=(1, 2))
        found = f"other numbers in {int(odd.sum())} rows, the first is {place(raw, int(np.flatnonzero(odd)[0]))}"
        raise refuse(
            "data, legal actions",
            "zeros and ones",
            found,
            f"Is the set damaged? {where_to_look(raw)}",
        )
    broken = ((legal == 0) & (action > 0)).any(axis=(1, 2))
    if broken.any():
        found = f"{int(broken.sum())} rows with others, the first is {place(raw, int(np.flatnonzero(broken)[0]))}"
        raise refuse(
            "data, action",
            "legal actions only",
            found,
            "Contradictory: the set's own masks forbid them.",
        )
    return legal

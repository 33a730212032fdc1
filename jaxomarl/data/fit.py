"""The fit of what a reader found to a task: checked, repaired where the format is known to need it, padded, packed."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Episodes, Spec, Task, refuse
from jaxomarl.data.dataset import pack
from jaxomarl.data.manifest import manifest
from jaxomarl.data.raw import Raw, side_by_side

ROUNDING = 1e-4
"""An action beyond its bound by no more than this is float rounding: clipped and counted."""
PREYS = {(16, 14), (24, 22)}
"""Observation widths of a predator and of the prey, the fourth agent in the files of tag and world."""
PATHS = "`python -m experiments.data describe PATH` shows what the set holds."


def fit(raw: Raw, task: Task) -> tuple[Dataset, dict[str, Any]]:
    """The rows of `raw` as a data set of `task`, and its manifest, whose origin lists every repair with its count.

    Repaired: a prey among the agents (dropped), padded columns (cut off where they are zeros), rounded actions
    (clipped), time limits marked as terminations. Raises JaxomarlError, naming field, expected, found and the way
    out, for whatever else differs from the task: the dialect, agents, widths, the kind of actions, values that are
    not finite, actions out of bounds, episodes that the task's rules cannot give.
    """
    spec, repairs = task.env.spec, list(raw.repairs)
    _dialect(raw, task)
    if raw.discrete != spec.discrete:
        kinds = {True: "discrete", False: "continuous"}
        way = f"{task.name} is another kind of task. {PATHS}"
        raise refuse("data, actions", f"{kinds[spec.discrete]} ones", kinds[raw.discrete], way)
    raw = _agents(raw, spec, task.name, repairs)
    raw = _widths(raw, spec, repairs)
    _finite(raw)
    action = _bounded(raw, spec, repairs)
    done, ends = _ends(raw, spec, repairs)
    obs = side_by_side(raw.obs, spec.obs_width)
    rows: dict[str, Any] = {"obs": obs, "state": _state(raw, obs, spec, repairs), "action": action, "done": done}
    rows |= {name: getattr(raw, name) for name in ("reward", "step", "left", "behaviour")}
    data = pack(Episodes(**rows), spec, jnp.asarray(raw.known))
    if raw.available is not None:
        data = dataclasses.replace(data, extra={"available": jnp.asarray(_legal(raw, spec, action))})
    origin = {
        "format": raw.format,
        "dialects": list(raw.dialects),
        "evidence": list(raw.evidence),
        "repairs": repairs,
        "unknown_successors": int(((raw.known == 0) & (raw.left == 1)).sum()),
        **ends,
    }
    return data, manifest(task, raw.quality or raw.format, data, origin)


def _dialect(raw: Raw, task: Task) -> None:
    mine = task.env.spec.dialect
    if not raw.dialects or mine in raw.dialects:
        return
    way = f"Data and task must follow the same rules. {PATHS}"
    if mine == "mpe-own-prey" and "mpe-omar" in raw.dialects:
        way = f"This set was made with OMAR's prey: --task {task.name}:prey=FILE, its pretrained_adv_model.pt."
    elif mine.startswith("mpe-prey-") and "mpe-omar" in raw.dialects:
        way = "The file given as prey is not OMAR's: take the pretrained_adv_model.pt that came with the data."
    elif mine.startswith("mamujoco-") and raw.dialects[0].startswith("mamujoco-"):
        way = f"--task {task.name.partition(':')[0]}:dialect={raw.dialects[0].split('-')[1]} has the rules of this set."
    found = raw.dialects[0] if len(raw.dialects) == 1 else raw.dialects
    raise refuse("data, dialect", f"{mine}, the rules of {task.name}", found, way)


def _agents(raw: Raw, spec: Spec, name: str, repairs: list[str]) -> Raw:
    """Without the prey, where it is one more agent."""
    if not len(raw.step) or not (raw.left > 0).any():
        raise refuse("data", "at least one transition", 0, "The set is empty.")
    extra = raw.agents - spec.agents
    if extra == 1 and _is_prey(raw, spec):
        repairs.append(f"agent {spec.agents}, the prey, is dropped: it belongs to the environment")
        keep = slice(spec.agents)
        raw = raw._replace(
            obs=raw.obs[keep],
            action=raw.action[keep],
            reward=raw.reward[:, keep],
            state=None,
            available=None if raw.available is None else raw.available[:, keep],
        )
    elif extra:
        missing = "Files of some agents are missing" if extra < 0 else "It has more agents than the task"
        found = f"{raw.agents}, whose observations have {[x.shape[1] for x in raw.obs]} columns"
        raise refuse("data, agents", f"{spec.agents}, as {name} has", found, f"{missing}. {PATHS}")
    return raw


def _is_prey(raw: Raw, spec: Spec) -> bool:
    """Whether the last agent is the prey: two columns narrower, or padded to the predators' width with zeros."""
    widths, last = {x.shape[1] for x in raw.obs[:-1]}, raw.obs[-1]
    if not spec.dialect.startswith("mpe-") or len(widths) != 1 or spec.act_dims != (2,) * spec.agents:
        return False
    wide = widths.pop()
    if (wide, last.shape[1]) in PREYS:
        return True
    padded = (wide, wide - 2) in PREYS and last.shape[1] == wide
    return padded and not (last[:, -2:].any() and last[:, :2].any())


def _widths(raw: Raw, spec: Spec, repairs: list[str]) -> Raw:
    """Cut off columns that are padding; refuse other widths, all of them side by side."""
    cut, new = {}, {}
    for name, expected in (("obs", spec.obs_dims), ("action", spec.act_dims)):
        arrays = list(getattr(raw, name))
        for i, width in enumerate(expected):
            surplus = arrays[i][:, width:]
            if surplus.shape[1] and not surplus.any():
                cut[f"{name} {i}"] = surplus.shape[1]
                arrays[i] = arrays[i][:, :width]
            elif name == "action" and raw.discrete and raw.available is None and arrays[i].shape[1] < width:
                arrays[i] = np.pad(arrays[i], ((0, 0), (0, width - arrays[i].shape[1])))  # never the last actions
        found = tuple(x.shape[1] for x in arrays)
        if found != expected:
            way = f"Another task, another number of neighbours, or an agent id among the columns? {PATHS}"
            raise refuse(f"data, {name} widths of the agents", str(expected), found, way)
        new[name] = tuple(arrays)
    if cut:
        repairs.append(f"columns that are zero in all rows are cut off as padding: {cut}")
    return raw._replace(**new)


def _finite(raw: Raw) -> None:
    """Refuse NaN and infinity, naming the field, the agent, the first row and how many rows have them."""
    fields: list[tuple[str, np.ndarray | None]] = [(f"obs of agent {i}", x) for i, x in enumerate(raw.obs)]
    fields += [(f"action of agent {i}", x) for i, x in enumerate(raw.action)]
    fields += [(f"reward of agent {i}", raw.reward[:, i]) for i in range(raw.agents)]
    fields += [("done", raw.done), ("state", raw.state), ("available", raw.available)]
    for name, array in fields:
        if array is None or np.isfinite(array).all():
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        found = f"{int(bad.sum())} rows that are not, the first is row {int(np.flatnonzero(bad)[0])}"
        raise refuse(f"data, {name}", "finite numbers", found, "Clean the set, or leave these episodes out.")


def _bounded(raw: Raw, spec: Spec, repairs: list[str]) -> np.ndarray:
    """Actions [M, N, A], clipped where rounding took them out of [-1, 1]; one-hot rows where discrete."""
    action = side_by_side(raw.action, spec.act_width)
    now = raw.left > 0
    if spec.discrete:
        for i in range(spec.agents):
            good = np.isin(action[now, i], (0, 1)).all(axis=1) & (action[now, i].sum(axis=1) == 1)
            if not good.all():
                way = "A discrete action is a single 1 among zeros."
                raise refuse(f"data, action of agent {i}", "one-hot rows", f"{int((~good).sum())} others", way)
        return action
    size = np.abs(action).max(axis=2)
    if (size > 1 + ROUNDING).any():
        agent = int(size.max(axis=0).argmax())
        beyond = size[:, agent] > 1 + ROUNDING
        found = (
            f"up to {float(size[:, agent].max()):.6g} in {int(beyond.sum())} rows, "
            f"the first is row {int(np.flatnonzero(beyond)[0])}"
        )
        way = "Actions in other units, or of another environment; rescale or clip them before the import."
        raise refuse(f"data, action of agent {agent}", "numbers in [-1, 1]", found, way)
    many = int((size > 1).any(axis=1).sum())
    if many:
        repairs.append(f"actions of {many} rows are beyond 1 by rounding, {float(size.max()) - 1:.1e} at most: clipped")
        action = np.clip(action, -1.0, 1.0)
    return action


def _ends(raw: Raw, spec: Spec, repairs: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Terminations [M] and counts of how episodes end; refuses ends that the task's rules cannot give."""
    done, last = np.asarray(raw.done, np.float32), raw.left == 1
    if not np.isin(done, (0, 1)).all() or (done[~last] != 0).any():
        bad = ~np.isin(done, (0, 1)) | (~last & (done != 0))
        way = "Contradictory: a termination must be its episode's last transition."
        raise refuse(f"data, done, row {int(np.flatnonzero(bad)[0])}", "0 inside an episode", "another", way)
    length = raw.step[last] + 1
    if (length > spec.horizon).any():
        many, longest = int((length > spec.horizon).sum()), int(length.max())
        way = "The set was made with another time limit (some wrappers take one step more): cut it or collect it again."
        found = f"{many} of {len(length)} are longer, up to {longest}"
        raise refuse("data, episode length", f"at most {spec.horizon} steps", found, way)
    limit = last & (raw.step + 1 == spec.horizon)
    wrong = limit & (done > 0)
    if not raw.distinct and spec.horizon > 1 and wrong.any():  # a game of one step ends by its rules
        repairs.append(f"{int(wrong.sum())} ends at the time limit of {spec.horizon} steps are time-outs: done = 0")
        done = np.where(wrong, 0, done).astype(np.float32)
    terminated, out = done[last] > 0, limit[last] & (done[last] == 0)
    cut = ~terminated & ~out
    behaviour = raw.behaviour[last]
    tail = np.append(behaviour[1:] != behaviour[:-1], True)
    if (cut & ~tail).any():
        odd = int(np.flatnonzero(cut & ~tail)[0])
        found = f"{int((cut & ~tail).sum())} that stop before, the first of {int(length[odd])} steps"
        way = "Rows are missing, or the time limit was another. " + PATHS
        raise refuse("data, episodes", f"a termination or {spec.horizon} steps", found, way)
    if cut.any():
        repairs.append(f"{int(cut.sum())} episodes at the end of a file stop in the middle: taken for time-outs")
    return done, {"terminations": int(terminated.sum()), "time_outs": int(out.sum()), "cut": int(cut.sum())}


def _state(raw: Raw, obs: np.ndarray, spec: Spec, repairs: list[str]) -> np.ndarray:
    """The set's state, or the observations side by side where that is the task's."""
    rows, found = len(obs), 0
    if raw.state is not None:
        found = raw.state.shape[1]
    if raw.state is not None and found == spec.state_dim:
        return raw.state
    if obs.shape[1] * obs.shape[2] == spec.state_dim:
        repairs.append("state: the agents' observations side by side")
        return obs.reshape(rows, -1)
    if sum(spec.obs_dims) == spec.state_dim:
        repairs.append("state: the agents' observations side by side")
        return np.concatenate([x.astype(np.float32) for x in raw.obs], axis=1)
    way = f"This set has no such state and it cannot be made from the observations. {PATHS}"
    raise refuse("data, state width", str(spec.state_dim), found or "no state", way)


def _legal(raw: Raw, spec: Spec, action: np.ndarray) -> np.ndarray:
    """Legal actions [M, N, A]; an action that was not legal is refused."""
    legal = np.asarray(raw.available, np.float32)
    if legal.shape != (len(raw.step), spec.agents, spec.act_width) or not np.isin(legal, (0, 1)).all():
        expected = f"zeros and ones of shape {(len(raw.step), spec.agents, spec.act_width)}"
        raise refuse("data, legal actions", expected, legal.shape, PATHS)
    broken = ((legal == 0) & (action > 0)).any(axis=(1, 2))
    if broken.any():
        found = f"{int(broken.sum())} rows with others, the first is row {int(np.flatnonzero(broken)[0])}"
        raise refuse("data, action", "legal actions only", found, "Contradictory: the set's own masks forbid them.")
    return legal

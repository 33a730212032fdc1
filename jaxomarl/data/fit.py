"""Fits what a reader found to a task: checks it, repairs what its format is known for, packs it."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Episodes, JaxomarlError, Spec, Task, refuse
from jaxomarl.data import ends, rules
from jaxomarl.data.dataset import content_hash, pack
from jaxomarl.data.manifest import manifest
from jaxomarl.data.raw import (
    Raw,
    blocks,
    count_constant_states,
    describe_padding,
    describe_row,
    from_dataset,
    how_to_inspect,
    stack_agents,
)

ROUNDING = 1e-4
"""An action beyond its bound by no more than this is float rounding: clipped and counted."""
PREYS = {16: 14, 24: 22}
"""Observation width of a predator -> of the prey, the fourth agent of tag's and world's files."""


def fit(raw: Raw, task: Task) -> tuple[Dataset, dict[str, Any]]:
    """The rows of `raw` as a data set of `task`, and its manifest.

    The manifest's origin lists every repair with its count. These are repaired: a prey among the
    agents (dropped), padded columns (cut off where they say nothing), rounded actions (clipped),
    one-step stubs of a sliced set (dropped), ends that the rules overrule (see `ends`), and a state
    that never changes within an episode (made from the observations).

    Raises JaxomarlError, naming field, expected, found and the way out, for whatever else differs
    from the task: agents, widths, the kind of actions, the dialect, values that are not finite,
    actions out of bounds, episodes that the task's rules do not allow.
    """
    spec = task.env.spec
    repairs = list(raw.repairs)

    # --- what the set is of ---
    _check_kind(raw, task)
    raw = _without_prey(raw, task, repairs)
    raw = _without_padding(raw, task, repairs)
    _check_dialect(raw, task)

    # --- values ---
    raw = ends.without_stubs(raw, spec, repairs)
    _check_finite(raw, spec.state_dim)
    action = _bounded_actions(raw, spec, repairs)
    done, counts = ends.decide(raw, spec, task.name, repairs)
    obs = stack_agents(raw.obs, spec.obs_width)
    state = _state(raw, obs, spec, task.name, repairs)

    # --- packing ---
    # NumPy arrays, where `Episodes` names JAX's: `pack` takes both
    rows: dict[str, Any] = {"obs": obs, "state": state, "action": action, "done": done}
    for name in ("reward", "step", "left", "behaviour"):
        rows[name] = getattr(raw, name)
    data = pack(Episodes(**rows), spec, jnp.asarray(raw.known))
    if raw.available is not None:
        available = jnp.asarray(_legal_actions(raw, spec, action))
        data = dataclasses.replace(data, extra={"available": available})

    unknown = (raw.known == 0) & (raw.left == 1)
    origin = {
        "format": raw.format,
        "dialects": list(raw.dialects),
        "evidence": list(raw.evidence),
        "repairs": repairs,
        "unknown_successors": int(unknown.sum()),
        **counts,
    }
    return data, manifest(task, raw.quality or raw.format, data, origin)


def refit(data: Dataset, manifest: dict[str, Any], spec: Spec) -> tuple[Dataset, dict[str, Any]]:
    """A set that was fitted once, perhaps by an earlier version, with ends and state of this one.

    The arguments are returned where nothing changes. Raises JaxomarlError as `fit` does for ends
    and state.
    """
    task_name = str(manifest.get("task", "the task"))
    repairs: list[str] = []
    packed = blocks(data)
    raw = from_dataset(data, spec)
    done = ends.by_rules(raw, spec, task_name, repairs)
    state = _state(raw, packed["obs"], spec, task_name, repairs)
    if np.array_equal(done, packed["done"]) and np.array_equal(state, packed["state"]):
        return data, manifest

    # --- the rows ---
    rows: dict[str, Any] = {"state": state, "done": done}
    for name in ("obs", "action", "reward"):
        rows[name] = packed[name]
    for name in ("step", "left", "behaviour"):
        rows[name] = getattr(data, name)
    repacked = pack(Episodes(**rows), spec, jnp.asarray(packed["known"]))
    fixed = dataclasses.replace(data, rows=repacked.rows)

    # --- the manifest ---
    origin: dict[str, Any] = {}
    if isinstance(manifest.get("origin"), dict):
        origin.update(manifest["origin"])
    earlier = origin.get("repairs")
    if not isinstance(earlier, list):
        earlier = []
    last = raw.left == 1
    at_limit = raw.step[last] + 1 == spec.horizon
    origin["repairs"] = [*earlier, *repairs]
    origin["terminations"] = int(done[last].sum())
    origin["time_outs"] = int((at_limit & (done[last] == 0)).sum())
    return fixed, {**manifest, "sha256": content_hash(fixed), "origin": origin}


# --- what the set is of ---


def _check_kind(raw: Raw, task: Task) -> None:
    """Raise JaxomarlError for the other kind of actions, and for a set without a transition."""
    spec = task.env.spec
    if raw.discrete != spec.discrete:
        kinds = {True: "discrete", False: "continuous"}
        way = f"{task.name} is another kind of task. {_hint(raw, spec, task.name)}"
        raise refuse("data, actions", f"{kinds[spec.discrete]} ones", kinds[raw.discrete], way)
    if not (raw.left > 0).any():
        way = "The set is empty: make or copy it again."
        raise refuse("data", "at least one transition", 0, way)


def _check_dialect(raw: Raw, task: Task) -> None:
    """Raise JaxomarlError where the set is known to follow other rules than the task's."""
    mine = task.env.spec.dialect
    if not raw.dialects or mine in raw.dialects:
        return
    way = f"Data and task must follow the same rules. {_hint(raw, task.env.spec, task.name)}"
    if mine == "mpe-own-prey" and "mpe-omar" in raw.dialects:
        way = (
            f"This set was made with OMAR's prey: --task {task.name}:prey=FILE, "
            "its pretrained_adv_model.pt."
        )
    elif mine.startswith("mpe-prey-") and "mpe-omar" in raw.dialects:
        way = (
            "The file given as prey is not OMAR's: "
            "take the pretrained_adv_model.pt that came with the data."
        )
    found: str | tuple[str, ...] = raw.dialects
    if len(raw.dialects) == 1:
        found = raw.dialects[0]
    raise refuse("data, dialect", f"{mine}, the rules of {task.name}", found, way)


def _hint(raw: Raw, spec: Spec, name: str) -> str:
    """Other tasks whose rules the set may follow, and how to look at the set."""
    others = [
        known.task
        for known in rules.candidates(raw)
        if known.dialect != spec.dialect or known.task != name
    ]
    look = how_to_inspect(raw)
    if not others:
        return look
    # the same robot under other rules comes first
    mine = name.partition(":")[0]
    others.sort(key=lambda other: other.partition(":")[0] != mine)
    return f"The set looks like --task {' or '.join(others[:3])}. {look}"


# --- agents and columns ---


def _without_prey(raw: Raw, task: Task, repairs: list[str]) -> Raw:
    """The rows without the prey, where it is one more agent than the task's.

    Raises JaxomarlError for any other difference in the number of agents.
    """
    spec = task.env.spec
    surplus = raw.agents - spec.agents
    if not surplus:
        return raw
    fill = _prey_padding(raw, spec) if surplus == 1 else None
    if fill is None:
        reason = "Files of some agents are missing"
        if surplus > 0:
            reason = "It has more agents than the task"
        widths = [x.shape[1] for x in raw.obs]
        found = f"{raw.agents}, whose observations have {widths} columns"
        way = f"{reason}. {_hint(raw, spec, task.name)}"
        raise refuse("data, agents", f"{spec.agents}, as {task.name} has", found, way)

    remark = f" (its padding was {fill})" if fill else ""
    repairs.append(
        f"agent {spec.agents}, the prey, is dropped: it belongs to the environment{remark}"
    )
    available = raw.available
    if available is not None:
        available = available[:, : spec.agents]
    return raw._replace(
        obs=raw.obs[: spec.agents],
        action=raw.action[: spec.agents],
        reward=raw.reward[:, : spec.agents],
        state=None,
        available=available,
    )


def _prey_padding(raw: Raw, spec: Spec) -> str | None:
    """What the prey's observation was padded with; "" where it was not padded.

    None where the last agent is no prey.
    """
    widest = spec.obs_dims[0]
    last = raw.obs[-1]
    has_prey = spec.dialect.startswith("mpe-") and spec.dialect != "mpe-six" and widest in PREYS
    if not has_prey or any(x.shape[1] != widest for x in raw.obs[:-1]):
        return None
    prey = PREYS[widest]
    if last.shape[1] == prey:
        return ""
    if last.shape[1] != widest:
        return None
    # some files have the padding before the columns
    return describe_padding(last, prey) or describe_padding(last[:, ::-1], prey) or None


def _without_padding(raw: Raw, task: Task, repairs: list[str]) -> Raw:
    """The rows without padded columns.

    Raises JaxomarlError for widths that are not the task's, and names those of all agents.
    """
    spec = task.env.spec
    removed: list[str] = []
    obs = _cut_observations(raw, spec, removed)
    action = _cut_actions(raw, spec, removed)
    for name, arrays, expected in (
        ("obs", obs, spec.obs_dims),
        ("action", action, spec.act_dims),
    ):
        widths = tuple(x.shape[1] for x in arrays)
        if widths != expected:
            way = (
                "Another task, another number of neighbours, or an agent id among the columns? "
                f"{_hint(raw, spec, task.name)}"
            )
            raise refuse(f"data, {name} widths of the agents", str(expected), widths, way)
    if removed:
        listed = ", ".join(removed)
        repairs.append(f"columns beyond an agent's own are cut off as padding: {listed}")
    return raw._replace(obs=tuple(obs), action=tuple(action))


def _cut_observations(raw: Raw, spec: Spec, removed: list[str]) -> list[np.ndarray]:
    """Each agent's observations without padding; what was cut off is appended to `removed`."""
    cut = []
    for i, (x, width) in enumerate(zip(raw.obs, spec.obs_dims, strict=True)):
        fill = describe_padding(x, width)
        if fill:
            removed.append(f"{x.shape[1] - width} of obs {i} ({fill})")
            x = x[:, :width]
        cut.append(x)
    return cut


def _cut_actions(raw: Raw, spec: Spec, removed: list[str]) -> list[np.ndarray]:
    """Each agent's actions without padding; what was cut off is appended to `removed`.

    One-hot rows get columns for the last actions, where the data never take these.
    """
    # successor rows hold no action
    transitions = raw.left > 0
    cut = []
    for i, (x, width) in enumerate(zip(raw.action, spec.act_dims, strict=True)):
        missing = width - x.shape[1]
        fill = ""
        if missing < 0:
            fill = describe_padding(x[transitions], width)
        if fill:
            removed.append(f"{-missing} of action {i} ({fill})")
            x = x[:, :width]
        elif missing > 0 and raw.discrete and raw.available is None:
            x = np.pad(x, ((0, 0), (0, missing)))
        cut.append(x)
    return cut


# --- values ---


def _check_finite(raw: Raw, state_dim: int) -> None:
    """Raise JaxomarlError for NaN and infinity.

    The message names the field, the agent, the first row and how many rows have them.
    """
    fields: dict[str, np.ndarray | None] = {}
    for i, x in enumerate(raw.obs):
        fields[f"obs of agent {i}"] = x
    for i, x in enumerate(raw.action):
        fields[f"action of agent {i}"] = x
    for i in range(raw.agents):
        fields[f"reward of agent {i}"] = raw.reward[:, i]
    fields["done"] = raw.done
    # a state of another width is not used
    if raw.state is not None and raw.state.shape[1] == state_dim:
        fields["state"] = raw.state
    fields["available"] = raw.available

    for name, array in fields.items():
        if array is None or np.isfinite(array).all():
            continue
        broken = np.asarray(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        found = f"{int(broken.sum())} rows that are not, {_first(raw, broken)}"
        way = "Clean the set, or leave these episodes out."
        raise refuse(f"data, {name}", "finite numbers", found, way)


def _bounded_actions(raw: Raw, spec: Spec, repairs: list[str]) -> np.ndarray:
    """Actions [M, N, A]: one-hot rows if discrete, else clipped where rounding left [-1, 1].

    Raises JaxomarlError for other actions.
    """
    action = stack_agents(raw.action, spec.act_width)
    if spec.discrete:
        _check_one_hot(action[raw.left > 0])
        return action

    size = np.abs(action).max(axis=2)
    if (size > 1 + ROUNDING).any():
        agent = int(size.max(axis=0).argmax())
        beyond = size[:, agent] > 1 + ROUNDING
        largest = float(size[:, agent].max())
        found = f"up to {largest:.6g} in {int(beyond.sum())} rows, {_first(raw, beyond)}"
        way = (
            "Actions in other units, or of another environment; "
            "rescale or clip them before the import."
        )
        raise refuse(f"data, action of agent {agent}", "numbers in [-1, 1]", found, way)

    rounded = int((size > 1).any(axis=1).sum())
    if rounded:
        excess = float(size.max()) - 1
        repairs.append(
            f"actions of {rounded} rows are beyond 1 by rounding, {excess:.1e} at most: clipped"
        )
        action = np.clip(action, -1.0, 1.0)
    return action


def _check_one_hot(action: np.ndarray) -> None:
    """Raise JaxomarlError for discrete actions [T, N, A] that are no one-hot rows."""
    for i in range(action.shape[1]):
        rows = action[:, i]
        single = rows.sum(axis=1) == 1
        good = single & np.isin(rows, (0, 1)).all(axis=1)
        if not good.all():
            found = f"{int((~good).sum())} rows that are not"
            way = "A discrete action is a single 1 among zeros."
            raise refuse(f"data, action of agent {i}", "one-hot rows", found, way)


def _state(raw: Raw, obs: np.ndarray, spec: Spec, name: str, repairs: list[str]) -> np.ndarray:
    """The set's state [M, S], or the agents' observations joined.

    These replace a state that is missing, or that never changes within an episode, where the task's
    state is made of them. Raises JaxomarlError where no state can be had.
    """
    joined = _joined_observations(raw, obs, spec)
    if raw.state is None or raw.state.shape[1] != spec.state_dim:
        if joined is None:
            raise _no_state(raw, spec, name)
        repairs.append("state: the agents' observations, joined")
        return joined

    moving, constant = count_constant_states(raw)
    if not constant:
        return raw.state
    stale = f"in {constant} of {moving} episodes, while the observations do"
    if joined is not None:
        repairs.append(
            f"state: it never changes {stale}; replaced by the agents' observations, joined"
        )
        return joined
    if constant < moving:
        repairs.append(
            f"WARNING, state: it never changes {stale}; "
            "kept, because the observations are not the task's state"
        )
        return raw.state
    way = (
        "Its recorder kept the reset's state in every row: "
        "record the set again with the state of each step."
    )
    expected = "one that changes within an episode"
    raise refuse("data, state", expected, f"one that never changes {stale}", way)


def _joined_observations(raw: Raw, obs: np.ndarray, spec: Spec) -> np.ndarray | None:
    """The agents' observations joined [M, S], padded or not, where the state is as wide as that."""
    if obs.shape[1] * obs.shape[2] == spec.state_dim:
        return obs.reshape(len(obs), -1)
    if sum(spec.obs_dims) == spec.state_dim:
        return np.concatenate([x.astype(np.float32) for x in raw.obs], axis=1)
    return None


def _no_state(raw: Raw, spec: Spec, name: str) -> JaxomarlError:
    """The refusal of a set that lacks the task's state."""
    found: str | int = "no state"
    if raw.state is not None:
        found = raw.state.shape[1]
    way = (
        "This set has no such state and it cannot be made from the observations. "
        f"{_hint(raw, spec, name)}"
    )
    return refuse("data, state width", str(spec.state_dim), found, way)


def _legal_actions(raw: Raw, spec: Spec, action: np.ndarray) -> np.ndarray:
    """Legal actions [M, N, A]. Raises JaxomarlError where an action was taken that is not legal."""
    legal = np.asarray(raw.available, np.float32)
    shape = (len(raw.step), spec.agents, spec.act_width)
    field = "data, legal actions"
    if legal.shape != shape:
        way = f"Masks and actions belong together. {how_to_inspect(raw)}"
        raise refuse(field, f"shape {shape}", legal.shape, way)

    odd = np.asarray(~np.isin(legal, (0, 1)).all(axis=(1, 2)))
    if odd.any():
        found = f"other numbers in {int(odd.sum())} rows, {_first(raw, odd)}"
        raise refuse(field, "zeros and ones", found, f"Is the set damaged? {how_to_inspect(raw)}")

    broken = np.asarray(((legal == 0) & (action > 0)).any(axis=(1, 2)))
    if broken.any():
        found = f"{int(broken.sum())} rows with illegal actions, {_first(raw, broken)}"
        way = "Contradictory: the set's own masks forbid them."
        raise refuse("data, action", "legal actions only", found, way)
    return legal


def _first(raw: Raw, rows: np.ndarray) -> str:
    """Names the first of the rows [M] that are true."""
    return f"the first is {describe_row(raw, int(np.flatnonzero(rows)[0]))}"

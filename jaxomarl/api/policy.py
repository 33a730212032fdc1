"""A run's final policy: saved with only what it needs to act, and loaded to act.

The file is a safetensors file.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl import documents
from jaxomarl.api import register
from jaxomarl.api.plan import find_system, read_config
from jaxomarl.api.seeds import check_seed
from jaxomarl.base import Algorithm, Observation, Past, Spec, Stage, State, System, refuse
from jaxomarl.data.files import write_arrays
from jaxomarl.numerics import pinned
from jaxomarl.paths import check_regular, user_path
from jaxomarl.results.store import read_info
from jaxomarl.training.checkpoint import digest_of_arrays

FILE = "policy.safetensors"
FORMAT = "1"
WROTE = "Use the version that wrote it, or train again."
WIDTHS = ("obs_dims", "act_dims")
SPEC: dict[str, type] = {
    "obs_dims": list,
    "act_dims": list,
    "state_dim": int,
    "horizon": int,
    "discrete": bool,
    "team": str,
    "dialect": str,
    "terminates": str,
    "earliest": int,
}
"""The task's facts in run.json, and their types in JSON."""


# --- saving ---


def used(algorithm: Algorithm, state: State, past: Past, spec: Spec) -> list[bool]:
    """Whether the acting policy reads each leaf of (state, past), arrays or shapes of them.

    `act` is traced to find out.
    """
    assert algorithm.act is not None
    flat, tree = jax.tree.flatten((state, past))

    def act(leaves, key, memory, observation):
        own, finished = jax.tree.unflatten(tree, leaves)
        return algorithm.act(key, own, finished, memory, observation)  # type: ignore[misc]

    program = jax.make_jaxpr(act)(flat, jax.random.key(0), algorithm.memory, blank(spec)).jaxpr
    live = {id(variable) for variable in program.outvars}
    for equation in reversed(program.eqns):
        if any(id(variable) in live for variable in equation.outvars):
            live |= {id(variable) for variable in equation.invars}
    return [id(variable) in live for variable in program.invars[: len(flat)]]


def blank(spec: Spec) -> Observation:
    """An observation of zeros in which every action is available, after rewards of zero."""
    obs = jnp.zeros((spec.agents, spec.obs_width))
    available = jnp.ones((spec.agents, spec.act_width), bool)
    return Observation(obs, available, jnp.zeros(spec.agents))


def save_policies(
    folders: list[Path], algorithm: Algorithm, state: State, past: Past, spec: Spec
) -> None:
    """Write the final policy of each of R runs; `state` and `past` lead with R."""
    # shapes do: to take a row of each array would compile a program for each shape
    of_one = lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    one_state, one_past = jax.tree.map(of_one, (state, past))
    reads = used(algorithm, one_state, one_past, spec)
    leaves, _ = jax.tree_util.tree_flatten_with_path((state, past))
    host = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for (path, leaf), read in zip(leaves, reads, strict=True)
        if read
    }

    for r, folder in enumerate(folders):
        arrays = {name: np.ascontiguousarray(leaf[r]) for name, leaf in host.items()}
        # one entry, as several would have no order
        metadata = {"format": f"{FORMAT} {digest_of_arrays(arrays)}"}
        part = folder / f".{FILE}.part"
        write_arrays(part, arrays, metadata)
        os.replace(part, folder / FILE)


# --- acting ---


class Policy:
    """A trained policy: `act(obs)` gives the joint action; `reset()` starts a new episode."""

    def __init__(
        self, algorithm: Algorithm, state: State, past: Past, spec: Spec, info: dict[str, Any]
    ) -> None:
        self.spec = spec
        self.info = info
        self.algorithm = algorithm
        self.state = state
        self.past = past
        assert algorithm.act is not None
        self._act = jax.jit(algorithm.act)
        self.reset()

    @pinned()
    def reset(self, seed: int = 0) -> None:
        """Start a new episode; `seed` counts for stochastic policies.

        Raises JaxomarlError for a seed out of range.
        """
        check_seed(seed)
        self._memory = self.algorithm.memory
        self._key = jax.random.key(seed)
        self._step = 0

    @pinned()
    def act(self, obs: Any, available: Any = None, reward: Any = None) -> Float[Array, "N A"]:
        """The joint action [N, A] for raw observations [N, O], padded to the widest agent.

        `available` [N, A] marks the actions that are legal; all are by default. `reward` [N] is
        what each agent received in the step before, zeros at first. Only planners with the setting
        target_kind "remaining" read it. Raises JaxomarlError where a shape is another, or where a
        reward is needed and not given.
        """
        spec = self.spec
        shape = (spec.agents, spec.obs_width)
        obs = jnp.asarray(obs, jnp.float32)
        if obs.shape != shape:
            expected = f"shape {shape}: agents, observation"
            way = "One row per agent, zeros as padding."
            raise refuse("obs", expected, obs.shape, way)

        if available is None:
            available = blank(spec).available
        if reward is not None:
            reward = jnp.asarray(reward, jnp.float32)
            if reward.shape != (spec.agents,):
                expected = f"shape ({spec.agents},): agents"
                raise refuse("reward", expected, reward.shape, "One number per agent.")

        observation = Observation(obs, jnp.asarray(available, bool), reward)
        key = jax.random.fold_in(self._key, self._step)
        with jax.default_matmul_precision("highest"):
            action, self._memory = self._act(key, self.state, self.past, self._memory, observation)
        self._step += 1
        return action


# --- loading ---


@pinned()
def load_policy(run: str | Path) -> Policy:
    """The final policy of a run's folder, as `sweep`, `train` and `jaxomarl.train` write it.

    Raises JaxomarlError where the folder is no finished run or was written in another format.
    """
    run = user_path(run)
    for name in ("run.json", FILE):
        if not (run / name).exists():
            found = f"no {name} in {run}"
            raise refuse("RUN", "the folder of a finished run", found, _run_below(run))

    # --- the system and its config ---
    info = read_info(run, spec=dict)
    spec = _spec(f"{run / 'run.json'}, spec", info["spec"])
    register.check_system(info)
    system = find_system(info["system"])
    cfg = read_config(system, info["cfg"], f"{run / 'run.json'}, cfg")
    stages = system.pipeline(spec, cfg, None)
    algorithm = stages[-1].algorithm
    if algorithm.act is None:
        raise refuse("RUN", "a system that acts", info["system"], "Name a run of another.")

    # --- which arrays the policy reads: none is allocated before they are known to be there ---
    arrays = read_arrays(run / FILE)
    own, finished = shapes(system, cfg, stages, spec)
    leaves, tree = jax.tree_util.tree_flatten_with_path((own, finished))
    likes = {jax.tree_util.keystr(path): like for path, like in leaves}
    fit = {name: is_like(arrays[name], like) for name, like in likes.items() if name in arrays}
    reads = used(algorithm, own, finished, spec)
    wrong = [name for name, read in zip(likes, reads, strict=True) if read and not fit.get(name)]
    if wrong:
        found = f"none of the right shape for {wrong}"
        way = "It belongs to another config: train again, or --resume."
        raise refuse(str(run / FILE), "the arrays that the policy reads", found, way)

    filled = [
        jnp.asarray(arrays[name]) if fit.get(name) else unread(like) for name, like in likes.items()
    ]
    state, past = jax.tree.unflatten(tree, filled)
    return Policy(algorithm, state, past, spec, info)


def _run_below(folder: Path) -> str:
    """Which folder to name where this one is no finished run."""
    policies = sorted(folder.rglob(FILE))
    if not policies:
        return "Name a folder like OUT/.../seed-0."
    return f"Name a run in it, such as {policies[0].parent}."


def is_like(array: np.ndarray, like: jax.ShapeDtypeStruct) -> bool:
    """Whether an array has a shape and a type."""
    return array.shape == like.shape and array.dtype == like.dtype


def unread(like: jax.ShapeDtypeStruct) -> np.ndarray:
    """Zeros in the place of an array that acting does not read, as a view of one number."""
    return np.broadcast_to(np.zeros((), like.dtype), like.shape)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a policy's file.

    Raises JaxomarlError where the file is torn, damaged or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            stated = (file.metadata() or {}).get("format", "")
            written, _, sha = stated.partition(" ")
            if written != FORMAT:
                raise refuse(str(path), f"format {FORMAT}", stated[:40], WROTE)
            names = list(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        way = "It is torn: train again, or --resume."
        raise refuse(str(path), "a safetensors file", str(error), way) from None
    # version 0.1.0 wrote no digest
    if sha and sha != digest_of_arrays(arrays):
        way = "It is damaged: train again, or --resume."
        raise refuse(str(path), "the arrays that were saved", "others", way)
    return arrays


def _spec(where: str, stated: dict[str, Any]) -> Spec:
    """The task's facts; JaxomarlError where one is missing, unknown, or of another type."""
    kinds = {name: kind for name, kind in SPEC.items() if name in {*stated, *WIDTHS}}
    documents.check(where, stated, WROTE, **kinds)
    for name in WIDTHS:
        if not all(type(width) is int and 0 <= width < 1 << 20 for width in stated[name]):
            found = str(stated[name])[:80]
            raise refuse(f"{where}, {name}", "a width for each agent", found, WROTE)
    widths = {name: tuple(stated[name]) for name in WIDTHS}
    try:
        return Spec(**{**stated, **widths})
    except TypeError as error:
        raise refuse(where, "the facts of a task", str(error)[:200], WROTE) from None


def shapes(
    system: System, cfg: Any, stages: Sequence[Stage], spec: Spec
) -> tuple[State | None, Past]:
    """Shapes of the final state and of the finished stages before it, without data.

    A data set of one empty transition stands in for the data.
    """
    from jaxomarl.base import Episodes
    from jaxomarl.data.dataset import pack
    from jaxomarl.data.stats import identity

    n = spec.agents
    rows = 2
    count = jnp.zeros(rows, jnp.int32)
    episodes = Episodes(
        obs=jnp.zeros((rows, n, spec.obs_width)),
        state=jnp.zeros((rows, spec.state_dim)),
        action=jnp.zeros((rows, n, spec.act_width)),
        reward=jnp.zeros((rows, n)),
        done=jnp.zeros(rows),
        step=count,
        left=jnp.array([1, 0]),
        behaviour=count,
    )
    data = system.prepare(spec, cfg, pack(episodes, spec))

    past: Past = {"stats": identity(spec)}
    past = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), past)
    state = None
    for stage in stages:
        state = stage.kept(jax.eval_shape(stage.algorithm.init, jax.random.key(0), past, data))
        if stage is not stages[-1]:
            past[stage.name] = state
    return state, past

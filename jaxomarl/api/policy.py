"""A run's final policy: saved as safetensors with what it needs to act and nothing else, and loaded to act."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl import documents
from jaxomarl.api import register
from jaxomarl.api.plan import find_system
from jaxomarl.base import Algorithm, Observation, Past, Spec, State, System, refuse
from jaxomarl.numerics import pinned
from jaxomarl.paths import user_path
from jaxomarl.results.store import INFO, read_json
from jaxomarl.training.checkpoint import digest

FILE = "policy.safetensors"
FORMAT = "1"
WROTE = "Use the version that wrote it, or train again."
WIDTHS = ("obs_dims", "act_dims")
SPEC: dict[str, type] = {
    **dict.fromkeys(WIDTHS, list), "state_dim": int, "horizon": int, "discrete": bool, "team": str, "dialect": str,
    "terminates": str, "earliest": int,
}  # fmt: skip
"""What run.json says of a task, as JSON has it."""


def used(algorithm: Algorithm, state: State, past: Past, spec: Spec) -> list[bool]:
    """Which leaves of (state, past) the acting policy reads, found by tracing `act`."""
    assert algorithm.act is not None
    flat, tree = jax.tree.flatten((state, past))

    def act(leaves, key, memory, observation):
        own, finished = jax.tree.unflatten(tree, leaves)
        return algorithm.act(key, own, finished, memory, observation)  # type: ignore[misc]

    program = jax.make_jaxpr(act)(flat, jax.random.key(0), algorithm.memory, blank(spec)).jaxpr
    live = {id(v) for v in program.outvars}
    for equation in reversed(program.eqns):
        if any(id(v) in live for v in equation.outvars):
            live |= {id(v) for v in equation.invars}
    return [id(v) in live for v in program.invars[: len(flat)]]


def blank(spec: Spec) -> Observation:
    """An observation of zeros in which every action is available, after rewards of zero."""
    available = jnp.ones((spec.agents, spec.act_width), bool)
    return Observation(jnp.zeros((spec.agents, spec.obs_width)), available, jnp.zeros(spec.agents))


def save_policies(
    folders: list[Path], algorithm: Algorithm, state: State, past: Past, spec: Spec
) -> None:
    """Write the final policy of each of R runs; `state` and `past` lead with R."""
    from safetensors.numpy import save_file

    first, before = jax.tree.map(lambda x: x[0], (state, past))
    keep = used(algorithm, first, before, spec)
    paths = [
        jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path((state, past))[0]
    ]
    host = [
        np.asarray(x) if k else None
        for x, k in zip(jax.tree.leaves((state, past)), keep, strict=True)
    ]
    for r, folder in enumerate(folders):
        arrays = {
            p: np.ascontiguousarray(x[r]) for p, x in zip(paths, host, strict=True) if x is not None
        }
        part = folder / f".{FILE}.part"
        save_file(
            arrays, part, metadata={"format": f"{FORMAT} {digest(arrays)}"}
        )  # one entry: several have no order
        os.replace(part, folder / FILE)


class Policy:
    """A trained policy: `act(obs)` gives the joint action; `reset()` starts a new episode."""

    def __init__(
        self, algorithm: Algorithm, state: State, past: Past, spec: Spec, info: dict[str, Any]
    ) -> None:
        self.spec, self.info = spec, info
        self.algorithm, self.state, self.past = algorithm, state, past
        assert algorithm.act is not None
        self._act = jax.jit(algorithm.act)
        self.reset()

    @pinned()
    def reset(self, seed: int = 0) -> None:
        """Forget the episode so far; `seed` counts for policies that draw."""
        self._memory, self._key, self._step = self.algorithm.memory, jax.random.key(seed), 0

    @pinned()
    def act(self, obs: Any, available: Any = None, reward: Any = None) -> Float[Array, "N A"]:
        """The joint action [N, A] for raw observations [N, O], padded to the widest agent.

        `reward` [N] is what each agent received at the step before, zeros at first; only planners with the setting
        target_kind "remaining" read it. Raises JaxomarlError where a shape is another, or where a reward is needed
        and not given.
        """
        want = (self.spec.agents, self.spec.obs_width)
        obs = jnp.asarray(obs, jnp.float32)
        if obs.shape != want:
            raise refuse(
                "obs",
                f"shape {want}: agents, observation",
                obs.shape,
                "One row per agent, zeros as padding.",
            )
        possible = blank(self.spec).available if available is None else jnp.asarray(available, bool)
        paid = None if reward is None else jnp.asarray(reward, jnp.float32)
        if paid is not None and paid.shape != (self.spec.agents,):
            raise refuse(
                "reward",
                f"shape ({self.spec.agents},): agents",
                paid.shape,
                "One number per agent.",
            )
        seen = Observation(obs, possible, paid)
        key = jax.random.fold_in(self._key, self._step)
        with jax.default_matmul_precision("highest"):
            action, self._memory = self._act(key, self.state, self.past, self._memory, seen)
        self._step += 1
        return action


@pinned()
def load(run: str | Path) -> Policy:
    """The final policy of a run's folder, as `sweep`, `train` and `jaxomarl.train` write it.

    Raises JaxomarlError where the folder is no finished run or was written in another format.
    """
    from safetensors import SafetensorError, safe_open

    run = user_path(run)
    if not (run / "run.json").exists() or not (run / FILE).exists():
        found = "no run.json" if not (run / "run.json").exists() else f"no {FILE}"
        raise refuse(
            "RUN",
            "the folder of a finished run",
            f"{found} in {run}",
            "Name a folder like OUT/.../seed-0.",
        )
    info = read_json(run / "run.json", **INFO, spec=dict)
    spec = _spec(f"{run / 'run.json'}, spec", info["spec"])
    register.check_system(info)
    system = find_system(info["system"])
    try:
        cfg = system.Config(**info["cfg"])
    except TypeError as error:
        raise refuse(
            f"{run / 'run.json'}, cfg", f"the settings of {info['system']}", str(error)[:200], WROTE
        ) from None
    stages = system.pipeline(spec, cfg, None)
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes(system, cfg, stages, spec))
    try:
        with safe_open(run / FILE, framework="numpy") as file:
            said = (file.metadata() or {}).get("format", "")
            written, _, sha = said.partition(" ")
            if written != FORMAT:
                raise refuse(str(run / FILE), f"format {FORMAT}", said[:40], WROTE)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise refuse(
            str(run / FILE),
            "a safetensors file",
            str(error),
            "It is torn: train again, or --resume.",
        ) from None
    if sha and sha != digest(arrays):  # 0.1.0 wrote none
        raise refuse(
            str(run / FILE),
            "the arrays that were saved",
            "others",
            "It is damaged: train again, or --resume.",
        )
    held = {name: jnp.asarray(x) for name, x in arrays.items()}
    arrays = [held.get(jax.tree_util.keystr(p), jnp.zeros(x.shape, x.dtype)) for p, x in leaves]
    state, past = jax.tree.unflatten(tree, arrays)
    wrong = []
    for (path, like), reads in zip(
        leaves, used(stages[-1].algorithm, state, past, spec), strict=True
    ):
        found = held.get(jax.tree_util.keystr(path))
        if reads and (found is None or found.shape != like.shape):
            wrong.append(jax.tree_util.keystr(path))
    if wrong:
        way = "It belongs to another config: train again, or --resume."
        raise refuse(
            str(run / FILE),
            "the arrays that the policy reads",
            f"none of the right shape for {wrong}",
            way,
        )
    return Policy(stages[-1].algorithm, state, past, spec, info)


def _spec(where: str, said: dict[str, Any]) -> Spec:
    """The task's facts; JaxomarlError where one is missing, unknown, or of another type."""
    documents.check(
        where,
        said,
        WROTE,
        **{name: kind for name, kind in SPEC.items() if name in {*said, *WIDTHS}},
    )
    for name in WIDTHS:
        if not all(type(width) is int and 0 <= width < 1 << 20 for width in said[name]):
            raise refuse(f"{where}, {name}", "a width for each agent", str(said[name])[:80], WROTE)
    facts: dict[str, Any] = {**said, **{name: tuple(said[name]) for name in WIDTHS}}
    try:
        return Spec(**facts)
    except TypeError as error:
        raise refuse(where, "the facts of a task", str(error)[:200], WROTE) from None


def shapes(system: System, cfg: Any, stages: Any, spec: Spec) -> tuple[Any, Past]:
    """Shapes of the final state and of the finished stages before it, without data: an empty set stands in."""
    from jaxomarl.base import Episodes
    from jaxomarl.data.dataset import pack
    from jaxomarl.data.stats import identity

    n, rows = spec.agents, 2
    zeros = lambda *shape: jnp.zeros(shape)
    count = jnp.zeros(rows, jnp.int32)
    data = pack(
        Episodes(
            zeros(rows, n, spec.obs_width), zeros(rows, spec.state_dim), zeros(rows, n, spec.act_width), zeros(rows, n),
            zeros(rows), count, jnp.array([1, 0]), count,
        ),
        spec,
    )  # fmt: skip
    data = system.prepare(spec, cfg, data)
    past: Past = {"stats": identity(spec)}
    past = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), past)
    state = None
    for stage in stages:
        state = stage.kept(jax.eval_shape(stage.algorithm.init, jax.random.key(0), past, data))
        if stage is not stages[-1]:
            past[stage.name] = state
    return state, past

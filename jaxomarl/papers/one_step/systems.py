"""The systems of `reproduce one-step`: calls and milliseconds of an action, and trained scores."""

import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import Algorithm, Observation, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import identity
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.measured import Part
from jaxomarl.presets import PRESETS, fits
from jaxomarl.stages.flow import Taught

SYSTEMS = (
    "diffusion-bc", "diffusion-ql", "dof-p", "flow-bc", "fql", "mac-flow", "mean-flow", "om2p",
)  # fmt: skip
"""Systems that are trained where tasks are asked for."""
TIMED: dict[str, tuple[str, dict[str, Any]]] = {
    "bc": ("bc", {}),
    "diffusion-bc, ODE of 5": ("diffusion-bc", {"levels": 5}),
    "diffusion-bc, ODE of 15": ("diffusion-bc", {}),
    "diffusion-ql, 5 steps, 1 candidate": ("diffusion-ql", {"candidates": 1}),
    "ind-diffusion, DDPM of 200": ("ind-diffusion", {"levels": 200}),
    "flow-bc": ("flow-bc", {}),
    "flow-bc, joint": ("flow-bc", {"model": "joint"}),
    "mean-flow": ("mean-flow", {}),
    "mean-flow, joint": ("mean-flow", {"model": "joint"}),
    "fql": ("fql", {}),
    "mac-flow": ("mac-flow", {}),
    "mac-flow, shared noise": ("mac-flow", {"noise": "shared"}),
    "om2p": ("om2p", {}),
}
"""Row -> system and settings."""
TASK = "mpe/spread"
ROUNDS = 7
DECISIONS = 100
"""Decisions of a timed round, one after the other."""
PRESET = "longer"
"""One budget for all systems on particle tasks: their own presets are 20 times apart in updates."""
PRINTED = (
    "Published: none. What others read off MAC-Flow's tables could not be verified by task.",
)
THEIRS = "none printed here."


def trained(asked: Asked) -> str:
    """Every system that was asked for on each task and quality, with the health of its stages."""
    default = (SYSTEMS, (TASK,), ("expert", "medium"))
    on_particles = all(fits(PRESETS[PRESET], task, "") for task in asked.tasks)
    preset = PRESET if on_particles else ""
    return cells.comparison_table(asked, default, {}, "s.e.", PRINTED, THEIRS, preset)


# --- time ---


def speed(asked: Asked) -> Part:
    """Calls of the policy's network and milliseconds of a team's decision, on this machine."""
    spec = make(TASK).env.spec
    rows = []
    for name, (system, settings) in TIMED.items():
        asked.say(f"time of an action: {name}")
        cfg = REGISTRY[system].Config(normalise=False, **settings)
        rows.append((name, str(calls_of(cfg)), f"{milliseconds(spec, system, cfg):.3f}"))
    table = markdown_table(("system", "calls", "ms per decision"), rows)
    text = (
        f"## Calls and time of a decision\n\n{table}\n"
        f"A decision of all {spec.agents} agents of {TASK} at each system's own width, untrained, "
        f"on one processor: the best of {ROUNDS} rounds of {DECISIONS} decisions. Calls follow one "
        "another; the agents' networks run side by side."
    )
    return Part(text, [])


def calls_of(cfg: Any) -> int:
    """Calls of the policy's network that follow one another in a decision.

    A student of a flow has one; its levels are those of what it regresses.
    """
    if isinstance(cfg, Taught):
        return 1
    return getattr(cfg, "levels", 1)


def milliseconds(spec: Spec, system: str, cfg: Any) -> float:
    """The shortest mean time of a decision, in a loop that is compiled as one program."""
    stages = REGISTRY[system].pipeline(spec, cfg, None)
    algorithm: Algorithm = stages[-1].algorithm
    past: dict[str, Any] = {"stats": identity(spec)}
    data = load(make(TASK), rows=2 * cfg.policy_batch)[0]
    for stage in stages:
        init = stage.algorithm.init
        past[stage.name] = jax.jit(init)(jax.random.key(0), past, data)
    state = past[stages[-1].name]
    seen = Observation(jnp.asarray(spec.obs_mask), jnp.asarray(spec.act_mask > 0))
    act = algorithm.act
    assert act is not None

    def decide(seen: Observation, key: Any) -> tuple[Observation, None]:
        action, _ = act(key, state, past, algorithm.memory, seen)
        # the next decision needs this one, so none is left out or runs beside it
        return seen._replace(obs=seen.obs + 1e-3 * action.mean()), None

    keys = jax.random.split(jax.random.key(0), DECISIONS)
    program = jax.jit(lambda seen: jax.lax.scan(decide, seen, keys)[0])
    jax.block_until_ready(program(seen))
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(program(seen))
        seconds.append(time.perf_counter() - began)
    return 1e3 * min(seconds) / DECISIONS

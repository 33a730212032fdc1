"""What one joint action costs: `python -m benchmarks.acting`.

A system acts in one step of --teams episodes at once, with untrained networks of the sizes of
`benchmarks.updates`. Policies and planners are compared as they act: with all calls of their
sampler, guidance, and a plan for each agent that plans alone. All systems take turns, so that a
disturbance of the machine falls on all alike. A line has the median and the range.
"""

import dataclasses
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.environments import take_turns
from benchmarks.report import Line, Written, command, markdown, short
from benchmarks.reverse_process import MIB, Timed
from benchmarks.sizes import Size, size
from benchmarks.updates import untrained
from jaxomarl.base import Observation, refuse
from jaxomarl.stages.flow import Taught


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time joint actions: one JSON line per size, system and number of agents, then a table."""

    systems: tuple[str, ...] = ("dom2", "dof-p", "dof-t", "madiff-d")
    """Names from docs/systems.md."""
    sizes: tuple[str, ...] = ("mpe",)
    """game: width 32, batch 64. mpe: the paper's sizes. WIDTHxBATCH: these on mpe's shapes."""
    agents: tuple[int, ...] = (0,)
    """Numbers of agents of spread; 0: the size's own number."""
    teams: int = 1
    """Episodes that act at once."""
    seconds: float = 3.0
    """Timed seconds per cell; slow cells take three samples in any case."""
    toy: bool = False
    """Take tiny sizes: they show whether it runs, not how fast."""


def calls_of(cfg: Any) -> int:
    """Calls of the policy's network for an action, one after the other.

    A student of a flow has one; its levels are those of what it regresses.
    """
    if isinstance(cfg, Taught):
        return 1
    return int(getattr(cfg, "calls", getattr(cfg, "levels", 1)))


def acting(one: Size, teams: int) -> Timed:
    """The compiled joint action of a system at a size, for so many episodes at once."""
    stage = one.definition.pipeline(one.spec, one.cfg, one.env)[-1]
    policy = stage.algorithm.act
    if policy is None:
        raise refuse("--systems", "systems whose last stage acts", one.system, "")
    past = untrained(one, len(one.stages) - 1)
    state = jax.jit(stage.algorithm.init)(jax.random.key(0), past, one.data)

    # --- one step of every episode ---
    n = one.spec.agents
    obs = jax.random.normal(jax.random.key(1), (teams, n, one.spec.obs_width))
    available = jnp.ones((teams, n, one.spec.act_width), bool)
    repeat = lambda x: jnp.broadcast_to(x, (teams, *jnp.shape(x)))
    memory = jax.tree.map(repeat, stage.algorithm.memory)
    keys = jax.random.split(jax.random.key(2), teams)

    def act(state: Any, past: Any, keys: jax.Array, memory: Any, seen: Observation) -> jax.Array:
        alone = lambda key, memory, seen: policy(key, state, past, memory, seen)[0]
        return jax.vmap(alone)(keys, memory, seen)

    name = {"system": one.system, "size": one.name, "agents": n, "calls": calls_of(one.cfg)}
    args = (state, past, keys, memory, Observation(obs * one.spec.obs_mask, available))
    return Timed.program(name, act, args)


def line(cell: Timed, teams: int) -> Line:
    """The line of one system."""
    return {
        "benchmark": "acting",
        **cell.name,
        "teams": teams,
        "seconds": cell.cost,
        "seconds_low": min(cell.seconds),
        "seconds_high": max(cell.seconds),
        "seconds_per_call": statistics.median(cell.seconds) / cell.name["calls"],
        "program_mib": cell.bytes / MIB,
        "compile_seconds": cell.compile_seconds,
        "samples": len(cell.seconds),
    }


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    header = ("size", "system", "n", "teams", "calls", "ms", "range", "ms per call")
    rows = [header, ("---", "---", *["---:"] * 6)]
    for x in lines:
        spread = f"{short(1e3 * x['seconds_low'])} to {short(1e3 * x['seconds_high'])}"
        counts = (str(x["agents"]), str(x["teams"]), str(x["calls"]))
        times = (short(1e3 * x["seconds"]), spread, short(1e3 * x["seconds_per_call"]))
        rows.append((x["size"], x["system"], *counts, *times))
    return markdown(rows)


def bench(flags: Flags) -> Iterator[Line]:
    """Every line; the systems of one size and number of agents take turns."""
    if flags.toy:
        flags = dataclasses.replace(flags, sizes=("8x4",), seconds=0.02)
    if flags.teams < 1 or not flags.agents or min(flags.agents) < 0:
        found = (flags.teams, flags.agents)
        raise refuse("--teams, --agents", "positive counts", found, "Leave them out.")
    for name in flags.sizes:
        for agents in flags.agents:
            sizes = [size(name, system, agents) for system in flags.systems]
            cells = [acting(one, flags.teams) for one in sizes]
            take_turns(cells, flags.seconds)
            for cell in cells:
                yield line(cell, flags.teams)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    return command("acting", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

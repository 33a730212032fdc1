"""Time and memory of planning, in kind of DoF's Table 22: `python -m benchmarks.planning`.

Timed is one plan of n agents with the planners' temporal U-Net and guidance, which takes two passes
of the network per call:

    dof-t      agents share a network and are factorised by wconcat
    madiff-c   agents attend to one another
    madiff-d   each of n agents samples a plan for all, which is MADiff-C's chain n times

The samplers are DDPM, DDIM, and one call of a consistency model on the same network. The
environment of the printed table is not named, so observations are --columns wide.

One call is timed for every n. A full chain is timed where it takes no more than --chain seconds.
Else its time is that of one call times the calls, and its line says so. A last line times an
evaluation: --seeds runs of a DoF-T of --toy-width at --episodes episodes of spread, with one plan
at every step, in one compiled program.
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
from benchmarks.report import Line, command, markdown, short
from benchmarks.reverse_process import MIB, SAMPLERS, ChainFlags, Timed
from jaxomarl.algorithms import dof_trajectory, madiff
from jaxomarl.base import Spec, refuse
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make
from jaxomarl.policies import plans as planning
from jaxomarl.stages.plan_student import drawn_by_student
from jaxomarl.training import evaluation

SYSTEMS = ("dof-t", "madiff-c", "madiff-d")


@dataclass(frozen=True, kw_only=True)
class Flags(ChainFlags):
    """Time plans: one JSON line per system, agents and sampler, an evaluation, then a table."""

    systems: tuple[str, ...] = SYSTEMS
    """Planners that are timed."""
    agents: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Numbers of agents."""
    samplers: tuple[str, ...] = SAMPLERS
    """Samplers that are timed."""
    ddpm: int = 200
    """Calls of DDPM, as in the paper's Table 22."""
    ddim: int = 15
    """Calls of DDIM."""
    columns: int = 18
    """Columns of an agent's observation."""
    horizon: int = 20
    """Rows ahead in a plan."""
    history: int = 8
    """Rows of history in a plan."""
    width: int = 32
    """Width of the U-Net's first level; the papers' is 128."""
    depth: int = 3
    """Levels of the U-Net."""
    blocks: int = 2
    """Blocks in a level."""
    seeds: int = 4
    """Runs of the evaluation; 0 leaves it out."""
    episodes: int = 32
    """Episodes of each run in the evaluation."""
    toy_width: int = 16
    """Width of the planner in the evaluation."""
    toy_calls: int = 5
    """Calls of DDIM in the evaluation."""


TOY = dict(
    agents=(2, 3), ddpm=4, ddim=2, columns=2, horizon=2, history=1, width=8, depth=1, blocks=1,
    seconds=0.02, seeds=2, episodes=2, toy_width=8, toy_calls=1,
)  # fmt: skip


def team(flags: Flags, system: str, agents: int) -> tuple[Spec, Any, planning.Planner]:
    """(spec, config, planner) of n agents with networks of the flags' sizes."""
    spec = Spec((flags.columns,) * agents, (2,) * agents, state_dim=1, horizon=1)
    sizes: Any = dict(
        horizon=flags.horizon, history=flags.history, policy_width=flags.width, depth=flags.depth,
        blocks=flags.blocks, levels=flags.ddpm,
    )  # fmt: skip
    if system == "dof-t":
        cfg = dof_trajectory.Config(**sizes, noise_mixer="wconcat", data_mixer="concat")
        return spec, cfg, dof_trajectory.dof_planner(spec, cfg)
    cfg = madiff.Config(**sizes)
    return spec, cfg, madiff.madiff_planner(spec, cfg, each=False)


def programs(flags: Flags, system: str, agents: int) -> tuple[Timed, dict[str, Timed]]:
    """One guided call, and each chain that is short enough to be timed in full."""
    spec, cfg, model = team(flags, system, agents)
    params = jax.jit(model.init)(jax.random.key(0))
    rows = (agents, cfg.history + 1 + cfg.horizon, flags.columns)
    history = jnp.zeros((agents, cfg.history + 1, flags.columns))
    y = jnp.full(agents, 0.9)
    known = jnp.broadcast_to(planning.given(cfg), (*rows[:2], 1))
    name = {"system": system, "agents": agents}

    guided = lambda params, x, t: planning.denoiser(spec, cfg, model, params, y)(x, t)
    noise = jax.random.normal(jax.random.key(1), rows)
    one = Timed.program(name, guided, (params, noise, jnp.float32(0.5)))
    one.call()
    cost = min(one.sample() for _ in range(3))

    chains = {}
    for sampler in flags.samplers:
        calls = calls_of(flags)[sampler]
        if cost * calls > flags.chain and sampler != "consistency":
            continue
        chosen = dataclasses.replace(cfg, sampler=sampler, calls=calls)
        drawn_by = drawn_by_student if sampler == "consistency" else planning.plan_sampler
        sample_by = drawn_by(spec, chosen, model)

        def chain(params, key, chosen=chosen, sample_by=sample_by):
            return planning.sample(key, spec, chosen, model, params, history, known, sample_by)

        named = {**name, "sampler": sampler}
        chains[sampler] = Timed.program(named, chain, (params, jax.random.key(2)))
    return one, chains


def calls_of(flags: Flags) -> dict[str, int]:
    """Sampler -> calls of the denoiser."""
    return {"ddpm": flags.ddpm, "ddim": flags.ddim, "consistency": 1}


def measure(flags: Flags) -> Iterator[Line]:
    """All lines; the systems of one number of agents take turns."""
    network = {"dof-t": "dof-t", "madiff-c": "madiff-c", "madiff-d": "madiff-c"}
    for agents in flags.agents:
        networks = dict.fromkeys(network[system] for system in flags.systems)
        compiled = {system: programs(flags, system, agents) for system in networks}
        cells = [cell for one, chains in compiled.values() for cell in (one, *chains.values())]
        take_turns(cells, flags.seconds)
        for system in flags.systems:
            one, chains = compiled[network[system]]
            for sampler in flags.samplers:
                yield line(flags, system, agents, sampler, one, chains.get(sampler))


def line(
    flags: Flags, system: str, agents: int, sampler: str, one: Timed, chain: Timed | None
) -> Line:
    """The line of one plan."""
    calls = calls_of(flags)[sampler]
    plans = agents if system == "madiff-d" else 1
    if chain:
        timed = chain
        times = plans
        how = "whole chain"
    else:
        timed = one
        times = plans * calls
        how = f"one call x {calls}"
    if plans > 1:
        how = f"{how}, x {plans} plans"
    sizes = ("columns", "horizon", "history", "width", "depth", "blocks")
    return {
        "benchmark": "planning",
        "system": system,
        "agents": agents,
        "sampler": sampler,
        "calls": calls,
        "how": how,
        "seconds": times * timed.cost,
        "seconds_low": times * min(timed.seconds),
        "seconds_high": times * max(timed.seconds),
        "seconds_per_call": statistics.median(one.seconds),
        "program_mib": timed.bytes / MIB,
        "compile_seconds": timed.compile_seconds,
        "samples": len(timed.seconds),
        **{size: getattr(flags, size) for size in sizes},
    }


def evaluated(flags: Flags) -> Line:
    """The line of an evaluation: R runs x E episodes of spread with a toy-width planner.

    The planner is untrained, and takes as long as a trained one.
    """
    task = make("mpe/spread")
    data, _ = load(task, "random", 1000)
    cfg = dof_trajectory.Config(
        horizon=4, history=0, levels=20, sampler="ddim", calls=flags.toy_calls, predict="clean",
        depth=1, blocks=1, reach=1, policy_width=flags.toy_width, inverse_width=flags.toy_width,
        normaliser="limits", policy_batch=64, noise_mixer="concat", data_mixer="concat",
    )  # fmt: skip
    system = dof_trajectory.DOF_T
    spec = task.env.spec
    rows = system.prepare(spec, cfg, data)

    def make_stages(cfg):
        return system.pipeline(spec, cfg, None)

    def init(key):
        return make_stages(cfg)[0].algorithm.init(key, {}, rows)

    def roll_out(state, keys):
        return evaluation.evaluate_one(task.env, make_stages, 0, cfg, state, {}, keys, resets)

    states = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), flags.seeds))
    resets = evaluation.reset_keys(flags.episodes)
    acts = jnp.stack([evaluation.act_keys(seed, 0, flags.episodes) for seed in range(flags.seeds)])
    cell = Timed.program({"evaluation": "dof-t"}, jax.vmap(roll_out), (states, acts))
    take_turns([cell], flags.seconds)
    return {
        "benchmark": "planning",
        "system": "dof-t",
        "evaluation": "mpe/spread",
        "seeds": flags.seeds,
        "episodes": flags.episodes,
        "calls": flags.toy_calls,
        "width": flags.toy_width,
        "seconds": cell.cost,
        "plans": flags.seeds * flags.episodes * spec.horizon,
        "compile_seconds": cell.compile_seconds,
        "program_mib": cell.bytes / MIB,
        "samples": len(cell.seconds),
    }


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, with the evaluation below."""
    header = ("system", "n", "sampler", "calls", "ms", "range", "program MiB", "measured")
    rows = [header, ("---", "---:", "---", *["---:"] * 4, "---")]
    for x in (x for x in lines if "evaluation" not in x):
        spread = f"{short(1e3 * x['seconds_low'])} to {short(1e3 * x['seconds_high'])}"
        name = (x["system"], str(x["agents"]), x["sampler"], str(x["calls"]))
        rows.append((*name, short(1e3 * x["seconds"]), spread, short(x["program_mib"]), x["how"]))
    sentences = [sentence(x) for x in lines if "evaluation" in x]
    return "\n".join([markdown(rows), "", *sentences])


def sentence(x: Line) -> str:
    """The line of an evaluation in words."""
    episodes = f"{x['seeds']} runs x {x['episodes']} episodes of {x['evaluation']}"
    plans = f"{x['plans']} in all, {x['calls']} calls each, {x['width']} wide"
    seconds = f"{short(x['seconds'])} s in one program"
    compiling = f"compiled in {short(x['compile_seconds'])} s"
    return f"Evaluation: {episodes}, a plan at each step ({plans}): {seconds}, {compiling}."


def checked(flags: Flags) -> Flags:
    """The flags, tiny where asked for; raises JaxomarlError where they mean nothing."""
    if flags.toy:
        flags = dataclasses.replace(flags, **TOY)  # type: ignore[arg-type]
    for field, names in (("systems", SYSTEMS), ("samplers", SAMPLERS)):
        for name in getattr(flags, field):
            if name not in names:
                raise refuse(f"--{field}", f"some of {', '.join(names)}", name, "")
    sizes = (flags.columns, flags.horizon, flags.width, flags.depth)
    counts = (*flags.agents, flags.ddpm, flags.ddim, *sizes)
    if min(counts) < 1 or not flags.agents or flags.ddim > flags.ddpm or flags.width % 4:
        way = "DDIM takes no more calls than DDPM, and widths are multiples of 4."
        raise refuse("--agents and sizes", "positive counts", counts, way)
    return flags


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes."""
    flags = checked(flags)
    yield from measure(flags)
    if flags.seeds:
        yield evaluated(flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    return command("planning", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

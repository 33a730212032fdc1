"""Time and memory of one reverse process of a team: `python -m benchmarks.reverse_process`.

Rows are f (how the agents' noise is combined), the number of agents n, and the sampler. The
samplers are DDPM and DDIM of a noise model, and one call of a consistency model on the same
network. The network is DoF-Policy's: [x, o, time] -> width, three times, Mish. Agents share one
network, whose input says for whom it acts, as in DoF's released code. With --no-shared each has its
own: n times the parameters, of which a processor's cache stores those of few agents only.

What is compared takes turns, and a line has the median and the range. One call of the denoiser is
timed for every f and n. A full chain is timed where it takes no more than --chain seconds. Else its
time is that of one call times the calls, and its line says so.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.environments import Cell, take_turns
from benchmarks.report import Line, Written, command, markdown, short
from jaxomarl.base import Denoise, refuse
from jaxomarl.diffusion.consistency import consistency, consistent
from jaxomarl.diffusion.factorise import ALONE, NOISE, composed, factorisation
from jaxomarl.diffusion.guidance import clipped
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import Sampler, ddim, ddpm
from jaxomarl.diffusion.schedules import vp_discrete
from jaxomarl.networks.agents import separate, shared
from jaxomarl.networks.denoisers import fourier
from jaxomarl.networks.mlp import mish, mlp

MIB = 2**20
SAMPLERS = ("ddpm", "ddim", "consistency")
FREQUENCIES = 8
"""Frequencies of the time's embedding, with two features each."""


@dataclass(frozen=True, kw_only=True)
class ChainFlags(Written):
    """The flags of every benchmark that times chains of a sampler."""

    seconds: float = 1.0
    """Timed seconds per cell; slow cells take three samples in any case."""
    chain: float = 2.0
    """Most seconds of a chain that is timed in full."""
    toy: bool = False
    """Take tiny sizes: they show whether it runs, not how fast."""


@dataclass(frozen=True, kw_only=True)
class Flags(ChainFlags):
    """Time reverse processes: one JSON line per f, number of agents and sampler, then a table."""

    f: tuple[str, ...] = NOISE
    """Noise factorisations; one that trains and executes differently is timed as it executes."""
    agents: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Numbers of agents."""
    samplers: tuple[str, ...] = SAMPLERS
    """Samplers that are timed."""
    ddpm: int = 200
    """Calls of DDPM, as in the paper's Table 22."""
    ddim: int = 20
    """Calls of DDIM."""
    columns: int = 24
    """Columns that an agent samples: a plan, or an action."""
    known: int = 18
    """Columns of an agent's observation."""
    width: int = 256
    """Width of the network's hidden layers."""
    shared: bool = True
    """Share one network among all agents, or give each its own."""
    batch: int = 10
    """Number of teams that sample at once."""
    chain: float = 1.0
    """Most seconds of a chain that is timed in full."""


TOY = dict(agents=(2, 4), ddpm=6, ddim=3, columns=2, known=3, width=8, batch=2, seconds=0.02)


@dataclass
class Timed(Cell):
    """A cell with the memory of its program."""

    bytes: int = 0

    @classmethod
    def program(cls, name: Line, f: Callable, args: tuple) -> "Timed":
        """The cell of `f(*args)`, compiled."""
        began = time.perf_counter()
        compiled = jax.jit(f).lower(*args).compile()
        memory = compiled.memory_analysis()
        size = 0
        if memory is not None:
            arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes
            size = arrays + memory.temp_size_in_bytes
        return cls(name, lambda: compiled(*args), 1, time.perf_counter() - began, bytes=size)


def team(flags: Flags, kind: str, agents: int) -> tuple[Any, Callable, Callable]:
    """A team with random networks: (params, params -> clipped denoiser, params -> consistency)."""
    schedule = vp_discrete()
    inputs = flags.columns + flags.known + 2 * FREQUENCIES
    net = lambda inputs: mlp(inputs, (flags.width,) * 3, flags.columns, mish)
    nets = shared(net, inputs, agents) if flags.shared else separate(net(inputs), agents)
    f = factorisation(kind, agents, flags.columns, flags.columns + 1 + flags.known)
    y = jax.random.normal(jax.random.key(1), (flags.batch, agents, flags.known))

    def parts(params: Any, x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
        features = fourier(jnp.asarray(t), FREQUENCIES)
        time_embedding = jnp.broadcast_to(features, (*x.shape[:-1], 2 * FREQUENCIES))
        return nets.apply(params, jnp.concatenate([x, y, time_embedding], axis=-1))

    noise = composed(parts, f, jnp.ones((agents, flags.columns)), executed=True)
    params = {"parts": nets.init(jax.random.key(2)), "noise": f.init(jax.random.key(3))}
    eps = lambda params: lambda x, t: noise(params, x, t, y)

    def denoise(params: Any) -> Denoise:
        return clipped(from_eps(eps(params), schedule), -1.0, 1.0)

    return params, denoise, lambda params: consistent(eps(params), schedule)


def measure(flags: Flags, kind: str) -> Iterator[Line]:
    """The lines of one f; all numbers of agents and samplers take turns."""
    schedule = vp_discrete()
    chains: dict[str, tuple[Sampler, int]] = {
        "ddpm": (ddpm(schedule, flags.ddpm), flags.ddpm),
        "ddim": (ddim(schedule, flags.ddim), flags.ddim),
        "consistency": (consistency(schedule, 1), 1),
    }
    calls: dict[int, Timed] = {}
    full: dict[tuple[int, str], Timed] = {}
    for n in flags.agents:
        params, denoise, function = team(flags, kind, n)
        shape = (flags.batch, n, flags.columns)
        args = (params, jax.random.normal(jax.random.key(4), shape), jnp.float32(0.5))
        call = lambda p, x, t, d=denoise: d(p)(x, t)
        calls[n] = Timed.program({"f": kind, "agents": n}, call, args)
        calls[n].call()
        one = min(calls[n].sample() for _ in range(3))
        for name in flags.samplers:
            sampler, count = chains[name]
            if one * count > flags.chain:
                continue
            model = function if name == "consistency" else denoise
            run = lambda p, key, s=sampler, m=model, shape=shape: s(key, m(p), shape)
            named = {"f": kind, "agents": n, "sampler": name}
            full[n, name] = Timed.program(named, run, (params, jax.random.key(5)))
    take_turns([*calls.values(), *full.values()], flags.seconds)
    for n in flags.agents:
        for name in flags.samplers:
            yield line(flags, kind, n, name, chains[name][1], calls[n], full.get((n, name)))


def line(
    flags: Flags, kind: str, agents: int, sampler: str, calls: int, one: Timed, full: Timed | None
) -> Line:
    """The line of one reverse process."""
    if full:
        timed = full
        times = 1
        how = "whole chain"
    else:
        timed = one
        times = calls
        how = f"one call x {calls}"
    cost = times * timed.cost
    return {
        "benchmark": "reverse_process",
        "f": kind,
        "alone": kind in ALONE,
        "agents": agents,
        "sampler": sampler,
        "calls": calls,
        "how": how,
        "seconds": cost,
        "seconds_low": times * min(timed.seconds),
        "seconds_high": times * max(timed.seconds),
        "seconds_per_agent": cost / agents,
        "seconds_per_call": statistics.median(one.seconds),
        "program_mib": timed.bytes / MIB,
        "compile_seconds": timed.compile_seconds,
        "samples": len(timed.seconds),
        "columns": flags.columns,
        "width": flags.width,
        "batch": flags.batch,
        "shared": flags.shared,
    }


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    header = (
        "f", "alone", "n", "sampler", "calls", "ms", "range", "ms per agent", "program MiB",
        "measured",
    )  # fmt: skip
    rows = [header, ("---", "---", "---:", "---", *["---:"] * 5, "---")]
    for x in lines:
        spread = f"{short(1e3 * x['seconds_low'])} to {short(1e3 * x['seconds_high'])}"
        alone = "yes" if x["alone"] else "no"
        name = (x["f"], alone, str(x["agents"]), x["sampler"], str(x["calls"]))
        times = (short(1e3 * x["seconds"]), spread, short(1e3 * x["seconds_per_agent"]))
        rows.append((*name, *times, short(x["program_mib"]), x["how"]))
    return markdown(rows)


def checked(flags: Flags) -> Flags:
    """The flags, tiny where asked for; raises JaxomarlError where they mean nothing."""
    if flags.toy:
        flags = dataclasses.replace(flags, **TOY)  # type: ignore[arg-type]
    for field, names in (("f", NOISE), ("samplers", SAMPLERS)):
        for name in getattr(flags, field):
            if name not in names:
                raise refuse(f"--{field}", f"some of {', '.join(names)}", name, "")
    sizes = (flags.columns, flags.known, flags.width, flags.batch)
    counts = (*flags.agents, flags.ddpm, flags.ddim, *sizes)
    if min(counts) < 1 or not flags.agents:
        way = "For example --agents 2 8 64."
        raise refuse("--agents and sizes", "positive counts", counts, way)
    return flags


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes."""
    flags = checked(flags)
    for kind in flags.f:
        yield from measure(flags, kind)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    return command("reverse_process", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

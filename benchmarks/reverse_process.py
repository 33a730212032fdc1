"""Time and memory of one reverse process of a team: `python -m benchmarks.reverse_process`.

Rows are f (how agents' noise is put together), the number of agents n and the sampler: DDPM and DDIM of a noise model,
and one call of a consistency model on the same network: DoF-Policy's, [x, o, time] -> width, three times, Mish. Agents
share one that is told who it acts for, as in DoF's released code; with --no-shared each has its own, n times the
parameters, of which a processor's cache holds those of few agents only.

What is compared takes turns, round after round; medians are reported beside their range. One call of the denoiser is
timed for every f and n. A whole chain is timed where it takes no more than --chain seconds; where it would take longer
its time is that of one call times the calls, and its line says so.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.environments import Cell, take_turns
from benchmarks.report import markdown, report, short
from jaxomarl.api import runtime
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
FREQUENCIES = 8  # 16 features of the time


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time reverse processes: one JSON line per f, number of agents and sampler, then a table."""

    f: tuple[str, ...] = NOISE
    """Noise factorisations; one that trains and executes differently is timed as it executes."""
    agents: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    samplers: tuple[str, ...] = SAMPLERS
    ddpm: int = 200
    """Calls of DDPM, as in the paper's Table 22."""
    ddim: int = 20
    """Calls of DDIM."""
    columns: int = 24
    """Of what an agent makes: a plan, or an action."""
    known: int = 18
    """Columns of what an agent is told."""
    width: int = 256
    shared: bool = True
    """One network for all agents, or one for each."""
    batch: int = 10
    """Teams that sample at once."""
    seconds: float = 1.0
    """Timed seconds per cell; slow cells take three samples all the same."""
    chain: float = 1.0
    """Seconds that a chain which is timed whole may take."""
    toy: bool = False
    """Tiny sizes: whether it runs, not how fast."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


TOY = dict(agents=(2, 4), ddpm=6, ddim=3, columns=2, known=3, width=8, batch=2, seconds=0.02)


@dataclass
class Timed(Cell):
    """A cell that knows what its program holds."""

    bytes: int = 0

    @classmethod
    def program(cls, name: dict[str, Any], f: Callable, args: tuple) -> "Timed":
        """The cell of `f(*args)`, compiled."""
        began = time.perf_counter()
        compiled = jax.jit(f).lower(*args).compile()
        m = compiled.memory_analysis()
        held = (
            0
            if m is None
            else m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
        )
        return cls(name, lambda: compiled(*args), 1, time.perf_counter() - began, bytes=held)


def team(flags: Flags, kind: str, agents: int) -> tuple[Any, Callable, Callable]:
    """(parameters, params -> clipped denoiser, params -> consistency function) of a team with random networks."""
    schedule = vp_discrete()
    inputs = flags.columns + flags.known + 2 * FREQUENCIES
    net = lambda inputs: mlp(inputs, (flags.width,) * 3, flags.columns, mish)
    nets = shared(net, inputs, agents) if flags.shared else separate(net(inputs), agents)
    f = factorisation(kind, agents, flags.columns, flags.columns + 1 + flags.known)
    y = jax.random.normal(jax.random.key(1), (flags.batch, agents, flags.known))

    def parts(params: Any, x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
        told = jnp.broadcast_to(
            fourier(jnp.asarray(t), FREQUENCIES), (*x.shape[:-1], 2 * FREQUENCIES)
        )
        return nets.apply(params, jnp.concatenate([x, y, told], axis=-1))

    noise = composed(parts, f, jnp.ones((agents, flags.columns)), executed=True)
    params = {"parts": nets.init(jax.random.key(2)), "noise": f.init(jax.random.key(3))}
    eps = lambda params: lambda x, t: noise(params, x, t, y)
    denoise: Callable[[Any], Denoise] = lambda params: clipped(
        from_eps(eps(params), schedule), -1.0, 1.0
    )
    return params, denoise, lambda params: consistent(eps(params), schedule)


def measure(flags: Flags, kind: str) -> Iterator[dict[str, Any]]:
    """All numbers of agents and samplers of one f, timed by turns."""
    schedule = vp_discrete()
    chains: dict[str, tuple[Sampler, int]] = {
        "ddpm": (ddpm(schedule, flags.ddpm), flags.ddpm),
        "ddim": (ddim(schedule, flags.ddim), flags.ddim),
        "consistency": (consistency(schedule, 1), 1),
    }
    calls, whole = {}, {}
    for n in flags.agents:
        params, denoise, function = team(flags, kind, n)
        shape = (flags.batch, n, flags.columns)
        x, t = jax.random.normal(jax.random.key(4), shape), jnp.float32(0.5)
        calls[n] = Timed.program(
            {"f": kind, "agents": n}, lambda p, x, t, d=denoise: d(p)(x, t), (params, x, t)
        )
        calls[n].call()
        one = min(calls[n].sample() for _ in range(3))
        for name in flags.samplers:
            sampler, count = chains[name]
            if one * count > flags.chain:
                continue
            model = function if name == "consistency" else denoise
            run = lambda p, key, s=sampler, m=model, shape=shape: s(key, m(p), shape)
            whole[n, name] = Timed.program(
                {"f": kind, "agents": n, "sampler": name}, run, (params, jax.random.key(5))
            )
    take_turns([*calls.values(), *whole.values()], flags.seconds)
    for n in flags.agents:
        for name in flags.samplers:
            yield line(flags, kind, n, name, chains[name][1], calls[n], whole.get((n, name)))


def line(
    flags: Flags, kind: str, agents: int, sampler: str, calls: int, one: Timed, whole: Timed | None
) -> dict[str, Any]:
    """What is reported of one reverse process."""
    timed, times = (whole, 1) if whole else (one, calls)
    cost = times * timed.cost
    return {
        "benchmark": "reverse_process",
        "f": kind,
        "alone": kind in ALONE,
        "agents": agents,
        "sampler": sampler,
        "calls": calls,
        "how": "whole chain" if whole else f"one call x {calls}",
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


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    header = (
        "f",
        "alone",
        "n",
        "sampler",
        "calls",
        "ms",
        "range",
        "ms per agent",
        "program MiB",
        "measured",
    )
    rows = [header, ("---", "---", "---:", "---", *["---:"] * 5, "---")]
    for x in lines:
        spread = f"{short(1e3 * x['seconds_low'])} to {short(1e3 * x['seconds_high'])}"
        numbers = (
            short(1e3 * x["seconds"]),
            spread,
            short(1e3 * x["seconds_per_agent"]),
            short(x["program_mib"]),
        )
        name = (
            x["f"],
            "yes" if x["alone"] else "no",
            str(x["agents"]),
            x["sampler"],
            str(x["calls"]),
        )
        rows.append((*name, *numbers, x["how"]))
    return markdown(rows)


def checked(flags: Flags) -> Flags:
    """The flags, tiny where asked for; raises JaxomarlError where they mean nothing."""
    if flags.toy:
        flags = dataclasses.replace(flags, **TOY)  # type: ignore[arg-type]
    for field, names in (("f", NOISE), ("samplers", SAMPLERS)):
        for name in getattr(flags, field):
            if name not in names:
                raise refuse(f"--{field}", f"some of {', '.join(names)}", name, "")
    counts = (
        *flags.agents,
        flags.ddpm,
        flags.ddim,
        flags.columns,
        flags.known,
        flags.width,
        flags.batch,
    )
    if min(counts) < 1 or not flags.agents:
        raise refuse(
            "--agents and sizes", "positive counts", counts, "For example --agents 2 8 64."
        )
    return flags


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes."""
    flags = checked(flags)
    for kind in flags.f:
        yield from measure(flags, kind)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.reverse_process")
    runtime.use_cores()
    return report(bench(flags), table, flags.out)


if __name__ == "__main__":
    sys.exit(main())

"""What DOM2's Table 10 counts: `python -m benchmarks.dom2_cost`.

Its protocol: 10,000 updates on World's expert data, and 10 episodes after every 100 of them. Widths, batch and sampler
are the preset's. Some updates and some evaluations are timed, after compilation and one chunk of warming up, and their
medians are multiplied up to the protocol's counts: the line says from how many.

    training    = 10,000 * seconds per update of all R runs
    evaluation  = 100 * seconds for R times 10 episodes
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.report import alone, markdown, report, short
from benchmarks.work import peak, reset_peak
from jaxomarl.api import plan, runtime
from jaxomarl.api.plan import Group
from jaxomarl.base import Past, refuse
from jaxomarl.data.stats import statistics as data_statistics
from jaxomarl.training import evaluation, sharding
from jaxomarl.training.runner import Job, Program

UPDATES, EVALUATIONS, EPISODES = 10_000, 100, 10
PRINTED = {
    "dom2": (3307.9, 857.2, 2349),
    "madiff": (16762.8, 13123.2, 10908),
    "dof": (15488.8, 8126.3, 13321),
}
"""Seconds of training and of evaluation and MB on a card that is not named."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time DOM2's Table 10 protocol: one JSON line for each system and R, then a table."""

    systems: tuple[str, ...] = ("dom2",)
    """Systems of one stage, as the README names them."""
    task: str = "mpe/world"
    data: str = "expert"
    runs: tuple[int, ...] = (1,)
    """R, the seeds that train at once."""
    chunks: int = 3
    """Timed chunks of `chunk` updates, and timed evaluations."""
    chunk: int = 2
    """Updates in a chunk; on an accelerator take 100."""
    rows: int = 100_000
    """Transitions in the data; what an update costs does not depend on them."""
    scale: float = 1.0
    """Of the preset's widths, by its cube root; 1 is the paper's."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


def measure(system: str, runs: int, flags: Flags) -> dict[str, Any]:
    """The line of a system and R."""
    changed = {"chunk": [flags.chunk]} | ({"thresholds": [""]} if system == "dom2" else {})
    asked = (
        [system],
        [flags.task],
        [flags.data],
        runs,
        "",
        changed,
        flags.rows,
        EPISODES,
        flags.scale,
    )
    (group,) = plan.resolve(*asked)
    reset_peak()
    program, step, play, held = compiled(group)
    rounds = range(1, flags.chunks + 1)
    timed(step, 0)
    timed(play, 0)
    update = statistics.median(timed(step, k) for k in rounds) / program.chunk
    episodes = statistics.median(timed(play, k) for k in rounds)
    train, test = UPDATES * update, EVALUATIONS * episodes
    return {
        "benchmark": "dom2_cost",
        "system": system,
        "task": flags.task,
        "runs": runs,
        "scale": flags.scale,
        "timed_updates": program.chunk * flags.chunks,
        "timed_evaluations": flags.chunks,
        "seconds_per_update": update,
        "training_seconds": train,
        "evaluation_seconds": test,
        "seconds_per_seed": (train + test) / runs,
        "compile_seconds": program.compile_seconds,
        "program_mb": held / 2**20,
        "peak_mb": peak() / 2**20,
    }


def timed(call: Callable[[int], Any], k: int) -> float:
    """Seconds of a call that waits for its result."""
    with alone():
        began = time.perf_counter()
        call(k)
        return time.perf_counter() - began


def compiled(group: Group) -> tuple[Program, Callable[[int], None], Callable[[int], None], int]:
    """(program, a chunk of updates, an evaluation, bytes of the chunk by XLA's count), as training runs them."""
    spec, env, runs = group.task.env.spec, group.task.env, len(group.seeds)
    assert group.data is not None
    if len(group.system.pipeline(spec, group.cfgs[0], None)) > 1:
        raise refuse(
            "--systems",
            "systems of one stage",
            group.name,
            "The protocol counts one kind of update.",
        )
    data = group.system.prepare(spec, group.cfgs[0], group.data)
    stats = data_statistics(group.data)
    episodes = group.task.episodes
    job = Job(group.system, spec, group.cfgs, group.seeds, data, stats, env, episodes=episodes)
    past: Past = {"stats": jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), stats)}
    program = Program(job, 0, past)
    data = sharding.replicate(data, program.devices)
    cfgs, keys, past = program.rows(list(range(runs)))
    size, how = sharding.padded(runs, program.devices), program.how
    state = program.compile(program.init, how, 1, (cfgs, keys, past, data))(cfgs, keys, past, data)
    first = (state, cfgs, keys, past, jnp.asarray(1, jnp.int32), data)
    advance = program.compile(program.advance, how, 2, first, donate=(0,))
    acts = jnp.stack([evaluation.act_keys(seed, 0, episodes) for seed in group.seeds])
    acts = sharding.place(acts, program.devices, size)
    resets = sharding.replicate(evaluation.reset_keys(episodes), program.devices)
    evaluate = program.compile(program.evaluate, how, 1, (cfgs, state, past, acts, resets))

    def step(k: int) -> None:
        nonlocal state
        state, metrics = advance(state, cfgs, keys, past, jnp.asarray(k + 1, jnp.int32), data)
        jax.tree.map(np.asarray, metrics)
        jax.block_until_ready(state)

    def play(k: int) -> None:
        jax.tree.map(np.asarray, evaluate(cfgs, state, past, acts, resets))

    m: Any = advance.memory_analysis()  # type: ignore[attr-defined]
    held = (
        m.argument_size_in_bytes
        + m.output_size_in_bytes
        - m.alias_size_in_bytes
        + m.temp_size_in_bytes
        if m
        else 0
    )
    return program, step, play, held


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as Markdown, above the paper's."""
    head = ("system", "R", "training s", "evaluation s", "seconds per seed", "program MB", "from")
    rows = [head, ("---", *["---:"] * 5, "---")]
    for x in lines:
        counts = f"{x['timed_updates']} updates, {x['timed_evaluations']} evaluations"
        numbers = (
            x["training_seconds"],
            x["evaluation_seconds"],
            x["seconds_per_seed"],
            x["program_mb"],
        )
        rows.append((x["system"], str(x["runs"]), *map(short, numbers), counts))
    for name, (train, test, memory) in PRINTED.items():
        rows.append(
            (
                f"{name}, printed",
                "1",
                f"{train}",
                f"{test}",
                short(train + test),
                str(memory),
                "a card",
            )
        )
    return markdown(rows)


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes."""
    for name in ("chunks", "chunk", "rows"):
        if getattr(flags, name) < 1:
            raise refuse(
                f"--{name}", "at least 1", getattr(flags, name), "The defaults take some minutes."
            )
    for system in flags.systems:
        for runs in flags.runs:
            yield measure(system, runs, flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.dom2_cost")
    runtime.use_cores()
    return report(bench(flags), table, flags.out)


if __name__ == "__main__":
    sys.exit(main())

"""The costs of DOM2's Table 10: `python -m benchmarks.dom2_cost`.

Its protocol has 10,000 updates on World's expert data, and 10 episodes after every 100 of them.
Widths, batch and sampler are the preset's. Some updates and some evaluations are timed, after
compilation and one chunk of warming up. Their medians are multiplied up to the protocol's counts,
and the line says from how many.

    training    = 10,000 * seconds per update of all R runs
    evaluation  = 100 * seconds for R times 10 episodes
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import Line, Written, alone, command, markdown, short
from benchmarks.work import peak, program_bytes, reset_peak
from jaxomarl.api import plan
from jaxomarl.api.plan import Group
from jaxomarl.base import Past, refuse
from jaxomarl.data.stats import statistics as data_statistics
from jaxomarl.training import evaluation, sharding
from jaxomarl.training.runner import Job, Program

UPDATES = 10_000
EVALUATIONS = 100
EPISODES = 10
PRINTED = {
    "dom2": (3307.9, 857.2, 2349),
    "madiff": (16762.8, 13123.2, 10908),
    "dof": (15488.8, 8126.3, 13321),
}
"""System -> printed seconds of training and of evaluation, and MB, on a card that is not named."""


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time DOM2's Table 10 protocol: one JSON line for each system and R, then a table."""

    systems: tuple[str, ...] = ("dom2",)
    """Systems of one stage, by their names in docs/systems.md."""
    task: str = "mpe/world"
    """Task that the systems train on."""
    data: str = "expert"
    """Quality of its data."""
    runs: tuple[int, ...] = (1,)
    """Numbers R of seeds that train at once."""
    chunks: int = 3
    """Number of timed chunks, and of timed evaluations."""
    chunk: int = 2
    """Updates in a chunk; on an accelerator take 100."""
    rows: int = 100_000
    """Transitions in the data; the cost of an update does not depend on them."""
    scale: float = 1.0
    """Scale of the preset's widths, by its cube root; 1 is the paper's."""


def measure(system: str, runs: int, flags: Flags) -> Line:
    """The line of a system and R."""
    changed: Line = {"chunk": [flags.chunk]}
    if system == "dom2":
        changed["thresholds"] = [""]
    cell = ([system], [flags.task], [flags.data], runs)
    (group,) = plan.resolve(*cell, "", changed, flags.rows, EPISODES, flags.scale)
    reset_peak()
    program, step, roll_out, size = compiled(group)
    rounds = range(1, flags.chunks + 1)
    timed(step, 0)
    timed(roll_out, 0)
    update = statistics.median(timed(step, k) for k in rounds) / program.chunk
    episodes = statistics.median(timed(roll_out, k) for k in rounds)
    train = UPDATES * update
    test = EVALUATIONS * episodes
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
        "program_mb": size / 2**20,
        "peak_mb": peak() / 2**20,
    }


def timed(call: Callable[[int], Any], k: int) -> float:
    """Seconds of a call that waits for its result."""
    with alone():
        began = time.perf_counter()
        call(k)
        return time.perf_counter() - began


def compiled(group: Group) -> tuple[Program, Callable[[int], None], Callable[[int], None], int]:
    """What training runs: (program, a chunk of updates, an evaluation, bytes of the chunk)."""
    env = group.task.env
    spec = env.spec
    runs = len(group.seeds)
    assert group.data is not None
    if len(group.system.pipeline(spec, group.cfgs[0], None)) > 1:
        way = "The protocol counts one kind of update."
        raise refuse("--systems", "systems of one stage", group.name, way)

    data = group.system.prepare(spec, group.cfgs[0], group.data)
    stats = data_statistics(group.data)
    episodes = group.task.episodes
    job = Job(group.system, spec, group.cfgs, group.seeds, data, stats, env, episodes=episodes)
    past: Past = {"stats": jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), stats)}
    program = Program(job, 0, past)
    data = sharding.replicate(data, program.devices)
    cfgs, keys, past = program.rows(list(range(runs)))
    size = sharding.padded(runs, program.devices)
    how = program.how
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

    def roll_out(k: int) -> None:
        jax.tree.map(np.asarray, evaluate(cfgs, state, past, acts, resets))

    return program, step, roll_out, program_bytes(advance)


def table(lines: Sequence[Line]) -> str:
    """The lines as Markdown, above the paper's numbers."""
    head = ("system", "R", "training s", "evaluation s", "seconds per seed", "program MB", "from")
    rows = [head, ("---", *["---:"] * 5, "---")]
    for x in lines:
        counts = f"{x['timed_updates']} updates, {x['timed_evaluations']} evaluations"
        fields = ("training_seconds", "evaluation_seconds", "seconds_per_seed", "program_mb")
        numbers = [short(x[field]) for field in fields]
        rows.append((x["system"], str(x["runs"]), *numbers, counts))
    for name, (train, test, memory) in PRINTED.items():
        numbers = [str(train), str(test), short(train + test), str(memory)]
        rows.append((f"{name}, printed", "1", *numbers, "a card"))
    return markdown(rows)


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes."""
    for name in ("chunks", "chunk", "rows"):
        if getattr(flags, name) < 1:
            way = "The defaults take some minutes."
            raise refuse(f"--{name}", "at least 1", getattr(flags, name), way)
    for system in flags.systems:
        for runs in flags.runs:
            yield measure(system, runs, flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    return command("dom2_cost", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

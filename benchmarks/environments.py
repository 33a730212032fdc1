"""The cost of what comes before an update: `python -m benchmarks.environments`, or `make bench`.

    steps   joint steps per second of the particle tasks under random actions, compared with spread
            of JaxMARL and of mpe2
    data    seconds for a generated data set: rolled out, packed, hashed
    batch   a minibatch drawn from a large data set, compared with the critic's update on it

What is compared takes turns, so that a disturbance of the machine falls on all alike. A line has
the median and the range. A joint step of one environment counts as one, and an episode's reset is
timed with its steps. Every environment gets the same random actions. Before it is timed, a program
must return the same finite numbers twice.
"""

import contextlib
import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.report import Line, Written, alone, check_parts, columns, report
from benchmarks.sizes import SPREAD, random_data
from benchmarks.updates import ROUNDS, SAMPLE
from benchmarks.work import GIB, peak, reset_peak
from jaxomarl.algorithms import omsd
from jaxomarl.base import Environment, Episodes, JaxomarlError, Task, refuse
from jaxomarl.data import catalog as data_catalog
from jaxomarl.data.dataset import content_hash, pack, sample_transitions
from jaxomarl.data.stats import identity
from jaxomarl.envs import catalog
from jaxomarl.stages import critic

PARTS = ("steps", "data", "batch")
COMPARED = "mpe/spread"
"""The task that the peers have too."""
JAXMARL = "MPE_simple_spread_v3"
PEERS = ("jaxmarl", "mpe2")
AGENTS, STEPS = 3, 25
UPDATES = {"batch": 200, "update": 4}
"""Turns in one call of a compiled scan."""
MISSING = (ImportError, JaxomarlError, OSError)
"""Errors of a peer, a task or a recipe that lacks something."""


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time environments, data sets and minibatches: one JSON line per figure, then tables."""

    parts: tuple[str, ...] = PARTS
    """Parts that are timed."""
    tasks: tuple[str, ...] = ("mpe/spread", "mpe/tag", "mpe/world")
    """Particle tasks."""
    sizes: tuple[int, ...] = (1, 100, 1000, 10000)
    """Numbers of episodes at once; the best is quoted."""
    qualities: tuple[str, ...] = ("random", "medium")
    """Qualities of the data sets."""
    rows: int = 1_000_000
    """Transitions of a data set."""
    repeats: int = 3
    """Data sets generated after the first, which compiles."""
    width: int = 256
    """Width of the critic whose update is compared with a minibatch."""
    batch: int = 512
    """Rows of a minibatch."""
    seconds: float = 2.0
    """Timed seconds per cell; slow cells take three samples in any case."""
    quick: bool = False
    """Take tiny sizes and spread alone: they show whether it runs, not how fast."""


QUICK = dict(
    tasks=(COMPARED,),
    sizes=(2,),
    qualities=("random",),
    rows=100,
    repeats=1,
    width=8,
    batch=4,
    seconds=0.05,
)


# --- what is timed ---


@dataclass
class Cell:
    """A compiled function that is timed sample by sample."""

    name: Line
    """The fields with which its line begins."""
    call: Callable[[], Any]
    work: int
    """Units (steps, updates, ...) in one call."""
    compile_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """Seconds per unit, one entry per sample."""
    calls: int = 1
    """Calls in a sample."""

    @classmethod
    def of(cls, name: Line, f: Callable, args: tuple, work: int) -> "Cell":
        """The cell of `f(*args)`, compiled."""
        began = time.perf_counter()
        compiled = jax.jit(f).lower(*args).compile()
        return cls(name, lambda: compiled(*args), work, time.perf_counter() - began)

    def sample(self) -> float:
        """Seconds per unit of work over `calls` calls."""
        with alone():
            began = time.perf_counter()
            for _ in range(self.calls):
                jax.block_until_ready(self.call())
            return (time.perf_counter() - began) / (self.calls * self.work)

    @property
    def cost(self) -> float:
        """Median seconds per unit of work."""
        return statistics.median(self.seconds)


def take_turns(cells: Sequence[Cell], seconds: float) -> None:
    """Fill every cell's samples by turns: `seconds` of each cell, and at least ROUNDS samples."""
    for cell in cells:
        checked(cell)
        length = min(SAMPLE, seconds / ROUNDS)
        cell.calls = max(1, round(length / (cell.sample() * cell.work)))
    end = time.perf_counter() + seconds * len(cells)
    while cells and (len(cells[0].seconds) < ROUNDS or time.perf_counter() < end):
        for cell in cells:
            cell.seconds.append(cell.sample())


def checked(cell: Cell) -> None:
    """Raise RuntimeError where two calls differ or a number is not finite."""
    with alone():
        both = [jax.block_until_ready(jax.tree.leaves(cell.call())) for _ in range(2)]
    for one, two in zip(*both, strict=True):
        if not (np.isfinite(one).all() and np.array_equal(one, two)):
            expected = "expected the same finite numbers twice"
            raise RuntimeError(f"{cell.name}: {expected}. Its speed would mean nothing.")


# --- steps ---


def ours(env: Environment) -> Callable[[jax.Array], Any]:
    """An episode of random actions: key -> (observations, rewards, done)."""

    def episode(key):
        k_reset, k_steps = jax.random.split(key)
        state, _ = env.reset(k_reset)

        def step(state, key):
            k_act, k_step = jax.random.split(key)
            state, now = env.step(k_step, state, drawn(k_act))
            return state, (now.obs, now.reward, now.done)

        return jax.lax.scan(step, state, jax.random.split(k_steps, STEPS))[1]

    return episode


def jaxmarl() -> Callable[[jax.Array], Any]:
    """The same of JaxMARL's spread with continuous actions.

    Raises JaxomarlError where there is no JaxMARL.
    """
    # it says what is missing, and keeps JaxMARL's import quiet
    catalog.make(f"jaxmarl/{JAXMARL}:continuous=true")
    import jaxmarl

    game = jaxmarl.make(JAXMARL, action_type="Continuous")

    def episode(key):
        k_reset, k_steps = jax.random.split(key)
        _, state = game.reset(k_reset)

        def step(state, key):
            k_act, k_step = jax.random.split(key)
            action = dict(zip(game.agents, five(jnp, drawn(k_act)), strict=True))
            obs, state, reward, done, _ = game.step_env(k_step, state, action)
            return state, (obs, reward, done)

        return jax.lax.scan(step, state, jax.random.split(k_steps, STEPS))[1]

    return episode


def mpe2() -> Callable[[], Any]:
    """Rewards of an episode of mpe2's spread, always the same one.

    Raises ImportError where there is no mpe2.
    """
    # pygame prints a greeting
    with contextlib.redirect_stdout(sys.stderr):
        from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(continuous_actions=True, max_cycles=STEPS)

    def episode():
        rng = np.random.default_rng(0)
        env.reset(seed=0)
        rewards = []
        for _ in range(STEPS):
            action = five(np, rng.uniform(-1.0, 1.0, (AGENTS, 2)).astype(np.float32))
            _, reward, *_ = env.step(dict(zip(env.agents, action, strict=True)))
            rewards.append(list(reward.values()))
        return np.array(rewards)

    return episode


def drawn(key: jax.Array) -> jax.Array:
    """Random actions [N, 2]."""
    return jax.random.uniform(key, (AGENTS, 2), minval=-1.0, maxval=1.0)


def five(xp: ModuleType, action: Any) -> Any:
    """[N, 2] in [-1, 1] as the peers' [N, 5] in [0, 1]: nothing, left, right, down, up."""
    x, y = action[:, :1], action[:, 1:]
    return xp.concatenate([0.0 * x, *(xp.maximum(z, 0.0) for z in (-x, x, -y, y))], axis=1)


def steps(
    tasks: dict[str, Task | Exception], sizes: Sequence[int], seconds: float
) -> Iterator[Line]:
    """Steps per second of everything that is there, then each task's best and its peers' ratios."""
    cells: list[Cell] = []
    for task, who, make in contestants(tasks):
        name = {"benchmark": "steps", "task": task, "who": who}
        try:
            roll_out = make()
        except MISSING as error:
            yield {**name, "skipped": reason(error)}
            continue
        if who == "mpe2":
            cells.append(Cell({**name, "episodes": 1}, roll_out, STEPS))
            continue
        for many in sizes:
            keys = jax.random.split(jax.random.key(0), many)
            named = {**name, "episodes": many}
            cells.append(Cell.of(named, jax.vmap(roll_out), (keys,), many * STEPS))

    take_turns(cells, seconds)
    best: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        yield {
            **cell.name,
            **rates(cell),
            "compile_seconds": cell.compile_seconds,
            "samples": len(cell.seconds),
            "steps_per_sample": cell.calls * cell.work,
        }
        who = cell.name["task"], cell.name["who"]
        best[who] = min(best.get(who, cell), cell, key=lambda cell: cell.cost)

    for (task, who), cell in best.items():
        if who == "jaxomarl":
            line = {"benchmark": "best", "task": task, "episodes": cell.name["episodes"]}
            ratios = {f"over_{peer}": over(cell, best.get((task, peer))) for peer in PEERS}
            yield {**line, **rates(cell), **ratios}


def over(cell: Cell, peer: Cell | None) -> float | None:
    """The rate of a cell over a peer's; None without the peer."""
    if peer is None:
        return None
    return peer.cost / cell.cost


def contestants(tasks: dict[str, Task | Exception]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(task, who, a function that builds its rollout, which raises where something is missing)."""
    for name, task in tasks.items():
        yield name, "jaxomarl", lambda task=task: ours(there(task).env)
    if COMPARED in tasks:
        yield COMPARED, "jaxmarl", jaxmarl
        yield COMPARED, "mpe2", mpe2


def rates(cell: Cell) -> dict[str, float]:
    """Steps per second: median, lowest, highest."""
    return {
        "steps_per_second": 1 / cell.cost,
        "steps_per_second_low": 1 / max(cell.seconds),
        "steps_per_second_high": 1 / min(cell.seconds),
    }


# --- data ---


def data(task: Task, quality: str, rows: int, repeats: int) -> Line:
    """Seconds of a data set: the first, which compiles, and the later ones.

    The last set is packed and hashed once more to time these.
    """
    rollout_seconds = []
    last: list[Episodes] = []

    def recipe(key: jax.Array, rows: int) -> Episodes:
        last.clear()
        began = time.perf_counter()
        last.append(task.recipes[quality](key, rows))
        rollout_seconds.append(time.perf_counter() - began)
        return last[0]

    reset_peak()
    clocked = task._replace(recipes={quality: recipe})
    total = []
    manifests = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        manifests.append(data_catalog.load(clocked, quality, rows)[1])
        total.append(time.perf_counter() - began)
    highest = peak()
    hashes = {manifest["sha256"] for manifest in manifests}
    if len(hashes) > 1:
        expected = f"expected the same data set each time, found {sorted(hashes)}"
        raise RuntimeError(f"{task.name}/{quality}: {expected}.")

    began = time.perf_counter()
    dataset = jax.block_until_ready(pack(last[0], task.env.spec))
    packed = time.perf_counter()
    content_hash(dataset)
    return {
        "transitions": manifests[0]["transitions"],
        "first_seconds": total[0],
        "seconds": statistics.median(total[1:]),
        "seconds_low": min(total[1:]),
        "seconds_high": max(total[1:]),
        "rollout_seconds": statistics.median(rollout_seconds[1:]),
        "pack_seconds": packed - began,
        "hash_seconds": time.perf_counter() - packed,
        "peak_gib": highest / GIB,
    }


# --- minibatches ---


def batch(rows: int, width: int, size: int, seconds: float) -> Line:
    """Microseconds of a minibatch and of an IQL critic's update on one, with spread's shapes.

    The scan carries the batch, so that every field of every batch is written. An update reads less
    than that.
    """
    rows_of_data = random_data(SPREAD, episodes=-(-rows // STEPS))
    learner = critic.iql(SPREAD, omsd.Config(critic_width=width, critic_batch=size)).algorithm
    past = {"stats": identity(SPREAD)}
    draw = lambda key, data: sample_transitions(key, data, size)
    key = jax.random.key(0)
    given = jax.jit(draw)(key, rows_of_data)
    state = jax.jit(learner.init)(key, past, rows_of_data)

    def batches(key, last, data):
        keys = jax.random.split(key, UPDATES["batch"])
        return jax.lax.scan(lambda last, key: (draw(key, data), None), last, keys)[0]

    def updates(key, state, batch):
        keys = jax.random.split(key, UPDATES["update"])
        step = lambda state, key: (learner.update(key, state, past, batch)[0], None)
        return jax.lax.scan(step, state, keys)[0]

    cells = {
        "batch": Cell.of({"what": "batch"}, batches, (key, given, rows_of_data), UPDATES["batch"]),
        "update": Cell.of({"what": "update"}, updates, (key, state, given), UPDATES["update"]),
    }
    take_turns([*cells.values()], seconds)
    line = {"rows": rows_of_data.starts.shape[0], "width": width, "batch": size}
    for what, cell in cells.items():
        line |= {
            f"{what}_microseconds": 1e6 * cell.cost,
            f"{what}_microseconds_low": 1e6 * min(cell.seconds),
            f"{what}_microseconds_high": 1e6 * max(cell.seconds),
        }
    return {
        **line,
        "ratio": cells["batch"].cost / cells["update"].cost,
        "samples": len(cells["batch"].seconds),
    }


# --- what is printed ---

COLUMNS = {
    "steps": ("task", "who", "episodes", "steps_per_second", "steps_per_second_low",
              "steps_per_second_high", "compile_seconds"),
    "best": ("task", "episodes", "steps_per_second", "over_jaxmarl", "over_mpe2"),
    "data": ("task", "quality", "transitions", "first_seconds", "seconds", "seconds_low",
             "seconds_high", "rollout_seconds", "pack_seconds", "hash_seconds", "peak_gib"),
    "batch": ("rows", "width", "batch", "batch_microseconds", "update_microseconds", "ratio"),
}  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """The lines as Markdown tables, one for each kind."""
    tables = (columns(lines, kind, named) for kind, named in COLUMNS.items())
    return "\n\n".join(filter(None, tables))


def reason(error: Exception) -> str:
    """Why something was skipped, in one line, with the way out."""
    text = " ".join(str(error).split())
    if getattr(error, "name", "") == "mpe2":
        return f"{text}; pip install -c constraints.txt mpe2"
    return text


def there(task: Task | Exception) -> Task:
    """The task; raises the error where it could not be built."""
    if isinstance(task, Exception):
        raise task
    return task


def found(names: Sequence[str]) -> dict[str, Task | Exception]:
    """Tasks by name, or the error where a file of theirs is missing.

    Raises JaxomarlError for a name that is not in the catalog.
    """
    out: dict[str, Task | Exception] = {}
    for name in names:
        if not name.startswith("mpe/"):
            raise refuse("--tasks", "some of mpe/spread, mpe/tag, mpe/world", name, "")
        try:
            out[name] = catalog.make(name)
        except OSError as error:
            out[name] = error
    return out


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes; raises JaxomarlError for flags that mean nothing."""
    if flags.quick:
        flags = dataclasses.replace(flags, **QUICK)  # type: ignore[arg-type]
    check_parts(flags.parts, PARTS)
    counts = (flags.rows, flags.repeats, flags.width, flags.batch)
    if not flags.sizes or min(*flags.sizes, *counts) < 1:
        named = "--sizes, --rows, --repeats, --width, --batch"
        raise refuse(named, "positive counts", flags, "Leave them out.")
    tasks = found(flags.tasks)
    if "steps" in flags.parts:
        yield from steps(tasks, flags.sizes, flags.seconds)
    if "data" in flags.parts:
        for name, quality in itertools.product(tasks, flags.qualities):
            line = {"benchmark": "data", "task": name, "quality": quality}
            try:
                yield {**line, **data(there(tasks[name]), quality, flags.rows, flags.repeats)}
            except MISSING as error:
                yield {**line, "skipped": reason(error)}
    if "batch" in flags.parts:
        yield {"benchmark": "batch", **batch(flags.rows, flags.width, flags.batch, flags.seconds)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.environments")
    return report(bench(flags), table, flags.out)


if __name__ == "__main__":
    sys.exit(main())

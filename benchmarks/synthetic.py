"""Synthetic transitions per second, guided by a policy or not: `python -m benchmarks.synthetic`.

Windows of H steps have the columns of a two-agent half-cheetah. Heun's sampler with churn draws
them from a generator of the paper's width (16), with 2 * levels - 1 calls of its U-Net. The policy
that guides is MADDPG+BC's, which is recurrent and is called once at every level. Networks have
random numbers, and take as long as trained ones. `--runs` draws for several seeds at once, each
with its own generator and policy, in one compiled program.

A full chain is timed where it takes no more than --chain seconds. Else its time is that of one call
times the calls, and of one guidance ("pull") times the levels, and its line says so.
`--parts refresh` times the work of training between two chunks: all windows are drawn, with their
likelihood and which of their rows count. On a card:

    python -m benchmarks.synthetic --parts draw refresh --runs 1 16 --levels 128 --chain 1000
"""

import dataclasses
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.environments import take_turns
from benchmarks.report import Line, check_parts, command, markdown, short
from benchmarks.reverse_process import MIB, ChainFlags, Timed
from benchmarks.sizes import random_data
from jaxomarl.algorithms import coda, maddpg
from jaxomarl.base import Past, Spec, refuse
from jaxomarl.data import cdf
from jaxomarl.data.stats import identity
from jaxomarl.diffusion.policy_guidance import strengths, towards
from jaxomarl.stages.augmented import follower
from jaxomarl.stages.generator import Generator, TrainedGenerator

PARTS = ("draw", "refresh")
SPEC = Spec((12, 12), (3, 3), state_dim=17, horizon=1000, team="first")
"""The shapes of mamujoco/2halfcheetah."""
SYSTEM = coda.augmentation(maddpg.MADDPG_BC, "maddpg-bc", "coda")


@dataclass(frozen=True, kw_only=True)
class Flags(ChainFlags):
    """Time the sampling of windows: a JSON line per levels, runs and guidance, then a table."""

    parts: tuple[str, ...] = PARTS[:1]
    """draw: the sampler's chain. refresh: all the work of training, guided."""
    levels: tuple[int, ...] = (40, 128)
    """Noise levels N; the paper's are 40 in its games and 128 on robots."""
    runs: tuple[int, ...] = (1,)
    """Numbers R of runs at once."""
    batch: int = 1000
    """Windows of each run at once."""
    horizon: int = 20
    """Steps H of a window, each a transition."""
    width: int = 16
    """Width of the U-Net's first level."""
    policy_width: int = 64
    """Width of the policy."""


TOY = dict(levels=(2,), runs=(1,), batch=4, horizon=2, width=8, policy_width=8, seconds=0.02)


class Team:
    """The generators and policies of R runs, of random numbers, and the programs that are timed."""

    def __init__(self, flags: Flags, runs: int, levels: int) -> None:
        self.flags = flags
        self.runs = runs
        self.levels = levels
        self.calls = 2 * levels - 1
        self.name = {"runs": runs, "levels": levels}
        self.cfg = SYSTEM.Config(
            horizon=flags.horizon,
            policy_width=flags.policy_width,
            generator_width=flags.width,
            augment_windows=flags.batch,
            augment_microbatch=flags.batch,
            augment_levels=levels,
        )
        self.model = Generator(SPEC, self.cfg, flags.horizon)
        self.past: Past = {"stats": identity(SPEC)}
        self.policy = maddpg.policy(SPEC, self.cfg)
        self.keys = jax.random.split(jax.random.key(0), runs)
        self.data = random_data(SPEC, episodes=4)

        key = self.keys[0]
        trained = drawn(jax.eval_shape(self.model.init, key, self.past, self.data), runs)
        shape = trained.columns.z.shape
        quantiles = jnp.broadcast_to(jnp.linspace(-3.0, 3.0, shape[-1]), shape)
        self.trained = trained._replace(columns=cdf.Cdf(quantiles, quantiles))
        self.learner = drawn(jax.eval_shape(self.policy.init, key, self.past, self.data), runs)
        shape = (runs, flags.batch, flags.horizon + 1, self.model.held.width)
        self.x = jax.random.normal(jax.random.key(2), shape)

    def shift(self, trained: TrainedGenerator, learner: Any) -> Any:
        """The guidance of a run's policy."""
        acting = follower(self.policy, jax.random.key(3), learner, self.past, SPEC)
        scores = self.model.scores(trained, acting, True)
        return towards(scores, strengths(self.levels, self.cfg.augment_lambda))

    def one_call(self) -> Timed:
        """One call of every run's denoiser."""

        def call(trained, x):
            return self.model.denoiser(trained.net.target, trained)(x, jnp.float32(0.5))

        return Timed.program(self.name, jax.vmap(call), (self.trained, self.x))

    def one_pull(self) -> Timed:
        """One step of guidance by every run's policy."""
        pull = lambda trained, learner, x: self.shift(trained, learner)(jnp.int32(0), x, x)
        return Timed.program(self.name, jax.vmap(pull), (self.trained, self.learner, self.x))

    def chain(self, guided: bool) -> Timed:
        """The sampling of all windows."""

        def draw(key, trained, learner):
            shift = None
            if guided:
                shift = self.shift(trained, learner)
            return self.model.draw(key, trained, self.flags.batch, shift)

        return Timed.program(self.name, jax.vmap(draw), (self.keys, self.trained, self.learner))

    def refresh(self) -> Timed:
        """The work of a stage between two chunks of updates; its windows are guided."""
        stage = SYSTEM.pipeline(SPEC, self.cfg, None)[1]
        assert stage.refresh is not None
        refresh = stage.refresh

        def one(key, trained, data):
            past = {**self.past, "generator": trained}
            return refresh(key, stage.algorithm.init(key, past, data), past, data)

        args = (self.keys, self.trained, self.data)
        return Timed.program(self.name, jax.vmap(one, in_axes=(0, 0, None)), args)


def drawn(shapes: Any, runs: int) -> Any:
    """Small normal numbers of these shapes for each run.

    To compile the networks' own initialisation would take longer than all the rest.
    """
    rng = np.random.default_rng(0)
    number = lambda x: jnp.asarray(0.1 * rng.standard_normal((runs, *x.shape)), x.dtype)
    return jax.tree.map(number, shapes)


def measure(flags: Flags, runs: int, levels: int) -> Iterator[Line]:
    """All lines of one number of runs and levels, which take turns."""
    team = Team(flags, runs, levels)
    call = team.one_call()
    pull = team.one_pull()
    cost = []
    for cell in (call, pull):
        cell.call()
        cost.append(min(cell.sample() for _ in range(2)))
    short_enough = team.calls * cost[0] + levels * cost[1] <= flags.chain

    wanted = []
    if "draw" in flags.parts:
        wanted += [("draw", False), ("draw", True)]
    if "refresh" in flags.parts:
        wanted.append(("refresh", True))
    full = {}
    if short_enough:
        for part, guided in wanted:
            full[part, guided] = team.chain(guided) if part == "draw" else team.refresh()

    take_turns([call, pull, *full.values()], flags.seconds)
    for part, guided in wanted:
        yield line(flags, team, part, guided, call, pull, full.get((part, guided)))


def line(
    flags: Flags, team: Team, part: str, guided: bool, call: Timed, pull: Timed, full: Timed | None
) -> Line:
    """The line of one part, guided or not."""
    levels = team.levels if guided else 0
    how = f"one call x {team.calls}"
    if guided:
        how = f"{how} + one pull x {levels}"
    if full:
        how = "whole chain"

    def seconds(pick: Callable[[Sequence[float]], float]) -> float:
        if full:
            return pick(full.seconds)
        return team.calls * pick(call.seconds) + levels * pick(pull.seconds)

    timed = full or call
    middle = seconds(statistics.median)
    transitions = team.runs * flags.batch * flags.horizon
    return {
        "benchmark": "synthetic",
        "part": part,
        "runs": team.runs,
        "levels": team.levels,
        "guided": guided,
        "calls": team.calls,
        "how": how,
        "seconds": middle,
        "seconds_low": seconds(min),
        "seconds_high": seconds(max),
        "transitions_per_second": transitions / middle,
        "seconds_per_call": call.cost,
        "seconds_per_pull": pull.cost,
        "program_mib": timed.bytes / MIB,
        "compile_seconds": timed.compile_seconds,
        "samples": len(timed.seconds),
        **{k: getattr(flags, k) for k in ("batch", "horizon", "width", "policy_width")},
    }


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    header = (
        "part", "pull", "levels", "runs", "windows", "s", "range", "transitions/s", "program MiB",
        "measured",
    )  # fmt: skip
    rows = [header, ("---", "---", *["---:"] * 7, "---")]
    for x in lines:
        guided = "yes" if x["guided"] else "no"
        name = (x["part"], guided, str(x["levels"]), str(x["runs"]), str(x["batch"]))
        spread = f"{short(x['seconds_low'])} to {short(x['seconds_high'])}"
        rate = short(x["transitions_per_second"])
        numbers = (short(x["seconds"]), spread, rate, short(x["program_mib"]))
        rows.append((*name, *numbers, x["how"]))
    return markdown(rows)


def checked(flags: Flags) -> Flags:
    """The flags, tiny where asked for; raises JaxomarlError where they mean nothing."""
    if flags.toy:
        flags = dataclasses.replace(flags, **TOY)  # type: ignore[arg-type]
    check_parts(flags.parts, PARTS)
    sizes = (flags.batch, flags.horizon, flags.width, flags.policy_width)
    counts = (*flags.levels, *flags.runs, *sizes)
    if min(counts) < 1 or not (flags.parts and flags.levels and flags.runs):
        way = "For example --levels 128 --runs 1 16."
        raise refuse("--levels, --runs and sizes", "positive counts", counts, way)
    return flags


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes."""
    flags = checked(flags)
    for runs in flags.runs:
        for levels in flags.levels:
            yield from measure(flags, runs, levels)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    return command("synthetic", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

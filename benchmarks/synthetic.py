"""Synthetic transitions per second, with and without a policy's pull: `python -m benchmarks.synthetic`.

Windows of H steps of a two-agent half-cheetah's width, drawn by Heun's sampler with churn from a generator of the
paper's width (16, so 2 * levels - 1 calls of its U-Net); the policy that pulls is MADDPG+BC's, recurrent, and is asked
once at every level. Networks hold random numbers: they take as long as trained ones. `--runs` draws for several seeds
at once, each with its own generator and policy, in one compiled program.

A chain is timed whole where it takes no more than --chain seconds; else its time is that of one call times the calls
and of one pull times the levels, and its line says so. `--parts refresh` times what training does between two chunks:
all windows drawn, their likelihood, and which of their rows count. On a card:

    python -m benchmarks.synthetic --parts draw refresh --runs 1 16 --levels 128 --chain 1000
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.environments import take_turns
from benchmarks.report import markdown, report, short
from benchmarks.reverse_process import MIB, Timed
from benchmarks.sizes import random_data
from jaxomarl.algorithms import coda, maddpg
from jaxomarl.api import runtime
from jaxomarl.base import Past, Spec, refuse
from jaxomarl.data import cdf
from jaxomarl.data.stats import identity
from jaxomarl.diffusion.policy_guidance import strengths, towards
from jaxomarl.stages.augmented import follower
from jaxomarl.stages.generator import Generator, Trained

PARTS = ("draw", "refresh")
SPEC = Spec((12, 12), (3, 3), state_dim=17, horizon=1000, team="first")  # mamujoco/2halfcheetah's
SYSTEM = coda.augmentation(maddpg.MADDPG_BC, "maddpg-bc", "coda")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time the drawing of windows: one JSON line per number of levels and of runs, guided or not, then a table."""

    parts: tuple[str, ...] = PARTS[:1]
    """draw: the sampler's chain. refresh: all that training does, guided."""
    levels: tuple[int, ...] = (40, 128)
    """Noise levels N; the paper's are 40 in its games and 128 on robots."""
    runs: tuple[int, ...] = (1,)
    batch: int = 1000
    """Windows of each run, side by side."""
    horizon: int = 20
    """Steps H of a window: so many transitions."""
    width: int = 16
    """Of the U-Net's first level."""
    policy_width: int = 64
    seconds: float = 1.0
    """Timed seconds per cell; slow cells take three samples all the same."""
    chain: float = 2.0
    """Seconds that a chain which is timed whole may take."""
    toy: bool = False
    """Tiny sizes: whether it runs, not how fast."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


TOY = dict(levels=(2,), runs=(1,), batch=4, horizon=2, width=8, policy_width=8, seconds=0.02)


class Team:
    """R generators and policies of random numbers, one of each for each run, and the programs that are timed."""

    def __init__(self, flags: Flags, runs: int, levels: int) -> None:
        self.flags, self.runs, self.levels, self.calls = flags, runs, levels, 2 * levels - 1
        self.cfg = SYSTEM.Config(
            horizon=flags.horizon, policy_width=flags.policy_width, generator_width=flags.width,
            augment_windows=flags.batch, augment_microbatch=flags.batch, augment_levels=levels,
        )  # fmt: skip
        self.model = Generator(SPEC, self.cfg, flags.horizon)
        self.past: Past = {"stats": identity(SPEC)}
        self.policy = maddpg.policy(SPEC, self.cfg)
        self.keys = jax.random.split(jax.random.key(0), runs)
        self.data = random_data(SPEC, episodes=4)
        key = self.keys[0]
        trained = drawn(jax.eval_shape(self.model.init, key, self.past, self.data), runs)
        knots = jnp.broadcast_to(
            jnp.linspace(-3.0, 3.0, trained.columns.z.shape[-1]), trained.columns.z.shape
        )
        self.trained = trained._replace(columns=cdf.Cdf(knots, knots))
        self.learner = drawn(jax.eval_shape(self.policy.init, key, self.past, self.data), runs)
        shape = (runs, flags.batch, flags.horizon + 1, self.model.held.width)
        self.x = jax.random.normal(jax.random.key(2), shape)
        self.name = {"runs": runs, "levels": levels}

    def shift(self, trained: Trained, learner: Any) -> Any:
        """The pull of a run's policy."""
        played = follower(self.policy, jax.random.key(3), learner, self.past, SPEC)
        return towards(
            self.model.scores(trained, played, True),
            strengths(self.levels, self.cfg.augment_lambda),
        )

    def one_call(self) -> Timed:
        """One call of every run's denoiser."""
        call = lambda trained, x: self.model.denoiser(trained.net.target, trained)(
            x, jnp.float32(0.5)
        )
        return Timed.program(self.name, jax.vmap(call), (self.trained, self.x))

    def one_pull(self) -> Timed:
        """One pull of every run's policy."""
        pull = lambda trained, learner, x: self.shift(trained, learner)(jnp.int32(0), x, x)
        return Timed.program(self.name, jax.vmap(pull), (self.trained, self.learner, self.x))

    def chain(self, guided: bool) -> Timed:
        """All windows."""

        def draw(key, trained, learner):
            shift = self.shift(trained, learner) if guided else None
            return self.model.draw(key, trained, self.flags.batch, shift)

        return Timed.program(self.name, jax.vmap(draw), (self.keys, self.trained, self.learner))

    def refresh(self) -> Timed:
        """What a stage does between two chunks of updates; its windows are drawn under the pull."""
        stage = SYSTEM.pipeline(SPEC, self.cfg, None)[1]
        assert stage.refresh is not None
        refreshed, first = stage.refresh, stage.algorithm.init

        def one(key, trained, data):
            past = {**self.past, "generator": trained}
            return refreshed(key, first(key, past, data), past, data)

        return Timed.program(
            self.name, jax.vmap(one, in_axes=(0, 0, None)), (self.keys, self.trained, self.data)
        )


def drawn(shapes: Any, runs: int) -> Any:
    """Small normal numbers of these shapes for each run; to compile networks' own starts would take longer than all."""
    rng = np.random.default_rng(0)
    number = lambda x: jnp.asarray(0.1 * rng.standard_normal((runs, *x.shape)), x.dtype)
    return jax.tree.map(number, shapes)


def measure(flags: Flags, runs: int, levels: int) -> Iterator[dict[str, Any]]:
    """All lines of one number of runs and levels; what is compared takes turns."""
    team = Team(flags, runs, levels)
    call, pull = team.one_call(), team.one_pull()
    cost = []
    for cell in (call, pull):
        cell.call()
        cost.append(min(cell.sample() for _ in range(2)))
    short_enough = team.calls * cost[0] + levels * cost[1] <= flags.chain
    wanted = [("draw", guided) for guided in (False, True) if "draw" in flags.parts]
    wanted += [("refresh", True)] * ("refresh" in flags.parts)
    whole = {}
    for part, guided in wanted:
        if short_enough:
            whole[part, guided] = team.chain(guided) if part == "draw" else team.refresh()
    take_turns([call, pull, *whole.values()], flags.seconds)
    for part, guided in wanted:
        yield line(flags, team, part, guided, call, pull, whole.get((part, guided)))


def line(
    flags: Flags, team: Team, part: str, guided: bool, call: Timed, pull: Timed, whole: Timed | None
) -> dict[str, Any]:
    """What is reported of one way to draw."""
    levels = team.levels if guided else 0
    of = lambda pick: (
        pick(whole.seconds)
        if whole
        else team.calls * pick(call.seconds) + levels * pick(pull.seconds)
    )
    middle = whole.cost if whole else team.calls * call.cost + levels * pull.cost
    how = f"one call x {team.calls}" + (f" + one pull x {levels}" if guided else "")
    made = team.runs * flags.batch * flags.horizon
    return {
        "benchmark": "synthetic",
        "part": part,
        "runs": team.runs,
        "levels": team.levels,
        "guided": guided,
        "calls": team.calls,
        "how": "whole chain" if whole else how,
        "seconds": middle,
        "seconds_low": of(min),
        "seconds_high": of(max),
        "transitions_per_second": made / middle,
        "seconds_per_call": call.cost,
        "seconds_per_pull": pull.cost,
        "program_mib": (whole or call).bytes / MIB,
        "compile_seconds": (whole or call).compile_seconds,
        "samples": len((whole or call).seconds),
        **{k: getattr(flags, k) for k in ("batch", "horizon", "width", "policy_width")},
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    header = (
        "part",
        "pull",
        "levels",
        "runs",
        "windows",
        "s",
        "range",
        "transitions/s",
        "program MiB",
        "measured",
    )
    rows = [header, ("---", "---", *["---:"] * 7, "---")]
    for x in lines:
        name = (
            x["part"],
            "yes" if x["guided"] else "no",
            str(x["levels"]),
            str(x["runs"]),
            str(x["batch"]),
        )
        spread = f"{short(x['seconds_low'])} to {short(x['seconds_high'])}"
        numbers = (
            short(x["seconds"]),
            spread,
            short(x["transitions_per_second"]),
            short(x["program_mib"]),
        )
        rows.append((*name, *numbers, x["how"]))
    return markdown(rows)


def checked(flags: Flags) -> Flags:
    """The flags, tiny where asked for; raises JaxomarlError where they mean nothing."""
    if flags.toy:
        flags = dataclasses.replace(flags, **TOY)  # type: ignore[arg-type]
    for part in flags.parts:
        if part not in PARTS:
            raise refuse("--parts", f"some of {', '.join(PARTS)}", part, "")
    counts = (
        *flags.levels,
        *flags.runs,
        flags.batch,
        flags.horizon,
        flags.width,
        flags.policy_width,
    )
    if min(counts) < 1 or not (flags.parts and flags.levels and flags.runs):
        raise refuse(
            "--levels, --runs and sizes",
            "positive counts",
            counts,
            "For example --levels 128 --runs 1 16.",
        )
    return flags


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes."""
    flags = checked(flags)
    for runs in flags.runs:
        for levels in flags.levels:
            yield from measure(flags, runs, levels)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.synthetic")
    runtime.use_cores()
    return report(bench(flags), table, flags.out)


if __name__ == "__main__":
    sys.exit(main())

"""Targets of speed, and whether lines meet them: `python -m benchmarks.targets LINES..`.

A target is a number over some lines of the benchmarks, and a bound. It is met only where it was
measured. A number is called extrapolated where it is seconds per update times updates that were
not run. `make bench` prints the table.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks.compare import read
from benchmarks.report import Line, markdown, short
from jaxomarl.base import JaxomarlError

Value = Callable[[Sequence[Line]], float | None]
STEPS = {"critic": 5e5, "scores-conditional": 1e5, "policy": 1e5}
"""OMSD's updates on the particle tasks."""
LONG = {**STEPS, "scores-conditional": 2e6}
"""The same with longer training of the scores."""
HALF = "bfloat16"
SWEEP = {"seeds": 16, "scale": 1.0}
"""Settings of the default sweep."""


class Target(NamedTuple):
    """A number over lines, and its bound."""

    on: str
    """cpu or card."""
    what: str
    least: bool
    """Whether the value must be at least the bound, or at most."""
    bound: float
    value: Value
    """The number, or None where its lines are missing."""

    def verdict(self, value: float | None) -> str:
        """Whether a value meets the bound, in words."""
        if value is None:
            return "not measured"
        met = value >= self.bound if self.least else value <= self.bound
        return "met" if met else "not met"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare measured lines with the targets."""

    lines: tyro.conf.Positional[tuple[Path, ...]]
    """Files of JSON lines."""
    card: bool = False
    """Take the targets of an accelerator; else those of two CPU cores."""


def some(lines: Sequence[Line], **named: Any) -> list[Line]:
    """Lines that were timed and have these fields."""
    return [x for x in lines if "skipped" not in x and all(x.get(k) == v for k, v in named.items())]


def least(lines: Sequence[Line], measure: str, **named: Any) -> float | None:
    """The smallest measure of those lines."""
    return min(values(lines, measure, **named), default=None)


def most(lines: Sequence[Line], measure: str, **named: Any) -> float | None:
    """The largest measure of those lines."""
    return max(values(lines, measure, **named), default=None)


def values(lines: Sequence[Line], measure: str, **named: Any) -> list[float]:
    """The measures of those lines that have it."""
    return [x[measure] for x in some(lines, **named) if x.get(measure) is not None]


def total(steps: dict[str, float], precision: str | None = None) -> Value:
    """Minutes of OMSD's stages for 16 seeds at the paper's widths."""

    def minutes(lines: Sequence[Line]) -> float | None:
        of = {"size": "mpe", "system": "omsd", "runs": 16, "precision": precision}
        each = {s: least(lines, "seconds_per_update", stage=s, **of) for s in steps}
        if not all(each.values()):
            return None
        return sum((each[s] or 0.0) * n for s, n in steps.items()) / 60

    return minutes


def over_one(size: str) -> Value:
    """The wall time of 16 critics over that of one."""

    def ratio(lines: Sequence[Line]) -> float | None:
        of = {"benchmark": "updates", "size": size, "system": "omsd", "precision": None}
        found = least(lines, "ratio", stage="critic", runs=16, **of)
        if found is None:
            return None
        return 16 * found

    return ratio


def apart(precision: str | None) -> Value:
    """The scores' share of the ceiling of products, without the time of the optimiser's numbers."""

    def share(lines: Sequence[Line]) -> float | None:
        of = {"size": "mpe", "system": "omsd", "stage": "scores-conditional", "runs": 16}
        found = [x for x in some(lines, **of, precision=precision) if x.get("flop_per_update")]
        return max(map(product_share, found), default=None)

    return share


def product_share(x: Line) -> float:
    """Operations of 16 runs over the ceiling, in the time that does not move the optimiser's."""
    moved_bytes = 2 * x["runs"] * x["state_mib"] * 2**20
    moving_seconds = moved_bytes / (1e9 * x["ceiling_gb_per_second"])
    flops = 16 * x["flop_per_update"] / (x["seconds_per_update"] - moving_seconds)
    return flops / (1e9 * x["ceiling_gflop_per_second"])


def protocol(precision: str | None) -> Value:
    """Seconds of DOM2's Table 10 for one of 16 seeds."""
    of = {"benchmark": "dom2_cost", "system": "dom2", "runs": 16, "precision": precision}
    return lambda lines: least(lines, "seconds_per_seed", **of)


def flat(lines: Sequence[Line]) -> float | None:
    """The largest cost of a seed at R = 64 over that at R = 16, of stages timed with both."""
    few = seed_costs(lines, 16)
    many = seed_costs(lines, 64)
    return max((many[stage] / few[stage] for stage in many.keys() & few.keys()), default=None)


def seed_costs(lines: Sequence[Line], runs: int) -> dict[tuple, float]:
    """Stage -> seconds per update of one of R seeds."""
    costs = {}
    for x in some(lines, benchmark="updates", runs=runs):
        stage = (x["size"], x["system"], x["stage"], x["agents"], x.get("precision"))
        costs[stage] = x["seconds_per_update"] / runs
    return costs


def growth(lines: Sequence[Line]) -> float | None:
    """The largest cost of n agents over n / n_0 times that of n_0; 1 is linear."""
    found: dict[tuple, dict[int, float]] = {}
    for x in some(lines, benchmark="updates"):
        of = x["size"], x["system"], x["stage"], x["runs"], x.get("precision")
        found.setdefault(of, {})[x["agents"]] = x["seconds_per_update"]
    growths = []
    for curve in found.values():
        fewest = min(curve)
        for n, cost in curve.items():
            if n > fewest:
                growths.append(cost / curve[fewest] * fewest / n)
    return max(growths, default=None)


def physics(iterations: int) -> Value:
    """Most physics steps per second; a step of the environment has several."""
    of = {"benchmark": "robots", "task": "2halfcheetah", "engine": "mjx", "iterations": iterations}
    return lambda lines: max(
        (x["steps_per_second"] * x["frame_skip"] for x in some(lines, **of)), default=None
    )


def refresh(runs: int) -> Value:
    """Seconds in which the synthetic rows of so many runs are sampled anew at the paper's sizes."""
    sizes = {"levels": 128, "batch": 1000, "horizon": 20, "width": 16, "how": "whole chain"}
    return lambda lines: least(
        lines, "seconds", benchmark="synthetic", part="refresh", runs=runs, **sizes
    )


def peers(size: str, runs: int) -> Value:
    """The smallest ratio of a stage to PyTorch's eager updates."""
    return lambda lines: least(lines, "eager_ratio", benchmark="peers", size=size, runs=runs)


TARGETS = (
    Target(
        "cpu",
        "OMSD's stages, game size, R = 16: times 16 eager PyTorch runs",
        True,
        10.0,
        peers("game", 16),
    ),
    Target(
        "cpu", "OMSD's stages, MPE size, R = 1: times eager PyTorch", True, 1.0, peers("mpe", 1)
    ),
    Target(
        "cpu",
        "OMSD's stages, MPE size: cost of R = 16 over 16 single runs",
        False,
        1.0,
        lambda lines: most(lines, "ratio", benchmark="updates", size="mpe", system="omsd", runs=16),
    ),
    Target(
        "cpu",
        "`make sweep`, warm, s",
        False,
        30.0,
        lambda lines: least(lines, "seconds", part="sweep, warm", **SWEEP),
    ),
    Target(
        "cpu",
        "`make sweep`, no compile cache, s",
        False,
        60.0,
        lambda lines: least(lines, "seconds", part="sweep, cold", **SWEEP),
    ),
    Target(
        "cpu",
        "import of jaxomarl, s",
        False,
        1.5,
        lambda lines: least(lines, "seconds", part="import"),
    ),
    Target(
        "cpu",
        "spread: our steps/s over JaxMARL's",
        True,
        1.0,
        lambda lines: most(lines, "over_jaxmarl"),
    ),
    Target(
        "cpu",
        "spread: 10^6 transitions, warm, s",
        False,
        10.0,
        lambda lines: most(
            lines, "seconds", benchmark="data", task="mpe/spread", transitions=1_000_000
        ),
    ),
    Target(
        "cpu",
        "spread: evaluation of 16 seeds x 100 episodes, s",
        False,
        1.0,
        lambda lines: least(lines, "seconds", part="evaluation", seeds=16, episodes=100),
    ),
    Target("cpu", "cost of n agents over n / n_0 times that of n_0", False, 1.0, growth),
    Target(
        "card",
        "OMSD on spread, 16 seeds, 5e5 + 1e5 + 1e5 updates, minutes (extrapolated)",
        False,
        10.0,
        total(STEPS),
    ),
    Target("card", "the same in bfloat16", False, 10.0, total(STEPS, HALF)),
    Target(
        "card",
        "OMSD on spread with 2e6 updates of the scores, minutes (extrapolated)",
        False,
        120.0,
        total(LONG),
    ),
    Target("card", "the same in bfloat16", False, 120.0, total(LONG, HALF)),
    Target("card", "game critics: wall time of R = 16 over R = 1", False, 2.0, over_one("game")),
    Target("card", "MPE critics: wall time of R = 16 over R = 1", False, 2.0, over_one("mpe")),
    Target(
        "card",
        "scores, MPE size, R = 16: share of the product's ceiling, optimiser apart",
        True,
        0.4,
        apart(None),
    ),
    Target("card", "the same in bfloat16", True, 0.4, apart(HALF)),
    Target(
        "card",
        "DOM2's Table 10 protocol at R = 16, s per seed (extrapolated)",
        False,
        15.0,
        protocol(None),
    ),
    Target("card", "the same in bfloat16", False, 15.0, protocol(HALF)),
    Target(
        "card",
        "CODA's refresh, 1000 windows of 20 steps, 128 levels, R = 1, s",
        False,
        2.0,
        refresh(1),
    ),
    Target("card", "the same for R = 16, s", False, 8.0, refresh(16)),
    Target(
        "card",
        "spread: environment steps/s",
        True,
        1e7,
        lambda lines: most(lines, "steps_per_second", benchmark="best", task="mpe/spread"),
    ),
    Target("card", "half-cheetah on MJX: physics steps/s", True, 1e6, physics(100)),
    Target("card", "the same with 4 iterations of the solver for 100", True, 1e6, physics(4)),
    Target("card", "cost of a seed at R = 64 over R = 16", False, 1.2, flat),
    Target("card", "cost of n agents over n / n_0 times that of n_0", False, 1.0, growth),
)


def table(lines: Sequence[Line], on: str) -> str:
    """The targets of a machine as Markdown."""
    rows = [("target", "bound", "measured", ""), ("---", "---:", "---:", "---")]
    for target in TARGETS:
        if target.on == on:
            value = target.value(lines)
            sign = "at least" if target.least else "at most"
            bound = f"{sign} {target.bound:g}"
            rows.append((target.what, bound, short(value), target.verdict(value)))
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 2 for files without lines."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.targets")
    try:
        lines = [line for path in flags.lines for line in read(path)]
        print(table(lines, "card" if flags.card else "cpu"))
    except JaxomarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

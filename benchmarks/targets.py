"""Which of our promises of speed some lines keep: `python -m benchmarks.targets LINES..`; `make bench` prints it.

A promise is a number over some lines of the benchmarks, and a bound. Where the lines are missing it says so: nothing is
met that was not measured. Products with a number of steps that nobody waited for are called extrapolated.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks.compare import read
from benchmarks.report import markdown, short
from jaxomarl.base import JaxomarlError

Line = dict[str, Any]
STEPS = {"critic": 5e5, "scores-conditional": 1e5, "policy": 1e5}
"""OMSD's updates on the particle tasks."""
LONG = {**STEPS, "scores-conditional": 2e6}
HALF = "bfloat16"
SWEEP = {"seeds": 16, "scale": 1.0}
"""The default one."""


class Target(NamedTuple):
    """A promise: `value` of some lines, or None where they are missing, is held against `bound`."""

    on: str  # cpu or card
    what: str
    least: bool  # whether the value must be at least the bound, or at most
    bound: float
    value: Callable[[Sequence[Line]], float | None]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Hold measured lines against the targets."""

    lines: tyro.conf.Positional[tuple[Path, ...]]
    """Files of JSON lines."""
    card: bool = False
    """The accelerator's targets; else those of two CPU cores."""


def some(lines: Sequence[Line], **named: Any) -> list[Line]:
    """Lines that were timed and have these fields."""
    return [x for x in lines if "skipped" not in x and all(x.get(k) == v for k, v in named.items())]


def least(lines: Sequence[Line], measure: str, **named: Any) -> float | None:
    """The smallest measure of those lines."""
    return min(
        (x[measure] for x in some(lines, **named) if x.get(measure) is not None), default=None
    )


def most(lines: Sequence[Line], measure: str, **named: Any) -> float | None:
    """The largest."""
    return max(
        (x[measure] for x in some(lines, **named) if x.get(measure) is not None), default=None
    )


def total(
    steps: dict[str, float], precision: str | None = None
) -> Callable[[Sequence[Line]], float | None]:
    """Minutes of OMSD's stages for 16 seeds at the paper's widths."""

    def minutes(lines: Sequence[Line]) -> float | None:
        of = {"size": "mpe", "system": "omsd", "runs": 16, "precision": precision}
        each = {s: least(lines, "seconds_per_update", stage=s, **of) for s in steps}
        return sum(each[s] * n for s, n in steps.items()) / 60 if all(each.values()) else None  # type: ignore[operator]

    return minutes


def over_one(size: str) -> Callable[[Sequence[Line]], float | None]:
    """The wall time of 16 critics against that of one."""

    def ratio(lines: Sequence[Line]) -> float | None:
        of = {"benchmark": "updates", "size": size, "system": "omsd", "precision": None}
        found = least(lines, "ratio", stage="critic", runs=16, **of)
        return None if found is None else 16 * found

    return ratio


def apart(precision: str | None) -> Callable[[Sequence[Line]], float | None]:
    """The scores' share of what products take at the ceiling, without the time that moves the optimiser's numbers."""

    def share(lines: Sequence[Line]) -> float | None:
        of = {
            "size": "mpe",
            "system": "omsd",
            "stage": "scores-conditional",
            "runs": 16,
            "precision": precision,
        }
        found = [x for x in some(lines, **of) if x.get("flop_per_update")]
        return max((16 * x["flop_per_update"] / (x["seconds_per_update"] - moved(x)) / ceiling(x) for x in found),
                   default=None)  # fmt: skip

    moved = lambda x: 2 * x["runs"] * x["state_mib"] * 2**20 / (1e9 * x["ceiling_gb_per_second"])
    ceiling = lambda x: 1e9 * x["ceiling_gflop_per_second"]
    return share


def protocol(precision: str | None) -> Callable[[Sequence[Line]], float | None]:
    """Seconds of DOM2's Table 10 for one of 16 seeds."""
    of = {"benchmark": "dom2_cost", "system": "dom2", "runs": 16, "precision": precision}
    return lambda lines: least(lines, "seconds_per_seed", **of)


def flat(lines: Sequence[Line]) -> float | None:
    """The largest cost of a seed at R = 64 against R = 16 over all stages that were timed with both."""
    key = lambda x: (x["size"], x["system"], x["stage"], x["agents"], x.get("precision"))
    by = {
        r: {key(x): x["seconds_per_update"] / r for x in some(lines, benchmark="updates", runs=r)}
        for r in (16, 64)
    }
    return max((by[64][k] / by[16][k] for k in by[64].keys() & by[16].keys()), default=None)


def growth(lines: Sequence[Line]) -> float | None:
    """The largest cost of n agents against n / 2 times two agents'... at most 1: linear in n or better."""
    found: dict[tuple, dict[int, float]] = {}
    for x in some(lines, benchmark="updates"):
        of = x["size"], x["system"], x["stage"], x["runs"], x.get("precision")
        found.setdefault(of, {})[x["agents"]] = x["seconds_per_update"]
    curves = [c for c in found.values() if len(c) > 1]
    return max(
        (cost / c[min(c)] * min(c) / n for c in curves for n, cost in c.items() if n > min(c)),
        default=None,
    )


def physics(iterations: int) -> Callable[[Sequence[Line]], float | None]:
    """Most steps of the simulation per second, several of which make one of the environment."""
    of = {"benchmark": "robots", "task": "2halfcheetah", "engine": "mjx", "iterations": iterations}
    return lambda lines: max(
        (x["steps_per_second"] * x["frame_skip"] for x in some(lines, **of)), default=None
    )


def refresh(runs: int) -> Callable[[Sequence[Line]], float | None]:
    """Seconds in which the synthetic rows of so many runs are drawn anew at the paper's sizes."""
    sizes = {"levels": 128, "batch": 1000, "horizon": 20, "width": 16, "how": "whole chain"}
    return lambda lines: least(
        lines, "seconds", benchmark="synthetic", part="refresh", runs=runs, **sizes
    )


def peers(size: str, runs: int) -> Callable[[Sequence[Line]], float | None]:
    """The worst stage's ratio to PyTorch's eager updates."""
    return lambda lines: least(lines, "eager_ratio", benchmark="peers", size=size, runs=runs)


TARGETS = (
    Target("cpu", "OMSD's stages, game size, R = 16: times 16 eager PyTorch runs", True, 10.0, peers("game", 16)),
    Target("cpu", "OMSD's stages, MPE size, R = 1: times eager PyTorch", True, 1.0, peers("mpe", 1)),
    Target(
        "cpu", "OMSD's stages, MPE size: cost of R = 16 over 16 single runs", False, 1.0,
        lambda lines: most(lines, "ratio", benchmark="updates", size="mpe", system="omsd", runs=16),
    ),
    Target("cpu", "`make sweep`, warm, s", False, 30.0,
           lambda lines: least(lines, "seconds", part="sweep, warm", **SWEEP)),
    Target("cpu", "`make sweep`, no compile cache, s", False, 60.0,
           lambda lines: least(lines, "seconds", part="sweep, cold", **SWEEP)),
    Target("cpu", "import of jaxomarl, s", False, 1.5, lambda lines: least(lines, "seconds", part="import")),
    Target("cpu", "spread: our steps/s over JaxMARL's", True, 1.0, lambda lines: most(lines, "over_jaxmarl")),
    Target("cpu", "spread: 10^6 transitions, warm, s", False, 10.0,
           lambda lines: most(lines, "seconds", benchmark="data", task="mpe/spread", transitions=1_000_000)),
    Target("cpu", "spread: evaluation of 16 seeds x 100 episodes, s", False, 1.0,
           lambda lines: least(lines, "seconds", part="evaluation", seeds=16, episodes=100)),
    Target("cpu", "cost of n agents over n / n_0 times that of n_0", False, 1.0, growth),
    Target("card", "OMSD on spread, 16 seeds, 5e5 + 1e5 + 1e5 updates, minutes (extrapolated)", False, 10.0,
           total(STEPS)),
    Target("card", "the same in bfloat16", False, 10.0, total(STEPS, HALF)),
    Target("card", "OMSD on spread with 2e6 updates of the scores, minutes (extrapolated)", False, 120.0, total(LONG)),
    Target("card", "the same in bfloat16", False, 120.0, total(LONG, HALF)),
    Target("card", "game critics: wall time of R = 16 over R = 1", False, 2.0, over_one("game")),
    Target("card", "MPE critics: wall time of R = 16 over R = 1", False, 2.0, over_one("mpe")),
    Target("card", "scores, MPE size, R = 16: share of the product's ceiling, optimiser apart", True, 0.4, apart(None)),
    Target("card", "the same in bfloat16", True, 0.4, apart(HALF)),
    Target("card", "DOM2's Table 10 protocol at R = 16, s per seed (extrapolated)", False, 15.0, protocol(None)),
    Target("card", "the same in bfloat16", False, 15.0, protocol(HALF)),
    Target("card", "CODA's refresh, 1000 windows of 20 steps, 128 levels, R = 1, s", False, 2.0, refresh(1)),
    Target("card", "the same for R = 16, s", False, 8.0, refresh(16)),
    Target("card", "spread: environment steps/s", True, 1e7,
           lambda lines: most(lines, "steps_per_second", benchmark="best", task="mpe/spread")),
    Target("card", "half-cheetah on MJX: physics steps/s", True, 1e6, physics(100)),
    Target("card", "the same with 4 iterations of the solver for 100", True, 1e6, physics(4)),
    Target("card", "cost of a seed at R = 64 over R = 16", False, 1.2, flat),
    Target("card", "cost of n agents over n / n_0 times that of n_0", False, 1.0, growth),
)  # fmt: skip


def table(lines: Sequence[Line], on: str) -> str:
    """The targets of a machine as Markdown."""
    rows = [("target", "bound", "measured", ""), ("---", "---:", "---:", "---")]
    for target in TARGETS:
        if target.on == on:
            value, sign = target.value(lines), "at least" if target.least else "at most"
            met = value is not None and (
                value >= target.bound if target.least else value <= target.bound
            )
            said = "not measured" if value is None else "met" if met else "not met"
            rows.append((target.what, f"{sign} {target.bound:g}", short(value), said))
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 2 for files that are none."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.targets")
    try:
        print(
            table(
                [line for path in flags.lines for line in read(path)],
                "card" if flags.card else "cpu",
            )
        )
    except JaxomarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

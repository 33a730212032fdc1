"""Pictures of what seeds and agents cost: `python -m benchmarks.pictures LINES OUT`.

LINES are those of benchmarks.updates.

bench-seeds.png     cost of one seed, relative to a seed alone, against R: flat is 1, free is 1 / R
bench-agents.png    cost of an update, relative to the fewest agents, against n, with the straight
                    line
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.compare import read
from benchmarks.report import Line
from jaxomarl.base import JaxomarlError, refuse

NAMED = 20
"""Number of curves that a legend has room for."""

Curves = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Draw the cost of seeds and of agents."""

    lines: tyro.conf.Positional[Path]
    """JSON lines of benchmarks.updates."""
    out: tyro.conf.Positional[Path]
    """Folder of the pictures."""


def seeds(lines: Sequence[Line]) -> Curves:
    """Stage -> (R, cost(R) / (R cost(1))) where more than one R was timed."""
    found: Curves = {}
    for x in timed(lines):
        if x.get("ratio"):
            found.setdefault(f"{called(x)}, n = {x['agents']}", []).append((x["runs"], x["ratio"]))
    curves = {k: sorted(dict(v).items()) for k, v in found.items()}
    return {k: v for k, v in curves.items() if len(v) > 1}


def agents(lines: Sequence[Line]) -> Curves:
    """Stage and R -> (n, cost(n) / cost(fewest)) where more than one n was timed."""
    found: Curves = {}
    for x in timed(lines):
        found.setdefault(f"{called(x)}, R = {x['runs']}", []).append(
            (x["agents"], x["seconds_per_update"])
        )
    curves = {k: sorted(dict(v).items()) for k, v in found.items()}
    return {k: [(n, cost / v[0][1]) for n, cost in v] for k, v in curves.items() if len(v) > 1}


def timed(lines: Sequence[Line]) -> list[Line]:
    """The lines of updates that were not skipped."""
    return [x for x in lines if x.get("benchmark") == "updates" and "skipped" not in x]


def called(x: Line) -> str:
    """Size, system and stage, and the precision where it is not the device's own."""
    return " ".join(filter(None, (x["size"], x["system"], x["stage"], x.get("precision"))))


def draw(
    curves: Curves, across: str, along: str, bound: Callable[[float], float], said: str, path: Path
) -> None:
    """Draw curves on logarithmic axes, with a dashed bound.

    Where there are many, the short ones are grey and have one name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    grey: Curves = {}
    if len(curves) > NAMED:
        grey = {name: points for name, points in curves.items() if len(points) < 3}
    for k, points in enumerate(grey.values()):
        label = f"{len(grey)} more: see the tables" if k == 0 else None
        axes.plot(*zip(*points, strict=True), color="0.8", linewidth=1, label=label, zorder=1)
    named = {name: points for name, points in curves.items() if name not in grey}
    for k, (name, points) in enumerate(named.items()):
        marker = "osD^v<>"[k // 10 % 7]
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=name)
    xs = sorted({x for points in curves.values() for x, _ in points})
    axes.plot(xs, [bound(x / xs[0]) for x in xs], "k--", linewidth=1, label=said)
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=along)
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def pictures(lines: Sequence[Line], out: Path) -> list[Path]:
    """Draw what the lines allow; the pictures' files."""
    drawn = []
    per_seed = "cost of a seed / cost of one alone"
    per_agent = "cost of an update / with the fewest agents"
    for name, curves, across, along, bound, said in (
        ("bench-seeds", seeds(lines), "seeds at once, R", per_seed, lambda x: 1 / x, "free: 1 / R"),
        ("bench-agents", agents(lines), "agents, n", per_agent, lambda x: x, "linear"),
    ):
        if curves:
            drawn.append(out / f"{name}.png")
            draw(curves, across, along, bound, said, drawn[-1])
    return drawn


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.pictures")
    try:
        drawn = pictures(read(flags.lines), flags.out)
        if not drawn:
            way = "python -m benchmarks.updates --runs 1 4 16 --out FILE"
            raise refuse("LINES", "several R or n of one stage", "none", way)
    except (JaxomarlError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, drawn)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How results grow with seeds, agents and devices: `python -m benchmarks.growth --out FOLDER`.

A result is one update of one run. `benchmarks.updates` times them in processes of its own, as the
number of devices is fixed before JAX starts; CPU devices may be more than cores, and then share
them. FOLDER gets the lines, and growth.png with a panel each for R, n and devices. A second call
goes on where the first stopped.

The law of a curve is y ~ x^a. It has a knee where one power does not describe it:

    log y = c + a log x + b max(0, log x - log knee)

The knee is the measured x, no end of the curve, with the least squared error. It is named where it
takes away half of the error of one power at least, and where |b| is 0.15 at least.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.compare import read
from benchmarks.pictures import Curves, timed
from benchmarks.report import Line, markdown
from jaxomarl.base import JaxomarlError, refuse

PANELS = {
    "runs": "runs at once, R",
    "agents": "agents, n (R = 1)",
    "devices": "devices",
}
"""What is changed -> the axis of its panel."""
BENT = 0.15
"""Least change of the exponent at a knee."""
GAIN = 0.5
"""Most of one power's squared error that a knee may leave."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time results per second against seeds, agents and devices, and name laws and knees."""

    out: Path = Path("runs/growth")
    """Folder of the lines and of growth.png."""
    system: str = "omsd"
    """A name from docs/systems.md."""
    size: str = "game"
    """A size of benchmarks.updates."""
    stages: tuple[str, ...] = ()
    """Stages that are timed; empty: all."""
    runs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers R of runs, each its own point."""
    agents: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Numbers of agents, with one run."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices."""
    shared: int = 64
    """Runs that the devices share."""
    seconds: float = 1.0
    """Timed seconds per point."""


class Law(NamedTuple):
    """How a curve grows."""

    power: float
    """Exponent up to the knee, or of the whole curve."""
    knee: float | None
    after: float
    """Exponent beyond the knee; `power` where there is none."""

    def shown(self) -> tuple[str, str, str]:
        """The columns of a table."""
        if self.knee is None:
            return f"x^{self.power:.2f}", "none", ""
        return f"x^{self.power:.2f}", f"{self.knee:g}", f"x^{self.after:.2f}"


def law(points: Sequence[tuple[float, float]]) -> Law:
    """The law of a curve of positive numbers, sorted by x.

    Raises JaxomarlError for fewer than two points.
    """
    if len(points) < 2:
        raise refuse("a curve", "two points or more", len(points), "Time more numbers.")
    x, y = np.log(np.array(points)).T
    one, error = fitted(x, y, [])
    best = Law(float(one[1]), None, float(one[1]))
    # two exponents and a knee describe any three points
    inner = range(1, len(x) - 1) if len(x) > 3 else ()
    for k in inner:
        parts, left = fitted(x, y, [np.maximum(0.0, x - x[k])])
        if left < GAIN * error and abs(parts[2]) >= BENT:
            best = Law(float(parts[1]), points[k][0], float(parts[1] + parts[2]))
            # from now on a knee must be better than this one
            error = left / GAIN
    return best


def fitted(x: np.ndarray, y: np.ndarray, more: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """(coefficients of 1, x and further columns by least squares, the squared error)."""
    columns = np.stack([np.ones_like(x), x, *more], axis=1)
    found = np.linalg.lstsq(columns, y, rcond=None)[0]
    return found, float(np.square(columns @ found - y).sum())


# --- measured ---


def commands(flags: Flags) -> dict[str, list[str]]:
    """File of lines -> the flags of benchmarks.updates."""
    same = ["--systems", flags.system, "--sizes", flags.size, "--seconds", f"{flags.seconds:g}"]
    if flags.stages:
        same += ["--stages", *flags.stages]
    calls = {
        "runs": ["--runs", *map(str, flags.runs)],
        "agents": ["--runs", "1", "--agents", *map(str, flags.agents)],
    }
    for devices in flags.devices:
        calls[f"devices-{devices}"] = ["--runs", str(flags.shared), "--devices", str(devices)]
    return {f"{name}.jsonl": [*same, *call] for name, call in calls.items()}


def measure(flags: Flags) -> dict[str, list[Line]]:
    """What is changed -> its lines; raises JaxomarlError where a process fails."""
    found: dict[str, list[Line]] = {name: [] for name in PANELS}
    for name, call in commands(flags).items():
        file = flags.out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = [sys.executable, "-m", "benchmarks.updates", *call, "--out", str(file), "--resume"]
        if subprocess.run(whole).returncode:
            raise refuse(name, "lines of benchmarks.updates", "none", " ".join(whole[1:]))
        found[name.split(".")[0].split("-")[0]] += read(file)
    return found


def curves(lines: Sequence[Line], changed: str) -> Curves:
    """Stage -> (R, n or devices; results per second), sorted."""
    found: dict[str, dict[float, float]] = {}
    for x in timed(lines):
        found.setdefault(x["stage"], {})[x[changed]] = x["runs"] / x["seconds_per_update"]
    return {stage: sorted(points.items()) for stage, points in found.items()}


# --- shown ---


def draw(panels: dict[str, Curves], path: Path) -> None:
    """Three panels on logarithmic axes, with a ring at each knee."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (changed, own) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for k, (stage, points) in enumerate(own.items()):
            axes.plot(*zip(*points, strict=True), f"C{k}o-", markersize=4, label=stage)
            knee = law(points).knee
            if knee is not None:
                axes.plot(knee, dict(points)[knee], f"C{k}o", markersize=12, fillstyle="none")
        xs = sorted({x for points in own.values() for x, _ in points})
        axes.set(xscale="log", yscale="log", xlabel=PANELS[changed])
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("results per second")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=120)


def table(panels: dict[str, Curves]) -> str:
    """The laws, and the results per second at the ends of every curve."""
    rows: list[tuple[str, ...]] = [
        ("against", "stage", "law", "knee", "beyond it", "first", "last")
    ]
    rows.append(("---",) * len(rows[0]))
    for changed, own in panels.items():
        for stage, points in own.items():
            first, last = (f"{y:.3g} at {x:g}" for x, y in (points[0], points[-1]))
            rows.append((PANELS[changed], stage, *law(points).shown(), first, last))
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, draw and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.growth")
    try:
        panels = {changed: curves(lines, changed) for changed, lines in measure(flags).items()}
        print(table(panels))
        draw(panels, flags.out / "growth.png")
    except (JaxomarlError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(flags.out / "growth.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

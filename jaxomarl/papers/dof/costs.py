"""DoF's Figure 7 in kind: time of a team's reverse process against the number of agents.

`python -m benchmarks.reverse_process` measures it, and the figure is drawn from its lines.
"""

from collections.abc import Sequence
from typing import Any

from jaxomarl.base import refuse
from jaxomarl.papers import points
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.cost_lines import LINES, read_lines
from jaxomarl.results.curves import Point

NAME = "reverse_process"
HEAD = ("sampler", "noise combined by", "agents", "ms", "range", "measured")
NOTES = (
    "Times are of one machine, medians with the range of their samples. The paper's figure is a "
    "picture, of another machine.",
    "The networks are as wide as the benchmark's flags say, and a batch of teams samples at once.",
)

Line = dict[str, Any]


def fig7(asked: Asked) -> str:
    """Draw the lines of the benchmark that lie in OUT; the table of them."""
    lines = measured_lines(asked, "dof-fig7", NAME)
    shown = [as_point(line) for line in lines]
    shown.sort(key=lambda p: (p.panel, p.curve, p.x))
    points.save_points(asked, shown, "agents", "ms", {}, logarithmic=True)
    notes = "".join(f"- {note}\n" for note in NOTES)
    return f"{notes}\n{markdown_table(HEAD, [_row(line) for line in lines])}"


def measured_lines(asked: Asked, name: str, benchmark: str) -> Sequence[Line]:
    """A benchmark's lines in OUT, of which the table or figure `name` is made.

    JaxomarlError where there is none, or where a flag is given that chooses what is trained.
    """
    asked.check_unused(name, "it is made of a benchmark's lines.")
    files = sorted(asked.out.glob(LINES))
    lines = [line for file in files for line in read_lines(file) if line["benchmark"] == benchmark]
    # a line of an evaluation, or of what was skipped, has no sampler
    lines = [line for line in lines if "sampler" in line]
    if not lines:
        command = f"python -m benchmarks.{benchmark} --out {asked.out}/{benchmark}.jsonl"
        raise refuse("--out", "a folder with the benchmark's lines", asked.out, f"Run {command}")
    return lines


def as_point(line: Line) -> Point:
    """A line's milliseconds, with the range of its samples, in its sampler's panel."""
    panel = f"{line['sampler']}, {line['calls']} calls"
    low = 1e3 * line["seconds_low"]
    high = 1e3 * line["seconds_high"]
    ms = 1e3 * line["seconds"]
    return Point(panel, line["f"], float(line["agents"]), ms, low, high, line["samples"])


def _row(line: Line) -> tuple[str, ...]:
    p = as_point(line)
    spread = f"{p.low:.3g} to {p.high:.3g}"
    return p.panel, p.curve, f"{p.x:g}", f"{p.mean:.3g}", spread, line["how"]

"""Updates of OMSD's stages and of DOM2 compared with PyTorch's: `python -m benchmarks.peers`.

The peers are our own twins (benchmarks/twins.py), written for one seed as one writes PyTorch. 16
seeds, one after another, cost 16 times one. Before a stage is timed, the twin takes our parameters
and follows our updates for a few steps, on the same minibatches and random numbers, dropout's too.
Where losses or parameters differ, the command prints by how much, ends with an error, and times
nothing.

Timed is what `benchmarks.updates` times, and the same of a twin: a minibatch of the same data,
random numbers, the update. All programs of a stage take turns on the same cores. A line has the
median and the range, and the ratio is

    R * (PyTorch's seconds per update) / (our seconds per update of R seeds at once)
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import updates
from benchmarks.report import Line, Written, command, cores, markdown, short
from benchmarks.sizes import Size, size
from benchmarks.twins_check import Guide, followed
from benchmarks.work import GIB
from jaxomarl.base import JaxomarlError, Past, refuse

STAGES = {
    "critic": ("omsd", 0),
    "scores-conditional": ("omsd", 1),
    "policy": ("omsd", 2),
    "dom2": ("dom2", 0),
}
"""Stage -> its system and its place there."""


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time updates and their PyTorch twins: one JSON line per program, then a table."""

    sizes: tuple[str, ...] = ("game", "mpe")
    """Sizes, as in benchmarks.updates: game, mpe, WIDTHxBATCH."""
    stages: tuple[str, ...] = ("critic", "scores-conditional", "policy")
    """Stages of OMSD, and dom2."""
    runs: tuple[int, ...] = (1, 16)
    """Numbers R of our runs at the size game."""
    wide_runs: tuple[int, ...] = (1,)
    """Numbers R at the other sizes, where an update takes a tenth of a second and more."""
    seconds: float = 3.0
    """Timed seconds per program; slow ones take three samples in any case."""
    compile: bool = True
    """Time torch.compile too, which takes a minute per stage."""
    max_gib: float = 12.0
    """Most estimated memory of our runs; larger R are skipped, and their line says so."""


def needs_torch() -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """(torch, {stage: (twin, function that draws our update's random numbers)}).

    Raises JaxomarlError where PyTorch is missing.
    """
    try:
        import torch
    except ModuleNotFoundError:
        way = "pip install -e '.[bench]'"
        raise refuse("python -m benchmarks.peers", "PyTorch", "none", way) from None
    from benchmarks import twins_dom2, twins_draws, twins_omsd

    return torch, {
        "critic": (twins_omsd.Critic, twins_draws.critic_draws),
        "scores-conditional": (twins_omsd.Scores, twins_draws.score_draws),
        "policy": (twins_omsd.Policy, twins_draws.policy_draws),
        "dom2": (twins_dom2.Dom2, twins_draws.dom2_draws),
    }


# --- the same numbers first, then the time ---


@dataclass
class Peer:
    """A twin that is timed sample by sample."""

    program: str
    twin: Any
    difference: float
    seconds: list[float] = field(default_factory=list)
    """Seconds per update, one entry per sample."""
    calls: int = 1
    """Updates in a sample."""

    def start(self) -> None:
        """Warm up, and choose how many updates make a sample."""
        self.sample()
        taken = min(self.sample() for _ in range(3))
        self.calls = max(1, round(updates.SAMPLE / taken))

    def sample(self) -> float:
        """Seconds per update."""
        began = time.perf_counter()
        for _ in range(self.calls):
            self.twin.step()
        return (time.perf_counter() - began) / self.calls


def peers(size: Size, stage: str, past: Past, flags: Flags) -> tuple[list[Peer], str]:
    """The twins of a stage, which have followed ours, and why the compiled one is missing."""
    make, draws = needs_torch()[1][stage]
    guide = Guide(size, STAGES[stage][1], past, draws)
    programs = ["eager"]
    if flags.compile:
        programs.append("compile")

    followers: list[Peer] = []
    for program in programs:
        twin = make(size.spec, size.cfg, size.data, past["stats"])
        try:
            if program == "compile":
                twin.compile()
            name = f"{size.name}, {stage}, {program}"
            followers.append(Peer(program, twin, followed(guide, twin, name)))
        except JaxomarlError:
            raise
        # torch.compile and the compiler beneath it raise errors of any kind
        except Exception as error:
            if program == "eager":
                raise
            first_line = [*str(error).strip().splitlines(), ""][0]
            return followers, f"{type(error).__name__}: {first_line[:160]}"
    return followers, ""


def measure(size: Size, stage: str, runs: Sequence[int], flags: Flags) -> list[Line]:
    """The lines of one stage at one size; its programs take turns."""
    torch, _ = needs_torch()
    index = STAGES[stage][1]
    past = updates.untrained(size, index)
    twins, failure = peers(size, stage, past, flags)
    cells = [updates.Cell.of(size, index, r, past) for r in sorted(set(runs))]
    planned = 0.0
    for cell in cells:
        if not cell.beyond(planned, flags.max_gib):
            planned += cell.need / GIB
    timed: list[Any] = [*twins, *(cell for cell in cells if not cell.skipped)]
    for program in timed:
        program.start()
    end = time.perf_counter() + flags.seconds * len(timed)
    while len(timed[0].seconds) < updates.ROUNDS or time.perf_counter() < end:
        for program in timed:
            program.seconds.append(program.sample())

    one = {
        "benchmark": "peers",
        "size": size.name,
        "system": size.system,
        "stage": stage,
        "agents": size.spec.agents,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    lines: list[Line] = []
    for x in twins:
        lines.append({**one, "program": x.program, "runs": 1, **timing(x)})
        lines[-1]["difference"] = x.difference
    if failure:
        lines.append({**one, "program": "compile", "runs": 1, "skipped": failure})
    return lines + [{**one, "program": "ours", **our_line(cell, twins)} for cell in cells]


def our_line(cell: updates.Cell, twins: Sequence[Peer]) -> Line:
    """The fields of one of our cells, with its ratios to the twins."""
    if cell.skipped:
        return {"runs": cell.runs, "skipped": cell.skipped}
    line = {"runs": cell.runs, **timing(cell)}
    line |= {"mapping": cell.how, "devices": cell.program.devices.size}
    for twin in twins:
        twin_cost = statistics.median(twin.seconds)
        line[f"{twin.program}_ratio"] = cell.runs * twin_cost / statistics.median(cell.seconds)
    return line


def timing(program: "Peer | updates.Cell") -> Line:
    """Median and range of a program's samples, in seconds per update of all its runs."""
    return {
        "seconds_per_update": statistics.median(program.seconds),
        "seconds_per_update_low": min(program.seconds),
        "seconds_per_update_high": max(program.seconds),
        "samples": len(program.seconds),
    }


# --- what is printed ---


def table(lines: Sequence[Line]) -> str:
    """A Markdown table: a row for each size, stage and R of ours, with its twins."""
    header = (
        "size", "stage", "R", "ours, ms", "range", "ms per seed", "eager, one seed, ms", "range",
        "compile, ms", "R eager / ours", "R compile / ours", "threads",
    )  # fmt: skip
    rows = [header, ("---", "---", *["---:"] * 10)]
    theirs = {(x["size"], x["stage"], x["program"]): x for x in lines if x["program"] != "ours"}
    for x in lines:
        if x["program"] != "ours":
            continue
        eager = theirs.get((x["size"], x["stage"], "eager"), {})
        compiled = theirs.get((x["size"], x["stage"], "compile"), {})

        mine = (f"skipped: {x.get('skipped')}", "", "")
        if "skipped" not in x:
            mine = (*milliseconds(x), per_seed(x))
        other = milliseconds(compiled)[0]
        if "skipped" in compiled:
            other = f"failed: {compiled['skipped']}"

        name = (x["size"], x["stage"], str(x["runs"]))
        ratios = (short(x.get("eager_ratio")), short(x.get("compile_ratio")))
        rows.append((*name, *mine, *milliseconds(eager), other, *ratios, str(x["threads"])))
    return markdown(rows)


def milliseconds(line: Line) -> tuple[str, str]:
    """Median and range in milliseconds."""
    if "seconds_per_update" not in line:
        return "", ""
    low, high = (short(1e3 * line[f"seconds_per_update_{end}"]) for end in ("low", "high"))
    return short(1e3 * line["seconds_per_update"]), f"{low} to {high}"


def per_seed(line: Line) -> str:
    """Milliseconds of an update of one of R seeds."""
    return short(1e3 * line["seconds_per_update"] / line["runs"])


def check(flags: Flags) -> None:
    """Raise JaxomarlError for flags that mean nothing, and where PyTorch is missing."""
    for stage in flags.stages:
        if stage not in STAGES:
            raise refuse("--stages", f"some of {', '.join(STAGES)}", stage, "")
    for name, runs in (("--runs", flags.runs), ("--wide-runs", flags.wide_runs)):
        if not runs or min(runs) < 1:
            raise refuse(name, "positive counts", runs, f"For example {name} 1 16.")
    needs_torch()


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes."""
    check(flags)
    needs_torch()[0].set_num_threads(cores())
    for name in flags.sizes:
        for stage in flags.stages:
            runs = flags.runs if name == "game" else flags.wide_runs
            yield from measure(size(name, STAGES[stage][0]), stage, runs, flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure and print; the exit code."""
    return command("peers", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

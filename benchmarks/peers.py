"""Updates of OMSD's stages and of DOM2 beside PyTorch's: `python -m benchmarks.peers`.

The peers are our own twins (benchmarks/twins.py), written for one seed as one writes PyTorch: 16 seeds, one after
another, cost 16 times one. Before a stage is timed, the twin takes over our parameters and follows our updates for a
few steps on the same minibatches and the same random numbers, dropout's among them. Where losses or parameters come out
apart, the command says by how much, ends with an error, and times nothing.

Timed is what `benchmarks.updates` times, and of a twin the like: minibatches drawn from the same data, random numbers,
the update. All programs of a stage take turns, round after round, on the same cores. Medians are reported with their
range, and the ratio is

    R * (PyTorch's seconds per update) / (our seconds per update of R seeds at once)
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import updates
from benchmarks.report import cores, markdown, report, short
from benchmarks.sizes import Size, size
from benchmarks.twins_check import Guide, followed
from benchmarks.work import GIB
from jaxomarl.api import runtime
from jaxomarl.base import JaxomarlError, Past, refuse

STAGES = {
    "critic": ("omsd", 0),
    "scores-conditional": ("omsd", 1),
    "policy": ("omsd", 2),
    "dom2": ("dom2", 0),
}
"""A stage as it is asked for -> its system and its place there."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Time updates beside PyTorch twins: one JSON line per program, then a table."""

    sizes: tuple[str, ...] = ("game", "mpe")
    """As in benchmarks.updates: game, mpe, WIDTHxBATCH."""
    stages: tuple[str, ...] = ("critic", "scores-conditional", "policy")
    """OMSD's, and dom2."""
    runs: tuple[int, ...] = (1, 16)
    """R of ours at the size game."""
    wide_runs: tuple[int, ...] = (1,)
    """R of ours at the other sizes, where an update takes a tenth of a second and more."""
    seconds: float = 3.0
    """Timed seconds per program; slow ones take three samples all the same."""
    compile: bool = True
    """Time torch.compile too, which takes a minute per stage."""
    max_gib: float = 12.0
    """Memory that ours may take by estimate; larger R are left out, with the reason on their line."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines go here; empty: to the standard output."""


def needs_torch() -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """(torch, {stage: (twin, what our update draws)}); raises JaxomarlError where PyTorch is missing."""
    try:
        import torch
    except ModuleNotFoundError:
        raise refuse(
            "python -m benchmarks.peers", "PyTorch", "none", "pip install -e '.[bench]'"
        ) from None
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
    seconds: list[float] = field(default_factory=list)  # per update, one entry per sample
    calls: int = 1  # updates in a sample

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
    """The twins of a stage, which have followed ours, and why there is no compiled one among them."""
    make, draws = needs_torch()[1][stage]
    guide, found, name = Guide(size, STAGES[stage][1], past, draws), [], f"{size.name}, {stage}"
    for program in ("eager", "compile") if flags.compile else ("eager",):
        twin = make(size.spec, size.cfg, size.data, past["stats"])
        try:
            if program == "compile":
                twin.compile()
            found.append(Peer(program, twin, followed(guide, twin, f"{name}, {program}")))
        except JaxomarlError:
            raise
        except Exception as error:  # whatever torch.compile and the compiler beneath it raise
            if program == "eager":
                raise
            return (
                found,
                f"{type(error).__name__}: {[*str(error).strip().splitlines(), ''][0][:160]}",
            )
    return found, ""


def measure(size: Size, stage: str, runs: Sequence[int], flags: Flags) -> list[dict[str, Any]]:
    """One stage at one size, timed by turns: a line of each program."""
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
    one = {"benchmark": "peers", "size": size.name, "system": size.system, "stage": stage}
    one |= {
        "agents": size.spec.agents,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    lines = [
        {**one, "program": x.program, "runs": 1, **timing(x), "difference": x.difference}
        for x in twins
    ]
    lines += [{**one, "program": "compile", "runs": 1, "skipped": failure}] if failure else []
    for cell in cells:
        mine = {**one, "program": "ours", "runs": cell.runs}
        if cell.skipped:
            lines.append({**mine, "skipped": cell.skipped})
            continue
        cost = statistics.median(cell.seconds)
        ratios = {
            f"{x.program}_ratio": cell.runs * statistics.median(x.seconds) / cost for x in twins
        }
        lines.append(
            {
                **mine,
                **timing(cell),
                "mapping": cell.how,
                "devices": cell.program.devices.size,
                **ratios,
            }
        )
    return lines


def timing(program: Any) -> dict[str, Any]:
    """Median and range of a program's samples, in seconds per update of all that it trains."""
    return {
        "seconds_per_update": statistics.median(program.seconds),
        "seconds_per_update_low": min(program.seconds),
        "seconds_per_update_high": max(program.seconds),
        "samples": len(program.seconds),
    }


# --- what is printed ---


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: a row for each size, stage and R of ours, with the twins beside it."""
    header = (
        "size", "stage", "R", "ours, ms", "range", "ms per seed", "eager, one seed, ms", "range", "compile, ms",
        "R eager / ours", "R compile / ours", "threads",
    )  # fmt: skip
    rows = [header, ("---", "---", *["---:"] * 10)]
    theirs = {(x["size"], x["stage"], x["program"]): x for x in lines if x["program"] != "ours"}
    for x in lines:
        if x["program"] != "ours":
            continue
        eager, compiled = (theirs.get((x["size"], x["stage"], k), {}) for k in ("eager", "compile"))
        name = (x["size"], x["stage"], str(x["runs"]))
        mine = (f"skipped: {x['skipped']}", "", "") if "skipped" in x else (*spoken(x), per_seed(x))
        other = f"failed: {compiled['skipped']}" if "skipped" in compiled else spoken(compiled)[0]
        ratios = (short(x.get("eager_ratio")), short(x.get("compile_ratio")))
        rows.append((*name, *mine, *spoken(eager), other, *ratios, str(x["threads"])))
    return markdown(rows)


def spoken(line: dict[str, Any]) -> tuple[str, str]:
    """Median and range in milliseconds."""
    if "seconds_per_update" not in line:
        return "", ""
    low, high = (short(1e3 * line[f"seconds_per_update_{end}"]) for end in ("low", "high"))
    return short(1e3 * line["seconds_per_update"]), f"{low} to {high}"


def per_seed(line: dict[str, Any]) -> str:
    """Milliseconds of an update of one of R seeds."""
    return short(1e3 * line["seconds_per_update"] / line["runs"])


def check(flags: Flags) -> None:
    """Raise JaxomarlError for flags that mean nothing, and where there is no PyTorch."""
    for stage in flags.stages:
        if stage not in STAGES:
            raise refuse("--stages", f"some of {', '.join(STAGES)}", stage, "")
    for name, runs in (("--runs", flags.runs), ("--wide-runs", flags.wide_runs)):
        if not runs or min(runs) < 1:
            raise refuse(name, "positive counts", runs, f"For example {name} 1 16.")
    needs_torch()


def bench(flags: Flags) -> Iterator[dict[str, Any]]:
    """Every line, as it comes."""
    check(flags)
    needs_torch()[0].set_num_threads(cores())
    for name in flags.sizes:
        for stage in flags.stages:
            one = size(name, STAGES[stage][0])
            yield from measure(one, stage, flags.runs if name == "game" else flags.wide_runs, flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure and print; the exit code."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks.peers")
    runtime.use_cores()
    return report(bench(flags), table, flags.out)


if __name__ == "__main__":
    sys.exit(main())

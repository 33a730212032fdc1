"""What a user waits for from beginning to end: `python -m benchmarks.whole`.

    import       seconds of `import jaxomarl` in a fresh process, and heavy modules that it loads
    sweep        seconds of the default `make sweep` in a fresh --out: with an empty compile cache,
                 then warm; and the shares of stage time that saves and reports take, that pictures
                 take, and that figures of health take, of all stages and of the stage with most
    cell         the same shares of one system, --cell, on --task with all seeds
    health       the last of these shares for systems of --health on --task, one seed each
    evaluation   seconds of R seeds times a hundred episodes of spread, in one program

Each is a process or a call as users have them. A line has the median of repeats, and their range.

Saves and reports are all that training waits for and that is not training: checkpoints, progress
lines, rows of tables, files that are still being written in the background, the summary and its
comparisons. Stage time is what the stages took without compilation, these waits included.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.dom2_cost import compiled, timed
from benchmarks.report import Line, Written, check_parts, command, markdown, short
from jaxomarl import documents
from jaxomarl.api import plan
from jaxomarl.base import JaxomarlError, refuse

ROOT = Path(__file__).parents[1]
HEAVY = ("mujoco", "jaxmarl", "orbax", "tensorflow_probability", "torch", "tensorflow")
IMPORT = """
import sys, time
began = time.perf_counter()
import jaxomarl
print(time.perf_counter() - began, *(m for m in {heavy!r} if m in sys.modules))
"""
SWEEP = """
import json, sys, time
from jaxomarl.api import session
from jaxomarl.cli import commands
from jaxomarl.training.background import Background

spent = {{"tables": 0.0, "pictures": 0.0}}

def timed(owner, name, part):
    function = getattr(owner, name)
    def call(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - began
    setattr(owner, name, call)

timed(commands, "draw", "pictures")
for owner, name in ((session.tables, "summary"), (session.tables, "write_summary"),
                    (session.differences, "differences"), (session.differences, "write"),
                    (session.Writer, "take"), (Background, "wait")):
    timed(owner, name, "tables")
code = commands.run({command!r}, {words!r})
print(json.dumps(spent))
sys.exit(code)
"""
"""A command that trains, which says at its end what tables and pictures took."""
ROWS = "110000"
"""Transitions of the data in the part health: enough that figures rest on as many rows as ever."""
USUAL = ("import", "sweep", "evaluation", "health")
PARTS = (*USUAL, "cell")


@dataclass(frozen=True, kw_only=True)
class Flags(Written):
    """Time runs from beginning to end: one JSON line each, then a table."""

    parts: tuple[str, ...] = USUAL
    """Parts that are timed; cell takes hours at scale 1 on a CPU."""
    repeats: int = 3
    """Repeats of imports, warm sweeps and evaluations."""
    seeds: int = 16
    """Seeds of the sweep and of the evaluation."""
    episodes: int = 100
    """Episodes of an evaluation."""
    scale: float = 1.0
    """Scale of the sweep's steps and widths."""
    cell: str = "omsd"
    """System of the part cell."""
    health: tuple[str, ...] = ("bc", "td3-bc")
    """Systems of which the part health is trained."""
    task: str = "mpe/spread"
    """Task of the parts cell and health."""
    data: str = "medium"
    """Data of the parts cell and health."""
    quick: bool = False
    """Take tiny sizes: they show whether it runs, not how fast."""


QUICK = dict(repeats=1, seeds=1, episodes=2, scale=0.01)


def line(part: str, seconds: Sequence[float], **more: Any) -> Line:
    """The median of some repeats, and their range."""
    ends = {"seconds_low": min(seconds), "seconds_high": max(seconds), "samples": len(seconds)}
    return {
        "benchmark": "whole",
        "part": part,
        **more,
        "seconds": statistics.median(seconds),
        **ends,
    }


def run(*arguments: str, cache: Path | None = None) -> str:
    """The standard output of this Python in a fresh process at the repository's root.

    Raises JaxomarlError where the process fails.
    """
    environment = dict(os.environ)
    if cache:
        environment["JAXOMARL_CACHE"] = str(cache)
    # a warm cache would not be the user's first run
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        printed = (done.stderr.strip() or done.stdout.strip()).splitlines()
        command = " ".join(arguments[:3])
        raise JaxomarlError(f"{command} ended with {done.returncode}: {''.join(printed[-1:])}")
    return done.stdout


def imports(flags: Flags) -> Iterator[Line]:
    """How long `import jaxomarl` takes."""
    command = IMPORT.format(heavy=HEAVY)
    # the first import reads from the disk
    run("-c", command)
    printed = [run("-c", command).split() for _ in range(flags.repeats)]
    seconds = [float(words[0]) for words in printed]
    yield line("import", seconds, loaded=sorted({w for words in printed for w in words[1:]}))


def sweep(flags: Flags) -> Iterator[Line]:
    """How long the default sweep takes, with an empty compile cache and with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        ask = ["--seeds", str(flags.seeds), "--scale", str(flags.scale)]
        cache = Path(folder, "cache")
        outs = [Path(folder, f"out-{k}") for k in range(1 + flags.repeats)]
        cold, *warm = [trained("sweep", ask, out, cache) for out in outs]
        facts = {"seeds": flags.seeds, "scale": flags.scale}
        yield line("sweep, cold", [cold.seconds], **facts)
        yield line("sweep, warm", [x.seconds for x in warm], **facts, **shares(outs[1:], warm))


def cell(flags: Flags) -> Iterator[Line]:
    """How long a particle system takes with all seeds, and the shares of its stage time."""
    with tempfile.TemporaryDirectory() as folder:
        ask = ["--systems", flags.cell, "--tasks", flags.task, "--data", flags.data]
        ask += ["--seeds", str(flags.seeds), "--scale", str(flags.scale)]
        out = Path(folder, "out")
        once = trained("sweep", ask, out, Path(folder, "cache"))
        facts = {"seeds": flags.seeds, "scale": flags.scale}
        name = f"cell, {flags.cell} on {flags.task}/{flags.data}"
        yield line(name, [once.seconds], **facts, **shares([out], [once]))


class Trained(NamedTuple):
    """What a command that trained has taken, in seconds."""

    seconds: float
    """From its start to its end."""
    tables: float
    """Of rows, of the summary, and of waits for files."""
    pictures: float


def trained(command: str, words: Sequence[str], out: Path, cache: Path) -> Trained:
    """Train in a fresh process, with an own cache of programs."""
    script = SWEEP.format(command=command, words=[*words, "--out", str(out)])
    began = time.perf_counter()
    said = run("-c", script, cache=cache)
    seconds = time.perf_counter() - began
    return Trained(seconds, **json.loads(said.splitlines()[-1]))


def shares(outs: Sequence[Path], took: Sequence[Trained]) -> Line:
    """The shares of stage time of finished sweeps: medians, and health's of the last."""
    parts = [overhead(out, one) for out, one in zip(outs, took, strict=True)]
    return {
        "saves": statistics.median(saves for saves, _ in parts),
        "pictures": statistics.median(pictures for _, pictures in parts),
        **health_shares(stage_facts(outs[-1])),
    }


def overhead(out: Path, took: Trained) -> tuple[float, float]:
    """The shares of a finished sweep's stage time that saves and reports took, and pictures."""
    facts = stage_facts(out)
    spent = sum(x["save_seconds"] + x["report_seconds"] for x in facts) + took.tables
    stages = sum(x["seconds"] for x in facts)
    return spent / stages, took.pictures / stages


def stage_facts(out: Path) -> list[dict[str, Any]]:
    """What the finished stages of a folder took."""
    stages = [documents.read(done, "Train it again.") for done in out.glob("stages/*/DONE")]
    return [stage["facts"] for stage in stages]


def health_shares(facts: Sequence[dict[str, Any]]) -> Line:
    """The share of stage time that figures of health took, over all stages and at most."""
    shares = {x["stage"]: x["health_seconds"] / x["seconds"] for x in facts}
    most = max(shares, key=lambda stage: shares[stage])
    spent = sum(x["health_seconds"] for x in facts)
    return {
        "health_share": spent / sum(x["seconds"] for x in facts),
        "health_share_most": shares[most],
        "health_stage": most,
    }


def health(flags: Flags) -> Iterator[Line]:
    """What figures of health take of a system's training with its small preset."""
    for system in flags.health:
        with tempfile.TemporaryDirectory() as folder:
            ask = ["-m", "experiments.train", system, "--task", flags.task, "--data", flags.data]
            ask += [
                "--preset",
                "small",
                "--seeds",
                "1",
                "--rows",
                ROWS,
                "--scale",
                str(flags.scale),
            ]
            began = time.perf_counter()
            run(*ask, "--out", f"{folder}/out")
            seconds = [time.perf_counter() - began]
            shares = health_shares(stage_facts(Path(folder, "out")))
            yield line(f"health, {system}", seconds, scale=flags.scale, **shares)


def evaluation(flags: Flags) -> Iterator[Line]:
    """How long the episodes of R seeds of behaviour cloning take on spread."""
    asked = (["bc"], ["mpe/spread"], ["random"], flags.seeds, "", None, 10_000, flags.episodes, 1.0)
    (group,) = plan.resolve(*asked)
    _, _, roll_out, _ = compiled(group)
    roll_out(0)
    seconds = [timed(roll_out, k) for k in range(flags.repeats)]
    yield line("evaluation", seconds, seeds=flags.seeds, episodes=flags.episodes)


MEASURES: dict[str, Callable[[Flags], Iterator[Line]]] = {
    "import": imports,
    "sweep": sweep,
    "cell": cell,
    "evaluation": evaluation,
    "health": health,
}


def table(lines: Sequence[Line]) -> str:
    """The lines as Markdown."""
    rows = [("what", "seconds", "range", "of"), ("---", "---:", "---:", "---")]
    for x in lines:
        of = ", ".join(f"{x[k]:g} {k}" for k in ("seeds", "episodes", "scale") if k in x)
        if "saves" in x:
            of += f"; saves and reports take {x['saves']:.1%} of stage time"
            of += f", pictures {x['pictures']:.1%}"
        if "health_share" in x:
            most = f"{x['health_stage']} {x['health_share_most']:.1%}"
            of += f"; health takes {x['health_share']:.1%} of stage time, at most {most}"
        if x.get("loaded"):
            of = f"loads {', '.join(x['loaded'])}"
        spread = f"{short(x['seconds_low'])} to {short(x['seconds_high'])}"
        rows.append((x["part"], short(x["seconds"]), spread, of))
    return markdown(rows)


def bench(flags: Flags) -> Iterator[Line]:
    """Every line, as it comes."""
    if flags.quick:
        flags = dataclasses.replace(flags, **QUICK)  # type: ignore[arg-type]
    check_parts(flags.parts, PARTS)
    if min(flags.repeats, flags.seeds, flags.episodes) < 1:
        raise refuse("--repeats, --seeds, --episodes", "positive counts", flags, "Leave them out.")
    for part in flags.parts:
        yield from MEASURES[part](flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    return command("whole", Flags, bench, table, argv)


if __name__ == "__main__":
    sys.exit(main())

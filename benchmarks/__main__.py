"""All benchmarks, each in its own process: `make bench`, on an accelerator `make bench-gpu`.

`python -m benchmarks --out FOLDER` writes a file of JSON lines for every part. `speed.md` has their
tables and the targets, next to the pictures of what seeds and agents cost. A part that fails is
named, and the others continue.
"""

import importlib
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

from benchmarks import targets
from benchmarks.compare import read
from benchmarks.pictures import pictures
from benchmarks.report import TURN, check_parts
from jaxomarl.base import JaxomarlError, refuse


class Part(NamedTuple):
    """A benchmark with flags, under a title."""

    title: str
    run: str
    toy: str
    """The benchmark with the flags of a trial."""
    needs: str = ""
    """A package without which the part is left out."""
    precision: str = ""
    """Precision of matrix products; empty: the device's own."""

    def command(self, toy: bool) -> str:
        """The command line as one types it."""
        run = self.toy if toy else self.run
        if not self.precision:
            return f"python -m benchmarks.{run}"
        return f"JAX_DEFAULT_MATMUL_PRECISION={self.precision} python -m benchmarks.{run}"


SMALL = "--sizes 8x4 --seconds 0.02"
CPU = {
    "game": Part(
        "OMSD's stages at game size",
        "updates --sizes game --runs 1 4 16 64",
        f"updates {SMALL} --runs 1 2",
    ),
    "mpe": Part(
        "OMSD's stages at the paper's widths",
        "updates --sizes mpe --runs 1 4 16 64 --patience 60",
        f"updates {SMALL} --runs 1 --stages critic",
    ),
    "systems": Part(
        "Every system at game width",
        "updates --systems all --sizes game --runs 1 16 --seconds 1",
        f"updates {SMALL} --systems bc iql --runs 1",
    ),
    "agents": Part(
        "What agents cost, game width",
        "updates --systems omsd dom2 dof-p --sizes game --runs 1 --agents 2 4 8 16 32 64"
        " --seconds 1",
        f"updates {SMALL} --systems bc --runs 1 --agents 2 3",
    ),
    "peers": Part(
        "Beside PyTorch",
        "peers",
        "peers --sizes 8x4 --wide-runs 1 --seconds 0.02 --no-compile --stages critic",
        needs="torch",
    ),
    "environments": Part("Environments and data", "environments", "environments --quick"),
    "robots": Part(
        "MuJoCo",
        "mamujoco --engines c batch gymnasium",
        "mamujoco --tasks 2halfcheetah --sizes 2 --engines c --rounds 1 --seconds 0.02"
        " --parts steps",
    ),
    "samplers": Part("Reverse processes", "reverse_process", "reverse_process --toy"),
    "planners": Part("Plans", "planning", "planning --toy"),
    "synthetic": Part("Synthetic experience", "synthetic", "synthetic --toy"),
    "dom2-cost": Part(
        "DOM2's Table 10", "dom2_cost", "dom2_cost --scale 0.001 --chunks 1 --rows 2000"
    ),
    "whole": Part("Whole runs", "whole", "whole --quick --parts import evaluation"),
}
"""The parts for a CPU."""

WIDE = "updates --sizes mpe --runs 1 16 64 --patience 60 --max-gib 100 --seconds"
HALF = "updates --sizes mpe --runs 1 16 --max-gib 100 --seconds"
MJX = "mamujoco --engines mjx --tasks 2halfcheetah --parts steps --rounds 3"
MANY = "updates --sizes mpe --runs 1 --agents 2 8 64 --max-gib 100 --seconds 2 --systems"
CARD = {
    "game": Part(
        "OMSD's stages at game size",
        "updates --sizes game --runs 1 16 64 --seconds 2",
        CPU["game"].toy,
    ),
    "critic": Part(
        "OMSD's critic at the paper's widths", f"{WIDE} 8 --stages critic", CPU["mpe"].toy
    ),
    "scores": Part("Its scores", f"{WIDE} 12 --stages scores-conditional", CPU["mpe"].toy),
    "policy": Part("Its policy", f"{WIDE} 8 --stages policy", CPU["mpe"].toy),
    "critic-bf16": Part(
        "The critic in bfloat16",
        f"{HALF} 8 --stages critic",
        CPU["mpe"].toy,
        precision="bfloat16",
    ),
    "scores-bf16": Part(
        "The scores in bfloat16",
        f"{HALF} 12 --stages scores-conditional",
        CPU["mpe"].toy,
        precision="bfloat16",
    ),
    "policy-bf16": Part(
        "The policy in bfloat16",
        f"{HALF} 8 --stages policy",
        CPU["mpe"].toy,
        precision="bfloat16",
    ),
    "dom2-cost": Part("DOM2's Table 10", "dom2_cost --runs 1 16 --chunk 100", CPU["dom2-cost"].toy),
    "dom2-cost-bf16": Part(
        "DOM2's Table 10 in bfloat16",
        "dom2_cost --runs 16 --chunk 100",
        CPU["dom2-cost"].toy,
        precision="bfloat16",
    ),
    "robots": Part("MJX", f"{MJX} --sizes 1024 4096 16384 65536", CPU["robots"].toy),
    "robots-4": Part(
        "MJX with four iterations of its solver",
        f"{MJX} --sizes 1024 4096 16384 65536 --iterations 4 --ls-iterations 8",
        CPU["robots"].toy,
    ),
    "synthetic": Part(
        "Synthetic experience",
        "synthetic --parts draw refresh --runs 1 16 --levels 40 128 --chain 1000",
        "synthetic --toy --parts draw refresh",
    ),
    "environments": Part(
        "Environments",
        "environments --parts steps --sizes 10000 100000 1000000 --seconds 1",
        CPU["environments"].toy,
    ),
    "agents": Part("What agents cost OMSD, the paper's widths", f"{MANY} omsd", CPU["agents"].toy),
    "agents-dom2": Part("DOM2", f"{MANY} dom2", CPU["agents"].toy),
    "agents-dof": Part("DoF-Policy", f"{MANY} dof-p", CPU["agents"].toy),
    "planners": Part("Plans", "planning --agents 8 64", CPU["planners"].toy),
    "systems": Part(
        "Every system at the paper's widths",
        "updates --systems all --sizes mpe --runs 1 16 --seconds 2 --max-gib 100",
        CPU["systems"].toy,
    ),
}
"""The parts for an accelerator."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Run the benchmarks one after another, and write what they measured."""

    parts: tuple[str, ...] = ()
    """Parts that are run; empty: all."""
    card: bool = False
    """Run the parts and print the targets for an accelerator."""
    toy: bool = False
    """Take tiny sizes: they show whether it runs, not how fast."""
    beside: int = 1
    """Parts that compile side by side on many cores; only one at a time is timed."""
    resume: bool = False
    """Let parts of `updates` keep the stages that their files have, and time the others."""
    out: Path = Path("runs/bench")
    """Folder of lines, tables and pictures; parts that are not run keep what is there."""


def written(plan: dict[str, Part], out: Path, card: bool, toy: bool = False) -> str:
    """`speed.md` of all lines that are in `out`."""
    paths = {name: out / f"{name}.jsonl" for name in plan}
    measured = {name: read(path) for name, path in paths.items() if path.exists()}
    measured = {name: lines for name, lines in measured.items() if lines}
    every = [line for lines in measured.values() for line in lines]

    text = ["# Speed", ""]
    if toy:
        text += ["A trial at tiny sizes: nothing here says how fast anything is.", ""]
    text += dict.fromkeys(line["machine"] for line in every)
    text += ["", targets.table(every, "card" if card else "cpu"), ""]
    for picture in pictures(every, out):
        text += [f"![{picture.stem}]({picture.name})", ""]
    for name, lines in measured.items():
        part = plan[name]
        table = importlib.import_module(f"benchmarks.{part.run.split()[0]}").table
        text += [f"## {part.title}", "", f"`{part.command(toy)}`", "", table(lines), ""]
    return "\n".join(text)


def measure(name: str, part: Part, flags: Flags) -> str:
    """Run one part; the reason why it failed, or nothing."""
    if part.needs and not importlib.util.find_spec(part.needs):
        print(f"{name}: left out, {part.needs} is not installed: make bench-peers", file=sys.stderr)
        return ""

    module, *rest = shlex.split(part.toy if flags.toy else part.run)
    if flags.resume and module == "updates":
        rest.append("--resume")
    out = flags.out / f"{name}.jsonl"
    command = [sys.executable, "-m", f"benchmarks.{module}", *rest, "--out", str(out)]
    print(f"{name}: {shlex.join(command[1:])}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment(part, flags))
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    if done.returncode == 0:
        return ""

    printed = done.stderr.splitlines()
    errors = [line for line in printed if line.startswith("error:")]
    reason = [f"ended with {done.returncode}", *printed[-1:], *errors][-1]
    return f"{name}: {reason}"


def environment(part: Part, flags: Flags) -> dict[str, str]:
    """The environment of a part's process."""
    variables = dict(os.environ)
    if flags.beside > 1:
        variables[TURN] = str(flags.out / "turn")
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if part.precision:
        variables["JAX_DEFAULT_MATMUL_PRECISION"] = part.precision
    return variables


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write; 1 where a part failed, 2 for flags that mean nothing."""
    flags = tyro.cli(Flags, args=argv, prog="python -m benchmarks")
    plan = CARD if flags.card else CPU
    try:
        check_parts(flags.parts, plan)
        if flags.beside < 1:
            way = "8 suits an accelerator's machine of 16 cores."
            raise refuse("--beside", "at least 1", flags.beside, way)

        flags.out.mkdir(parents=True, exist_ok=True)
        wanted = [name for name in plan if not flags.parts or name in flags.parts]
        with ThreadPoolExecutor(flags.beside) as pool:
            failed = list(pool.map(lambda name: measure(name, plan[name], flags), wanted))
        (flags.out / "turn").unlink(missing_ok=True)
        text = written(plan, flags.out, flags.card, flags.toy)
        (flags.out / "speed.md").write_text(text, encoding="utf-8")
    except (JaxomarlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    print(text)
    lost = [line for line in failed if line]
    print("\n".join(["", *lost, f"{flags.out / 'speed.md'} has it all."]), file=sys.stderr)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())

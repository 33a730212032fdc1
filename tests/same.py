"""Whether two checkouts do the same: their programs, or their results to the last bit.

    python tests/same.py programs OTHER    # the jaxpr of every function of every stage of every system
    python tests/same.py results OTHER     # csv files and policies of five short commands (minutes)

Each side runs in its own folder with this interpreter. The first program or file that differs is named, and the exit
code is 1. Programs are those of the contract's tiny settings, without names and addresses.
"""

import argparse
import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "sweep": "experiments.sweep --seeds 2 --scale 0.02",
    "table1": "experiments.reproduce omsd-table1 --seeds 2 --scale 0.01",
    "particle": "experiments.sweep --systems bc omsd diffusion-ql dof-p madiff-d --tasks mpe/spread --data medium "
    "--rows 2000 --seeds 1 --scale 0.0005 --episodes 4 --final-episodes 8",
    "augmented": "experiments.sweep --systems bc+coda iql cfcql madt --tasks mpe/tag --data medium --rows 2000 "
    "--seeds 1 --scale 0.0005 --episodes 4 --final-episodes 8",
    "robot": "experiments.sweep --systems bc omsd --tasks mamujoco/2halfcheetah --data random --rows 2000 --seeds 1 "
    "--scale 0.0002 --episodes 2 --final-episodes 2",
}
"""What is run on both sides, by the name of its folder."""
COMPARED = ("*.csv", "*.safetensors", "*.md")


def programs() -> None:
    """Print one line for each function of each stage of each system: its name and a digest of its program."""
    sys.path[:0] = [
        str(Path.cwd()),
        str(Path.cwd() / "tests"),
        str(Path.cwd() / "tests" / "contract"),
    ]
    import conftest  # noqa: F401  (the CPU, as the tests have it)
    from trial import Trial

    from jaxomarl.algorithms import REGISTRY

    for name, system in REGISTRY.items():
        trial = Trial(name, system)
        for stage, functions in zip(trial.stages, trial.traced, strict=True):
            for of, traced in functions.items():
                print(
                    f"{name} {stage.name} {of} {hashlib.sha256(traced.text.encode()).hexdigest()[:16]}",
                    flush=True,
                )


def start(tree: Path, arguments: list[str], out: Path) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=tree, env=env, stdout=out.open("w"), stderr=sys.stderr
    )


def same_programs(trees: list[Path], folder: Path) -> list[str]:
    """What differs, one line each."""
    outs = [folder / name for name in ("this", "other")]
    children = [
        start(tree, [str(ROOT / "tests" / "same.py"), "own"], out)
        for tree, out in zip(trees, outs, strict=True)
    ]
    if any(child.wait() for child in children):
        return ["a side failed"]
    this, other = (
        dict(line.rsplit(" ", 1) for line in out.read_text().splitlines()) for out in outs
    )
    print(f"{len(this)} programs")
    return [name for name in this.keys() | other.keys() if this.get(name) != other.get(name)]


def content(out: Path, path: Path) -> object:
    """A file's text without the name of its folder, or a policy's arrays."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: (x.dtype, x.shape, x.tobytes()) for name, x in load_file(out / path).items()}
    return (out / path).read_bytes().replace(str(out).encode(), b"OUT")


def same_results(trees: list[Path], folder: Path, only: list[str]) -> list[str]:
    """What differs, one line each."""
    differing = []
    for name, command in COMMANDS.items():
        if only and name not in only:
            continue
        outs = [folder / side / name for side in ("this", "other")]
        for tree, out in zip(trees, outs, strict=True):
            out.parent.mkdir(parents=True, exist_ok=True)
            child = start(
                tree, ["-m", *shlex.split(command), "--out", str(out)], out.with_suffix(".log")
            )
            if child.wait():
                return [f"{name}: {tree} failed"]
        this, other = ({p.relative_to(o) for kind in COMPARED for p in o.rglob(kind)} for o in outs)
        differing += [f"{name}: {path} is on one side alone" for path in sorted(this ^ other)]
        for path in sorted(this & other):
            if content(outs[0], path) != content(outs[1], path):
                differing.append(f"{name}: {path}")
        print(f"{name}: {len(this)} files", flush=True)
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("programs", "results", "own"))
    parser.add_argument("other", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--only", nargs="*", default=[], choices=COMMANDS, help="of the results")
    args = parser.parse_args()
    if args.what == "own":
        return programs()
    trees = [ROOT, args.other.resolve()]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = (
            same_programs(trees, folder)
            if args.what == "programs"
            else same_results(trees, folder, args.only)
        )
    print("\n".join(found) if found else "the same")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

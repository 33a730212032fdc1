"""How much the suite notices: one small fault in each of 80 lines, drawn by a seed, and what tests make of it.

    python tests/mutation.py draw                     # the lines and their faults
    python tests/mutation.py run MAP OUT   # MAP: a folder of tests/linemap.py; OUT: a csv, resumed

The lines are drawn from five parts of the package, sixteen each, and every line has one fault that its syntax allows.
A fault meets the test files that execute its line, the most specific first (those that execute the fewest lines of the
package), as many as take BUDGET seconds in the suite, until one fails; else it survives. A copy of the tree is changed,
never the tree. `--before CSV` takes over what an earlier run found where the same tests stand.
"""

import argparse
import ast
import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from linemap import source

ROOT = Path(__file__).parents[1]
SEED, EACH, BUDGET = 20261129, 16, 120.0
PARTS = {
    "algorithms": ("algorithms",),
    "losses": ("losses", "stages", "policies", "networks", "masking.py", "optim.py"),
    "diffusion": ("diffusion",),
    "data": ("data", "envs"),
    "training": (
        "training",
        "results/intervals.py",
        "results/statistics.py",
        "base.py",
        "config.py",
        "numerics.py",
    ),
}
"""Part -> the files and folders of the package that it is drawn from."""
COPIED = ("jaxomarl", "tests", "experiments", "benchmarks", "docs", "pyproject.toml", "README.md", "Makefile",
          "CHANGELOG.md", "LICENSE", "constraints.txt", "CITATION.cff", ".git")  # fmt: skip
OTHER = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Add: "-",
         ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.And: "or", ast.Or: "and"}  # fmt: skip
SWAPPED = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "mean": "sum", "sum": "mean",
           "argmax": "argmin", "any": "all", "all": "any", "zeros": "ones", "ones": "zeros"}  # fmt: skip


class Fault(NamedTuple):
    """One change of one line."""

    file: str  # within the package
    line: int
    kind: str
    old: str
    new: str


def text(source: str, node: ast.AST) -> str:
    return ast.get_source_segment(source, node) or ""


def changes(source: str, node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """(kind, what is replaced, by what) that the node allows."""
    if isinstance(node, ast.BinOp):
        left, right, op = text(source, node.left), text(source, node.right), type(node.op)
        if op in OTHER:
            yield "sign", node, f"{left} {OTHER[op]} {right}"
        if op in (ast.Add, ast.Sub, ast.Mult):
            masked = op is ast.Mult and any(
                word in right.lower() for word in ("mask", "valid", "alive", "discount")
            )
            yield "mask" if masked else "dropped term", node, left
            yield "dropped term", node, right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield "sign", node, text(source, node.operand)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER and len(node.ops) == 1:
        left, right = text(source, node.left), text(source, node.comparators[0])
        yield "off by one", node, f"{left} {OTHER[type(node.ops[0])]} {right}"
    elif isinstance(node, ast.BoolOp):
        parts = [text(source, value) for value in node.values]
        yield "mask", node, f" {OTHER[type(node.op)]} ".join(parts)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "off by one" if type(node.value) is int else "constant", node, repr(node.value + 1)
    elif isinstance(node, ast.Call):
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        arguments = [text(source, a) for a in node.args]
        if called == "stop_gradient":
            yield "stop_gradient", node, arguments[0]
        elif called == "where" and len(arguments) == 3:
            yield (
                "mask",
                node,
                f"{text(source, node.func)}({arguments[0]}, {arguments[2]}, {arguments[1]})",
            )
        elif called in SWAPPED and isinstance(node.func, ast.Attribute):
            whole = text(source, node)
            head = text(source, node.func)
            yield "function", node, head[: -len(called)] + SWAPPED[called] + whole[len(head) :]
    elif isinstance(node, ast.IfExp):
        yield (
            "mask",
            node,
            f"{text(source, node.orelse)} if {text(source, node.test)} else {text(source, node.body)}",
        )


def runs(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed for their values: no annotations, no defaults of fields, no decorators."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(tree, ast.AnnAssign) and child is not tree.value:
            continue
        if isinstance(tree, (ast.FunctionDef, ast.Lambda)) and isinstance(child, ast.arguments):
            continue
        if isinstance(tree, ast.FunctionDef) and (
            child in tree.decorator_list or child is tree.returns
        ):
            continue
        if isinstance(child, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Raise)):
            continue
        if isinstance(child, ast.Call) and getattr(child.func, "id", "") in (
            "refuse",
            "field",
            "Field",
        ):
            continue
        yield child
        yield from runs(child)


def faults_of(file: Path) -> dict[int, list[Fault]]:
    """Line -> its possible faults; of functions' bodies only, and of expressions that stand in one line."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    found: dict[int, list[Fault]] = defaultdict(list)
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    seen = set()
    for function in functions:
        for node in runs(function):
            for kind, where, new in changes(source, node):
                at = (where.lineno, where.col_offset, where.end_col_offset, new)
                if where.lineno != where.end_lineno or at in seen:
                    continue
                seen.add(at)
                old = lines[where.lineno - 1]
                raw = old.encode()
                line = (
                    raw[: where.col_offset] + new.encode() + raw[where.end_col_offset :]
                ).decode()
                name = file.relative_to(ROOT / "jaxomarl").as_posix()
                found[where.lineno].append(Fault(name, where.lineno, kind, old, line))
    return found


def parses(fault: Fault) -> bool:
    """Whether the changed file can be read, and reads otherwise."""
    source = (ROOT / "jaxomarl" / fault.file).read_text(encoding="utf-8")
    lines = source.splitlines()
    lines[fault.line - 1] = fault.new
    try:
        return ast.dump(ast.parse("\n".join(lines))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def draw() -> list[Fault]:
    """EACH lines of each part, and for each line one of its faults; the same for the same tree."""
    rng, drawn = random.Random(SEED), []
    for places in PARTS.values():
        files = [f for place in places for f in sorted((ROOT / "jaxomarl" / place).glob("**/*.py"))]
        files += [ROOT / "jaxomarl" / place for place in places if place.endswith(".py")]
        lines = [faults for file in files for _, faults in sorted(faults_of(file).items())]
        rng.shuffle(lines)
        chosen = (rng.choice(faults) for faults in lines)
        valid = (fault for fault in chosen if parses(fault))
        drawn += [next(valid) for _ in range(EACH)]
    return drawn


# --- what the suite makes of them ---


def read_map(folder: Path) -> tuple[dict[str, dict[str, set[int]]], dict[str, float]]:
    """Test file -> source file -> lines, of all workers; test file -> its seconds."""
    lines: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    seconds: dict[str, float] = defaultdict(float)
    for path in sorted(folder.glob("*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        if held.pop("source", "") != source():
            sys.exit(
                f"{path} is of other source files, whose lines have other numbers: make it again"
            )
        for test, files in held.items():
            seconds[test] += files.pop("seconds")
            for file, numbers in files.items():
                lines[test][file] |= set(numbers)
    return lines, seconds


def chosen_tests(
    fault: Fault, lines: dict[str, dict[str, set[int]]], seconds: dict[str, float]
) -> list[str]:
    """The most specific test files that execute the line, as many as the budget holds and one at least."""
    size = {test: sum(map(len, files.values())) for test, files in lines.items()}
    executing = [
        test
        for test, files in lines.items()
        if fault.line in files.get(fault.file, ()) and (ROOT / test).exists()
    ]
    chosen, spent = [], 0.0
    for test in sorted(executing, key=lambda t: (size[t], t)):
        if not chosen or spent + seconds[test] <= BUDGET:
            chosen.append(test)
            spent += seconds[test]
    return chosen


def digest(tests: list[str]) -> str:
    """Of the test files and of the modules beside them that are no tests."""
    beside = {
        f for t in tests for f in (ROOT / t).parent.glob("*.py") if not f.name.startswith("test_")
    }
    files = {ROOT / t for t in tests} | beside | {ROOT / "tests" / "conftest.py"}
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()[:12]


def trial(fault: Fault, tests: list[str], cache: Path) -> dict[str, object]:
    """Run the tests on a changed copy of the tree; {'caught': the test, or '', 'seconds': ..., 'files': ...}."""
    start, ran = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for name in COPIED:
            if (ROOT / name).exists():
                os.symlink(ROOT / name, tree / name)
        os.unlink(tree / "jaxomarl")
        shutil.copytree(
            ROOT / "jaxomarl", tree / "jaxomarl", ignore=shutil.ignore_patterns("__pycache__")
        )
        os.unlink(tree / "tests")
        shutil.copytree(
            ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__")
        )
        os.symlink(ROOT.parent / "shared", Path(folder) / "shared")
        (tree / ".pytest_cache").mkdir()
        os.symlink(cache, tree / ".pytest_cache" / "xla")
        changed = tree / "jaxomarl" / fault.file
        lines = changed.read_text(encoding="utf-8").split("\n")
        assert lines[fault.line - 1] == fault.old
        lines[fault.line - 1] = fault.new
        changed.write_text("\n".join(lines), encoding="utf-8")
        env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        while ran < len(tests):
            some = tests[
                ran : ran + 2
            ]  # a process takes seconds to start, and the first often suffices
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *some]
            try:
                done = subprocess.run(
                    command,
                    cwd=tree,
                    env=env,
                    capture_output=True,
                    text=True,
                    timeout=5 * BUDGET,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return {
                    "caught": "time-out",
                    "seconds": round(time.monotonic() - start),
                    "files": ran + len(some),
                }
            ran += len(some)
            if done.returncode not in (0, 5):
                failed = [
                    line
                    for line in done.stdout.splitlines()
                    if line.startswith(("FAILED", "ERROR"))
                ]
                what = (failed or done.stdout.splitlines()[-1:] or [done.stderr[-100:]])[0]
                return {
                    "caught": what.split(" - ")[0],
                    "seconds": round(time.monotonic() - start),
                    "files": ran,
                }
    return {"caught": "", "seconds": round(time.monotonic() - start), "files": ran}


def rows_of(path: Path | None) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path and path.exists() else []


def run(folder: Path, out: Path, jobs: int, cache: Path, before: Path | None) -> None:
    """Try every fault that OUT does not have yet, and say how many are caught."""
    lines, seconds = read_map(folder)
    identity = lambda row: (row["file"], int(row["line"]), row["new"])
    finished = {identity(row) for row in rows_of(out)}
    known = {(*identity(row), row["digest"]): row for row in rows_of(before)}

    def one(fault: Fault) -> None:
        tests = chosen_tests(fault, lines, seconds)
        row = fault._asdict() | {"old": fault.old.strip(), "new": fault.new.strip()}
        row |= {"tests": " ".join(tests), "digest": digest(tests)}
        row = known.get((*identity(row), row["digest"])) or row | trial(fault, tests, cache)
        new = not out.exists()
        with out.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(
            f"{row['caught'] or 'SURVIVES':60.60} {row['seconds']:>4} s  {fault.file}:{fault.line} {fault.kind}",
            flush=True,
        )

    todo = [f for f in draw() if identity(f._asdict() | {"new": f.new.strip()}) not in finished]
    if not finished and todo:
        one(todo.pop(0))  # writes the header
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, todo))
    caught = [bool(row["caught"]) for row in rows_of(out)]
    print(f"{sum(caught)} of {len(caught)} faults are caught ({sum(caught) / len(caught):.0%})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("draw")
    running = commands.add_parser("run")
    running.add_argument("map", type=Path)
    running.add_argument("out", type=Path)
    running.add_argument("--jobs", type=int, default=2)
    running.add_argument(
        "--cache", type=Path, default=ROOT / ".pytest_cache" / "xla", help="compiled programs"
    )
    running.add_argument("--before", type=Path, help="the csv of an earlier run")
    args = parser.parse_args()
    if args.command == "draw":
        for f in draw():
            print(f"{f.file}:{f.line} {f.kind}\n  - {f.old.strip()}\n  + {f.new.strip()}")
    else:
        run(args.map, args.out, args.jobs, args.cache.resolve(), args.before)


if __name__ == "__main__":
    main()

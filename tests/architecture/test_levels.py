"""Imports point to a lower level only.

The imports are read with `ast`, so those inside functions and under `TYPE_CHECKING` count too, and so do relative ones
and `importlib.import_module("...")`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources import tree_of

ROOT = Path(__file__).parents[2]
LEVEL = {
    "jaxomarl.base": 0,
    "jaxomarl.config": 0,
    "jaxomarl.documents": 0,
    "jaxomarl.masking": 0,
    "jaxomarl.numerics": 0,
    "jaxomarl.optim": 0,
    "jaxomarl.paths": 0,
    "jaxomarl.torchfile": 0,
    "jaxomarl.networks": 1,
    "jaxomarl.losses": 1,
    "jaxomarl.diffusion": 1,
    "jaxomarl.data": 1,
    "jaxomarl.envs": 1,
    "jaxomarl.health": 1,
    "jaxomarl.policies": 2,
    "jaxomarl.stages": 2,
    "jaxomarl.algorithms": 3,
    "jaxomarl.training": 3,
    "jaxomarl.results": 3,
    "jaxomarl.presets": 3,
    "jaxomarl.api": 4,
    "jaxomarl.papers": 5,
    "jaxomarl.cli": 6,
    "jaxomarl": 7,  # the face: `import jaxomarl`
    "jaxomarl.__main__": 7,
    "experiments": 7,
    "benchmarks": 7,
}
"""A unit of the house (a module or a package) -> its level."""

FOUNDATION = tuple(unit for unit, level in LEVEL.items() if level == 0)
ONLY = {
    "jaxomarl.training": (*FOUNDATION, "jaxomarl.envs.rollout"),
    "jaxomarl.results": (*FOUNDATION, "jaxomarl.health.verdict"),
}
"""A unit that may import less than all that lies below it."""

BY_NAME = {"jaxomarl.papers": "jaxomarl.cli.reproduce"}
"""A unit -> the one module outside of it that may import it: papers are made by the command `reproduce` alone."""

SIDEWAYS = {("jaxomarl.stages", "jaxomarl.policies")}
"""A stage trains a policy; never the other way round."""

PLANTED = {
    "upward": ("jaxomarl/losses/td.py", "import jaxomarl.stages.critic"),
    "upward, from": ("jaxomarl/losses/td.py", "from jaxomarl.stages.critic import X"),
    "upward, a name of the package": ("jaxomarl/losses/td.py", "from jaxomarl import cli"),
    "upward, relative": ("jaxomarl/losses/td.py", "from ..stages import critic"),
    "upward, in a function": (
        "jaxomarl/base.py",
        "def f():\n    from jaxomarl.data import dataset",
    ),
    "upward, by importlib": (
        "jaxomarl/base.py",
        'import importlib\nimportlib.import_module("jaxomarl.data.dataset")',
    ),
    "upward, for types": (
        "jaxomarl/base.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jaxomarl.cli",
    ),
    "upward, papers": ("jaxomarl/api/__init__.py", "import jaxomarl.papers"),
    "upward, the command line": ("jaxomarl/papers/cells.py", "from jaxomarl.cli import main"),
    "upward, from what a program calls": (
        "jaxomarl/api/__init__.py",
        "from jaxomarl.cli import main",
    ),
    "upward, the face": ("jaxomarl/cli/__init__.py", "import jaxomarl"),
    "upward, out of the package": ("jaxomarl/cli/__init__.py", "import experiments.sweep"),
    "sideways": ("jaxomarl/data/dataset.py", "from jaxomarl.envs import rollout"),
    "sideways, level 3": ("jaxomarl/training/runner.py", "from jaxomarl import results"),
    "a policy that knows its stage": (
        "jaxomarl/policies/plans.py",
        "from jaxomarl.stages import planner",
    ),
    "upward, a measure that knows a stage": (
        "jaxomarl/health/critics.py",
        "from jaxomarl.stages import critic",
    ),
    "results that know how stages are measured": (
        "jaxomarl/results/tables.py",
        "from jaxomarl.health import critics",
    ),
    "sideways, a preset that knows the systems": (
        "jaxomarl/presets/__init__.py",
        "import jaxomarl.algorithms",
    ),
    "a preset that knows what a program calls": (
        "jaxomarl/presets/__init__.py",
        "import jaxomarl.api",
    ),
    "a command that knows a paper": (
        "jaxomarl/cli/commands.py",
        "from jaxomarl.papers import cells",
    ),
    "a benchmark that knows a paper": (
        "benchmarks/whole.py",
        "from jaxomarl.papers.cells import X",
    ),
    "an algorithm that imports another": (
        "jaxomarl/algorithms/iql.py",
        "from jaxomarl.algorithms.bc import X",
    ),
    "an algorithm that imports the registry": (
        "jaxomarl/algorithms/iql.py",
        "from . import REGISTRY",
    ),
    "training that knows a task": (
        "jaxomarl/training/runner.py",
        "from jaxomarl.envs import games",
    ),
    "training that knows the data": (
        "jaxomarl/training/runner.py",
        "from jaxomarl.data.dataset import X",
    ),
    "results that know the data": (
        "jaxomarl/results/store.py",
        "from jaxomarl.data import dataset",
    ),
    "a face that is not lazy": ("jaxomarl/__init__.py", "from jaxomarl.cli import main"),
    "a module without a level": ("jaxomarl/extra.py", "x = 1"),
    "tests": ("jaxomarl/base.py", "from tests import conftest"),
}
"""What is wrong -> (file, its text)."""

ALLOWED = {
    "jaxomarl/__init__.py": "from jaxomarl.base import X\ndef __getattr__(name):\n    from jaxomarl.api import train",
    "jaxomarl/config.py": "from jaxomarl.base import X",
    "jaxomarl/losses/td.py": "import jax\nfrom . import expectile\nfrom ..base import X",
    "jaxomarl/stages/critic.py": "from jaxomarl.losses import td\nfrom jaxomarl.data.dataset import X",
    "jaxomarl/stages/planner.py": "from jaxomarl.health import critics\nfrom jaxomarl.policies.plans import X",
    "jaxomarl/results/tables.py": "from jaxomarl.health.verdict import X",
    "jaxomarl/algorithms/__init__.py": "from jaxomarl.algorithms import bc, iql\nfrom jaxomarl.base import X",
    "jaxomarl/training/runner.py": "from jaxomarl.envs import rollout\nfrom jaxomarl.envs.rollout import X",
    "jaxomarl/api/__init__.py": "from jaxomarl import algorithms, presets, training",
    "jaxomarl/papers/cells.py": "from jaxomarl import api, presets\nfrom jaxomarl.papers import dof",
    "jaxomarl/cli/__init__.py": "from jaxomarl import api, presets\nfrom jaxomarl.cli import commands",
    "jaxomarl/cli/reproduce.py": "from jaxomarl import papers\nfrom jaxomarl.papers.cells import X",
    "experiments/sweep.py": "import jaxomarl\nfrom jaxomarl.cli import main",
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of the package and of what stands beside it."""
    found = {}
    for top in ("jaxomarl", "experiments", "benchmarks"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def unit(module: str) -> str:
    """The part of the house that a module belongs to: `jaxomarl.envs` of `jaxomarl.envs.games`."""
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "jaxomarl" else parts[:1])


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """(imported module, whether it is imported as soon as this one is), of the modules that are ours."""
    tree = tree_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    eager = {id(node) for node in _eager(tree)}
    for node in ast.walk(tree):
        for name in _names(node, package):
            while name not in known and "." in name and name.rpartition(".")[0] in known:
                name = name.rpartition(".")[0]
            if (
                name.split(".")[0] in ("jaxomarl", "experiments", "benchmarks", "tests")
                and name != module
            ):
                yield name, id(node) in eager


def _names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        base = parts[: len(parts) - node.level + 1] if node.level else []
        source = ".".join(base + ([node.module] if node.module else []))
        return [f"{source}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        name = node.args[0].value
        if called in ("import_module", "__import__") and isinstance(name, str):
            return [package + name if name.startswith(".") else name]
    return []


def _eager(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _eager(child)


def wrong(source: str, target: str, eager: bool) -> str | None:
    """Why this edge may not be, or None."""
    a, b = unit(source), unit(target)
    if b not in LEVEL:
        return "goes to something without a level"
    if source == "jaxomarl":
        return "makes the face load more than level 0 at once" if eager and LEVEL[b] > 0 else None
    if a == b:
        inside = a != "jaxomarl.algorithms" or source == a
        return None if inside else "leads from an algorithm to another, or to the registry"
    if a in ONLY and not any(
        target == allowed or target.startswith(f"{allowed}.") for allowed in ONLY[a]
    ):
        return f"is none of those that {a} may have"
    if source != BY_NAME.get(b, source) and LEVEL[b] < LEVEL[a]:
        return f"is for {BY_NAME[b]} alone"
    if (a, b) in SIDEWAYS or (a in FOUNDATION and b in FOUNDATION):
        return None
    if b == "jaxomarl" and a in ("jaxomarl.__main__", "experiments", "benchmarks"):
        return None
    if LEVEL[b] >= LEVEL[a]:
        return "points sideways" if LEVEL[b] == LEVEL[a] else "points upward"
    return None


def cycles(edges: dict[str, set[str]]) -> list[str]:
    """One line for each cycle that a depth-first walk closes; what the face loads lazily closes none."""
    found, done, path = [], set(), []

    def walk(module: str) -> None:
        path.append(module)
        for target in sorted(edges.get(module, ())):
            if target in path:
                found.append("cycle: " + " -> ".join([*path[path.index(target) :], target]))
            elif target not in done:
                walk(target)
        done.add(path.pop())

    for module in sorted(edges):
        if module not in done:
            walk(module)
    return found


def violations(root: Path) -> list[str]:
    """Every edge of the tree at `root` that the levels forbid, every cycle, every module without a level."""
    known, found, edges = modules(root), [], {}
    for module, path in known.items():
        if unit(module) not in LEVEL:
            found.append(f"{module} has no level")
            continue
        targets = list(imports(module, path, known))
        reasons = [(target, wrong(module, target, eager)) for target, eager in targets]
        found += [f"{module} -> {target} {reason}" for target, reason in reasons if reason]
        if module != "jaxomarl":
            edges[module] = {target for target, _ in targets}
    return found + cycles(edges)


def plant(root: Path, files: dict[str, str]) -> None:
    """A small house of empty modules, and `files` in it."""
    names = [
        *(
            "base",
            "config",
            "presets/__init__",
            "results/__init__",
            "results/store",
            "losses/__init__",
            "api/__init__",
        ),
        *(
            "papers/__init__",
            "papers/cells",
            "papers/dof/__init__",
            "cli/__init__",
            "cli/commands",
            "cli/reproduce",
        ),
        *(
            "losses/td",
            "losses/expectile",
            "data/__init__",
            "data/dataset",
            "envs/__init__",
            "envs/rollout",
        ),
        *(
            "envs/games",
            "stages/__init__",
            "stages/critic",
            "algorithms/__init__",
            "algorithms/bc",
            "algorithms/iql",
        ),
        *(
            "training/__init__",
            "training/runner",
            "__init__",
            "policies/__init__",
            "policies/plans",
            "health/__init__",
        ),
    ]
    for file in [*(f"jaxomarl/{name}.py" for name in names), "experiments/sweep.py", *files]:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(files.get(file, ""), encoding="utf-8")


def test_imports_point_to_a_lower_level():
    assert len(modules(ROOT)) > 20, "the checker does not see the package"
    assert violations(ROOT) == []


def test_what_is_allowed_is_allowed(tmp_path):
    plant(tmp_path, ALLOWED)
    assert violations(tmp_path) == []
    known = modules(tmp_path)
    assert [t for t, _ in imports("jaxomarl.losses.td", known["jaxomarl.losses.td"], known)] == [
        "jaxomarl.losses.expectile",
        "jaxomarl.base",
    ]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_caught(tmp_path, name):
    file, text = PLANTED[name]
    plant(tmp_path, {file: text})
    source = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
    found = violations(tmp_path)
    assert len(found) == 1 and found[0].startswith(f"{source} "), found


def test_a_planted_cycle_is_caught(tmp_path):
    files = {
        "jaxomarl/losses/td.py": "from jaxomarl.losses import expectile",
        "jaxomarl/losses/expectile.py": "def f():\n    from . import bc",
        "jaxomarl/losses/bc.py": "from .td import X",
    }
    plant(tmp_path, files)
    path = [
        "jaxomarl.losses.bc",
        "jaxomarl.losses.td",
        "jaxomarl.losses.expectile",
        "jaxomarl.losses.bc",
    ]
    assert violations(tmp_path) == ["cycle: " + " -> ".join(path)]

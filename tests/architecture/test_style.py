"""House rules that no linter knows: banned names, file names, lengths, the four parts of an algorithm's docstring."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources import text_of, tree_of

ROOT = Path(__file__).parents[2]
FOLDERS = ("jaxomarl", "experiments", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
ALGORITHMS = sorted(
    path for path in (ROOT / "jaxomarl/algorithms").glob("*.py") if path.name != "__init__.py"
)
PARTS = ("**Paper**", "**Pseudo-code**", "**Differs**", "**Checked**")
FUNCTION_LINES, ALGORITHM_LINES = 60, 260

BANNED = {
    "jax.numpy.empty": "uninitialised since JAX 0.11; zeros or full",
    "jax.numpy.empty_like": "uninitialised since JAX 0.11; zeros_like or full_like",
    "jax.pmap": "jit and sharding do its work",
    "pickle": "runs what a file says; csv, json or safetensors",
    "cloudpickle": "runs what a file says; csv, json or safetensors",
    "dill": "runs what a file says; csv, json or safetensors",
    "shelve": "runs what a file says; csv, json or safetensors",
    "torch.load": "runs what a file says; safetensors",
    "yaml.load": "runs what a file says; yaml.safe_load",
    "eval": "runs what a text says",
    "exec": "runs what a text says",
}

PLANTED = {
    "import pickle": "pickle",
    "from pickle import loads": "pickle",
    "def f():\n    import pickle as p": "pickle",
    "import jax.numpy as jnp\njnp.empty(3)": "jax.numpy.empty",
    "from jax import numpy\nnumpy.empty(3)": "jax.numpy.empty",
    "from jax.numpy import empty": "jax.numpy.empty",
    "import jax\njax.numpy.empty_like(x)": "jax.numpy.empty_like",
    "import jax\njax.pmap(f)": "jax.pmap",
    "import torch as th\nth.load(p)": "torch.load",
    "import yaml\nyaml.load(p)": "yaml.load",
    "eval('1')": "eval",
    "exec('1')": "exec",
    "import numpy as np\nnp.load(p, allow_pickle=True)": "allow_pickle",
    "import numpy as np\nnp.load(p, allow_pickle=flag)": "allow_pickle",
}
ALLOWED = """
import numpy as np, jax.numpy as jnp, jax, yaml
np.empty(3), jnp.zeros(3), np.load("p", allow_pickle=False), yaml.safe_load("p"), model.eval(), jax.vmap(f)
"""


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of names; what else stands at its head has its own nodes, and none here."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def banned(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of each banned name, whatever it was imported as."""
    alias = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                alias[a.asname or a.name.split(".")[0]] = (
                    a.name if a.asname else a.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            alias |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Attribute | ast.Name):
            head, _, rest = dotted(node).partition(".")
            names = [f"{alias.get(head, head)}.{rest}".rstrip(".")]
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            names = (
                []
                if isinstance(node.value, ast.Constant) and not node.value.value
                else ["allow_pickle"]
            )
        for name in names:
            if (
                name in BANNED
                or (name.split(".")[0] in BANNED and "." in name)
                or name == "allow_pickle"
            ):
                yield getattr(node, "lineno", 0), name if name in BANNED else name.split(".")[0]


def lacking_docstrings(tree: ast.Module, owner: str = "") -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield owner + node.name
            if isinstance(node, ast.ClassDef):
                yield from lacking_docstrings(ast.Module(node.body, []), f"{node.name}.")


def long_functions(tree: ast.Module, most: int) -> Iterator[str]:
    """Functions of more than `most` lines, those within them counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > most:
                yield f"{node.name}: {lines} lines"


def parsed() -> Iterator[tuple[str, ast.Module, str]]:
    """(path, tree, text) of every file of the package and of what stands beside it."""
    for path in FILES:
        yield str(path.relative_to(ROOT)), tree_of(path), text_of(path)


def in_the_terminals_encoding(tree: ast.Module) -> Iterator[int]:
    """Lines that read or write a text without its encoding, which then is the user's locale's."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = dotted(node.func).rpartition(".")[2]
        opened = isinstance(node.func, ast.Name) and name == "open"
        binary = len(node.args) > 1 and "b" in ast.unparse(node.args[1])
        if name in ("read_text", "write_text") or (opened and not binary):
            yield node.lineno


def test_there_are_files_to_check():
    assert len(FILES) > 20 and ALGORITHMS


def test_no_banned_names():
    assert [
        f"{path}:{line}: {name}" for path, tree, _ in parsed() for line, name in banned(tree)
    ] == []


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_banned_name_is_found(text):
    assert PLANTED[text] in {name for _, name in banned(ast.parse(text))}


def test_what_only_looks_banned_is_not_found():
    assert list(banned(ast.parse(ALLOWED))) == []


def test_no_file_is_a_drawer():
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [
        str(path) for path in files if drawers & set(path.relative_to(ROOT).with_suffix("").parts)
    ] == []


def test_nothing_is_left_undone():
    words = ("TODO", "FIXME", "XXX", "NotImplementedError")
    assert [f"{path}: {word}" for path, _, text in parsed() for word in words if word in text] == []


def test_files_are_utf_8_whatever_the_locale():
    assert [
        f"{path}:{line}" for path, tree, _ in parsed() for line in in_the_terminals_encoding(tree)
    ] == []
    planted = "a.read_text()\nb.write_text(x)\nopen(p)\nopen(p, 'rb')\nopen(p, encoding='utf-8')\ntorch.open(p)"
    assert list(in_the_terminals_encoding(ast.parse(planted))) == [1, 2, 3]


def test_public_names_have_docstrings():
    package = [(path, tree) for path, tree, _ in parsed() if path.startswith("jaxomarl/")]
    assert [f"{path}: {name}" for path, tree in package for name in lacking_docstrings(tree)] == []


def test_functions_are_short():
    assert [
        f"{path}: {long}"
        for path, tree, _ in parsed()
        for long in long_functions(tree, FUNCTION_LINES)
    ] == []


def test_docstrings_and_lengths_are_seen():
    text = "class A:\n    'doc'\n    def f(self):\n        x = 1\n        return x\n"
    text += "    def _g(self): ...\ndef h(): ...\n"
    assert list(lacking_docstrings(ast.parse(text))) == ["A.f", "h"]
    assert list(long_functions(ast.parse(text), 2)) == ["f: 3 lines"]


@pytest.mark.parametrize("path", ALGORITHMS, ids=lambda path: path.stem)
def test_an_algorithm_is_a_papers_box(path):
    text = text_of(path)
    docstring = ast.get_docstring(tree_of(path)) or ""
    at = [docstring.find(part) for part in PARTS]
    assert -1 not in at and at == sorted(at), (
        f"the docstring's parts are {', '.join(PARTS)}, in this order"
    )
    ends = [*at[1:], len(docstring)]
    bare = [
        p
        for p, a, b in zip(PARTS, at, ends, strict=True)
        if not docstring[a + len(p) : b].strip(" .:\n")
    ]
    assert not bare, f"nothing under {bare}"
    assert len(text.splitlines()) <= ALGORITHM_LINES


def makes_an_algorithm(tree: ast.Module) -> bool:
    """Whether a module builds an `Algorithm`, or another's with an update of its own."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    plain = any(getattr(call.func, "id", "") == "Algorithm" for call in calls)
    changed = [call for call in calls if getattr(call.func, "attr", "") == "_replace"]
    return plain or any("update" in [word.arg for word in call.keywords] for call in changed)


def test_a_file_of_stages_trains():
    files = {
        path: tree
        for path, tree, _ in parsed()
        if path.startswith("jaxomarl/stages/") and tree.body
    }
    assert (
        len(files) > 5
        and [path for path, tree in files.items() if not makes_an_algorithm(tree)] == []
    )
    assert not makes_an_algorithm(ast.parse("def clean(x): return x._replace(obs=Algorithm)"))


def untyped_settings(tree: ast.Module) -> Iterator[str]:
    """Functions whose `cfg` may be anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for arg in node.args.args:
                if arg.arg == "cfg" and (
                    arg.annotation is None or ast.unparse(arg.annotation) == "Any"
                ):
                    yield node.name


def test_algorithms_take_their_own_settings():
    found = [
        f"{path.stem}.{name}" for path in ALGORITHMS for name in untyped_settings(tree_of(path))
    ]
    assert found == ["coda.pipeline"]  # whose settings are any base's and its own
    assert list(
        untyped_settings(
            ast.parse("def f(cfg: Any): ...\ndef g(cfg): ...\ndef h(cfg: Config): ...")
        )
    ) == [
        "f",
        "g",
    ]

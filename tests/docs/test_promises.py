"""Each promise of docs/promises.md names tests, and every one of them is there."""

import ast
import re

import pytest

PROMISE = re.compile(r"^- \*\*", re.MULTILINE)
NAMED = re.compile(r"^  - `(tests/[\w/]+\.py)::(test_\w+)`$", re.MULTILINE)


@pytest.fixture(scope="module")
def page(root):
    return (root / "docs" / "promises.md").read_text(encoding="utf-8")


def functions_of(path) -> set[str]:
    """The test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def missing(text, root) -> list[str]:
    """The named tests that are not there."""
    found = []
    for file, test in NAMED.findall(text):
        path = root / file
        if not path.exists() or test not in functions_of(path):
            found.append(f"{file}::{test}")
    return found


def test_every_named_test_exists(page, root):
    assert len(NAMED.findall(page)) > 60
    assert missing(page, root) == []


def test_a_test_that_is_not_there_is_seen(root):
    text = "  - `tests/docs/test_promises.py::test_gone`\n  - `tests/gone.py::test_x`\n"
    assert len(missing(text, root)) == 2


def test_every_promise_names_a_test(page):
    for promise in PROMISE.split(page.partition("## What is not promised")[0])[1:]:
        assert NAMED.search(promise), promise.splitlines()[0]
    assert page.count("::test_") == len(NAMED.findall(page)), "a test is named in another form"

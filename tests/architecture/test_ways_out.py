"""Every refusal ends with a way out, read in the source: `refuse(field, expected, found, way_out)`."""

import ast
from pathlib import Path

import pytest
from sources import text_of, tree_of

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jaxomarl").rglob("*.py"))
DOCUMENTS, WAY = ROOT / "jaxomarl" / "documents.py", {"read": 1, "read_sealed": 1, "check": 2}
"""A reader that is given its way out, and which argument of its functions that is."""


def refusals(tree):
    """(call, the function that it stands in, or the module)."""
    found = []

    def walk(node, home):
        for child in ast.iter_child_nodes(node):
            inside = child if isinstance(child, ast.FunctionDef) else home
            if isinstance(child, ast.Call) and getattr(child.func, "id", "") == "refuse":
                found.append((child, home))
            walk(child, inside)

    walk(tree, tree)
    return found


def has_words(node, home, tree, seen=frozenset()):
    """Whether an expression is a text that cannot be empty; a name is followed to what it is given."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(node.value.strip(" ."))
    if isinstance(node, ast.JoinedStr):
        parts = [
            getattr(part, "value", part) if isinstance(part, ast.FormattedValue) else part
            for part in node.values
        ]
        return any(has_words(part, home, tree, seen) for part in parts)
    if isinstance(node, ast.IfExp):
        return has_words(node.body, home, tree, seen) and has_words(node.orelse, home, tree, seen)
    if isinstance(node, ast.BinOp):
        return has_words(node.left, home, tree, seen) or has_words(node.right, home, tree, seen)
    if isinstance(node, ast.Name):
        given = [] if node.id in seen else values_of(node.id, home) or values_of(node.id, tree)
        return bool(given) and all(
            has_words(value, home, tree, seen | {node.id}) for value in given
        )
    if isinstance(node, ast.Call):
        return called_has_words(node, tree)
    return False


def called_has_words(node, tree):
    """Whether all that a function of the module returns has words."""
    name = getattr(node.func, "id", "")
    if name == "nearest" or getattr(node.func, "attr", "") == "format":
        return True
    functions = [x for x in ast.walk(tree) if isinstance(x, ast.FunctionDef) and x.name == name]
    returned = [r for f in functions for r in ast.walk(f) if isinstance(r, ast.Return)]
    return bool(returned) and all(has_words(r.value, functions[0], tree) for r in returned)


def values_of(name, home):
    """What a name is given in a function or a module; a loop over a literal gives it the column's items."""
    found = []
    for node in ast.walk(home):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    found.append(node.value)
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=True)
                    found += [value for to, value in pairs if getattr(to, "id", "") == name]
        elif (
            isinstance(node, ast.For)
            and isinstance(node.target, ast.Tuple)
            and isinstance(node.iter, ast.Tuple)
        ):
            at = [getattr(to, "id", "") for to in node.target.elts]
            if name in at:
                found += [
                    row.elts[at.index(name)] for row in node.iter.elts if isinstance(row, ast.Tuple)
                ]
    return found


def without_a_way_out(tree):
    calls = refusals(tree)
    return [
        call.lineno
        for call, home in calls
        if len(call.args) != 4 or not has_words(call.args[3], home, tree)
    ]


def test_every_refusal_ends_with_a_way_out():
    bad = []
    for path in FILES:
        if "refuse(" in text_of(path) and path != DOCUMENTS:
            bad += [f"{path.relative_to(ROOT)}:{line}" for line in without_a_way_out(tree_of(path))]
    assert bad == []


def documents_without_a_way_out(tree):
    """Lines of calls of `documents.read` and `documents.check`; and how many calls there are."""
    homes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = [
        (call, home)
        for home in homes
        for call in ast.walk(home)
        if isinstance(call, ast.Call)
        and getattr(getattr(call.func, "value", None), "id", "") == "documents"
        and call.func.attr in WAY
    ]
    return [
        call.lineno
        for call, home in found
        if not has_words(call.args[WAY[call.func.attr]], home, tree)
    ], len(found)


def test_every_document_is_read_with_a_way_out():
    checked = [documents_without_a_way_out(tree_of(path)) for path in FILES]
    assert sum(count for _, count in checked) > 3
    assert [lines for lines, _ in checked if lines] == []
    planted = ast.parse('def f():\n    documents.read(path, "", a=int)')
    assert documents_without_a_way_out(planted) == ([2], 1)


@pytest.mark.parametrize(
    "text",
    [
        'refuse("a", "b", 1, "")',
        'refuse("a", "b", 1, " ")',
        'refuse("a", "b", 1, f"{x}")',
        'refuse("a", "b", 1, "Take 1." if x else "")',
        'def f():\n    way = "Take 1." if x else ""\n    raise refuse("a", "b", 1, way)',
        'def f(way):\n    raise refuse("a", "b", 1, way)',
        'refuse("a", "b", 1)',
    ],
)
def test_one_without_is_found(text):
    assert without_a_way_out(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        'refuse("a", "b", 1, "Take 1.")',
        'refuse("a", "b", 1, f"{x}Take 1.")',
        'def f():\n    way = "Take 1."\n    raise refuse("a", "b", 1, way)',
        'WAY = "Take 1."\ndef f():\n    raise refuse("a", "b", 1, WAY)',
    ],
)
def test_one_with_is_none(text):
    assert not without_a_way_out(ast.parse(text))


def test_errors_of_the_users_making_are_made_by_refuse():
    bad = []
    for path in FILES:
        for node in ast.walk(tree_of(path)) if "JaxomarlError(" in text_of(path) else ():
            made = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
            if made and getattr(node.exc.func, "id", "") == "JaxomarlError":
                bad.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert bad == []

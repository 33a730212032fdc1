"""Every numbered line of an algorithm's pseudo-code is done where its file says.

A line is done under a comment `# line 3` (`# lines 4 and 5`, `# lines 4-6`) of the same file, or its text names the
file that does it, such as (stages/critic.py). A comment names no line that the box has not.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "jaxomarl"
ALGORITHMS = sorted(
    path for path in (PACKAGE / "algorithms").glob("*.py") if path.name != "__init__.py"
)
NUMBERED = re.compile(r"^ {4}(\d+)(?:-(\d+))? {2,}\S")
NAMED = re.compile(r"\b([a-z_]+/[a-z_]+\.py)\b")
COMMENT = re.compile(r"\blines? (\d[\d, and-]*)")


def box(text: str) -> dict[tuple[int, ...], str]:
    """The numbers of each line of the pseudo-code (2-4 is one line of three), and its text with what continues it."""
    docstring = ast.get_docstring(ast.parse(text)) or ""
    found: dict[tuple[int, ...], str] = {}
    last = ()
    for line in docstring.partition("**Pseudo-code**")[2].partition("**Differs**")[0].splitlines():
        numbered = NUMBERED.match(line)
        if numbered:
            first, end = int(numbered[1]), int(numbered[2] or numbered[1])
            last = tuple(range(first, end + 1))
            found[last] = line
        elif last and line.startswith("     "):
            found[last] += line
        else:
            last = ()
    return found


def commented(text: str) -> Iterator[int]:
    """The numbers that comments name."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            for numbers in COMMENT.findall(token.string):
                for first, end in re.findall(r"(\d+)(?:-(\d+))?", numbers):
                    yield from range(int(first), int(end or first) + 1)


def elsewhere(line: str) -> bool:
    """Whether a line names a file of the package, which is there and is no other algorithm's."""
    files = [name for name in NAMED.findall(line) if not name.startswith("algorithms/")]
    return any((PACKAGE / name).is_file() for name in files)


def violations(text: str) -> list[str]:
    """Lines that are done nowhere, and comments about lines that there are not."""
    lines, done = box(text), set(commented(text))
    known = {number for numbers in lines for number in numbers}
    lost = [
        numbers[0]
        for numbers, line in lines.items()
        if not done.issuperset(numbers) and not elsewhere(line)
    ]
    return [f"line {n} is done nowhere" for n in lost] + [
        f"there is no line {n}" for n in sorted(done - known)
    ]


@pytest.mark.parametrize("path", ALGORITHMS, ids=lambda path: path.stem)
def test_every_line_of_the_box_is_done_where_the_file_says(path):
    text = path.read_text(encoding="utf-8")
    assert box(text), "no numbered line"
    assert violations(text) == []


PLAIN = '''"""A.

**Pseudo-code**. For all:

    1   train the critic                   stage "critic" (stages/critic.py)
    2-3   for each step:
    4       step down
            mean

**Differs**. 5   no line of the box.
"""
x = 1  # lines 2 and 3
y = 2  # line 4
'''
PLANTED = {
    "a line without a comment": (PLAIN.replace("  # line 4", ""), "line 4 is done nowhere"),
    "half of a line": (PLAIN.replace("lines 2 and 3", "line 2"), "line 2 is done nowhere"),
    "a comment in a text": (
        PLAIN.replace("y = 2  # line 4", 'y = "# line 4"'),
        "line 4 is done nowhere",
    ),
    "a file that is not there": (
        PLAIN.replace("critic.py", "critics.py"),
        "line 1 is done nowhere",
    ),
    "a file of another algorithm": (
        PLAIN.replace("stages/critic", "algorithms/iql"),
        "line 1 is done nowhere",
    ),
    "a comment about no line": (PLAIN.replace("# line 4", "# lines 4-5"), "there is no line 5"),
}


def test_what_is_done_is_found():
    assert [*box(PLAIN)] == [(1,), (2, 3), (4,)] and box(PLAIN)[(4,)].endswith("mean")
    assert violations(PLAIN) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name):
    text, found = PLANTED[name]
    assert violations(text) == [found]

"""Every flag has a sentence in its help, every field of every system a docstring, every command two examples."""

import re
import shlex

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.cli import commands
from jaxomarl.cli.examples import EXAMPLES
from jaxomarl.cli.fields import described
from jaxomarl.cli.parsing import parse

SYSTEMS = [*REGISTRY, "bc+coda", "bc+eaq"]
DATA = ("describe", "validate", "convert", "diff")
BARE = re.compile(r"(?:-|[A-Z]).*?\S  +\((?:default|required|at least)|\((?:default|at least)")
"""What begins the line of a flag or a positional whose hint is not preceded by a text."""
CLIPPED = re.compile(r"^(Of|Whose|Which|Who|Times|As|For|Without) ")
"""What a sentence or a noun phrase about a field does not begin with."""


def shown(monkeypatch, capsys, command: str) -> str:
    """A command's help on a terminal so wide that nothing is wrapped."""
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit):
        commands.run("", [*command.split(), "--help"])
    return capsys.readouterr().out


def lines(text: str) -> list[str]:
    """The lines of a help without the frames around them."""
    return [line.strip("│ ") for line in text.splitlines()]


def bare(text: str) -> list[str]:
    """The lines that have a hint and no text."""
    return [line for line in lines(text) if BARE.match(line)]


def test_every_field_has_a_sentence_and_says_what_it_takes():
    fields = {(name, field.name): field for name in SYSTEMS for field in described(name)}
    assert [
        at for at, field in fields.items() if not field.sentence.rstrip().endswith((".", ")"))
    ] == []
    assert {field.sentence for field in fields.values() if CLIPPED.match(field.sentence)} == set()
    unlisted = {at[1] for at, field in fields.items() if field.kind is str and not field.choices}
    assert unlisted == {"order", "start", "thresholds"}, "texts that are no choice"


@pytest.mark.parametrize(
    "command", [*commands.COMMANDS, *(f"data {name}" for name in DATA), "reproduce"]
)
def test_every_help_line_has_text(monkeypatch, capsys, command):
    text = shown(monkeypatch, capsys, command)
    assert bare(text) == []
    assert "(default: )" not in text
    for example in EXAMPLES[command]:
        assert f"$ {example}" in text


def test_every_system_has_its_own_fields_in_the_help_of_train(monkeypatch, capsys):
    for name in ("omsd", "dom2", "matd3", "dof-t", "bc+coda"):
        text = shown(monkeypatch, capsys, f"train {name}")
        assert bare(text) == [] and "(default: )" not in text
        flags = [
            line.split()[0].removeprefix("--cfg.")
            for line in lines(text)
            if line.startswith("--cfg.")
        ]
        assert flags == [field.name.replace("_", "-") for field in described(name)]


def test_a_line_without_text_is_seen():
    for line in (
        "│ --seeds STR   (default: 16)   │",
        "│ SYSTEM   (required)  │",
        "│      (default: 3; takes a number) │",
    ):
        assert bare(line), line
    for line in (
        "│ --seeds STR   16 for (default) seeds. (default: 16) │",
        "│        Of it. (default: 3) │",
    ):
        assert not bare(line), line


def test_examples_can_be_parsed():
    assert {command.split()[0] for command in EXAMPLES} == set(commands.COMMANDS)
    assert {len(examples) for examples in EXAMPLES.values()} == {2}
    for command, examples in EXAMPLES.items():
        for example in examples:
            assert example.startswith(f"jaxomarl {command}")
            parse(commands.COMMANDS, "", shlex.split(example)[1:])

"""Flags to a command's dataclass. tyro reads them; its refusals are printed in our form.

Paths are expanded here, for all commands at once.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from jaxomarl.api.plan import config_field_names
from jaxomarl.base import JaxomarlError, nearest, refuse
from jaxomarl.cli import focus
from jaxomarl.cli.examples import EXAMPLES, opening
from jaxomarl.config import flag
from jaxomarl.paths import user_path

FRAME = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│|+]|─{3,}|-{10,}")
"""The parts of tyro's error boxes that are no text."""


ALL = "All flags: {} --help"
HELP = {"-h", "--help"}
SHORT = {"--out": "-o"}
"""A flag -> how examples write it."""
FIRST = (
    "Offline multi-agent reinforcement learning: `jaxomarl list` says what there is, "
    "and COMMAND --help how to ask."
)
"""The first sentence of the program's help."""


def parse(commands: Mapping[str, Any], command: str, argv: list[str]) -> Any:
    """The dataclass of a command ("" where the first word names it), its paths expanded.

    Raises JaxomarlError for what tyro refuses, and SystemExit after `--help`.
    """
    if not command and argv and argv[0] in commands:
        command, argv = argv[0], argv[1:]
    said = io.StringIO()
    # a refusal is taken apart, so its lines are not wrapped; help is read by a person
    width = contextlib.nullcontext() if HELP & set(argv) else _columns(2000)
    try:
        with width, contextlib.redirect_stderr(said):
            return expanded(_read(commands, command, argv))
    except SystemExit as stop:
        if stop.code != 2:
            sys.stderr.write(said.getvalue())
            raise
    raise refusal(said.getvalue(), own_flags(command, argv))


def _read(commands: Mapping[str, Any], command: str, argv: list[str]) -> Any:
    if not command:
        return tyro.extras.subcommand_cli_from_dict(
            dict(commands), args=argv, prog="jaxomarl", description=FIRST
        )
    kind = commands[command]
    added = ""
    if command in focus.HOW and HELP & set(argv):
        kind, added = focus.of(command, kind, argv)
        # tyro leaves positionals that are given out of its help
        argv = ["--help"]
    description = f"{opening(command, kind.__doc__)}\n\n{added}".strip()
    return tyro.cli(kind, args=argv, prog=f"jaxomarl {command}", description=description)


def own_flags(command: str, argv: list[str]) -> list[str]:
    """The flags of the fields that the named systems have."""
    owned = [config_field_names(name) for name in focus.systems(command, argv) if "+" not in name]
    return [flag(field) for own in owned for field in own]


@contextlib.contextmanager
def _columns(count: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def refusal(box: str, own: Sequence[str] = ()) -> JaxomarlError:
    """One of tyro's error boxes as an error of ours.

    `own` are the flags of the fields that the named systems have.
    """
    lines = [FRAME.sub("", line).rstrip() for line in box.splitlines()]
    lines = [line[1:] for line in lines if line.strip()]
    text = " ".join(line.strip() for line in lines)
    programs = re.findall(r"(jaxomarl[\w .-]*?) --help", text)
    program = [*programs, "jaxomarl"][0]
    way = ALL.format(program)

    if found := re.search(r"Unrecognized options: (.*)", "\n".join(lines)):
        return _unknown(program, found[1].split(", "), lines, own)
    if found := re.search(r"Expected one of \{(.*?)\}", text):
        return refuse("command", f"one of {found[1]}", "none", way)
    if found := re.search(r"Missing value for argument '(.*?)'", text):
        return refuse(found[1], "a value", "none", way)
    if found := re.search(r"choice '(.*?)' for argument '(.*?)'. Expected one of \((.*?)\)", text):
        return refuse(found[2], f"one of {found[3].replace(chr(39), '')}", found[1], way)
    if found := re.search(
        r"Error parsing (\S+): (.*?) Argument helptext: (.*?)(?:For full|$)", text
    ):
        value = [found[2], *re.findall(r"'([^']*)'", found[2])][-1]
        return refuse(found[1], _expected(found[3]), value, way)
    if "(required)" in text:
        indented = [line.strip() for line in lines if line.startswith("    ")]
        missing = [_spelt(line) for line in indented if not line.endswith(("(required)", "--help"))]
        given = example(program, missing)
        return refuse(", ".join(missing), "a value", "none", f"{given}{way}")
    return refuse(program, "flags that it has", text, way)


def example(program: str, missing: Sequence[str]) -> str:
    """A command that gives what is missing, as a sentence; "" where no example has it."""
    command = program.removeprefix("jaxomarl").strip()
    for line in EXAMPLES.get(command, ()):
        words = line.split()
        if all(SHORT.get(flag, flag) in words for flag in missing if flag.startswith("--")):
            return f"For example: {line}. "
    return ""


def _expected(help_text: str) -> str:
    """The kind of value that a flag's help states."""
    words = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "text"}
    kind = re.search(r"\b(INT|FLOAT|STR|PATH|BOOL)\b", help_text)
    unknown = "a value of its kind"
    return words.get(kind[1], unknown) if kind else unknown


def _unknown(
    program: str, tokens: list[str], lines: list[str], own: Sequence[str]
) -> JaxomarlError:
    """The refusal of unknown flags or commands, with the nearest known ones."""
    way = ALL.format(program)
    commands = [line for line in lines if "Available subcommands: " in line]
    if commands:
        known = commands[0].partition("Available subcommands: ")[2].split(", ")
        way = f"{nearest(tokens[0], known)} {way}"
        return refuse("command", f"one of {', '.join(known)}", tokens[0], way)
    flags = [token for token in tokens if token.startswith("-")]
    similar = [match[1] for line in lines if (match := re.match(r"\s{4}(--[\w.-]+)", line))]
    field = [*flags, tokens[0]][0]
    near = [name for name in similar if name != field and difflib.get_close_matches(field, [name])]
    if field.startswith("--cfg.") and own:
        near = difflib.get_close_matches(field, own)
    if near:
        way = f"Did you mean {' or '.join(near)}? {way}"
    return refuse(field, f"a flag or a value of {program}", " ".join(tokens), way)


def _spelt(line: str) -> str:
    """A missing argument as a person would look for it."""
    flags = re.findall(r"--[\w.-]+", line)
    return [*flags, line][0]


def expanded(asked: Any) -> Any:
    """A dataclass with `~` in every Path of it as the home folder."""
    changed = {}
    for field in dataclasses.fields(asked):
        value = getattr(asked, field.name)
        if isinstance(value, Path):
            changed[field.name] = user_path(value)
        elif dataclasses.is_dataclass(value) and field.name == "command":
            changed[field.name] = expanded(value)
    if not changed:
        return asked
    return dataclasses.replace(asked, **changed)

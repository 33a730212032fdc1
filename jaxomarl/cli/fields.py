"""A system's fields in words for a terminal: sentence, kind, range or choices, default."""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
from typing import Any, NamedTuple

from jaxomarl.api.plan import find_system
from jaxomarl.base import JaxomarlError, Spec, System
from jaxomarl.config import flag
from jaxomarl.envs.catalog import make

KINDS = {float: "number", int: "whole number", str: "text", bool: "bool"}
"""A field's type -> the word for its value."""
UNKNOWN = "?"
"""A value that no field of choices takes: its refusal names those that it takes."""
LISTED = re.compile(
    r"expected (?:one of (?P<several>.*)|(?P<few>[\w-]+(?: or [\w-]+)+)[^,]*), found '\?'"
)
"""Where a refusal lists what a field takes: "one of a, b", or "a or b"."""
STATED = "mpe/spread"
"""The task whose spec is shown to a system where none is asked for."""
STATED_CHOICES = "games/xor"
"""The same of systems that take discrete actions alone."""


class Field(NamedTuple):
    """A field of a system's config, described."""

    name: str
    kind: type
    sentence: str
    default: Any
    expected: str
    """The values that it takes: a range, or choices."""
    choices: tuple[str, ...]
    traced: bool
    """Whether a sweep of it is one program."""


def described(name: str) -> list[Field]:
    """The fields of a system, in order; raises JaxomarlError for an unknown system."""
    system = find_system(name)
    spec = make(stated_task(name)).env.spec
    return [_describe(system, spec, field) for field in dataclasses.fields(system.Config)]


def stated_task(name: str) -> str:
    """The first of the stated tasks whose kind of actions a system takes."""
    system = find_system(name)
    try:
        system.check(make(STATED).env.spec, system.Config(), None)
    except JaxomarlError as error:
        if error.field == "--task":
            return STATED_CHOICES
    return STATED


def _describe(system: System, spec: Spec, field: dataclasses.Field) -> Field:
    kind = type(field.default)
    taken: tuple[str, ...] = ()
    if kind is str:
        taken = choices(system, spec, field.name)
    return Field(
        name=field.name,
        kind=kind,
        sentence=sentences(system.Config).get(field.name, ""),
        default=field.default,
        expected=" or ".join(taken) or values(field),
        choices=taken,
        traced=not field.metadata.get("static"),
    )


def values(field: dataclasses.Field) -> str:
    """The values that a field takes, as `check_fields` checks them."""
    kind = type(field.default)
    if kind is bool:
        return "True or False"
    if kind is str:
        return "a text"
    if field.metadata.get("scaled") == "steps":
        return "a positive multiple of chunk"
    interval = field.metadata.get("within")
    if interval:
        return interval.words(KINDS[kind])
    if kind is float:
        return "a number"
    return f"a positive {KINDS[kind]}"


def choices(system: System, spec: Spec, name: str) -> tuple[str, ...]:
    """The texts that a field takes, read from a refusal; () where it takes any other text too."""
    cfg = dataclasses.replace(system.Config(), **{name: UNKNOWN})
    try:
        system.check(spec, cfg, None)
    except JaxomarlError as error:
        listed = LISTED.search(str(error))
        if error.field == flag(name) and listed:
            return tuple(re.split(", | or ", listed["several"] or listed["few"]))
    return ()


# --- sentences ---


def sentences(kind: type) -> dict[str, str]:
    """Each field's docstring; a field without its own has that of the field that it overrides."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        found |= _own(cls)
    return found


@functools.cache
def _own(cls: type) -> dict[str, str]:
    """The docstrings under a class's fields; none where its source cannot be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for field, after in itertools.pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(after, ast.Expr):
            docstring = str(ast.literal_eval(after.value))
            found[field.target.id] = " ".join(docstring.split())
    return found

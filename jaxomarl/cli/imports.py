"""The flag `--import` of every command that takes systems or tasks.

It is read before all other flags, because it adds systems, tasks and fields to them.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from jaxomarl.api import plan, register

FLAG = "--import"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imports:
    """A command that takes systems or tasks."""

    imports: tyro.conf.UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(name=FLAG.removeprefix("--"), metavar="MODULE")]
    ] = ()
    """A module or a .py file with systems or tasks of your own (docs/extend.md)."""


def named(argv: Sequence[str]) -> list[str]:
    """The modules that a command line names."""
    found = [value for flag, value in itertools.pairwise(argv) if flag == FLAG]
    return found + [word.removeprefix(f"{FLAG}=") for word in argv if word.startswith(f"{FLAG}=")]


def load_modules(argv: Sequence[str]) -> None:
    """Import what a command line names; raises JaxomarlError where it cannot be imported."""
    register.import_modules(named(argv))


def with_fields(commands: Mapping[str, type]) -> dict[str, type]:
    """The commands, whose `--cfg` has the fields of every system that is registered by now."""
    fields = plan.config_fields()
    return {name: _with_fields(kind, fields) for name, kind in commands.items()}


def _with_fields(command: Any, fields: Mapping[str, type]) -> type:
    """A command whose `--cfg` has these fields.

    It is the command itself where it has these fields already, or has no `--cfg`.
    """
    own: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(command)}
    if "cfg" not in own:
        return command
    if {field.name for field in dataclasses.fields(own["cfg"])} == set(fields):
        return command
    cfg = settings(fields)
    extended = dataclasses.make_dataclass(
        command.__name__, [("cfg", cfg, cfg())], bases=(command,), frozen=True, kw_only=True
    )
    extended.__doc__ = command.__doc__
    return extended


def settings(fields: Mapping[str, type]) -> Any:
    """The class of `--cfg`: each field takes several values, none by default."""
    # tyro would look for the help of each in this file's source
    here = tyro.conf.arg(help="")
    rows = [(name, Annotated[tuple[kind, ...], here], ()) for name, kind in fields.items()]
    return dataclasses.make_dataclass("Cfg", rows, frozen=True)

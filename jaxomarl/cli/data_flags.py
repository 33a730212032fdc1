"""The flags of the command `data`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxomarl.cli.examples import opening
from jaxomarl.cli.imports import Imports


@dataclasses.dataclass(frozen=True, kw_only=True)
class Describe(Imports):
    """Print cards of data sets: counts, columns, returns, behaviours, ends and likely rules."""

    sources: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="SET...", help_behavior_hint="(at least one)"),
    ]
    """Paths, or recipes like mpe/spread/medium; several are drawn side by side."""
    task: str = ""
    """The task of a path, which names its columns; empty: none, or what our own folder says."""
    rows: int = 0
    """Transitions that a recipe generates; 0: the task's own number."""
    out: Path | None = None
    """Folder for card.txt, card.json and card.png; empty: only print."""
    json: bool = False
    """Print JSON, a list of cards, in place of text."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validate(Imports):
    """Check a set against a task: what would be repaired, or why it is refused (exit code 2)."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """Path of the set."""
    task: str
    """The task, for example mpe/spread."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert(Imports):
    """Write a set in another format."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """Path of the set, or a recipe."""
    to_path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """The folder to write, new or empty."""
    to: str
    """The format: omar, vault, minari, or jaxomarl for our own folder."""
    task: str = ""
    """Fit the set to this task first; our own folder needs it for sets that name no task."""
    rows: int = 0
    """Transitions that a recipe generates; 0: the task's own number."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diff(Imports):
    """Compare two sets: exit code 0 where their content is the same, else 1."""

    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")]
    """Path of the set, or a recipe."""
    b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="B")]
    """Path of the set, or a recipe."""
    task: str = ""
    """Fit paths to this task first, so that the sets are compared as training reads them."""
    rows: int = 0
    """Transitions that recipes generate; 0: the task's own number."""
    json: bool = False
    """Print JSON in place of text."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


Command = (
    Annotated[
        Describe,
        tyro.conf.subcommand("describe", description=opening("data describe", Describe.__doc__)),
    ]
    | Annotated[
        Validate,
        tyro.conf.subcommand("validate", description=opening("data validate", Validate.__doc__)),
    ]
    | Annotated[
        Convert,
        tyro.conf.subcommand("convert", description=opening("data convert", Convert.__doc__)),
    ]
    | Annotated[Diff, tyro.conf.subcommand("diff", description=opening("data diff", Diff.__doc__))]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Describe, validate, convert or compare data sets, ours and other people's."""

    command: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Command]]

    @property
    def compile_cache(self) -> bool:
        """Whether compiled programs are kept."""
        return self.command.compile_cache

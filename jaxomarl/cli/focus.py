"""Commands whose help has the fields of the systems that a command line names, and no others."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import JaxomarlError
from jaxomarl.cli.fields import Field, described
from jaxomarl.cli.show import WORDS, shown_value

POINTER = "A system's fields are flags too, --cfg.NAME VALUE...: see `jaxomarl show SYSTEM`"
HOW = {
    "train": f"{POINTER}, or --help after SYSTEM.",
    "sweep": f"{POINTER}, or --help after --systems.",
    "reproduce": f"{POINTER}.",
}
"""A command that trains -> where to find the fields that its help leaves out."""


def systems(command: str, argv: Sequence[str]) -> list[str]:
    """The systems that a command line names; [] where it names none, or an unknown one.

    Only help and refusals depend on it: a command is parsed with every field that there is.
    """
    if "--systems" in argv:
        return known_systems(values_of("--systems", argv))
    if command != "train":
        return []
    named = known_systems(argv)
    if not named:
        return []
    return ["+".join([named[0], *values_of("--augment", argv)[:1]])]


def values_of(flag: str, argv: Sequence[str]) -> list[str]:
    """The words between a flag and the next one; [] where the flag is not there."""
    if flag not in argv:
        return []
    words = list(argv)[list(argv).index(flag) + 1 :]
    ends = [k for k, word in enumerate(words) if word.startswith("-")]
    return words[: min(ends, default=len(words))]


def known_systems(words: Sequence[str]) -> list[str]:
    """The words that name a system."""
    return [word for word in words if word.partition("+")[0] in REGISTRY]


def of(command: str, kind: type, argv: Sequence[str]) -> tuple[type, str]:
    """A training command's dataclass for its help, and what its description adds."""
    try:
        owners = {
            name: {field.name: field for field in described(name)}
            for name in systems(command, argv)
        }
    # an augmentation that there is not; the command itself would refuse it
    except JaxomarlError:
        owners = {}
    if not owners:
        hidden = Annotated[kind.__annotations__.get("cfg", Any), tyro.conf.Suppress]
        return with_fields(kind, hidden, kind.cfg), HOW[command]  # type: ignore[attr-defined]
    names = list(dict.fromkeys(name for own in owners.values() for name in own))
    columns = [(name, flag_of(name, owners), ()) for name in names]
    shown = dataclasses.make_dataclass("Fields", columns, frozen=True)
    return with_fields(kind, shown, shown()), f"With the fields of {', '.join(owners)}."


def with_fields(kind: type, annotation: Any, default: object) -> type:
    """A command's dataclass with other fields of systems."""
    own = dataclasses.make_dataclass(
        kind.__name__, [("cfg", annotation, default)], bases=(kind,), frozen=True, kw_only=True
    )
    own.__doc__ = kind.__doc__
    return own


def flag_of(name: str, owners: dict[str, dict[str, Field]]) -> Any:
    """The annotation of a field's flag: its values, its sentence, and each system's default."""
    having = {system: own[name] for system, own in owners.items() if name in own}
    field = next(iter(having.values()))

    defaults = {system: shown_value(own.default) for system, own in having.items()}
    default = next(iter(defaults.values()))
    if len(set(defaults.values())) > 1:
        default = ", ".join(f"{system} {value}" for system, value in defaults.items())

    sentence = field.sentence
    if len(having) < len(owners):
        sentence = f"{sentence} Only in {', '.join(having)}."
    described_as = tyro.conf.arg(
        help=sentence,
        metavar=f"{WORDS[field.kind]}...",
        help_behavior_hint=f"(default: {default}; takes {field.expected})",
    )
    return Annotated[tuple[field.kind, ...], described_as]

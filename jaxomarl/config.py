"""Hyper-parameters: one flat frozen dataclass per system, whose fields say what they are.

    @config
    class Config:
        beta: float = 0.1                                     # traced: swept inside one program
        gamma: float = traced(default=0.99, within="[0, 1]")  # the same, and its range
        batch: int = static(default=512)                      # static: fixes a shape or the program
        steps: int = static(default=1000, scaled="steps")     # the same, and `--scale` changes it

A traced field must be a float. Ranges are written as in mathematics, "(0, 1]", "[0, inf)"; whole
numbers without one are at least 1; `check_fields` reads them. `stack` lays configs that differ in
traced fields along the runs axis.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from jaxomarl.base import Spec, refuse

T = TypeVar("T")


# --- declaring fields ---

SCALED = ("steps", "width")
"""How `--scale` changes a field: steps in proportion, the width of a network by the cube root."""


def static(*, default: Any, within: str = "", scaled: str = "") -> Any:
    """Declare a field that fixes a shape, a length or the program: each value has its own program.

    `within` is the range of a number, such as "[0, 1)". `scaled`, one of SCALED, says how the
    scale of a command changes the field. Steps are a multiple of the chunk.
    """
    if scaled and scaled not in SCALED:
        raise ValueError(f"scaled is one of {SCALED}, not {scaled!r}")
    metadata = {"static": True, "scaled": scaled, **_range(default, within)}
    return dataclasses.field(default=default, metadata=metadata)


def traced(*, default: float, within: str) -> Any:
    """Declare a field that may differ between the runs of one program, and its range."""
    return dataclasses.field(default=default, metadata=_range(default, within))


class Interval(NamedTuple):
    """A range of numbers, as it is written and as it is compared."""

    text: str
    low: float
    high: float

    @classmethod
    def of(cls, text: str) -> "Interval":
        """Read "[low, high]"; a round bracket leaves that end out.

        Raises ValueError where the text is no interval.
        """
        low, _, high = text[1:-1].partition(",")
        interval = cls(text, float(low), float(high))
        bracketed = text[0] in "[(" and text[-1] in "])"
        if not bracketed or not interval.low < interval.high:
            raise ValueError(f"no interval: {text!r}")
        return interval

    def holds(self, value: int | float) -> bool:
        """Whether a number lies in the range."""
        above = value >= self.low if self.text[0] == "[" else value > self.low
        below = value <= self.high if self.text[-1] == "]" else value < self.high
        return above and below

    def words(self, kind: str) -> str:
        """The range in the words of a refusal: "a number in [0, 1]", "a positive number"."""
        if self.low != 0.0 or self.high != math.inf:
            return f"a {kind} in {self.text}"
        if self.text[0] == "(":
            return f"a positive {kind}"
        return f"a {kind} of at least 0"


def _range(default: Any, within: str) -> dict[str, Any]:
    """The range as metadata of a field; ValueError where the default lies outside it."""
    if not within:
        return {}
    interval = Interval.of(within)
    if not interval.holds(default):
        raise ValueError(f"the default {default} is not in {within}")
    return {"within": interval}


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(static, traced, dataclasses.field)
)
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass and a pytree whose leaves are its traced fields.

    Raises TypeError where a field has no default, or a traced field is no float.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = f"{cls.__name__}.{field.name}"
        if field.default is dataclasses.MISSING:
            raise TypeError(f"{name} has no default")
        if not field.metadata.get("static") and type(field.default) is not float:
            raise TypeError(f"{name} is traced, so it must be a float; else declare it static()")
    return jax.tree_util.register_dataclass(cls)


@config
class Pacing:
    """How many updates a compiled scan has, and how often a stage reports."""

    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""
    every: int = static(default=10)
    """Chunks between two evaluations, at which checkpoints are written too."""


# --- reading fields ---


def traced_fields(cfg: Any) -> dict[str, Any]:
    """The fields that may differ between the runs of one program."""
    fields = dataclasses.fields(cfg)
    return {f.name: getattr(cfg, f.name) for f in fields if not f.metadata.get("static")}


def static_fields(cfg: Any) -> dict[str, Any]:
    """The fields that are part of the program."""
    fields = dataclasses.fields(cfg)
    return {f.name: getattr(cfg, f.name) for f in fields if f.metadata.get("static")}


def scaled_fields(cfg: Any, kind: str) -> dict[str, int]:
    """The fields that are scaled as steps, or as widths."""
    fields = dataclasses.fields(cfg)
    return {f.name: getattr(cfg, f.name) for f in fields if f.metadata.get("scaled") == kind}


def check_fields(cfg: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise JaxomarlError for an unknown choice, a number out of its range, or odd steps.

    Whole numbers without a range are at least 1. Steps are a multiple of the chunk.
    """
    values = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg)}
    for name, allowed in choices.items():
        if values[name] not in allowed:
            expected = f"one of {', '.join(allowed)}"
            raise refuse(flag(name), expected, values[name], "Take one of these.")

    for field in dataclasses.fields(cfg):
        value = values[field.name]
        way = f"Leave it out for its default, {field.default}."
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(flag(field.name), "a finite number", value, way)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(field, value, way)

    for name, value in scaled_fields(cfg, "steps").items():
        _check_steps(name, value, values["chunk"])


def check_continuous(spec: Spec, reason: str) -> None:
    """Raise JaxomarlError for a task of discrete actions, with the reason for it."""
    if spec.discrete:
        way = f"{reason} Take a task with continuous actions."
        raise refuse("--task", "continuous actions", "a discrete task", way)


def _check_range(field: dataclasses.Field, value: int | float, way: str) -> None:
    # `_check_steps` checks steps
    if field.metadata.get("scaled") == "steps":
        return

    interval = field.metadata.get("within")
    kind = "number" if isinstance(field.default, float) else "whole number"
    if interval is None:
        if kind == "whole number" and value < 1:
            raise refuse(flag(field.name), f"a positive {kind}", value, way)
    elif not interval.holds(value):
        raise refuse(flag(field.name), interval.words(kind), value, way)


def _check_steps(name: str, value: int, chunk: int) -> None:
    if value < 1 or value % min(chunk, value):
        way = f"Take {max(1, value // chunk) * chunk}, or change --cfg.chunk."
        raise refuse(flag(name), f"a positive multiple of chunk = {chunk}", value, way)


def is_zero(value: Any) -> bool:
    """Whether a setting is 0; a traced one is not known, and counts as another number."""
    return isinstance(value, int | float) and value == 0


def flag(name: str) -> str:
    """The flag of a field at the command line."""
    return f"--cfg.{name.replace('_', '-')}"


def stack(cfgs: list[T]) -> T:
    """One config for R runs, whose traced fields are arrays [R].

    Raises JaxomarlError where the configs differ in a static field.
    """
    first = static_fields(cfgs[0])
    for cfg in cfgs[1:]:
        other = static_fields(cfg)
        if other != first:
            expected = "configs that agree in their static fields"
            raise refuse("stack", expected, [other, first], "Make two groups.")
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *cfgs)


def digest(*facts: Any) -> str:
    """Twelve hex digits that name a JSON-able value."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

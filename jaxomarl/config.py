"""Hyper-parameters say what they are: traced or static, and in which range, in one flat frozen dataclass per system.

    @config
    class Config:
        beta: float = 0.1                                     # traced: swept inside one program
        gamma: float = traced(default=0.99, within="[0, 1]")  # the same, and its range
        batch: int = static(default=512)                      # static: fixes a shape or the program
        steps: int = static(default=1000, scaled="steps")     # the same, and a length that `--scale` changes

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

from jaxomarl.base import refuse

T = TypeVar("T")


SCALED = ("steps", "width")
"""How `--scale` changes a field: updates of a stage in proportion, a network's width by the cube root."""


def static(*, default: Any, within: str = "", scaled: str = "") -> Any:
    """A field that fixes a shape, a length or the program: another value is another program.

    `within` is the range of a number, such as "[0, 1)". `scaled` says that a command's scale changes it, and how: one
    of SCALED. Steps are whole chunks.
    """
    if scaled and scaled not in SCALED:
        raise ValueError(f"scaled is one of {SCALED}, not {scaled!r}")
    return dataclasses.field(
        default=default, metadata={"static": True, "scaled": scaled, **_range(default, within)}
    )


def traced(*, default: float, within: str) -> Any:
    """A field that may differ between the runs of one program, with its range, such as "[0, 1]"."""
    return dataclasses.field(default=default, metadata=_range(default, within))


class Interval(NamedTuple):
    """A range of numbers, as it is written and as it is compared."""

    text: str
    low: float
    high: float

    @classmethod
    def of(cls, text: str) -> "Interval":
        """Read "[low, high]", where a round bracket leaves the end out; ValueError where it is none."""
        low, _, high = text[1:-1].partition(",")
        found = cls(text, float(low), float(high))
        if text[0] not in "[(" or text[-1] not in "])" or not found.low < found.high:
            raise ValueError(f"no interval: {text!r}")
        return found

    def holds(self, value: int | float) -> bool:
        """Whether a number lies in it."""
        above = value >= self.low if self.text[0] == "[" else value > self.low
        below = value <= self.high if self.text[-1] == "]" else value < self.high
        return above and below

    def words(self, kind: str) -> str:
        """What a refusal expects: "a number in [0, 1]", "a positive number"."""
        if self.high == math.inf and self.low == 0.0:
            return f"a positive {kind}" if self.text[0] == "(" else f"a {kind} of at least 0"
        return f"a {kind} in {self.text}"


def _range(default: Any, within: str) -> dict[str, Any]:
    """A field's metadata; ValueError where its default lies outside its range."""
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
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING:
            raise TypeError(f"{cls.__name__}.{f.name} has no default")
        if not f.metadata.get("static") and type(f.default) is not float:
            raise TypeError(
                f"{cls.__name__}.{f.name} is traced, so it must be a float; else declare it static()"
            )
    return jax.tree_util.register_dataclass(cls)


def traced_fields(cfg: Any) -> dict[str, Any]:
    """The fields that may differ between the runs of one program."""
    return {
        f.name: getattr(cfg, f.name)
        for f in dataclasses.fields(cfg)
        if not f.metadata.get("static")
    }


def static_fields(cfg: Any) -> dict[str, Any]:
    """The fields that are part of the program."""
    return {
        f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg) if f.metadata.get("static")
    }


def scaled_fields(cfg: Any, kind: str) -> dict[str, int]:
    """The fields that are scaled as steps, or as widths."""
    return {
        f.name: getattr(cfg, f.name)
        for f in dataclasses.fields(cfg)
        if f.metadata.get("scaled") == kind
    }


def check_fields(cfg: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise JaxomarlError for a choice that is none, a number out of its field's range, or odd steps.

    Whole numbers are at least 1 where their field says nothing; steps are whole chunks.
    """
    values = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg)}
    for name, allowed in choices.items():
        if values[name] not in allowed:
            raise refuse(
                flag(name), f"one of {', '.join(allowed)}", values[name], "Take one of these."
            )
    for field in dataclasses.fields(cfg):
        value = values[field.name]
        way = f"Leave it out for its default, {field.default}."
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(flag(field.name), "a finite number", value, way)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(field, value, way)
    for name, value in scaled_fields(cfg, "steps").items():
        _check_steps(name, value, values["chunk"])


def _check_range(field: dataclasses.Field, value: int | float, way: str) -> None:
    if field.metadata.get("scaled") == "steps":  # whole chunks
        return
    interval = field.metadata.get("within")
    kind = "number" if isinstance(field.default, float) else "whole number"
    if interval is None:
        if isinstance(field.default, float) or value >= 1:
            return
        raise refuse(flag(field.name), f"a positive {kind}", value, way)
    if not interval.holds(value):
        raise refuse(flag(field.name), interval.words(kind), value, way)


def _check_steps(name: str, value: int, chunk: int) -> None:
    if value < 1 or value % min(chunk, value):
        way = f"Take {max(1, value // chunk) * chunk}, or change --cfg.chunk."
        raise refuse(flag(name), f"a positive multiple of chunk = {chunk}", value, way)


def flag(name: str) -> str:
    """A field as the command line spells it."""
    return f"--cfg.{name.replace('_', '-')}"


def stack(cfgs: list[T]) -> T:
    """Configs of R runs -> one config whose traced fields are arrays [R].

    Raises JaxomarlError where they differ in a static field.
    """
    for cfg in cfgs[1:]:
        if static_fields(cfg) != static_fields(cfgs[0]):
            found = [static_fields(cfg), static_fields(cfgs[0])]
            raise refuse(
                "stack", "configs that agree in their static fields", found, "Make two groups."
            )
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *cfgs)


def digest(*facts: Any) -> str:
    """Twelve hex digits that name a JSON-able value."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

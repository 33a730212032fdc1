"""Hyper-parameters say whether they are traced or static, in one flat frozen dataclass per system.

    @config
    class Config:
        beta: float = 0.1                    # traced: an array leaf, swept inside one program
        batch: int = static(default=512)     # static: fixes a shape or the program

A traced field must be a float. `stack` lays configs that differ in traced fields along the runs axis.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from jaxomarl.base import JaxomarlError, refuse

T = TypeVar("T")


def static(*, default: Any) -> Any:
    """A field that fixes a shape, a length or the program: another value is another program."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(static, dataclasses.field))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass and a pytree whose leaves are its traced fields.

    Raises TypeError where a field has no default, or a traced field is no float.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING:
            raise TypeError(f"{cls.__name__}.{f.name} has no default")
        if not f.metadata.get("static") and type(f.default) is not float:
            raise TypeError(f"{cls.__name__}.{f.name} is traced, so it must be a float; else declare it static()")
    return jax.tree_util.register_dataclass(cls)


def traced_fields(cfg: Any) -> dict[str, Any]:
    """The fields that may differ between the runs of one program."""
    return {f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg) if not f.metadata.get("static")}


def static_fields(cfg: Any) -> dict[str, Any]:
    """The fields that are part of the program."""
    return {f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg) if f.metadata.get("static")}


def check_fields(cfg: Any, choices: Mapping[str, Sequence[str]], zero: Sequence[str] = ()) -> None:
    """Raise JaxomarlError for a choice that is none, a number that is not finite, a count below 1, or odd steps.

    Counts named in `zero` may be 0; `*_steps` are whole chunks, where there is a `chunk`.
    """
    values = {**static_fields(cfg), **traced_fields(cfg)}
    for name, allowed in choices.items():
        if values[name] not in allowed:
            raise refuse(flag(name), f"one of {', '.join(allowed)}", values[name], "Take one of these.")
    for name, value in values.items():
        least = 0 if name in zero else 1
        steps = name.endswith("_steps")
        if type(value) is int and not steps and value < least:
            raise refuse(flag(name), "a positive whole number", value, "Leave it out for its default.")
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(flag(name), "a finite number", value, "Leave it out for its default.")
        if steps and (value < 1 or value % min(values["chunk"], value)):
            chunk = values["chunk"]
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
            raise JaxomarlError("stack: configs of one group must agree in their static fields; make two groups")
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *cfgs)


def digest(*facts: Any) -> str:
    """Twelve hex digits that name a JSON-able value."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def precision() -> str:
    """How what is traced now rounds products of matrices: JAX's name for it, or "default", each device's own way.

    The setting is JAX's, `jax.default_matmul_precision`. Two names mean more here: "bfloat16" (networks' hidden layers
    are bfloat16, see `networks/mlp.py`), and "default", which is TF32 on NVIDIA's cards and float32 on a CPU.
    """
    return str(jax.config.jax_default_matmul_precision or "default")  # type: ignore[attr-defined]


def rounded() -> dict[str, str]:
    """That setting as a fact about results, which keeps those of different ones apart; the default is none."""
    return {} if precision() == "default" else {"precision": precision()}

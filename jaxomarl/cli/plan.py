"""What a command asks for, resolved: tasks, data, presets and overrides -> groups of runs that share one program."""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import Dataset, System, Task, refuse
from jaxomarl.config import digest, static_fields, traced_fields
from jaxomarl.presets import Preset

Overrides = Mapping[str, Sequence[Any]]  # config field -> one value, or several to sweep


@dataclasses.dataclass
class Group:
    """R runs of one system on one data set, alike but for seed and traced fields."""

    name: str  # of the system
    system: System
    task: Task
    quality: str
    data: Dataset
    manifest: dict[str, Any]
    cfgs: list[Any]
    seeds: list[int]
    swept: list[dict[str, Any]]

    @property
    def digest(self) -> str:
        """What names the group's folder: everything but seeds and traced values."""
        return digest(self.name, self.task.name, self.manifest["sha256"], static_fields(self.cfgs[0]))


def find_system(name: str) -> System:
    """A registry row; JaxomarlError names the nearest."""
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else ""
        raise refuse("system", f"one of {', '.join(REGISTRY)}", name, hint)
    return REGISTRY[name]


def config_fields() -> dict[str, type]:
    """Every field of every registered system's Config, with its type."""
    found: dict[str, type] = {}
    for system in REGISTRY.values():
        found.update({f.name: f.type for f in dataclasses.fields(system.Config)})  # type: ignore[arg-type]
    return found


def configs(name: str, preset: Preset, overrides: Overrides, scale: float = 1.0) -> list[tuple[Any, dict[str, Any]]]:
    """Every config that the overrides span for a system, each with its swept values.

    Preset, then overrides, then `scale` on all step counts (whole chunks, at least one). Raises JaxomarlError for a
    field that the system lacks.
    """
    system = find_system(name)
    fields = [f.name for f in dataclasses.fields(system.Config)]
    for field in overrides:
        if field not in fields:
            near = difflib.get_close_matches(field, fields, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            way = f"{hint}Name the systems that have it with --systems."
            raise refuse(f"--cfg.{field.replace('_', '-')}", f"a field of {name}", field, way)
        check_types(field, overrides[field], getattr(system.Config(), field))
    base = dict(preset.cfg) if name in preset.systems else {}
    many = {f: v for f, v in overrides.items() if len(v) > 1}
    out = []
    for values in itertools.product(*overrides.values()):
        chosen = dict(zip(overrides, values, strict=True))
        cfg = scaled(system.Config(**{**base, **chosen}), scale)
        out.append((cfg, {f: chosen[f] for f in many}))
    return out


def check_types(field: str, values: Sequence[Any], default: Any) -> None:
    """Raise JaxomarlError where a value has not the type of the field's default (a whole number may be a float)."""
    kinds = (int, float) if type(default) is float else (type(default),)
    for value in values:
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            name = f"--cfg.{field.replace('_', '-')}"
            raise refuse(name, f"a value like {default!r}", value, f"It is of type {type(default).__name__}.")


def scaled(cfg: Any, scale: float) -> Any:
    """Every `*_steps` field times `scale`, in whole chunks."""
    if scale == 1.0:
        return cfg
    if not 0.0 < scale <= 1e4:
        raise refuse("--scale", "a positive factor", scale, "1 is the preset's own length.")
    steps = {f: v for f, v in static_fields(cfg).items() if f.endswith("_steps")}
    return dataclasses.replace(cfg, **{f: max(1, round(v * scale / cfg.chunk)) * cfg.chunk for f, v in steps.items()})


def groups(
    name: str, task: Task, quality: str, data: Dataset, manifest: dict, cfgs: list[tuple[Any, dict]], seeds: list[int]
) -> list[Group]:
    """Sort configs x seeds into groups of one program each; each config is checked against task and data."""
    system, out = find_system(name), {}
    for cfg, swept in cfgs:
        system.check(task.env.spec, cfg, data)
        key = digest(static_fields(cfg))
        group = out.setdefault(key, Group(name, system, task, quality, data, manifest, [], [], []))
        for seed in seeds:
            group.cfgs.append(cfg)
            group.seeds.append(seed)
            group.swept.append(swept)
    return list(out.values())


def config_digest(cfg: Any) -> str:
    """Names a config, traced and static fields alike."""
    return digest(static_fields(cfg), traced_fields(cfg))

"""What a command asks for, resolved: tasks, data, presets and overrides -> groups of runs that share one program."""

import dataclasses
import difflib
import functools
import itertools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from jaxomarl.algorithms import REGISTRY, coda
from jaxomarl.api.arrays import Fitted
from jaxomarl.api.seeds import parse_seeds
from jaxomarl.base import Dataset, JaxomarlError, System, Task, check_count, nearest, refuse
from jaxomarl.config import digest, flag, scaled_fields, static_fields, traced_fields
from jaxomarl.data.catalog import MOST_ROWS, load
from jaxomarl.envs.catalog import make
from jaxomarl.presets import find
from jaxomarl.training.final import MOST, default_episodes

Overrides = Mapping[str, Sequence[Any]]  # config field -> one value, or several to sweep
PLAIN: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str)}
"""Types of a config field by their names: a flag gives them and JSON keeps them."""
EVALUATIONS = 10
"""Evaluations that a run has in training, after its first update, at least."""


@dataclasses.dataclass
class Group:
    """R runs of one system on one data set, alike but for seed and traced fields."""

    name: str  # of the system
    system: System
    task: Task
    quality: str
    data: Dataset | None  # None for online systems
    manifest: dict[str, Any]
    cfgs: list[Any]
    seeds: list[int]
    swept: list[dict[str, Any]]
    scale: float = 1.0  # of the preset's steps and widths
    asked_final: int = 0  # episodes of the final evaluation; 0: as many as is usual

    @property
    def final_episodes(self) -> int:
        """Episodes of each run's final evaluation: those asked for, or the task's number, or fewer of a dear stage."""
        last = self.system.pipeline(self.task.env.spec, self.cfgs[0], None)[-1]
        return self.asked_final or default_episodes(self.task.final_episodes, last.episodes)

    @property
    def digest(self) -> str:
        """What names the group's folder: everything but seeds and traced values."""
        return digest(
            self.name, self.task.name, self.manifest["sha256"], static_fields(self.cfgs[0])
        )


def find_system(name: str) -> System:
    """A registry row, or "<row>+<augmentation>"; JaxomarlError names the nearest."""
    base, _, kind = name.partition("+")
    if base not in REGISTRY:
        raise refuse("system", f"one of {', '.join(REGISTRY)}", base, nearest(base, REGISTRY))
    return _augmentation(base, kind, REGISTRY[base]) if "+" in name else REGISTRY[base]


@functools.cache  # one Config for one name: programs and groups are told apart by it
def _augmentation(base: str, kind: str, system: System) -> System:
    if kind not in coda.AUGMENTATIONS:
        way = nearest(kind, coda.AUGMENTATIONS)
        raise refuse("--augment", f"one of {', '.join(coda.AUGMENTATIONS)}", kind, way)
    if system.online:
        raise refuse(
            "--augment", "a system that learns from data", base, "It makes its own experience."
        )
    return coda.augmentation(system, base, kind)


def named(system: str, augment: str) -> str:
    """A system's name with what `--augment` adds to it."""
    if augment and "+" in system:
        raise refuse(
            "--augment",
            "one augmentation of each system",
            f"{system} and {augment}",
            "Name it once.",
        )
    return f"{system}+{augment}" if augment else system


def config_fields(without: str = "") -> dict[str, type]:
    """Every field of every registered system's Config but one's, and of an augmentation's, with its type."""
    found: dict[str, type] = {}
    kinds = [system.Config for name, system in REGISTRY.items() if name != without]
    for kind in (coda.Settings, *kinds):
        found.update(field_types(kind))
    return found


def field_types(kind: type) -> dict[str, type]:
    """Every field of a Config with its type, also where its module has annotations as text."""
    fields = dataclasses.fields(kind)
    return {field.name: PLAIN.get(str(field.type), field.type) for field in fields}  # type: ignore[misc]


def fields(name: str) -> list[str]:
    """A system's config fields."""
    return [f.name for f in dataclasses.fields(find_system(name).Config)]


def no_field(field: str, owners: Mapping[str, Sequence[str]]) -> JaxomarlError:
    """The refusal of a field that none of these systems has."""
    known = sorted({f for own in owners.values() for f in own})
    near = difflib.get_close_matches(field, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    having = [name for name in REGISTRY if field in fields(name)]
    way = f"{hint}No system has it; `jaxomarl show {next(iter(owners))}` lists the fields."
    if having:
        way = (
            f"{hint}It is a field of {', '.join(having)}: name one with --systems, or leave it out."
        )
    return refuse(flag(field), f"a field of {' or '.join(owners)}", field, way)


def configs(
    name: str, given: Mapping[str, Any], overrides: Overrides, scale: float = 1.0
) -> list[tuple[Any, dict[str, Any]]]:
    """Every config that the overrides span for a system, which has all of their fields, each with its swept values.

    The preset's values (`given`), scaled, then overrides. Raises JaxomarlError for a value of another type.
    """
    system = find_system(name)
    for field in overrides:
        check_types(field, overrides[field], getattr(system.Config(), field))
    base = system.Config(**{f: v for f, v in given.items() if f in fields(name)})
    many = {f: v for f, v in overrides.items() if len(v) > 1}
    out = []
    for values in itertools.product(*overrides.values()):
        chosen = dict(zip(overrides, values, strict=True))
        cfg = scaled(dataclasses.replace(base, **chosen), scale, tuple(chosen))
        out.append((cfg, {f: chosen[f] for f in many}))
    return out


def check_types(field: str, values: Sequence[Any], default: Any) -> None:
    """Raise JaxomarlError where a value has not the type of the field's default (a whole number may be a float)."""
    kinds = (int, float) if type(default) is float else (type(default),)
    for value in values:
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            raise refuse(
                flag(field),
                f"a value like {default!r}",
                value,
                f"It is of type {type(default).__name__}.",
            )


def scaled(cfg: Any, scale: float, given: Sequence[str] = ()) -> Any:
    """The config at a scale, with at least EVALUATIONS evaluations in training; `given` fields stay as they are.

    Every field of steps is multiplied by `scale`, every width by its cube root, in eights (`static(scaled=...)`). Where
    the policy's steps hold fewer than EVALUATIONS chunks, the chunk shrinks to a tenth of them (below ten steps: to
    one), or to less where it has to divide steps that are given. Where they hold fewer evaluations, `every` shrinks.
    Then steps are rounded to whole chunks. A config that has enough of both at scale 1 is returned as it is.
    Where there is no `policy_steps`, the fewest of its steps count; a config without steps keeps its chunk.
    SfBC's policy is evaluated after each of its rounds, whatever these are.
    Raises JaxomarlError where the scale is not positive, or beyond reason.
    """
    if not 0.0 < scale <= 1e4:
        raise refuse("--scale", "a positive factor", scale, "1 is the preset's own length.")
    values = static_fields(cfg)
    chunk, every = values.get("chunk", 1), values.get("every", 1)
    together = values.get("augment_refresh", 1)  # chunks between refreshes of synthetic rows
    if min(chunk, together, every) < 1:
        return cfg  # which its system refuses

    steps = scaled_fields(cfg, "steps")
    free = {name: value * scale for name, value in steps.items() if name not in given}
    changed: dict[str, Any] = {}
    if scale != 1.0:
        widths = [
            name
            for name, value in scaled_fields(cfg, "width").items()
            if value and name not in given
        ]
        changed |= {name: _whole(values[name] * scale ** (1 / 3), 8) for name in widths}

    # --- the chunk ---
    acting = ["policy_steps"] if "policy_steps" in steps else [*steps]
    if values.get("sampler") == "consistency" and "student_steps" in steps:
        acting.append("student_steps")  # the policy is the student
    if not acting:
        return dataclasses.replace(cfg, **changed)  # its lengths have names of their own
    length = min({**steps, **free}[name] for name in acting)
    shrinks = "chunk" in values and "chunk" not in given
    if shrinks and round(length / (chunk * together)) < EVALUATIONS:
        fixed = [steps[name] for name in steps if name in given and steps[name] > 0]
        chunk = changed["chunk"] = _chunk(max(1, int(length) // (EVALUATIONS * together)), fixed)

    # --- steps, in whole chunks ---
    if scale != 1.0 or "chunk" in changed:
        changed |= {name: _whole(value, chunk) for name, value in free.items()}
        if "policy_steps" in free:
            changed["policy_steps"] = _whole(free["policy_steps"], chunk * together)

    # --- how often they are evaluated ---
    length = min({**steps, **changed}[name] for name in acting)
    most = max(1, length // (chunk * together) // EVALUATIONS) * together
    if "every" in values and "every" not in given and every > most:
        changed["every"] = most
    return dataclasses.replace(cfg, **changed) if changed else cfg


def _whole(value: float, unit: int) -> int:
    """The nearest positive multiple of a unit."""
    return max(1, round(value / unit)) * unit


def _chunk(most: int, fixed: Sequence[int]) -> int:
    """The largest chunk of at most so many updates that divides all of these steps, or holds them."""
    sizes = range(most, 0, -1)
    return next(size for size in sizes if all(steps % min(size, steps) == 0 for steps in fixed))


def groups(
    name: str,
    task: Task,
    quality: str,
    data: Dataset | None,
    manifest: dict,
    cfgs: list[tuple[Any, dict]],
    seeds: list[int],
    scale: float = 1.0,
    final_episodes: int = 0,
) -> list[Group]:
    """Sort configs x seeds into groups of one program each; each config is checked against task and data."""
    system, out = find_system(name), {}
    for cfg, swept in cfgs:
        system.check(task.env.spec, cfg, data)
        key = digest(static_fields(cfg))
        group = out.setdefault(
            key,
            Group(name, system, task, quality, data, manifest, [], [], [], scale, final_episodes),
        )
        for seed in seeds:
            group.cfgs.append(cfg)
            group.seeds.append(seed)
            group.swept.append(swept)
    return list(out.values())


def config_digest(cfg: Any) -> str:
    """Names a config, traced and static fields alike."""
    return digest(static_fields(cfg), traced_fields(cfg))


# --- names to groups ---

ONLINE = (None, {"quality": "online", "sha256": ""})
"""What an online system has in place of data and manifest."""


def resolve(
    systems: Sequence[str],
    tasks: Sequence[str],
    data: Sequence[str | Fitted] = (),
    seeds: str | int | Sequence[int] = 16,
    preset: str = "",
    overrides: Overrides | None = None,
    rows: int = 0,
    episodes: int = 0,
    scale: float = 1.0,
    augment: str = "",
    final_episodes: int = 0,
) -> list[Group]:
    """Names to groups of runs, everything checked; raises JaxomarlError before any training.

    `augment` is coda, synther or eaq, for all systems; a name such as "bc+coda" asks for it for one.
    """
    given = overrides or {}
    systems = [named(name, augment) for name in systems]
    chosen = parse_seeds(
        str(seeds) if isinstance(seeds, str | int | float) else ",".join(map(str, seeds)) + ","
    )
    check_count("--rows", rows, MOST_ROWS)
    check_count("--episodes", episodes, MOST)
    check_count("--final-episodes", final_episodes, MOST)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        raise refuse("--scale", "a positive factor", scale, "1 is the preset's own length.")
    for field, values in given.items():
        if not values:
            raise refuse(flag(field), "at least one value", "none", "Leave it out for its default.")
    check_once(
        {
            "--systems": systems,
            "--tasks": tasks,
            "--data": data,
            **{flag(k): v for k, v in given.items()},
        }
    )
    owners = {name: fields(name) for name in systems}
    for field in given:
        if owners and not any(field in own for own in owners.values()):
            raise no_field(field, owners)
    out: list[Group] = []
    for task_name in tasks:
        task: Task = make(task_name)
        task = task._replace(episodes=episodes or task.episodes)
        settings = find(preset, task.name)
        for quality in data or ("",):
            offline = any(not find_system(name).online for name in systems)
            loaded = (
                _loaded(task, quality or settings.data.get(task.name, ""), rows)
                if offline
                else ONLINE
            )
            for name in systems:
                dataset, manifest = ONLINE if find_system(name).online else loaded
                base = name.partition("+")[0]
                mine = find(preset, task.name, base)
                stated_cfg = mine.at(task.name, manifest["quality"]) if base in mine.systems else {}
                own = {k: v for k, v in given.items() if k in owners[name]}
                cfgs = configs(name, stated_cfg, own, scale)
                facts = name, task, manifest["quality"], dataset, manifest
                out += groups(*facts, cfgs, chosen, scale, final_episodes)
    return out


def _loaded(task: Task, given: str | Fitted, rows: int) -> tuple[Dataset, dict[str, Any]]:
    """The rows of a quality, of a path, or of a set that is in memory."""
    if not isinstance(given, Fitted):
        return load(task, given, rows)
    if rows:
        raise refuse(
            "--rows", "nothing beside a set of arrays", rows, "Its rows are what they are."
        )
    return given.of_task(task)


def check_once(given: Mapping[str, Sequence[Any]]) -> None:
    """Raise JaxomarlError where a flag has a value twice."""
    for name, values in given.items():
        twice = [v for k, v in enumerate(values) if v in list(values)[:k]]
        if twice:
            raise refuse(name, "each value once", twice[0], "Name it once.")

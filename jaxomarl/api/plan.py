"""Resolve what a command asks for: tasks, data, presets and overrides become groups of runs.

The runs of a group share one program.
"""

import dataclasses
import difflib
import functools
import itertools
import numbers
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jaxomarl import documents
from jaxomarl.algorithms import REGISTRY, coda
from jaxomarl.api.arrays import Fitted
from jaxomarl.api.generated import load
from jaxomarl.api.seeds import parse_seeds
from jaxomarl.base import Dataset, JaxomarlError, System, Task, check_count, nearest, refuse
from jaxomarl.config import digest, flag, scaled_fields, static_fields, traced_fields
from jaxomarl.data.catalog import MOST_ROWS
from jaxomarl.data.held_out import HeldOut, hold_out
from jaxomarl.envs.catalog import make
from jaxomarl.presets import DEFAULTS, check_fits, find
from jaxomarl.presets.preset import Preset
from jaxomarl.training.final import MOST, default_episodes

Overrides = Mapping[str, Sequence[Any]]
"""Config field -> one value, or several values to sweep."""
PLAIN: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str)}
"""Types of a config field by their names: a flag gives them and JSON keeps them."""
EVALUATIONS = 10
"""The least number of evaluations of a run in training, after its first update."""


@dataclasses.dataclass
class Group:
    """R runs of one system on one data set that differ only in seed and traced fields."""

    name: str
    """Name of the system."""
    system: System
    task: Task
    quality: str
    data: Dataset | None
    """None for online systems."""
    manifest: dict[str, Any]
    cfgs: list[Any]
    seeds: list[int]
    swept: list[dict[str, Any]]
    scale: float = 1.0
    """Factor on the preset's steps and widths."""
    asked_final: int = 0
    """Number of episodes of the final evaluation; 0 is the usual number."""
    preset: str = ""
    """The preset that gave the settings, or "defaults"."""

    @cached_property
    def held_out(self) -> HeldOut:
        """The episodes of the data that training does not draw."""
        return hold_out(self.data)

    @property
    def final_episodes(self) -> int:
        """Number of episodes of each run's final evaluation.

        It is the number that was asked for, or the task's, or fewer where the last stage is slow
        to act.
        """
        last = self.system.pipeline(self.task.env.spec, self.cfgs[0], None)[-1]
        return self.asked_final or default_episodes(self.task.final_episodes, last.episodes)

    def part(self, numbers: Sequence[int]) -> "Group":
        """The group of the runs with these numbers."""
        return dataclasses.replace(
            self,
            cfgs=[self.cfgs[r] for r in numbers],
            seeds=[self.seeds[r] for r in numbers],
            swept=[self.swept[r] for r in numbers],
        )

    @property
    def digest(self) -> str:
        """Names the group's folder, by everything but seeds and traced values."""
        data_hash = self.manifest["sha256"]
        return digest(self.name, self.task.name, data_hash, static_fields(self.cfgs[0]))


# --- systems and their fields ---


def find_system(name: str) -> System:
    """A registry row, or "<row>+<augmentation>"; JaxomarlError names the nearest."""
    base, plus, kind = name.partition("+")
    if base not in REGISTRY:
        raise refuse("system", f"one of {', '.join(REGISTRY)}", base, nearest(base, REGISTRY))
    if plus:
        return _augmentation(base, kind, REGISTRY[base])
    return REGISTRY[base]


# cached, as programs and groups are told apart by the Config: a name has one
@functools.cache
def _augmentation(base: str, kind: str, system: System) -> System:
    if kind not in coda.AUGMENTATIONS:
        way = nearest(kind, coda.AUGMENTATIONS)
        raise refuse("--augment", f"one of {', '.join(coda.AUGMENTATIONS)}", kind, way)
    if system.online:
        way = "It makes its own experience."
        raise refuse("--augment", "a system that learns from data", base, way)
    return coda.augmentation(system, base, kind)


def named(system: str, augment: str) -> str:
    """A system's name with what `--augment` adds to it."""
    if not augment:
        return system
    if "+" in system:
        found = f"{system} and {augment}"
        raise refuse("--augment", "one augmentation of each system", found, "Name it once.")
    return f"{system}+{augment}"


def config_fields(without: str = "") -> dict[str, type]:
    """Every Config field and its type, of all registered systems and of an augmentation.

    The fields of the system called `without` are left out.
    """
    found: dict[str, type] = {}
    kinds = [system.Config for name, system in REGISTRY.items() if name != without]
    for kind in (coda.Settings, *kinds):
        found.update(field_types(kind))
    return found


def field_types(kind: type) -> dict[str, type]:
    """Every field of a Config with its type, also where its module has annotations as text."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    found = {name: PLAIN.get(str(declared), declared) for name, declared in types.items()}
    return found  # type: ignore[return-value]


def config_field_names(name: str) -> list[str]:
    """A system's config fields."""
    return [field.name for field in dataclasses.fields(find_system(name).Config)]


ARGUMENTS = {"seed": "seeds", "episode": "episodes", "final_episode": "final-episodes"}
"""Names that are no field -> the flag that a person means."""


def no_field(field: str, owners: Mapping[str, Sequence[str]]) -> JaxomarlError:
    """The refusal of a field that none of these systems has."""
    known = sorted({name for own in owners.values() for name in own})
    near = difflib.get_close_matches(field, known, n=3, cutoff=0.5)
    hint = ""
    if near:
        hint = f"Did you mean {' or '.join(near)}? "

    argument = ARGUMENTS.get(field)
    if argument:
        hint = f"Did you mean --{argument}? "

    having = [name for name in REGISTRY if field in config_field_names(name)]
    if having:
        owned = f"It is a field of {', '.join(having)}"
        way = f"{hint}{owned}: name one with --systems, or leave it out."
    else:
        first = next(iter(owners))
        way = f"{hint}No system has it; `jaxomarl show {first}` lists the fields."
    return refuse(flag(field), f"a field of {' or '.join(owners)}", field, way)


# --- configs ---


def configs(
    name: str, given: Mapping[str, Any], overrides: Overrides, scale: float = 1.0
) -> list[tuple[Any, dict[str, Any]]]:
    """Every config that the overrides span for a system, each with its swept values.

    A config has the preset's values (`given`) at the scale, then the overrides; the system has all
    fields of the overrides. Raises JaxomarlError for a value of another type.
    """
    system = find_system(name)
    own = config_field_names(name)
    for field, values in overrides.items():
        check_types(field, values, getattr(system.Config(), field))

    base = system.Config(**{field: value for field, value in given.items() if field in own})
    swept = [field for field, values in overrides.items() if len(values) > 1]
    out = []
    for values in itertools.product(*overrides.values()):
        chosen = dict(zip(overrides, values, strict=True))
        cfg = scaled(dataclasses.replace(base, **chosen), scale, tuple(chosen))
        out.append((cfg, {field: chosen[field] for field in swept}))
    return out


def read_config(system: System, stated: Mapping[str, Any], where: str) -> Any:
    """The config that a run.json states; a field that it lacks has its default.

    Raises JaxomarlError, which names the file by `where`, for an unknown field and for a value of
    another type.
    """
    way = "Use the version that wrote it, or train again."
    default = system.Config()
    own = {field.name: type(getattr(default, field.name)) for field in dataclasses.fields(default)}
    unknown = sorted(set(stated) - set(own))
    if unknown:
        raise refuse(where, "settings that its system has", ", ".join(unknown), way)
    documents.check_known(where, stated, way, **own)
    return system.Config(**stated)


def check_types(field: str, values: Sequence[Any], default: object) -> None:
    """Raise JaxomarlError where a value has not the type of the field's default.

    A whole number may stand for a float.
    """
    kind = type(default)
    kinds = {kind}
    if kind is float:
        kinds.add(int)
    for value in values:
        if not isinstance(value, tuple(kinds)) or isinstance(value, bool) != (kind is bool):
            way = f"It is of type {kind.__name__}."
            raise refuse(flag(field), f"a value like {default!r}", value, way)


def scaled(cfg: Any, scale: float, given: Sequence[str] = ()) -> Any:
    """The config at a scale, with at least EVALUATIONS evaluations in training.

    - Fields in `given` stay as they are.
    - Every field of steps is multiplied by `scale`. Every width is multiplied by its cube root and
      rounded to eights (`static(scaled=...)`).
    - Where the policy's steps hold fewer than EVALUATIONS chunks, the chunk shrinks to a tenth of
      them, and to one below ten steps. It shrinks further where it has to divide given steps.
    - Where the policy's steps hold fewer evaluations, `every` shrinks.
    - Then steps are rounded to whole chunks.

    A config that has enough of both at scale 1 is returned as it is. Without `policy_steps`, the
    fewest of the config's steps count; a config without steps keeps its chunk. SfBC's policy is
    evaluated after each of its rounds, however many there are.
    Raises JaxomarlError where the scale is not positive, or larger than 10,000.
    """
    if not 0.0 < scale <= 1e4:
        raise refuse("--scale", "a positive factor", scale, "1 is the preset's own length.")
    values = static_fields(cfg)
    chunk = values.get("chunk", 1)
    every = values.get("every", 1)
    # chunks between refreshes of synthetic rows
    together = values.get("augment_refresh", 1)
    if min(chunk, together, every) < 1:
        # the system refuses it
        return cfg

    steps = scaled_fields(cfg, "steps")
    free = {name: value * scale for name, value in steps.items() if name not in given}
    changed: dict[str, Any] = {}
    if scale != 1.0:
        changed |= _scaled_widths(cfg, scale, given)

    # --- the chunk ---
    acting = _steps_of_the_policy(values, steps)
    if not acting:
        # the fields of its lengths have other names
        return dataclasses.replace(cfg, **changed)
    length = min({**steps, **free}[name] for name in acting)
    shrinks = "chunk" in values and "chunk" not in given
    if shrinks and round(length / (chunk * together)) < EVALUATIONS:
        fixed = [steps[name] for name in steps if name in given and steps[name] > 0]
        most = max(1, int(length) // (EVALUATIONS * together))
        chunk = _chunk(most, fixed)
        changed["chunk"] = chunk

    # --- steps, in whole chunks ---
    if scale != 1.0 or "chunk" in changed:
        changed |= {name: _whole(value, chunk) for name, value in free.items()}
        if "policy_steps" in free:
            changed["policy_steps"] = _whole(free["policy_steps"], chunk * together)

    # --- how often the policy is evaluated ---
    length = min({**steps, **changed}[name] for name in acting)
    most = max(1, length // (chunk * together) // EVALUATIONS) * together
    if "every" in values and "every" not in given and every > most:
        changed["every"] = most
    if not changed:
        return cfg
    return dataclasses.replace(cfg, **changed)


def _scaled_widths(cfg: Any, scale: float, given: Sequence[str]) -> dict[str, int]:
    """Widths at a scale, in eights; a width of zero, and one that is given, is left out."""
    factor = scale ** (1 / 3)
    widths = scaled_fields(cfg, "width")
    free = {name: value for name, value in widths.items() if value and name not in given}
    return {name: _whole(value * factor, 8) for name, value in free.items()}


def _steps_of_the_policy(values: Mapping[str, Any], steps: Mapping[str, int]) -> list[str]:
    """Names of the fields of steps that train the policy."""
    acting = [*steps]
    if "policy_steps" in steps:
        acting = ["policy_steps"]
    if values.get("sampler") == "consistency" and "student_steps" in steps:
        # the policy is the student
        acting.append("student_steps")
    return acting


def _whole(value: float, unit: int) -> int:
    """The nearest positive multiple of a unit."""
    return max(1, round(value / unit)) * unit


def _chunk(most: int, fixed: Sequence[int]) -> int:
    """The largest chunk, of `most` updates or fewer, that divides these steps or holds them."""
    sizes = range(most, 0, -1)
    return next(size for size in sizes if all(steps % min(size, steps) == 0 for steps in fixed))


# --- groups ---


def groups(
    name: str,
    task: Task,
    quality: str,
    data: Dataset | None,
    manifest: dict[str, Any],
    cfgs: list[tuple[Any, dict[str, Any]]],
    seeds: list[int],
    scale: float = 1.0,
    final_episodes: int = 0,
    preset: str = "",
) -> list[Group]:
    """Sort configs x seeds into groups of one program each.

    Each config is checked against task and data.
    """
    system = find_system(name)
    found: dict[str, Group] = {}
    for cfg, swept in cfgs:
        system.check(task.env.spec, cfg, data)
        key = digest(static_fields(cfg))
        empty = Group(
            name, system, task, quality, data, manifest, [], [], [], scale, final_episodes, preset
        )
        group = found.setdefault(key, empty)
        for seed in seeds:
            group.cfgs.append(cfg)
            group.seeds.append(seed)
            group.swept.append(swept)
    return list(found.values())


def config_digest(cfg: Any) -> str:
    """Names a config, by its traced and static fields alike."""
    return digest(static_fields(cfg), traced_fields(cfg))


# --- names to groups ---

ONLINE = (None, {"quality": "online", "sha256": ""})
"""Data and manifest of an online system, which has no data."""


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

    `augment` is coda, synther or eaq, for all systems; a name such as "bc+coda" asks for it for one
    system.
    """
    given = overrides or {}
    systems = [named(name, augment) for name in systems]
    chosen = _parsed(seeds)
    check_count("--rows", rows, MOST_ROWS)
    check_count("--episodes", episodes, MOST)
    check_count("--final-episodes", final_episodes, MOST)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        raise refuse("--scale", "a positive factor", scale, "1 is the preset's own length.")
    _check_overrides(given)
    flags = {flag(field): values for field, values in given.items()}
    check_once({"--systems": systems, "--tasks": tasks, "--data": data, **flags})
    owners = {name: config_field_names(name) for name in systems}
    _check_owned(given, owners)

    tasks = [make(name).name for name in tasks]
    check_fits(preset, tasks, [name.partition("+")[0] for name in systems])

    offline = any(not find_system(name).online for name in systems)
    out: list[Group] = []
    for task_name in tasks:
        task: Task = make(task_name)
        task = task._replace(episodes=episodes or task.episodes)
        usual = find(preset, task.name).of(task.name).data.get(task.name, "")
        for quality in data or ("",):
            loaded = ONLINE
            if offline:
                loaded = _loaded(task, quality or usual, rows)
            for name in systems:
                online = find_system(name).online
                dataset, manifest = ONLINE if online else loaded
                own = {field: v for field, v in given.items() if field in owners[name]}
                taken = _preset_of(preset, name, task.name)
                stated = taken.at(task.name, manifest["quality"], name.partition("+")[0])
                cfgs = configs(name, stated, own, scale)
                facts = (name, task, manifest["quality"], dataset, manifest)
                out += groups(*facts, cfgs, chosen, scale, final_episodes, taken.name)
    return out


def _parsed(seeds: str | int | Sequence[int]) -> list[int]:
    """The seeds of a count, a text or a list."""
    if isinstance(seeds, str | int | float):
        return parse_seeds(str(seeds))
    return parse_seeds(",".join(map(str, seeds)) + ",")


def _preset_of(preset: str, system: str, task: str) -> Preset:
    """The preset that states a system's settings, its augmentation apart; else the defaults."""
    base = system.partition("+")[0]
    found = find(preset, task, base)
    return found if base in found.systems else DEFAULTS


def _loaded(task: Task, given: str | Fitted, rows: int) -> tuple[Dataset, dict[str, Any]]:
    """The rows of a quality, of a path, or of a set that is in memory."""
    if not isinstance(given, Fitted):
        return load(task, given, rows)
    if rows:
        way = "Its rows are what they are."
        raise refuse("--rows", "nothing with a set of arrays", rows, way)
    return given.of_task(task)


def _check_overrides(given: Overrides) -> None:
    """Raise JaxomarlError where a field has no value."""
    for field, values in given.items():
        if not values:
            raise refuse(flag(field), "at least one value", "none", "Leave it out for its default.")


def _check_owned(given: Overrides, owners: Mapping[str, Sequence[str]]) -> None:
    """Raise JaxomarlError where no system has a field."""
    for field in given:
        if owners and not any(field in own for own in owners.values()):
            raise no_field(field, owners)


def check_once(given: Mapping[str, Sequence[Any]]) -> None:
    """Raise JaxomarlError where a flag has a value twice."""
    for name, values in given.items():
        twice = [value for k, value in enumerate(values) if value in list(values)[:k]]
        if twice:
            raise refuse(name, "each value once", twice[0], "Name it once.")

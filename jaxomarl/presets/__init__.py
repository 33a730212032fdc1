"""The papers' settings and ours, by name: `--preset NAME`."""

import fnmatch
import itertools
from collections.abc import Sequence

from jaxomarl.base import nearest, refuse
from jaxomarl.presets.choices import CHOICES
from jaxomarl.presets.games import GAMES
from jaxomarl.presets.longer import LONGER
from jaxomarl.presets.mujoco import MUJOCO
from jaxomarl.presets.particle import PARTICLE
from jaxomarl.presets.preset import Preset
from jaxomarl.presets.released import RELEASED
from jaxomarl.presets.small import SMALL

ALL = (*CHOICES, *GAMES, *PARTICLE, *MUJOCO, *LONGER, *SMALL, *RELEASED)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in ALL}
DEFAULTS = Preset("defaults", (), (), {}, about="each system's own defaults")


def find(name: str, task: str, system: str = "") -> Preset:
    """The preset called `name`; for "", the first one for the task and the system, or DEFAULTS.

    Raises JaxomarlError for an unknown name.
    """
    if name and name not in PRESETS:
        raise refuse("--preset", f"one of {', '.join(PRESETS)}", name, nearest(name, PRESETS))
    if name:
        return PRESETS[name]
    for preset in PRESETS.values():
        if fits(preset, task, system):
            return preset
    return DEFAULTS


def fits(preset: Preset, task: str, system: str) -> bool:
    """Whether a preset is for a task and, where one is named, for a system."""
    plain_name = task.partition(":")[0]
    part = preset.of(task)
    for_task = any(fnmatch.fnmatch(plain_name, pattern) for pattern in part.tasks)
    return for_task and (not system or system in part.systems)


def check_fits(name: str, tasks: Sequence[str], systems: Sequence[str]) -> None:
    """Raise JaxomarlError where a named preset is for none of the systems on any of the tasks."""
    if not name:
        return
    pairs = list(itertools.product(tasks, systems))
    named = find(name, "")
    if any(fits(named, task, system) for task, system in pairs):
        return
    others = [p.name for p in PRESETS.values() if any(fits(p, *pair) for pair in pairs)]
    way = "Leave it out for each system's own defaults."
    if others:
        way = f"Take {' or '.join(others)}, or leave it out."
    expected = f"one for {', '.join(systems)} on {', '.join(tasks)}"
    parts = (named, *named.families.values())
    found = f"{name}, which is for {', '.join(task for part in parts for task in part.tasks)}"
    if not {*systems} <= {system for part in parts for system in part.systems}:
        found = f"{name}, which is for {', '.join(named.systems)} on {', '.join(named.tasks)}"
    raise refuse("--preset", expected, found, way)

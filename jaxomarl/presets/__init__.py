"""The papers' settings and ours, by name: `--preset NAME`."""

import fnmatch

from jaxomarl.base import nearest, refuse
from jaxomarl.presets.games import GAMES
from jaxomarl.presets.mujoco import MUJOCO
from jaxomarl.presets.particle import PARTICLE
from jaxomarl.presets.preset import Preset
from jaxomarl.presets.small import SMALL

PRESETS: dict[str, Preset] = {p.name: p for p in (*GAMES, *PARTICLE, *MUJOCO, *SMALL)}
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
    for_task = any(fnmatch.fnmatch(plain_name, pattern) for pattern in preset.tasks)
    return for_task and (not system or system in preset.systems)

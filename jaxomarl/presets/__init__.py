"""The papers' settings and ours, by name: `--preset NAME`."""

import fnmatch

from jaxomarl.base import nearest, refuse
from jaxomarl.presets.games import GAMES
from jaxomarl.presets.mujoco import MUJOCO
from jaxomarl.presets.particle import PARTICLE
from jaxomarl.presets.preset import Preset

PRESETS: dict[str, Preset] = {p.name: p for p in (*GAMES, *PARTICLE, *MUJOCO)}


def find(name: str, task: str, system: str = "") -> Preset:
    """The preset called `name`; "" is the first one made for the task and system, or the systems' own defaults.

    Raises JaxomarlError for an unknown name.
    """
    if name and name not in PRESETS:
        raise refuse("--preset", f"one of {', '.join(PRESETS)}", name, nearest(name, PRESETS))
    if name:
        return PRESETS[name]
    fitting = [
        p
        for p in PRESETS.values()
        if any(fnmatch.fnmatch(task.partition(":")[0], t) for t in p.tasks)
    ]
    fitting = [p for p in fitting if not system or system in p.systems]
    return (
        fitting[0]
        if fitting
        else Preset("defaults", (), (), {}, about="each system's own defaults")
    )

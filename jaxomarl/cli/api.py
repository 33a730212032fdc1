"""The Python face; the command line is a skin over it."""

import numbers
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxomarl.base import Task, check_count, refuse
from jaxomarl.cli import plan, policy, resumed, session
from jaxomarl.cli.seeds import parse_seeds
from jaxomarl.cli.session import Results
from jaxomarl.cli.spoken import python_face
from jaxomarl.data.catalog import MOST_ROWS
from jaxomarl.data.catalog import load as load_data
from jaxomarl.envs.catalog import make
from jaxomarl.paths import user_path
from jaxomarl.presets import find
from jaxomarl.training.final import MOST

ONLINE = (None, {"quality": "online", "sha256": ""})  # what an online system has in place of data and manifest

__all__ = ["load", "resolve", "train"]


def resolve(
    systems: Sequence[str],
    tasks: Sequence[str],
    data: Sequence[str] = (),
    seeds: str | int | Sequence[int] = 16,
    preset: str = "",
    overrides: plan.Overrides | None = None,
    rows: int = 0,
    episodes: int = 0,
    scale: float = 1.0,
    augment: str = "",
    final_episodes: int = 0,
) -> list[plan.Group]:
    """Names to groups of runs, everything checked; raises JaxomarlError before any training.

    `augment` is coda, synther or eaq, for all systems; a name such as "bc+coda" asks for it for one.
    """
    systems = [plan.named(name, augment) for name in systems]
    chosen = parse_seeds(str(seeds) if isinstance(seeds, str | int | float) else ",".join(map(str, seeds)) + ",")
    counts = {"--rows": (rows, MOST_ROWS), "--episodes": (episodes, MOST), "--final-episodes": (final_episodes, MOST)}
    for flag, (count, most) in counts.items():
        check_count(flag, count, most)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        raise refuse("--scale", "a positive factor", scale, "1 is the preset's own length.")
    for field, values in (overrides or {}).items():
        if not values:
            name = f"--cfg.{field.replace('_', '-')}"
            raise refuse(name, "at least one value", "none", "Leave it out for its default.")
    groups: list[plan.Group] = []
    for flag, values in {
        "systems": systems,
        "tasks": tasks,
        "data": data,
        **{f"cfg.{k}": v for k, v in (overrides or {}).items()},
    }.items():
        twice = [v for k, v in enumerate(values) if v in list(values)[:k]]
        if twice:
            raise refuse(f"--{flag.replace('_', '-')}", "each value once", twice[0], "Name it once.")
    owners = {name: plan.fields(name) for name in systems}
    for field in overrides or {}:
        if owners and not any(field in own for own in owners.values()):
            raise plan.no_field(field, owners)
    for task_name in tasks:
        task: Task = make(task_name)
        task = task._replace(episodes=episodes or task.episodes)
        settings = find(preset, task.name)
        for quality in data or ("",):
            stated = quality or settings.data.get(task.name, "")
            offline = any(not plan.find_system(name).online for name in systems)
            loaded = load_data(task, stated, rows) if offline else ONLINE
            for name in systems:
                dataset, manifest = ONLINE if plan.find_system(name).online else loaded
                base = name.partition("+")[0]
                mine = find(preset, task.name, base)
                given = mine.at(task.name, manifest["quality"]) if base in mine.systems else {}
                mine_too = {k: v for k, v in (overrides or {}).items() if k in owners[name]}
                cfgs = plan.configs(name, given, mine_too, scale)
                named = name, task, manifest["quality"], dataset, manifest
                groups += plan.groups(*named, cfgs, chosen, scale, final_episodes)
    return groups


load = python_face(policy.load)


@python_face
def train(
    system: str,
    task: str,
    data: str = "",
    seeds: str | int | Sequence[int] = 1,
    preset: str = "",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    rows: int = 0,
    episodes: int = 0,
    scale: float = 1.0,
    augment: str = "",
    report: Callable[..., None] = lambda group, progress: None,
    final_episodes: int = 0,
    **cfg: Any,
) -> Results:
    """Train a system on a data set over seeds and return its results; `out` keeps them as the command line does.

    `data` is a quality of the task ("" its default), `seeds` a count, "4:8" or a list; `augment` adds synthetic rows:
    coda, synther or eaq; `final_episodes` is the number of fresh episodes of the final evaluation (0: the task's own),
    whose returns are `Results.returns`; `cfg` sets the system's fields, a list of values sweeps one.
    Raises JaxomarlError for anything that cannot be trained as asked.
    """
    overrides = {k: list(v) if isinstance(v, list | tuple) else [v] for k, v in cfg.items()}
    groups = resolve([system], [task], [data], seeds, preset, overrides, rows, episodes, scale, augment, final_episodes)
    folder = user_path(out) if out is not None else None
    if folder is None and (resume or overwrite):
        raise refuse("out", "the folder that resume or overwrite is about", None, "Name it: out=...")
    with session.locked(folder):
        if folder:
            session.open_folder(
                folder,
                session.asked(find(preset, make(task).name).name, overrides, rows, episodes, scale, final_episodes),
                resume,
                overwrite,
            )
            resumed.tell(groups, folder)
        return session.train_groups(groups, folder, report=report)

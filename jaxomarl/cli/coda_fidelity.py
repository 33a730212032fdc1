"""How faithful a generator of windows is, as a table and a picture: `reproduce coda-fidelity`.

The generator is the first stage of an augmented system: one that OUT or --from holds is not trained again, so that what
a table's systems learnt from can be judged (`--systems maddpg-bc+coda --from runs/coda-table1`). Windows are drawn
without a pull. What is measured is said in `stages.fidelity`.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxomarl.algorithms import coda
from jaxomarl.base import Spec, Stage, System, Task, refuse
from jaxomarl.cli import api, session
from jaxomarl.cli.cells import Asked, folder_name
from jaxomarl.cli.coda_steering import one
from jaxomarl.cli.comparison import markdown
from jaxomarl.cli.dof_models import Asking
from jaxomarl.cli.plan import Group
from jaxomarl.envs.catalog import make
from jaxomarl.health.fidelity import Judge, Judged
from jaxomarl.results.fidelity import fidelity
from jaxomarl.stages.generator import Generator

TASK, SYSTEM = "mpe/spread", "bc+synther"
PICTURE = "fidelity.png"
HEAD = ("", "synthetic", "real (floor)", "nothing moves")


def coda_fidelity(asked: Asked) -> str:
    """The table, by what was swept, and the picture of the first generator; raises JaxomarlError before it trains."""
    task = make(one("--tasks", asked.tasks, TASK))
    groups = generators(asked, task, one("--systems", asked.systems, SYSTEM), one("--data", asked.data, ""))
    past = trained(asked, groups)
    spec, lines = task.env.spec, asked.lines
    judges: dict[str, Judge] = {}
    found: dict[str, list[Judged]] = {}
    for group, generator in zip(groups, past, strict=True):
        assert group.data is not None
        for r, seed in enumerate(group.seeds):
            swept, cfg = " ".join(f"{k}={v}" for k, v in group.swept[r].items()), group.cfgs[r]
            lines.say(f"{task.name} {group.quality} {swept}: windows of seed {seed}")
            if swept not in judges:  # what it compiles serves all seeds
                judges[swept] = Judge(task, group.data, Generator(spec, cfg, coda.horizon_of(spec, cfg)))
            mine = jax.tree.map(lambda x, r=r: x[r], generator)
            found.setdefault(swept, []).append(judges[swept].judged(mine, seed))
    why = next(iter(judges.values())).place.why
    first = next(iter(found.values()))[0]
    asking = Asking(list(asked.seeds), asked.scale, asked.out, lines, asked.stopped)
    asking.draw(fidelity, PICTURE, first.columns, first.pairs, first.steps, first.reward)
    return text(task, groups, found, why)


def generators(asked: Asked, task: Task, name: str, quality: str) -> list[Group]:
    """The groups of an augmented system, each ended after its generator."""
    kind = name.partition("+")[2]
    if kind not in coda.AUGMENTATIONS or coda.AUGMENTATIONS[kind].conditioned:
        way = f"It judges models of the data's windows: {SYSTEM}, or what a table's OUT holds, by --from."
        raise refuse("--systems", "a system with coda or synther", name, way)
    if asked.episodes:
        raise refuse("--episodes", "nothing for coda-fidelity", asked.episodes, "It trains no policy.")
    data = [quality] if quality else []
    groups = api.resolve([name], [task.name], data, asked.seeds, "", asked.overrides, asked.rows, 0, asked.scale)
    for group in groups:
        group.system = first_stage(group.system)
    return groups


def first_stage(system: System) -> System:
    """The system without all that comes after its first stage."""

    def pipeline(spec: Spec, cfg: Any, env: Any = None) -> tuple[Stage, ...]:
        return system.pipeline(spec, cfg, None)[:1]

    return system._replace(pipeline=pipeline)


def trained(asked: Asked, groups: Sequence[Group]) -> list[Any]:
    """The groups' generators, seeds first, kept under OUT as any command keeps its stages."""
    folder = asked.out / folder_name(groups[0].task.name, groups[0].quality)
    sources = [asked.source, asked.source / folder.name] if asked.source else []
    lines = asked.lines
    with session.locked(folder):
        settings = session.asked("", asked.overrides, asked.rows, 0, asked.scale)
        session.open_folder(folder, settings, resume=(folder / "sweep.json").exists(), overwrite=False)
        done = session.train_groups(groups, folder, sources, report=lines, stopped=asked.stopped, say=lines.say)
    return [past["generator"] for _, past in done.past]


def text(task: Task, groups: Sequence[Group], found: dict[str, list[Judged]], why: str) -> str:
    """The tables and what has to be known to read them."""
    first, cfg = groups[0], groups[0].cfgs[0]
    horizon, manifest = coda.horizon_of(task.env.spec, cfg), first.manifest
    steps = sorted({c.generator_steps for g in groups for c in g.cfgs})
    count = len({s for g in groups for s in g.seeds})
    said = [
        f"Windows of {horizon} steps of {task.name}, {first.quality} ({manifest['transitions']} transitions, content "
        f"{manifest['sha256'][:12]}), from generators {cfg.generator_width} wide after "
        f"{' or '.join(map(str, steps))} updates of {cfg.generator_batch} windows; {cfg.augment_levels} levels"
        f"{f'; mean ± std over {count} seeds' if count > 1 else ''}. Distances are Kolmogorov's and Smirnov's; "
        f"correlations are of all columns of a row and the next; errors are in deviations of the data, against the "
        f"environment put where the row says and played on. Real: two disjoint draws of the data, or real rows played "
        f"again.",
    ]
    if why:
        said.append(f"Left out, next states and rewards against the environment: {why}.")
    for swept, all_seeds in found.items():
        lost, count = np.mean([x.dropped for x in all_seeds]), all_seeds[0].windows
        said.append(f"{swept + ': ' if swept else ''}{count} windows, {lost:.1%} dropped as not finite.")
        rows = [
            (name, *(cell([x.numbers[name][k] for x in all_seeds]) for k in range(3))) for name in all_seeds[0].numbers
        ]
        said.append(markdown(HEAD, rows).rstrip())
    return "\n\n".join([*said, f"![]({PICTURE})"]) + "\n"


def cell(values: Sequence[float]) -> str:
    """Mean ± std over seeds, to what is worth reading; nothing where nothing was measured."""
    mean = float(np.mean(values))
    if math.isnan(mean):
        return ""
    return f"{mean:.2g}" + (f" ± {np.std(values, ddof=1):.1g}" if len(values) > 1 else "")

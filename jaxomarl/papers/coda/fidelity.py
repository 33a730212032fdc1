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
from jaxomarl.api import plan
from jaxomarl.api.plan import Group
from jaxomarl.base import Spec, Stage, System, Task, refuse
from jaxomarl.envs.catalog import make
from jaxomarl.health.fidelity import Judge, Judged
from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked, one
from jaxomarl.papers.comparison import markdown
from jaxomarl.paths import folder_name
from jaxomarl.results.fidelity import fidelity
from jaxomarl.stages.generator import Generator

TASK, SYSTEM = "mpe/spread", "bc+synther"
PICTURE = "fidelity.png"
HEAD = ("", "synthetic", "real (floor)", "nothing moves")


def coda_fidelity(asked: Asked) -> str:
    """The table, by what was swept, and the picture of the first generator; raises JaxomarlError before it trains."""
    task = make(one("--tasks", asked.tasks, TASK))
    groups = generators(
        asked, task, one("--systems", asked.systems, SYSTEM), one("--data", asked.data, "")
    )
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
                judges[swept] = Judge(
                    task, group.data, Generator(spec, cfg, coda.horizon_of(spec, cfg))
                )
            mine = jax.tree.map(lambda x, r=r: x[r], generator)
            found.setdefault(swept, []).append(judges[swept].judged(mine, seed))
    why = next(iter(judges.values())).place.why
    first = next(iter(found.values()))[0]
    asked.draw(fidelity, PICTURE, first.columns, first.pairs, first.steps, first.reward)
    return text(task, groups, found, why)


def generators(asked: Asked, task: Task, name: str, quality: str) -> list[Group]:
    """The groups of an augmented system, each ended after its generator."""
    kind = name.partition("+")[2]
    if kind not in coda.AUGMENTATIONS or coda.AUGMENTATIONS[kind].conditioned:
        way = f"It judges models of the data's windows: {SYSTEM}, or what a table's OUT holds, by --from."
        raise refuse("--systems", "a system with coda or synther", name, way)
    asked.check_unused("coda-fidelity", "it trains no policy.", ("episodes", "final_episodes"))
    data = [quality] if quality else []
    groups = plan.resolve(
        [name], [task.name], data, asked.seeds, "", asked.overrides, asked.rows, 0, asked.scale
    )
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
    sources = [asked.source] if asked.source else []
    with cells.opened(asked, folder, ""):
        done = cells.trained(asked, groups, folder, sources)
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
        said.append(
            f"{swept + ': ' if swept else ''}{count} windows, {lost:.1%} dropped as not finite."
        )
        rows = [
            (name, *(cell([x.numbers[name][k] for x in all_seeds]) for k in range(3)))
            for name in all_seeds[0].numbers
        ]
        said.append(markdown(HEAD, rows).rstrip())
    return "\n\n".join([*said, f"![]({PICTURE})"]) + "\n"


def cell(values: Sequence[float]) -> str:
    """Mean ± std over seeds, to what is worth reading; nothing where nothing was measured."""
    mean = float(np.mean(values))
    if math.isnan(mean):
        return ""
    return f"{mean:.2g}" + (f" ± {np.std(values, ddof=1):.1g}" if len(values) > 1 else "")

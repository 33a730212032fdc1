"""`reproduce coda-fidelity`: how faithful a generator of windows is, as a table and a picture.

The generator is the first stage of an augmented system. One that OUT or --from has is not trained
again, so that the generator of a table's systems can be judged (`--systems maddpg-bc+coda --from
runs/coda-table1`). Windows are sampled without guidance. `measure.py` says what is measured.
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
from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked, one_name
from jaxomarl.papers.coda.measure import Fidelity, FidelityMeasure
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.paths import folder_name
from jaxomarl.results.fidelity import fidelity
from jaxomarl.stages.generator import Generator

TASK = "mpe/spread"
SYSTEM = "bc+synther"
PICTURE = "fidelity.png"
HEAD = ("", "synthetic", "real (floor)", "nothing moves")
HOW = (
    "Distances are Kolmogorov's and Smirnov's; correlations are of all columns of a row and the "
    "next; errors are in deviations of the data, against the environment put where the row says "
    "and played on. Real: two disjoint draws of the data, or real rows played again."
)


def coda_fidelity(asked: Asked) -> str:
    """The table, by what was swept, and the picture of the first generator.

    Raises JaxomarlError before anything is trained.
    """
    task = make(one_name("--tasks", asked.tasks, TASK))
    system = one_name("--systems", asked.systems, SYSTEM)
    quality = one_name("--data", asked.data, "")
    groups = generator_groups(asked, task, system, quality)
    generators = train_generators(asked, groups)
    spec = task.env.spec
    judges: dict[str, FidelityMeasure] = {}
    reports: dict[str, list[Fidelity]] = {}
    for group, generator in zip(groups, generators, strict=True):
        assert group.data is not None
        for r, seed in enumerate(group.seeds):
            swept = " ".join(f"{field}={value}" for field, value in group.swept[r].items())
            cfg = group.cfgs[r]
            asked.progress.say(f"{task.name} {group.quality} {swept}: windows of seed {seed}")
            # what a judge compiles serves all seeds
            if swept not in judges:
                model = Generator(spec, cfg, coda.horizon_of(spec, cfg))
                judges[swept] = FidelityMeasure(task, group.data, model)
            own = jax.tree.map(lambda x, r=r: x[r], generator)
            reports.setdefault(swept, []).append(judges[swept].judged(own, seed))
    why_left_out = next(iter(judges.values())).place.why
    first = next(iter(reports.values()))[0]
    asked.draw(fidelity, PICTURE, first.columns, first.pairs, first.steps, first.reward)
    return fidelity_report(task, groups, reports, why_left_out)


def generator_groups(asked: Asked, task: Task, name: str, quality: str) -> list[Group]:
    """The groups of an augmented system, each ended after its generator."""
    kind = name.partition("+")[2]
    if kind not in coda.AUGMENTATIONS or coda.AUGMENTATIONS[kind].conditioned:
        way_out = (
            f"It judges models of the data's windows: {SYSTEM}, or what a table's OUT has, "
            "by --from."
        )
        raise refuse("--systems", "a system with coda or synther", name, way_out)
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


def train_generators(asked: Asked, groups: Sequence[Group]) -> list[Any]:
    """The groups' generators, seeds first, kept under OUT as any command keeps its stages."""
    folder = asked.out / folder_name(groups[0].task.name, groups[0].quality)
    sources = [asked.source] if asked.source else []
    with cells.open_cell_folder(asked, folder, ""):
        results = cells.train_groups(asked, groups, folder, sources)
    return [past["generator"] for _, past in results.past]


def fidelity_report(
    task: Task, groups: Sequence[Group], reports: dict[str, list[Fidelity]], why_left_out: str
) -> str:
    """The tables and what has to be known to read them."""
    parts = [f"{generators_sentence(task, groups)}. {HOW}"]
    if why_left_out:
        parts.append(f"Left out, next states and rewards against the environment: {why_left_out}.")
    for swept, of_seeds in reports.items():
        dropped = np.mean([x.dropped for x in of_seeds])
        sentence = f"{of_seeds[0].windows} windows, {dropped:.1%} dropped as not finite."
        if swept:
            sentence = f"{swept}: {sentence}"
        parts += [sentence, markdown_table(HEAD, number_rows(of_seeds)).rstrip()]
    parts.append(f"![]({PICTURE})")
    return "\n\n".join(parts) + "\n"


def generators_sentence(task: Task, groups: Sequence[Group]) -> str:
    """What the windows are of, and which generators made them."""
    first = groups[0]
    cfg = first.cfgs[0]
    manifest = first.manifest
    horizon = coda.horizon_of(task.env.spec, cfg)
    steps = sorted({c.generator_steps for g in groups for c in g.cfgs})
    seeds = len({seed for g in groups for seed in g.seeds})
    content = f"{manifest['transitions']} transitions, content {manifest['sha256'][:12]}"
    updates = f"{' or '.join(map(str, steps))} updates of {cfg.generator_batch} windows"
    sentence = (
        f"Windows of {horizon} steps of {task.name}, {first.quality} ({content}), from generators "
        f"{cfg.generator_width} wide after {updates}; {cfg.augment_levels} levels"
    )
    if seeds > 1:
        sentence += f"; mean ± std over {seeds} seeds"
    return sentence


def number_rows(of_seeds: Sequence[Fidelity]) -> list[tuple[str, ...]]:
    """A row for each thing measured: synthetic, real, and a model that says nothing moves."""
    rows = []
    for name in of_seeds[0].numbers:
        columns = zip(*(x.numbers[name] for x in of_seeds), strict=True)
        rows.append((name, *map(number_cell, columns)))
    return rows


def number_cell(values: Sequence[float]) -> str:
    """Mean ± std over seeds, to what is worth reading; nothing where nothing was measured."""
    mean = float(np.mean(values))
    if math.isnan(mean):
        return ""
    if len(values) == 1:
        return f"{mean:.2g}"
    return f"{mean:.2g} ± {np.std(values, ddof=1):.1g}"

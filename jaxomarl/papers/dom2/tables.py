"""DOM2's Tables 1 to 4 and 9: policies in standard and in shifted environments.

The policies are trained on standard data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxomarl.api.session import Results
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, comparison, measured, shifted
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.comparison import Published
from jaxomarl.papers.measured import Measure
from jaxomarl.papers.shifted import EvaluationSetting
from jaxomarl.results.tables import Record

SYSTEMS = ("bc", "td3-bc", "cql", "omar", "dom2")
BESIDE = (
    "diffusion-bc",
    "iql",
    "iql-ind",
    "icq",
    "brac",
    "omiga",
    "omac",
    "cfcql",
    "diffusion-ql",
    "edp",
    "sfbc",
    "omsd",
)
"""Systems of Table 4 besides `SYSTEMS`."""
TASKS = ("mpe/tag", "mpe/world", "mpe/spread")
CHEETAH = "mamujoco/2halfcheetah"
QUALITIES = ("random", "random-medium", "medium-replay", "medium", "medium-expert", "expert")
FOUR = ("random", "medium-replay", "medium", "expert")
"""The data of Tables 4 and 9."""
SPEEDS = {
    "mpe/tag": "0.4",
    "mpe/world": "0.5",
    "mpe/spread": "0.3",
}
"""Task -> the least speed v of U[v, 1], appendix A.2.1."""
SHIFTS = ("shift=random", "shift=extreme")

DATA = (
    "Data: ours are made by this package's own behaviours (four MATD3 seeds mixed in medium and in "
    "expert; in the particle tasks, medium-replay is snapshots of one); the paper's are its "
    "authors' own."
)
PREY = (
    "Prey (tag, world): ours is this package's own, the paper's OMAR's; returns under the two are "
    "not comparable. `--tasks mpe/tag:prey=FILE` plays against a copy of that one."
)
SETTINGS = (
    "Settings: eta and thresholds by task and data are the paper's; what it does not print is "
    "OMAR's, and so are the baselines' settings, where the paper ran its own copies of them."
)
SHIFTED = (
    "Shift: policies are those of the standard environment, played as they ended in the shifted "
    "one; not converged is said of their training. A shifted task has no normalised score."
)
MUJOCO = (
    "Robot: ours is Gymnasium's v5 on MuJoCo 3 seen with obsk = 1, the paper's HalfCheetah-v2 on "
    "MuJoCo 2; medium-expert is half of each here, 99.9 % medium there; medium-replay is snapshots "
    "up to medium here, a replay there."
)
COPIED = (
    "MADiff and DoF (copied, de-normalised): the printed rows are those papers' own normalised "
    "scores, mapped back to returns; World's medium and expert of MADiff are interchanged in print."
)
MA_IQL = (
    "MA-IQL: whose critics it has is not printed; its row stands at `iql-ind`, where each agent "
    "has its own."
)
THEIRS = "the paper's 5, which checkpoint is not said."
PRINTED_PARAMETERS = ("speed_min", "hidden", "shift")
"""Parameters of a task that the paper's tables name."""


class Trained(NamedTuple):
    """Cells of a table and their records."""

    cells: list[Cell]
    standard: list[Record]
    """Records in the standard environments."""
    shifted: list[Record]
    """Records in the shifted environments."""
    measures: list[Measure]
    """Each run's return in the shifted environments."""


def published(table: int) -> Published:
    """(task, data, system) -> printed mean and deviation of one of DOM2's tables.

    Table 4 continues Table 1.
    """
    own = comparison.published_scores("dom2_tables", str(table))
    if table != 4:
        return own
    return {**comparison.published_scores("dom2_tables", "1"), **own}


def printed_task(name: str) -> str:
    """A record's task as the paper's tables have it.

    Prey, engine and other choices of ours are left out.
    """
    task, best, of = name.partition(" best of ")
    base, _, parameters = task.partition(":")
    theirs = [p for p in parameters.split(",") if p.partition("=")[0] in PRINTED_PARAMETERS]
    if theirs:
        base += f":{','.join(theirs)}"
    return base + best + of


def qualities(asked: Asked, task: str, wanted: Sequence[str] = QUALITIES) -> list[str]:
    """The data sets of a table: those asked for, or those of the paper's that the task can make."""
    return list(asked.data) or [q for q in wanted if q in make(task).recipes]


def absent(asked: Asked, tasks: Sequence[str], wanted: Sequence[str] = QUALITIES) -> list[str]:
    """A line for each task that lacks some of the paper's data sets."""
    if asked.data:
        return []
    lines = []
    for task in tasks:
        lost = [q for q in wanted if q not in make(task).recipes]
        if lost:
            line = f"No data: {task} has no behaviours for {', '.join(lost)}"
            lines.append(f"{line}; `--data FOLDER` takes your own.")
    return lines


def shifted_settings(results: Results, task: str, shifts: Sequence[str]) -> list[EvaluationSetting]:
    """A task's shifted environments, with the starts of the final evaluation."""
    episodes = shifted.final_episodes(results)
    tasks = [make(shifted.with_parameter(task, shift)) for shift in shifts]
    return [EvaluationSetting(other, episodes) for other in tasks]


def dom2_table(
    asked: Asked,
    trained: Sequence[Cell],
    records: Sequence[Record],
    notes: Sequence[str],
    number: int,
) -> str:
    """Preface and body of one of DOM2's tables."""
    printed = published(number)
    return cells.report(
        asked, trained, records, printed, "std", notes, THEIRS, printed_task, alone=True
    )


def train_cells(
    asked: Asked,
    tasks: Sequence[str],
    wanted: Sequence[str],
    shifts: Mapping[str, Sequence[str]],
    systems: Sequence[str] = SYSTEMS,
) -> Trained:
    """Train a cell at a time, and roll its policies out in the task's `shifts`.

    `shifts` maps tasks without their parameters.
    """
    trained = Trained([], [], [], [])
    for task in tasks:
        for quality in qualities(asked, task, wanted):
            cell, results = cells.train(asked, asked.systems or systems, task, quality)
            own_shifts = shifts.get(cells.base_name(task), ())
            for setting in shifted_settings(results, task, own_shifts):
                trained.shifted.extend(shifted.setting_records(results, setting))
                trained.measures.extend(shifted.setting_measures(results, setting))
            trained.standard.extend(cell.records)
            trained.cells.append(cell)
            # the results hold the data
            del results
    return trained


def table1(asked: Asked) -> str:
    """Table 1: returns in the standard particle tasks."""
    tasks = asked.tasks or TASKS
    trained = train_cells(asked, tasks, QUALITIES, {})
    notes = [DATA, PREY, SETTINGS, *absent(asked, tasks)]
    return dom2_table(asked, trained.cells, trained.standard, notes, 1)


def table2(asked: Asked) -> str:
    """Table 2: returns in the particle tasks with agents of random speeds."""
    tasks = asked.tasks or TASKS
    shifts = {task: (f"speed_min={v}",) for task, v in SPEEDS.items()}
    trained = train_cells(asked, tasks, QUALITIES, shifts)
    measured.add_measures(asked.out, trained.measures)
    notes = [DATA, PREY, SETTINGS, SHIFTED, *absent(asked, tasks)]
    return dom2_table(asked, trained.cells, trained.shifted, notes, 2)


def table3(asked: Asked) -> str:
    """Table 3: half-cheetah, standard and with power, density and friction drawn anew."""
    tasks = asked.tasks or (CHEETAH,)
    trained = train_cells(asked, tasks, QUALITIES, {CHEETAH: SHIFTS})
    records = sorted([*trained.standard, *trained.shifted], key=lambda r: r.task)
    measured.add_measures(asked.out, trained.measures)
    notes = [DATA, MUJOCO, SETTINGS, SHIFTED, *absent(asked, tasks)]
    return dom2_table(asked, trained.cells, records, notes, 3)


def table4(asked: Asked) -> str:
    """Table 4: everything on Predator-Prey; MA-EDP by both of its samplers."""
    tasks = asked.tasks or TASKS[:1]
    systems = asked.systems or (*SYSTEMS, *BESIDE)
    if "edp" in systems and "sampler" not in asked.overrides:
        overrides = {**asked.overrides, "sampler": ["dpm", "ddpm"]}
        asked = dataclasses.replace(asked, overrides=overrides)
    trained = train_cells(asked, tasks, FOUR, {}, systems)
    notes = [DATA, PREY, SETTINGS, MA_IQL, COPIED, *absent(asked, tasks, FOUR)]
    return dom2_table(asked, trained.cells, trained.standard, notes, 4)


def table9(asked: Asked) -> str:
    """Table 9: DOM2 next to MADiff and DoF, whose rows the paper takes from their own papers."""
    tasks = asked.tasks or TASKS
    trained = train_cells(asked, tasks, FOUR, {}, systems=("dom2",))
    notes = [DATA, PREY, SETTINGS, COPIED, *absent(asked, tasks, FOUR)]
    return dom2_table(asked, trained.cells, trained.standard, notes, 9)

"""DOM2's Tables 1 to 4 and 9: policies trained on standard data, played in standard and in shifted environments."""

import dataclasses
from collections.abc import Sequence

from jaxomarl.api.session import Results
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, comparison, shifted
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.comparison import Published
from jaxomarl.results.tables import Record

SYSTEMS = ("bc", "td3-bc", "cql", "omar", "dom2")
BESIDE = (
    "diffusion-bc",
    "iql",
    "iql-ind",
    "icq",
    "brac",
    "omiga",
    "cfcql",
    "diffusion-ql",
    "edp",
    "sfbc",
    "omsd",
)
TASKS = ("mpe/tag", "mpe/world", "mpe/spread")
CHEETAH = "mamujoco/2halfcheetah"
QUALITIES = ("random", "random-medium", "medium-replay", "medium", "medium-expert", "expert")
FOUR = ("random", "medium-replay", "medium", "expert")  # the data of Tables 4 and 9
SPEEDS = {
    "mpe/tag": "0.4",
    "mpe/world": "0.5",
    "mpe/spread": "0.3",
}  # least of U[v, 1], appendix A.2.1
SHIFTS = ("shift=random", "shift=extreme")

DATA = (
    "Data: ours are made by this package's own behaviours (four MATD3 seeds mixed in medium and in expert; in the "
    "particle tasks, medium-replay is snapshots of one); the paper's are its authors' own."
)
PREY = (
    "Prey (tag, world): ours is this package's own, the paper's OMAR's; returns under the two are not comparable. "
    "`--tasks mpe/tag:prey=FILE` plays against a copy of that one."
)
SETTINGS = (
    "Settings: eta and thresholds by task and data are the paper's; what it does not print is OMAR's, and so are the "
    "baselines' settings, where the paper ran its own copies of them."
)
SHIFTED = (
    "Shift: policies are those of the standard environment, played as they ended in the shifted one; not converged is "
    "said of their training. A shifted task has no normalised score."
)
MUJOCO = (
    "Robot: ours is Gymnasium's v5 on MuJoCo 3 seen with obsk = 1, the paper's HalfCheetah-v2 on MuJoCo 2; "
    "medium-expert is half of each here, 99.9 % medium there; medium-replay is snapshots up to medium here, a replay "
    "there."
)
COPIED = (
    "MADiff and DoF (copied, de-normalised): the printed rows are those papers' own normalised scores, mapped back to "
    "returns; World's medium and expert of MADiff are interchanged in print."
)
THEIRS = "the paper's 5, which checkpoint is not said."


def published(table: int) -> Published:
    """(task, data, system) -> printed mean and deviation of one of DOM2's tables; Table 4 goes on from Table 1."""
    before = comparison.scores("dom2_tables", "1") if table == 4 else {}
    return {**before, **comparison.scores("dom2_tables", str(table))}


def printed_task(name: str) -> str:
    """A record's task as the paper's tables have it: without prey, engine and what else is ours to choose."""
    task, best, of = name.partition(" best of ")
    base, _, parameters = task.partition(":")
    theirs = [
        p for p in parameters.split(",") if p.partition("=")[0] in ("speed_min", "hidden", "shift")
    ]
    return base + (":" + ",".join(theirs) if theirs else "") + best + of


def qualities(asked: Asked, task: str, wanted: Sequence[str] = QUALITIES) -> list[str]:
    """The data sets of a table: those asked for, or those of the paper's that the task can make."""
    return list(asked.data) or [q for q in wanted if q in make(task).recipes]


def absent(asked: Asked, tasks: Sequence[str], wanted: Sequence[str] = QUALITIES) -> list[str]:
    """A line for each task that lacks some of the paper's data sets."""
    out = []
    for task in () if asked.data else tasks:
        lost = [q for q in wanted if q not in make(task).recipes]
        if lost:
            out.append(
                f"No data: {task} has no behaviours for {', '.join(lost)}; `--data FOLDER` takes your own."
            )
    return out


def meetings(results: Results, task: str, shifts: Sequence[str]) -> list[Record]:
    """The records of finished policies in a task's shifted environments, from the starts of their final evaluation."""
    episodes, out = shifted.final_episodes(results), []
    for shift in shifts:
        other = make(shifted.beside(task, shift))
        out += shifted.records(results, shifted.Meeting(other, episodes))
    return out


def table(
    asked: Asked, made: Sequence[Cell], records: Sequence[Record], notes: Sequence[str], number: int
) -> str:
    """Preface and body of one of DOM2's tables."""
    return cells.beside(
        asked, made, records, published(number), "std", notes, THEIRS, printed_task, alone=True
    )


def trained(
    asked: Asked,
    tasks: Sequence[str],
    wanted: Sequence[str],
    shifts: dict[str, tuple[str, ...]],
    systems=SYSTEMS,
) -> tuple[list[Cell], list[Record], list[Record]]:
    """(cells, their records, the records in `shifts` of each task without its parameters): a cell at a time."""
    made, standard, moved = [], [], []
    for task in tasks:
        for quality in qualities(asked, task, wanted):
            cell, results = cells.train(asked, asked.systems or systems, task, quality)
            moved += meetings(results, task, shifts.get(task.partition(":")[0], ()))
            standard += cell.records
            made.append(cell)
            del results  # and the data with them
    return made, standard, moved


def particle(asked: Asked, number: int) -> str:
    """Table 1, the standard particle tasks, or Table 2, their shifted speeds."""
    tasks = asked.tasks or TASKS
    shifts = {task: (f"speed_min={v}",) for task, v in SPEEDS.items()} if number == 2 else {}
    made, standard, moved = trained(asked, tasks, QUALITIES, shifts)
    notes = [DATA, PREY, SETTINGS, *([SHIFTED] if number == 2 else []), *absent(asked, tasks)]
    return table(asked, made, moved if number == 2 else standard, notes, number)


def table1(asked: Asked) -> str:
    """Table 1: returns in the standard particle tasks."""
    return particle(asked, 1)


def table2(asked: Asked) -> str:
    """Table 2: returns in the particle tasks with agents of random speeds."""
    return particle(asked, 2)


def table3(asked: Asked) -> str:
    """Table 3: half-cheetah as it is, and with power, density and friction drawn for each episode."""
    tasks = asked.tasks or (CHEETAH,)
    made, standard, moved = trained(asked, tasks, QUALITIES, {CHEETAH: SHIFTS})
    notes = [DATA, MUJOCO, SETTINGS, SHIFTED, *absent(asked, tasks)]
    return table(asked, made, sorted([*standard, *moved], key=lambda r: r.task), notes, 3)


def table4(asked: Asked) -> str:
    """Table 4: everything on Predator-Prey; MA-EDP by both of its samplers."""
    tasks, systems = asked.tasks or TASKS[:1], asked.systems or (*SYSTEMS, *BESIDE)
    if "edp" in systems and "sampler" not in asked.overrides:
        asked = dataclasses.replace(
            asked, overrides={**asked.overrides, "sampler": ["dpm", "ddpm"]}
        )
    made, standard, _ = trained(asked, tasks, FOUR, {}, systems)
    own = "MA-IQL: whose critics it has is not printed; its row stands at `iql-ind`, where each agent has its own."
    return table(
        asked, made, standard, [DATA, PREY, SETTINGS, own, COPIED, *absent(asked, tasks, FOUR)], 4
    )


def table9(asked: Asked) -> str:
    """Table 9: DOM2 beside MADiff and DoF, whose rows the paper takes from their own papers."""
    tasks = asked.tasks or TASKS
    made, standard, _ = trained(asked, tasks, FOUR, {}, systems=("dom2",))
    return table(
        asked, made, standard, [DATA, PREY, SETTINGS, COPIED, *absent(asked, tasks, FOUR)], 9
    )

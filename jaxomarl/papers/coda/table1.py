"""CODA's Table 1: MADDPG+BC on data alone, beside rows of an unconditional model, and beside rows that follow it."""

from collections.abc import Sequence

from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.comparison import Published
from jaxomarl.results.tables import Record

BASE = "maddpg-bc"
SYSTEMS = (BASE, f"{BASE}+synther", f"{BASE}+coda")
CHEETAH = "mamujoco/2halfcheetah"
PRINTED = {CHEETAH: ("replay", "good", "medium", "poor"), "mamujoco/4ant": ("replay",)}
ENOUGH = 0.8  # of the mean return of good data: below it a run is too short to compare methods
DIFFERENCES = (
    "Data: ours are made by this package's own behaviours, of MATD3; the paper's are OG-MARL's files, with other "
    "returns: compare rows with one another and with their data's mean, not with the printed number.",
    "Robot: ours is Gymnasium's v5 on MuJoCo 3 seen with obsk = 1; the paper's is v2 on MuJoCo 2, by OG-MARL's "
    "observations.",
    "Unconditional: `+synther` draws its windows from the very model of `+coda`, without the pull.",
    "Not printed, so ours: the share of synthetic rows, how often they are drawn, the schedule of the pull, the "
    "generator's batch (256 windows here, 100,000 there).",
)
THEIRS = "the paper's 16, 10 episodes each, last policy; its spread is a standard error."


def published() -> Published:
    """(task, data, system) -> printed mean return and standard error."""
    return comparison.scores("coda_table1")


def coda_table1(asked: Asked) -> str:
    """Train every cell that was asked for, a task and quality at a time, and set it beside the paper's.

    Cells are kept under `out`, so that the same command goes on where it was stopped.
    """
    made = [
        cells.train(asked, asked.systems or SYSTEMS, task, quality)[0]
        for task in asked.tasks or PRINTED
        for quality in asked.data
        or PRINTED.get(make(task).name.partition(":")[0], PRINTED[CHEETAH])
    ]
    records = [record for cell in made for record in cell.records]
    table = cells.beside(asked, made, records, published(), "s.e.", DIFFERENCES, THEIRS)
    return f"{table}\n{counts(made, records)}\n"


def counts(made: Sequence[Cell], records: Sequence[Record]) -> str:
    """Whether the scale counts: what the base reaches of good data, by its best setting where several were swept."""
    wanted = f"{BASE} reaches {ENOUGH:.0%} of the mean return of good data"
    means = cells.means([c for c in made if c.quality == "good"])
    shares = [
        r.mean / means[r.task, r.data]
        for r in records
        if r.system == BASE and (r.task, r.data) in means
    ]
    if not shares:
        return f"Whether the scale counts ({wanted}) is not known: that cell is not in the table."
    verdict = "The scale counts" if max(shares) >= ENOUGH else "The scale does not count"
    return f"{verdict}: it does where {wanted}; here it reaches {max(shares):.0%}."

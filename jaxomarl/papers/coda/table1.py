"""CODA's Table 1: MADDPG+BC on data alone, and with synthetic rows of two kinds.

These are rows of an unconditional model, and CODA's, which are guided by the policy.
"""

from collections.abc import Sequence

from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, comparison, shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.cells import Cell
from jaxomarl.papers.comparison import Published
from jaxomarl.papers.shown import Content
from jaxomarl.results.tables import Record

BASE = "maddpg-bc"
SYSTEMS = (BASE, f"{BASE}+synther", f"{BASE}+coda")
CHEETAH = "mamujoco/2halfcheetah"
PRINTED = {CHEETAH: ("replay", "good", "medium", "poor"), "mamujoco/4ant": ("replay",)}
ENOUGH = 0.8
"""Share of good data's mean return; a base that is below it was trained too briefly to compare."""
DIFFERENCES = (
    "Data: ours are made by this package's own behaviours, of MATD3; the paper's are OG-MARL's "
    "files, with other returns: compare rows with one another and with their data's mean, not with "
    "the printed number.",
    "Robot: ours is Gymnasium's v5 on MuJoCo 3 seen with obsk = 1; the paper's is v2 on MuJoCo 2, "
    "by OG-MARL's observations.",
    "Unconditional: `+synther` samples its windows from the very model of `+coda`, without "
    "guidance.",
    "Not printed, so ours: the share of synthetic rows, how often they are sampled, the schedule "
    "of the guidance, the generator's batch (256 windows here, 100,000 there).",
)
THEIRS = "the paper's 16, 10 episodes each, last policy; its spread is a standard error."
FIGURES = Content(SYSTEMS, (CHEETAH,), PRINTED[CHEETAH], DIFFERENCES, THEIRS)


def published() -> Published:
    """(task, data, system) -> printed mean return and standard error."""
    return comparison.published_scores("coda_table1")


def coda_table1(asked: Asked) -> str:
    """Train every cell that was asked for, and compare it with the paper's.

    A task and quality is trained at a time. Cells are kept under `out`, so that the same command
    continues where it was stopped.
    """
    systems = asked.systems or SYSTEMS
    trained = []
    for task in asked.tasks or PRINTED:
        for quality in asked.data or printed_data(task):
            cell, _ = cells.train(asked, systems, task, quality)
            trained.append(cell)
    records = [record for cell in trained for record in cell.records]
    table = cells.report(asked, trained, records, published(), "s.e.", DIFFERENCES, THEIRS)
    return f"{table}\n{scale_verdict(trained, records)}\n"


def printed_data(task: str) -> tuple[str, ...]:
    """The data sets that the paper has of a task; half-cheetah's for a task that it has not."""
    return PRINTED.get(cells.base_name(make(task).name), PRINTED[CHEETAH])


def scale_verdict(trained: Sequence[Cell], records: Sequence[Record]) -> str:
    """Whether the scale counts: what the base reaches of good data's mean return.

    Where several settings were swept, the best one counts.
    """
    condition = f"{BASE} reaches {ENOUGH:.0%} of the mean return of good data"
    means = cells.data_means([c for c in trained if c.quality == "good"])
    shares = []
    for r in records:
        if r.system == BASE and (r.task, r.data) in means:
            shares.append(r.mean / means[r.task, r.data])
    if not shares:
        not_known = "is not known: that cell is not in the table."
        return f"Whether the scale counts ({condition}) {not_known}"
    best = max(shares)
    verdict = "The scale counts" if best >= ENOUGH else "The scale does not count"
    return f"{verdict}: it does where {condition}; here it reaches {best:.0%}."


# --- the figures of the same runs ---


def fig4(asked: Asked) -> str:
    """Figure 4: final scores on half-cheetah by data set."""
    return shown.final_scores(asked, FIGURES)


def fig5(asked: Asked) -> str:
    """Figures 5 to 8: returns on half-cheetah in training, a panel for each data set."""
    return shown.training_curves(asked, FIGURES)

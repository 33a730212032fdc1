"""OMSD's Table 2 on the particle tasks: ours next to the published normalised scores."""

from jaxomarl.papers import cells, comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import Published

SYSTEMS = ("bc", "iql", "brpo-ind", "brpo-ctde", "omsd")
TASKS = ("mpe/spread", "mpe/tag", "mpe/world")
DATA = ("expert", "medium", "random")
DIFFERENCES = (
    "Data: ours are made by this package's own behaviours (four MATD3 seeds mixed in medium and in "
    "expert); the paper's are OMAR's files, of which its authors choose one of five data seeds for "
    "each task.",
    "Prey (tag, world): ours is this package's own, and scores are normalised by this package's "
    "references under it; the paper's prey came with OMAR's data. `--tasks mpe/tag:prey=FILE` "
    "plays against a copy of that one.",
)
THEIRS = "the paper's 5, with critic checkpoint and beta chosen by task."


def published() -> Published:
    """(task, data, system) -> mean and standard error of the printed normalised score."""
    return comparison.published_scores("omsd_table2")


def omsd_table2(asked: Asked) -> str:
    """Every system that was asked for on each task and quality, next to the paper's."""
    default = (SYSTEMS, TASKS, DATA)
    return cells.comparison_table(asked, default, published(), "s.e.", DIFFERENCES, THEIRS)

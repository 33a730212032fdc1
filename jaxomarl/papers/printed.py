"""What papers print of final scores, for reports that set ours next to it."""

from collections.abc import Sequence

from jaxomarl.papers.coda import table1 as coda
from jaxomarl.papers.comparison import Published
from jaxomarl.papers.dof import planners
from jaxomarl.papers.dom2 import tables as dom2
from jaxomarl.papers.omsd import robots
from jaxomarl.papers.omsd import table2 as omsd
from jaxomarl.results.report import Printed

PARTICLE = (dom2.DATA, dom2.PREY, dom2.SETTINGS, dom2.MA_IQL)
CHEETAH = (dom2.DATA, dom2.MUJOCO, dom2.SETTINGS)


def printed() -> list[Printed]:
    """Every table of final scores that ships with the package."""
    return [
        *of_omsd(),
        # Table 4 holds the rows of Table 1
        returns("DOM2, Tables 1 and 4", dom2.published(4), "std", PARTICLE, dom2.THEIRS),
        returns("DOM2, Table 3", dom2.published(3), "std", CHEETAH, dom2.THEIRS),
        scores(
            "DoF and MADiff, planners on particle tasks",
            planners.published(),
            "spread",
            planners.DIFFERENCES,
            planners.THEIRS,
        ),
        returns("CODA, Table 1", coda.published(), "s.e.", coda.DIFFERENCES, coda.THEIRS),
    ]


def of_omsd() -> list[Printed]:
    """OMSD's tables: particle tasks, and robots."""
    return [
        scores("OMSD, Table 2", omsd.published(), "s.e.", omsd.DIFFERENCES, omsd.THEIRS),
        returns("OMSD, Table 3", robots.published(3), "s.e.", robots.NOTES_3, robots.THEIRS),
        scores("OMSD, Table 4", robots.published(4), "s.e.", robots.NOTES_4, robots.THEIRS),
    ]


def scores(
    name: str, printed: Published, spread: str, differences: Sequence[str], seeds: str
) -> Printed:
    """A table of normalised scores; `differences` to ours, and the paper's `seeds`."""
    notes = [*differences, f"Seeds: {seeds}"]
    return Printed(name, printed, True, spread, notes, dom2.printed_task)


def returns(
    name: str, printed: Published, spread: str, differences: Sequence[str], seeds: str
) -> Printed:
    """The same of mean returns."""
    return scores(name, printed, spread, differences, seeds)._replace(normalised=False)

"""What papers print of final scores, for reports that set ours next to it."""

from jaxomarl.papers.coda import table1 as coda
from jaxomarl.papers.dof import planners
from jaxomarl.papers.dom2 import tables as dom2
from jaxomarl.papers.omsd import table2 as omsd
from jaxomarl.results.report import Printed


def printed() -> list[Printed]:
    """Every table of final scores that ships with the package."""
    key = dom2.printed_task
    # Table 4 holds the rows of Table 1
    particle = [dom2.DATA, dom2.PREY, dom2.SETTINGS, dom2.MA_IQL]
    robots = [dom2.DATA, dom2.MUJOCO, dom2.SETTINGS]
    return [
        Printed(
            "OMSD, Table 2",
            omsd.published(),
            True,
            "s.e.",
            [*omsd.DIFFERENCES, f"Seeds: {omsd.THEIRS}"],
            key,
        ),
        Printed(
            "DOM2, Tables 1 and 4",
            dom2.published(4),
            False,
            "std",
            [*particle, f"Seeds: {dom2.THEIRS}"],
            key,
        ),
        Printed(
            "DOM2, Table 3",
            dom2.published(3),
            False,
            "std",
            [*robots, f"Seeds: {dom2.THEIRS}"],
            key,
        ),
        Printed(
            "DoF and MADiff, planners on particle tasks",
            planners.published(),
            True,
            "spread",
            [*planners.DIFFERENCES, f"Seeds: {planners.THEIRS}"],
            key,
        ),
        Printed(
            "CODA, Table 1",
            coda.published(),
            False,
            "s.e.",
            [*coda.DIFFERENCES, f"Seeds: {coda.THEIRS}"],
            key,
        ),
    ]

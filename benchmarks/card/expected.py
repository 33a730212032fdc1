"""The expected device seconds of a cell, from the speeds that docs/speed/card.md has."""

from pathlib import Path
from typing import NamedTuple

from benchmarks.card.cells import HALF, Cell
from jaxomarl.results import tabular

PAGE = Path(__file__).parents[2] / "docs" / "speed" / "card.md"
PROTOCOL = 10_000
"""Updates of DOM2's Table 10, whose seconds that page has."""
AGENTS = "3"
"""Agents of the rows that count, which are spread's."""


class Row(NamedTuple):
    """What was timed: a stage at the paper's widths, for so many seeds at once."""

    system: str
    stage: str
    runs: int
    precision: str


class Expected(NamedTuple):
    """The seconds of a cell."""

    seconds: float
    measured: float
    """Seconds of these that follow from measured speeds; the others are estimates."""

    @property
    def share(self) -> float:
        """The measured share."""
        return self.measured / self.seconds if self.seconds else 0.0


def measured_speeds(page: str) -> dict[Row, float]:
    """Row -> the least seconds per update of all its seeds in the tables of a page."""
    speeds: dict[Row, float] = {}
    for section in page.split("\n## "):
        precision = HALF if f"PRECISION={HALF}" in section else ""
        for table in tabular.parsed(section):
            for cells in table.rows:
                timed = timed_row(dict(zip(table.head, cells, strict=True)), precision)
                if timed is not None:
                    row, seconds = timed
                    speeds[row] = min(seconds, speeds.get(row, seconds))
    return speeds


def timed_row(cells: dict[str, str], precision: str) -> tuple[Row, float] | None:
    """A row of a table and its seconds per update; None where it times no such update."""
    system = cells.get("system", "")
    if cells.get("size") == "mpe" and cells.get("n") == AGENTS and cells.get("ms/update"):
        row = Row(system, cells["stage"], int(cells["R"]), precision)
        return row, float(cells["ms/update"]) / 1000.0
    if "training s" in cells and "printed" not in system:
        row = Row(system, "policy", int(cells["R"]), precision)
        return row, float(cells["training s"]) / PROTOCOL
    return None


def expected(cell: Cell, half: bool, speeds: dict[Row, float]) -> Expected:
    """The seconds of a cell at full size; `half` says whether bfloat16 may be taken."""
    precision = HALF if half and cell.half else ""
    measured = 0.0
    guessed = cell.besides
    for work in cell.work:
        speed = speeds.get(Row(work.system, work.stage, cell.seeds, precision))
        if speed is None:
            guessed += work.updates * work.guess
        else:
            measured += work.updates * speed
    return Expected(measured + guessed, measured)

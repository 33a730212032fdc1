"""What all figures share: axes in a grid, one legend, colours, the file.

matplotlib is imported when a figure is drawn.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.store import write_bytes

# matplotlib.figure.Figure and matplotlib.axes.Axes, which are not imported here
Figure = Any
Axes = Any

# Okabe and Ito's palette, safe for the colour-blind
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8A8A8A"
DPI = 150
LETTER = 0.062
"""Width of a letter of a note, in inches."""
LEGEND_LETTER = 0.065
"""Width of a letter of a legend, in inches."""
LINE = 0.15
"""Height of a line of a note, in inches."""
MARK = 0.6
"""Width of a legend's mark with the space around it, in inches."""
# no versions and no dates, so that equal figures give equal bytes
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}


def grid(panels: int, width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of that many axes, row by row, each width x height inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        way_out = "pip install jaxomarl[plot]"
        raise refuse("figures", "matplotlib", "no such package", way_out) from error
    columns = min(columns, panels)
    rows = -(-panels // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07)
    figure = Figure((width * columns, height * rows), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, k + 1) for k in range(panels)]
    return figure, axes


def save(figure: Figure, path: str | Path | None, note: str = "") -> Figure:
    """Write the figure in the format of the path's suffix, atomically.

    A note is written along the figure's upper edge.

    The figure grows by the height of its note, so that axes keep theirs. Without a path nothing is
    written.
    """
    if note:
        _write_note(figure, note)
    if path is None:
        return figure
    suffix = Path(path).suffix
    if suffix not in _METADATA:
        raise refuse("path", "a name that ends in .png or .pdf", str(path), "Change the suffix.")
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=DPI, metadata=_METADATA[suffix])
    write_bytes(path, content.getvalue())
    return figure


def _write_note(figure: Figure, note: str) -> None:
    width, height = figure.get_size_inches()
    lines = []
    for line in note.splitlines():
        lines += textwrap.wrap(line, int(width / LETTER))
    figure.set_size_inches(width, height + LINE * len(lines))
    figure.suptitle("\n".join(lines), fontsize=8, x=0.01, ha="left", color="#555555")


def legend(figure: Figure, handles: Sequence[Any], **style: Any) -> None:
    """Draw one legend for all panels, below them, in as many columns as fit.

    The figure grows by the legend's height.
    """
    width, height = figure.get_size_inches()
    letters = [len(handle.get_label()) for handle in handles]
    columns = len(handles)
    while columns > 1 and _legend_width(letters, columns) > width:
        columns -= 1
    rows = -(-len(handles) // columns)
    figure.set_size_inches(width, height + 0.2 + 0.2 * rows)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        **style,
    )


def _legend_width(letters: Sequence[int], columns: int) -> float:
    """Width in inches of a legend whose columns matplotlib fills one after the other."""
    widest = [max(column) for column in np.array_split(letters, columns)]
    return sum(MARK + LEGEND_LETTER * longest for longest in widest)


def quiet(axes: Axes) -> None:
    """Hide the frame above and to the right, and draw a pale grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)

"""What all figures share: a sheet of axes, its legend, colours and file; matplotlib is imported when one is drawn."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import refuse
from jaxomarl.results.store import write_bytes

Figure = Any  # matplotlib.figure.Figure

# Okabe and Ito's palette, safe for the colour-blind
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150
LETTER = 0.062
"""Inches of a letter of a note or a legend."""
LINE = 0.15
"""Inches of a line of a note."""
# no versions and no dates, so that equal figures give equal bytes
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}


def grid(panels: int, width: float, height: float, columns: int) -> tuple[Figure, list[Any]]:
    """A figure of that many axes, row by row, each width x height inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise refuse(
            "figures", "matplotlib", "no such package", "pip install jaxomarl[plot]"
        ) from error
    columns = min(columns, panels)
    rows = -(-panels // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07)
    figure = Figure((width * columns, height * rows), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(panels)]


def save(figure: Figure, path: str | Path | None, note: str = "") -> Figure:
    """Write the figure in the format of the path's suffix, atomically, with a note along its upper edge.

    The figure grows by the height of its note, so that axes keep theirs. Without a path nothing is written.
    """
    if note:
        width, height = figure.get_size_inches()
        lines = [
            part for line in note.splitlines() for part in textwrap.wrap(line, int(width / LETTER))
        ]
        figure.set_size_inches(width, height + LINE * len(lines))
        figure.suptitle("\n".join(lines), fontsize=8, x=0.01, ha="left", color="#555555")
    if path is None:
        return figure
    suffix = Path(path).suffix
    if suffix not in _METADATA:
        raise refuse("path", "a name that ends in .png or .pdf", str(path), "Change the suffix.")
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=DPI, metadata=_METADATA[suffix])
    write_bytes(path, content.getvalue())
    return figure


def legend(figure: Figure, handles: Sequence[Any], **style: Any) -> None:
    """One legend for all panels, below them, in as many columns as fit; the figure grows by its height."""
    width, height = figure.get_size_inches()
    letters = [len(handle.get_label()) for handle in handles]
    columns = len(handles)  # which matplotlib fills one after the other; in inches, a mark is 0.55
    while (
        columns > 1
        and sum(0.55 + LETTER * max(column) for column in np.array_split(letters, columns)) > width
    ):
        columns -= 1
    figure.set_size_inches(width, height + 0.2 + 0.2 * -(-len(handles) // columns))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        **style,
    )


def quiet(axes: Any) -> None:
    """No frame above and to the right, a pale grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)

"""What all figures share: axes in a grid, one legend, colours, the file.

matplotlib is imported when a figure is drawn.
"""

import contextlib
import io
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.results.store import write_bytes

# matplotlib.figure.Figure and matplotlib.axes.Axes, which are not imported here
Figure = Any
Axes = Any

# Okabe and Ito's palette, safe for the colour-blind
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8A8A8A"
DPI = 150
LETTER = 0.062
"""Mean width of a letter of a note, in inches: where its wrapping starts from."""
LEGEND_LETTER = 0.065
"""Width of a letter of a legend, in inches."""
MARGIN = 0.1
"""What a note leaves free of the figure's width, in inches."""
LINE = 0.15
"""Height of a line of a note, in inches."""
MARK = 0.6
"""Width of a legend's mark with the space around it, in inches."""
COPIES = (".svg", ".pdf")
"""Formats in which a command writes a figure besides .png."""
# no versions and no dates, so that equal figures give equal bytes
_METADATA = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
# identifiers that do not change, and fonts that publishers take
_STYLE = {"svg.hashsalt": "jaxomarl", "pdf.fonttype": 42}


def grid(panels: int, width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of that many axes, row by row, each width x height inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        way_out = "pip install 'jaxomarl[plot]'"
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
    if path is not None:
        write_bytes(path, encoded(figure, Path(path).suffix))
    return figure


def save_copies(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure that was saved to `path` in the formats of `COPIES` too, next to it.

    The layout stays as it was saved.
    """
    figure.set_layout_engine("none")
    copies = [Path(path).with_suffix(suffix) for suffix in COPIES]
    for copy in copies:
        write_bytes(copy, encoded(figure, copy.suffix))
    return copies


def encoded(figure: Figure, suffix: str, **style: Any) -> bytes:
    """The bytes of a figure's file; `style` are further settings of matplotlib.

    JaxomarlError for a suffix other than .png, .svg and .pdf.
    """
    if suffix not in _METADATA:
        wanted = "a name that ends in .png, .svg or .pdf"
        raise refuse("path", wanted, suffix or "none", "Change the suffix.")
    # grid has said what to do where matplotlib is missing
    from matplotlib import rc_context

    content = io.BytesIO()
    settings: Any = {**_STYLE, **style}
    kept = figure.canvas, figure.dpi
    with rc_context(settings):
        # `savefig` would draw the figure twice
        _printer(figure, suffix)(content, metadata=_METADATA[suffix])
    figure.canvas, figure.dpi = kept
    return content.getvalue()


def _printer(figure: Figure, suffix: str) -> Callable[..., None]:
    """What writes a figure in one format."""
    if suffix == ".svg":
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        return FigureCanvasSVG(figure).print_svg
    if suffix == ".pdf":
        from matplotlib.backends.backend_pdf import FigureCanvasPdf

        return FigureCanvasPdf(figure).print_pdf
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(figure).print_png


def load() -> None:
    """Import what figures take, where it is installed."""
    with contextlib.suppress(JaxomarlError):
        figure, _ = grid(1, 1.0, 1.0, 1)
        for suffix in _METADATA:
            _printer(figure, suffix)


def begin_to_load() -> None:
    """Import what figures take beside the training before them."""
    threading.Thread(target=load, daemon=True).start()


NOTE_SIZE = 8
"""Font size of a note, in points."""


def _write_note(figure: Figure, note: str) -> None:
    width, height = figure.get_size_inches()
    lines = []
    for line in note.splitlines():
        lines += fitting_lines(line, width - MARGIN)
    figure.set_size_inches(width, height + LINE * len(lines))
    style = {"fontsize": NOTE_SIZE, "ha": "left", "color": "#555555"}
    figure.suptitle("\n".join(lines), x=0.01, **style)


def fitting_lines(line: str, width: float) -> list[str]:
    """A line of a note in pieces, each no wider than `width` inches as it is drawn."""
    letters = max(int(width / LETTER), 1)
    lines = textwrap.wrap(line, letters)
    while letters > 1 and max((_drawn_width(piece) for piece in lines), default=0.0) > width:
        letters -= 1
        lines = textwrap.wrap(line, letters)
    return lines


def _drawn_width(words: str) -> float:
    """Width of a text of `NOTE_SIZE`, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=NOTE_SIZE)
    points, _, _ = text_to_path.get_text_width_height_descent(words, font, ismath=False)
    return points / 72


def legend(figure: Figure, handles: Sequence[Any], **style: Any) -> None:
    """Draw one legend for all panels, below them, in as many columns as fit.

    The figure grows by the legend's height. A label that is wider than the figure is wrapped.
    """
    width, height = figure.get_size_inches()
    letters = [len(handle.get_label()) for handle in handles]
    columns = len(handles)
    while columns > 1 and _legend_width(letters, columns) > width:
        columns -= 1
    if columns == 1:
        widest = int((width - MARK) / LEGEND_LETTER)
        for handle in handles:
            handle.set_label(textwrap.fill(handle.get_label(), widest))
    lines = max(handle.get_label().count("\n") for handle in handles)
    rows = -(-len(handles) // columns) + lines
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


def few_ticks(axes: Axes) -> None:
    """Mark at most six places along a narrow panel, so that their numbers do not touch."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))


def quiet(axes: Axes) -> None:
    """Hide the frame above and to the right, and draw a pale grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)

"""One line per stage while it trains.

The line is rewritten on a terminal and in a notebook, and printed now and then elsewhere.
"""

import contextlib
import os
import sys
import time
from io import TextIOBase

from jaxomarl.api.plan import Group
from jaxomarl.training.runner import Progress

SECONDS = 10.0
"""Least time between plain lines."""
NOTEBOOK_SECONDS = 0.5
"""Least time between lines of a notebook, whose page is redrawn."""


class ProgressPrinter:
    """Prints progress: one line that is rewritten where that is possible, plain lines elsewhere."""

    def __init__(self, stream: TextIOBase | None = None, notebook: bool | None = None) -> None:
        """Print to a stream, by default stderr, or the output of a notebook's cell.

        `notebook` None finds out whether this is a notebook.
        """
        self.notebook = in_notebook() if notebook is None else notebook
        own = sys.stdout if self.notebook else sys.stderr
        self.stream = stream or own
        self.terminal = self.stream.isatty() and not self.notebook
        # the clock may start at 0 when the machine does
        self.last = float("-inf")
        self.told: set[str] = set()
        # width of the line that a notebook shows now
        self.width = 0

    def __call__(self, group: Group, p: Progress) -> None:
        """Show a stage's progress; name runs whose numbers stopped being finite, once each."""
        done = p.step >= p.steps
        for name in p.bad:
            if name not in self.told:
                self.told.add(name)
                self.say(f"  ! {group.name} {p.stage}: not finite: {name}")

        pause = NOTEBOOK_SECONDS if self.notebook else SECONDS
        if not done and not self.terminal and time.monotonic() - self.last < pause:
            return
        self.last = time.monotonic()

        text = _line(group.name, p, done)
        if self.terminal and not done:
            # a line that wraps could not be rewritten
            with contextlib.suppress(OSError, ValueError):
                text = text[: os.get_terminal_size(self.stream.fileno()).columns - 1]
        self.show(text, done)

    def show(self, text: str, done: bool) -> None:
        """Show a line in place of the one before it; once it is `done`, the next begins below."""
        end = "\n" if done else ""
        if self.terminal:
            print(f"\r\x1b[K{text}", end=end, file=self.stream, flush=True)
        elif self.notebook:
            print(f"\r{text:<{self.width}}", end=end, file=self.stream, flush=True)
            self.width = len(text)
            if done:
                self.width = 0
        else:
            print(text, file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.show(text, done=True)


def _line(system: str, p: Progress, done: bool) -> str:
    """A stage's step, its speed, and the time that it took or has left."""
    left = 0.0
    if p.rate:
        left = (p.steps - p.step) / p.rate
    updates = f"{p.step:>8}/{p.steps} updates x {p.runs:<3} {p.rate:>8.0f}/s"
    when = f"left {clock(left)}"
    if done:
        when = f"took {clock(p.seconds)}"
    compiled = f"compile {p.compile_seconds:.1f} s"
    return f"  {system:<12} {p.stage:<20} {updates}  {when}  {compiled}"


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def clock(seconds: float) -> str:
    """A duration in words: "12.3 s" or "4 min 05 s" or "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"

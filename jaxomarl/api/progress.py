"""One line per stage while it trains: rewritten on a terminal and in a notebook, printed now and then elsewhere."""

import contextlib
import os
import sys
import time
from typing import Any

from jaxomarl.api.plan import Group
from jaxomarl.training.runner import Progress

SECONDS = 10.0  # between plain lines
NOTEBOOK_SECONDS = 0.5  # between lines of a notebook, whose page is redrawn


class Lines:
    """Prints progress: one line that is rewritten where that is possible, a line now and then elsewhere."""

    def __init__(self, stream: Any = None, notebook: bool | None = None) -> None:
        """Print to a stream, by default stderr, or the output of a notebook's cell (None: where there is one)."""
        self.notebook = in_notebook() if notebook is None else notebook
        own = sys.stdout if self.notebook else sys.stderr
        self.stream = stream or own
        self.terminal = self.stream.isatty() and not self.notebook
        self.last = 0.0
        self.told: set[str] = set()
        self.width = 0  # of the line that a notebook shows now

    def __call__(self, group: Group, p: Progress) -> None:
        """Show where a stage is; name runs whose numbers stopped being finite, once each."""
        done = p.step >= p.steps
        for name in p.bad:
            if name not in self.told:
                self.told.add(name)
                self.say(f"  ! {group.name} {p.stage}: not finite at step {p.step}: {name}")
        pause = NOTEBOOK_SECONDS if self.notebook else SECONDS
        if not done and not self.terminal and time.monotonic() - self.last < pause:
            return
        self.last = time.monotonic()
        left = (p.steps - p.step) / p.rate if p.rate else 0.0
        text = (
            f"  {group.name:<12} {p.stage:<20} {p.step:>8}/{p.steps} updates x {p.runs:<3} {p.rate:>8.0f}/s  "
            f"{'took' if done else 'left'} {clock(p.seconds if done else left)}  compile {p.compile_seconds:.1f} s"
        )
        if self.terminal and not done:  # a line that wraps could not be rewritten
            with contextlib.suppress(OSError, ValueError):
                text = text[: os.get_terminal_size(self.stream.fileno()).columns - 1]
        self.show(text, done)

    def show(self, text: str, done: bool) -> None:
        """Show a line in place of the one before it; the next one begins below it once it is `done`."""
        if self.terminal:
            print(f"\r\x1b[K{text}", end="\n" if done else "", file=self.stream, flush=True)
        elif self.notebook:
            print(f"\r{text:<{self.width}}", end="\n" if done else "", file=self.stream, flush=True)
            self.width = 0 if done else len(text)
        else:
            print(text, file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.show(text, done=True)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def clock(seconds: float) -> str:
    """Spelt out: "12.3 s" or "4 min 05 s" or "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"

"""One line per stage while it trains: rewritten on a terminal, printed now and then elsewhere."""

import contextlib
import os
import sys
import time

from jaxomarl.api.plan import Group
from jaxomarl.training.runner import Progress

SECONDS = 10.0  # between plain lines


class Lines:
    """Prints progress; `terminal` is whether a line can be rewritten."""

    def __init__(self, stream=None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.last = 0.0
        self.told: set[str] = set()

    def __call__(self, group: Group, p: Progress) -> None:
        """Show where a stage is; name runs whose numbers stopped being finite, once each."""
        done = p.step >= p.steps
        for name in p.bad:
            if name not in self.told:
                self.told.add(name)
                self.say(f"  ! {group.name} {p.stage}: not finite at step {p.step}: {name}")
        if not done and not self.terminal and time.monotonic() - self.last < SECONDS:
            return
        self.last = time.monotonic()
        left = (p.steps - p.step) / p.rate if p.rate else 0.0
        text = (
            f"  {group.name:<12} {p.stage:<20} {p.step:>8}/{p.steps} updates x {p.runs:<3} {p.rate:>8.0f}/s  "
            f"{'took' if done else 'left'} {clock(p.seconds if done else left)}  compile {p.compile_seconds:.1f} s"
        )
        if not self.terminal:
            print(text, file=self.stream, flush=True)
        else:
            if not done:  # a line that wraps could not be rewritten
                with contextlib.suppress(OSError, ValueError):
                    text = text[: os.get_terminal_size(self.stream.fileno()).columns - 1]
            print(f"\r\x1b[K{text}", end="\n" if done else "", file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.terminal:
            print("\r\x1b[K", end="", file=self.stream)
        print(text, file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Spelt out: "12.3 s" or "4 min 05 s" or "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"

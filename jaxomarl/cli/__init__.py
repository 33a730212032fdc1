"""The command line: `jaxomarl sweep`, or `python -m experiments.sweep` in a checkout."""

import gc
import os
import signal
import sys
from collections.abc import Sequence

from jaxomarl.cli import output
from jaxomarl.cli.signals import CODES

COLLECTED = (50_000, 20, 20)
"""Thresholds of Python's collections; its own, (700, 10, 10), take a tenth of tracing's time."""


def main(command: str = "", argv: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 a mistake in what was asked, else as in `signals.CODES`."""
    output.take()
    # while JAX is imported there is nothing to save
    for number, code in CODES.items():
        signal.signal(number, lambda *_, code=code: os._exit(code))

    # modules stay, and tracing keeps millions of small objects: a search finds little among them
    gc.disable()
    try:
        from jaxomarl.cli import commands
    except ValueError as error:
        if "jax" not in str(error).lower():
            raise
        way = "Correct the variable in the environment, or unset it."
        print(
            f"error: environment: expected values that JAX takes, found '{error}'. {way}",
            file=sys.stderr,
        )
        sys.exit(2)

    gc.freeze()
    gc.set_threshold(*COLLECTED)
    gc.enable()

    if argv is None:
        argv = sys.argv[1:]
    sys.exit(commands.run(command, list(argv)))

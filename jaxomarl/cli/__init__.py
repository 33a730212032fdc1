"""The command line: `jaxomarl sweep`, or `python -m experiments.sweep` in a checkout."""

import os
import signal
import sys
from collections.abc import Sequence


def main(command: str = "", argv: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 a mistake in what was asked, 75 stopped by SIGTERM, 130 by Ctrl-C."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):  # while JAX is imported there is nothing to save
        signal.signal(number, lambda *_, code=code: os._exit(code))
    from jaxomarl.cli import commands

    sys.exit(commands.run(command, list(sys.argv[1:] if argv is None else argv)))

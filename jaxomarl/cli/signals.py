"""What ends a run from outside, and what it then says to a scheduler."""

import signal

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""What ends a run, and the code that it then exits with: 75 asks a scheduler to start the command again."""
if hasattr(
    signal, "SIGUSR1"
):  # what SLURM sends ahead of a time limit (--signal=USR1@60); Windows has none
    CODES[signal.SIGUSR1] = 75

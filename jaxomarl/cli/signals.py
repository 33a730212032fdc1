"""The signals that end a run, and what it then says to a scheduler."""

import signal

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""A signal that ends a run -> its exit code; 75 asks a scheduler to start the command again."""

# SLURM sends it ahead of a time limit (--signal=USR1@60); Windows has none
if hasattr(signal, "SIGUSR1"):
    CODES[signal.SIGUSR1] = 75

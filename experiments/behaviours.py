"""Make the package's prey and behaviours again: `python -m experiments.behaviours prey spread tag world 3hopper`."""

import sys
from pathlib import Path

from jaxomarl.cli import behaviours, runtime

if __name__ == "__main__":
    runtime.use_cores()
    runtime.keep_programs()
    out = Path("runs/behaviours")
    behaviours.make(tuple(sys.argv[1:]), out)

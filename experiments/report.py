"""`python -m experiments.report`: see `--help`."""

from jaxomarl.cli import main

if __name__ == "__main__":
    main("report")

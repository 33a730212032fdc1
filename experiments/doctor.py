"""`python -m experiments.doctor`: see `--help`."""

from jaxomarl.cli import main

if __name__ == "__main__":
    main("doctor")

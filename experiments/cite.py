"""`python -m experiments.cite`: see `--help`."""

from jaxomarl.cli import main

if __name__ == "__main__":
    main("cite")

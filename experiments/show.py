"""`python -m experiments.show`: see `--help`."""

from jaxomarl.cli import main

if __name__ == "__main__":
    main("show")

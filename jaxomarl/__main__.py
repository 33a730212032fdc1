"""`python -m jaxomarl sweep` is `jaxomarl sweep`."""

from jaxomarl.cli import main

main()

"""A refusal in the words of whoever reads it: flags at a command line, keyword arguments in Python."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from jaxomarl.api import runtime
from jaxomarl.base import JaxomarlError
from jaxomarl.numerics import pinned

P = ParamSpec("P")
R = TypeVar("R")

NAMES = {"systems": "system", "tasks": "task"}
"""Flags of `sweep` whose argument of `train` is called otherwise."""

SWITCHES = ("resume", "overwrite")
VALUE = r"(?: (?P<number>-?\d[\d.e-]*\d|\d)| (?P<word>[a-z][a-z0-9_-]*)(?=[.,]|$| --))?"
IMPORT = re.compile(r"--import (?P<module>[\w./~-]*\w)")
FLAG = re.compile(rf"--(?P<cfg>cfg\.)?(?P<name>[a-z][a-z0-9-]*){VALUE}")


def in_python(text: str) -> str:
    """A message with `--cfg.beta 0.1` as `beta=0.1`, `--resume` as `resume=True`, `--import own.py` as `import own`."""
    return FLAG.sub(_argument, IMPORT.sub(_statement, text)).replace("RUN: ", "run: ")


def _statement(match: re.Match) -> str:
    return f"import {Path(match['module']).name.removesuffix('.py')}"


def _argument(match: re.Match) -> str:
    name = match["name"].replace("-", "_")
    name = NAMES.get(name, name)
    if name in SWITCHES and not match["cfg"]:
        return f"{name}=True{match[0][len('--' + name) :]}"
    if match["number"]:
        return f"{name}={match['number']}"
    return f'{name}="{match["word"]}"' if match["word"] else f"{name}="


def python_face(function: Callable[P, R]) -> Callable[P, R]:
    """A function as Python calls it: under our own numbers, on devices that are there, refused in Python's words."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            runtime.devices()
            with pinned():
                return function(*args, **kwargs)
        except JaxomarlError as error:
            error.args = (in_python(str(error)),)
            error.field = in_python(error.field).removesuffix("=")
            raise

    return called

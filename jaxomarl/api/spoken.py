"""A refusal in its reader's words: flags at a command line, keyword arguments in Python."""

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
"""Flags of `sweep` whose argument of `train` has another name."""

SWITCHES = ("resume", "overwrite")
VALUE = r"(?: (?P<number>-?\d[\d.e-]*\d|\d)| (?P<word>[a-z][a-z0-9_-]*)(?=[.,]|$| --))?"
IMPORT = re.compile(r"--import (?P<module>[\w./~-]*\w)")
FLAG = re.compile(rf"--(?P<cfg>cfg\.)?(?P<name>[a-z][a-z0-9-]*){VALUE}")


def in_python(text: str) -> str:
    """A message as a Python user writes it.

    `--cfg.beta 0.1` becomes `beta=0.1`, `--resume` becomes `resume=True`, and `--import own.py`
    becomes `import own`.
    """
    with_imports = IMPORT.sub(_statement, text)
    return FLAG.sub(_argument, with_imports).replace("RUN: ", "run: ")


def _statement(match: re.Match) -> str:
    return f"import {Path(match['module']).name.removesuffix('.py')}"


def _argument(match: re.Match) -> str:
    name = match["name"].replace("-", "_")
    name = NAMES.get(name, name)
    if name in SWITCHES and not match["cfg"]:
        rest = match[0][len("--" + name) :]
        return f"{name}=True{rest}"
    if match["number"]:
        return f"{name}={match['number']}"
    if match["word"]:
        return f'{name}="{match["word"]}"'
    return f"{name}="


def python_face(function: Callable[P, R]) -> Callable[P, R]:
    """A function as Python calls it.

    It runs under our own numeric settings, on devices that are there, and its refusals speak of
    keyword arguments.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            runtime.devices()
            with pinned(), runtime.memory_refused():
                return function(*args, **kwargs)
        except JaxomarlError as error:
            error.args = (in_python(str(error)),)
            error.field = in_python(error.field).removesuffix("=")
            raise

    return called

"""The project's files as text and as trees, each read and parsed once."""

import ast
import functools
from pathlib import Path


@functools.cache
def text_of(path: Path) -> str:
    """What a file holds."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """What Python reads in a file; to be looked at, never changed."""
    return ast.parse(text_of(path))

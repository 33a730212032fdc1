"""The type checker of the tests: beartype, asked once for each signature.

Functions inside of functions are decorated anew whenever the outer one is called, and jaxtyping gives the checker a
stand-in that has a signature and nothing else. Stand-ins of one signature are the same, so the first is kept.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype

_checked: dict[Any, Callable] = {}


def once(stand_in: Callable) -> Callable:
    """The stand-in with its arguments and its result checked."""
    code = stand_in.__code__
    names = (
        code.co_varnames,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
    )
    key = (
        stand_in.__module__,
        stand_in.__qualname__,
        code.co_code,
        names,
        *stand_in.__annotations__.items(),
    )
    try:
        found = _checked.get(key)
    except TypeError:  # an annotation that cannot be hashed
        return beartype(stand_in)
    if found is None:
        found = _checked[key] = beartype(stand_in)
    return found

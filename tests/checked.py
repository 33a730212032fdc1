"""`jaxtyping.jaxtyped` for tests: a function gets its checks when it is first called, a nested one once for all of it.

A process imports three thousand functions, whose checks take three seconds to build, and calls a part of them. And
jaxtyping builds two checkers, a millisecond's work, each time that a decorated function is defined.
A function inside of another is defined at every call of the outer one, thousands of times while
one system is traced. All that come of one definition have the same signature, so they share one
checked relay, which hands its arguments on to the function that was called.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any, get_args, get_origin

import jaxtyping

_original = jaxtyping.jaxtyped
_relays: dict[int, tuple[FunctionType, tuple, Callable]] = {}
"""The id of a function's code -> a function of it, what it promises, and the relay for it."""
_called = threading.local()


def jaxtyped(fn: Any = None, *, typechecker: Callable) -> Any:
    """Stand in for jaxtyping's, which its import hook puts before every function and class."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(fn, FunctionType):
        return _original(fn, typechecker=typechecker)
    if not fn.__annotations__:
        return fn
    if "<locals>" not in fn.__qualname__:
        return _when_called(fn, typechecker)
    return _behind(_relay(fn, typechecker), fn)


def _when_called(fn: FunctionType, typechecker: Callable) -> Callable:
    """The function, whose checks are built at its first call."""
    found: Callable | None = None

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal found
        if found is None:
            found = _original(fn, typechecker=typechecker)
        return found(*args, **kwargs)

    return called


def _relay(fn: FunctionType, typechecker: Callable) -> Callable:
    """The checked relay for all functions of this definition."""
    promised = tuple(map(_meaning, fn.__annotations__.values()))
    _, known, relay = _relays.get(id(fn.__code__), (None, None, None))
    if relay is None or promised != known:
        relay = _original(_signed(fn), typechecker=typechecker)
        _relays[id(fn.__code__)] = fn, promised, relay
    return relay


def _meaning(hint: Any) -> Any:
    """What an annotation stands for; jaxtyping's arrays are new classes wherever they are named."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return hint.array_type, hint.dtypes, hint.dim_str
    if isinstance(hint, list):  # of a callable's arguments
        return tuple(map(_meaning, hint))
    parts = get_args(hint)
    return (get_origin(hint), *map(_meaning, parts)) if parts else hint


def _signed(fn: FunctionType) -> Callable:
    """A function of this one's signature that calls whichever was called last."""

    @functools.wraps(fn)
    def relay(*args: Any, **kwargs: Any) -> Any:
        return _called.fn(*args, **kwargs)

    relay.__signature__ = inspect.signature(fn)
    return relay


def _behind(relay: Callable, fn: FunctionType) -> Callable:
    """The function behind its relay, which checks the arguments and then takes it up at once."""

    @functools.wraps(fn)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _called.fn = fn
        return relay(*args, **kwargs)

    return checked

"""Torch checkpoints without torch: an opcode reader that knows tensors and plain containers, and calls nothing else.

A checkpoint is a program for a stack machine. This one has the few instructions that `torch.save` writes for
state_dicts, and names in the file are looked up in `GLOBALS`, never imported. Source: `torch/serialization.py`, 2.13.
"""

import dataclasses
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxomarl.base import JaxomarlError, refuse

LIMIT = 1 << 30
"""Most bytes of a file, and of the arrays made from it."""
STEPS = 1_000_000
"""Most opcodes of a file, and most entries of its tree, an entry counted as often as it is met."""
DEPTH = 100
"""Most containers within each other."""
NAME = 1000
"""Most characters of a key."""
ENTRIES = 100_000
"""Most entries of a zip archive."""
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
WAY_OUT = "Only numbers, texts, plain containers and tensors are read: save state_dicts alone, with torch.save."

STORAGES = {
    "torch FloatStorage": np.dtype(np.float32),
    "torch DoubleStorage": np.dtype(np.float64),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch LongStorage": np.dtype(np.int64),
    "torch IntStorage": np.dtype(np.int32),
    "torch ShortStorage": np.dtype(np.int16),
    "torch CharStorage": np.dtype(np.int8),
    "torch ByteStorage": np.dtype(np.uint8),
    "torch BoolStorage": np.dtype(np.bool_),
}
TENSORS = {"torch._utils _rebuild_tensor": 4, "torch._utils _rebuild_tensor_v2": 6}
"""What rebuilds a tensor -> its arguments: storage, offset, size, stride; from 0.4 on requires_grad and hooks."""
PARAMETERS = {"torch._utils _rebuild_parameter": 3, "torch._utils _rebuild_parameter_with_state": 4}
"""What rebuilds a parameter of its tensor -> its arguments: tensor, requires_grad, hooks; from 2.1 on attributes."""
SUBCLASSES = {
    *(
        "torch._tensor _rebuild_from_type_v2",
        "torch._tensor _rebuild_from_type",
        "torch.tensor _rebuild_from_type",
    ),
}
"""What rebuilds a tensor that has attributes or a class of its own, since 1.7: (function, class, arguments, state)."""
CLASSES = {
    "torch Tensor",
    "torch._tensor Tensor",
    "torch.nn.parameter Parameter",
    "torch.nn.parameter Buffer",
}
GLOBALS = {
    "collections OrderedDict",
    "torch Size",
    *STORAGES,
    *TENSORS,
    *PARAMETERS,
    *SUBCLASSES,
    *CLASSES,
}
"""Every name that a file may use; each is a token here, and what it does is written in `_Reader`.

What versions write differently, and all of it is read: before 0.4 a tensor has no requires_grad and no hooks; from 0.4
to 1.0 hooks are None, since 1.1 an OrderedDict; since 2.0 a seventh argument may follow, None or empty here. Under
Python 2 texts are byte strings, and an OrderedDict is called with a list of [key, value]; before 1.0 a torch.Size is
made by NEWOBJ.
"""

MARKED = {"TUPLE", "APPENDS", "SETITEMS"}
"""Opcodes that take what stands above the last mark."""
NEEDS = {
    **dict.fromkeys(
        (
            "PROTO",
            "FRAME",
            "MARK",
            "NONE",
            "NEWTRUE",
            "NEWFALSE",
            "GLOBAL",
            "BINGET",
            "LONG_BINGET",
        ),
        0,
    ),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"), 0
    ),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), 0),
    **dict.fromkeys(("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE"), 0),
    **dict.fromkeys(
        ("STOP", "TUPLE1", "APPENDS", "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINPERSID"),
        1,
    ),
    **dict.fromkeys(("TUPLE2", "APPEND", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"), 2),
    **dict.fromkeys(("TUPLE3", "SETITEM"), 3),
}
"""Every opcode that a file may use -> the values that it needs on the stack, below the mark where it takes one."""
FRESH: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple},
}


def load(path: str | Path) -> Any:
    """The tree in a `torch.save` file of either format: dict, list, tuple, str, int, float, bool, None, and arrays.

    Each array owns its memory, in C order. Nothing in the file is called. Raises JaxomarlError for a file that is
    damaged, too large, or holds anything else.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise refuse(
                str(path), "a torch checkpoint", "no file", "Name a file that torch.save wrote."
            )
        size = path.stat().st_size
        raw = path.read_bytes() if size <= LIMIT else b""
    except OSError as error:
        raise refuse(
            str(path), "a readable file", str(error), "Name a file that torch.save wrote."
        ) from error
    if size > LIMIT:
        raise refuse(str(path), f"at most {LIMIT} bytes", size, "Save less in one file.")
    reader = _Reader(path)
    return _zip(reader, raw) if raw.startswith(b"PK\3\4") else _legacy(reader, raw)


def tensors(tree: Any) -> dict[str, np.ndarray]:
    """The arrays in nested dicts, lists and tuples by dotted name, as in "agent_params.3.policy.fc1.weight".

    Raises JaxomarlError where two arrays have one name.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in _named(tree, ""):
        if name in found:
            raise refuse(
                "tensors", "one array of each name", name, "Rename the key that holds a dot."
            )
        found[name] = array
    return found


def _named(node: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(node, np.ndarray):
        yield name, node
    elif isinstance(node, dict | list | tuple):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _named(child, f"{name}.{key}" if name else str(key))


# --- the two formats ---


def _zip(reader: "_Reader", raw: bytes) -> Any:
    entries = _unzip(reader, raw)
    tops = [
        name.removesuffix("/data.pkl")
        for name in entries
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(tops) != 1:
        raise reader.wrong("one <name>/data.pkl", len(tops))
    order = entries.get(f"{tops[0]}/byteorder", b"little")  # before torch 2.1 there is none
    if order not in (b"little", b"big"):
        raise reader.wrong("a byteorder of little or big", repr(order[:20]))
    stream = io.BytesIO(entries[f"{tops[0]}/data.pkl"])
    tree = reader.tree(stream, fields=5)
    if stream.read(1):
        raise reader.wrong("the end of data.pkl", "more bytes")
    data = {key: entries.get(f"{tops[0]}/data/{key}") for key in reader.storages}
    reader.fill(data, "<" if order == b"little" else ">")
    return tree


def _unzip(reader: "_Reader", raw: bytes) -> dict[str, bytes]:
    reader.at = "zip archive"
    if raw.count(b"PK\1\2") > ENTRIES:
        raise reader.wrong(f"at most {ENTRIES} entries", "more")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            infos = archive.infolist()
            if len({info.filename for info in infos}) != len(infos):
                raise reader.wrong("one entry of each name", "two of one name")
            for info in infos:  # nothing is compressed, so no entry can be larger than the file
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise reader.wrong(
                        "stored entries, as torch.save writes them", f"{info.filename}, compressed"
                    )
            if sum(info.file_size for info in infos) > len(raw):
                raise reader.wrong(f"entries of {len(raw)} bytes together", "more: they overlap")
            return {info.filename: archive.read(info) for info in infos}
    except JaxomarlError:
        raise
    except (
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        ArithmeticError,
        LookupError,
        OSError,
        EOFError,
        struct.error,
    ) as error:
        raise reader.wrong("a whole zip archive", str(error)) from error


def _legacy(reader: "_Reader", raw: bytes) -> Any:
    stream = io.BytesIO(raw)
    for name, value in (("magic number", MAGIC), ("protocol", PROTOCOL)):
        found = reader.run(stream)
        if type(found) is not int or found != value:
            raise reader.wrong(f"torch's {name} {value}", found)
    if type(reader.run(stream)) is not dict:
        raise reader.wrong("a dict of the writer's machine", "something else")
    tree = reader.tree(stream, fields=6)
    keys, at = reader.run(stream), stream.tell()
    if (
        type(keys) is not list
        or any(type(k) is not str for k in keys)
        or sorted(keys) != sorted(reader.storages)
    ):
        raise reader.wrong("the list of the storages' keys", keys)
    data = {}
    for key in keys:  # count and elements are little-endian, whatever machine wrote them
        reader.at = f"storage {key[:40]!r} at byte {at}"
        dtype, numel = reader.storages[key]
        if at + 8 > len(raw):
            raise reader.wrong("a storage", "the end of the file")
        count, at = int.from_bytes(raw[at : at + 8], "little", signed=True), at + 8
        end = at + numel * dtype.itemsize
        if count != numel or end > len(raw):
            raise reader.wrong(
                f"{numel} elements of {dtype}", f"a count of {count} and {len(raw) - at} bytes"
            )
        data[key], at = memoryview(raw)[at:end], end
    if at != len(raw):
        raise reader.wrong("the end of the file", f"{len(raw) - at} more bytes")
    reader.fill(data, "<")
    return tree


# --- the stack machine ---


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


_HOOKS = {dict, type(None)}
"""Types of a tensor's backward hooks, which no file of ours has any of."""


def _is_pair(x: Any) -> bool:
    """Whether it is [key, value], as Python 2 hands them to an OrderedDict."""
    return type(x) is list and len(x) == 2


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    start: int  # its first element in the storage of that key
    numel: int


@dataclasses.dataclass
class _Reader:
    """Runs the pickles of one file; tensors are arrays of zeros until `fill`."""

    path: Path
    at: str = "start"
    steps: int = 0
    size: int = 0  # bytes of the arrays made so far
    fields: int = 0  # of a storage's persistent id; 0 where no storage may be
    storages: dict[str, tuple[np.dtype, int]] = dataclasses.field(default_factory=dict)
    views: list[tuple[np.ndarray, _Storage, int, tuple[int, ...]]] = dataclasses.field(
        default_factory=list
    )

    def wrong(self, expected: str, found: object) -> JaxomarlError:
        """An error that names the file and the place."""
        short = found[:200] if isinstance(found, str) else found
        plain = isinstance(found, str | int | float | None)
        return refuse(
            f"{self.path}, {self.at}",
            expected,
            short if plain else f"a {type(found).__name__}",
            WAY_OUT,
        )

    def tree(self, stream: io.BytesIO, fields: int) -> Any:
        """The pickle that holds the object."""
        self.fields = fields
        tree = self.run(stream)
        self.fields, self.at = 0, "tree"
        self.measure(tree, 0, {})
        return tree

    def ops(self, stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
        """(name, argument) of each opcode of the next pickle."""
        try:
            for op, arg, pos in pickletools.genops(stream):
                self.at = f"{op.name} at byte {pos}"
                yield op.name, arg
        except (ValueError, OverflowError, Warning) as error:
            self.at = f"after {self.at}"
            raise self.wrong("a whole pickle", str(error)) from error

    def run(self, stream: io.BytesIO) -> Any:
        """The value of the next pickle."""
        stack, marks, memo = [], [], {}
        for op, arg in self.ops(stream):
            items = []
            self.steps += 1
            if self.steps > STEPS:
                raise self.wrong(f"at most {STEPS} opcodes", "more")
            if op not in NEEDS:
                raise self.wrong(
                    "an opcode that torch.save writes for tensors",
                    f"{op} {arg}" if type(arg) is str else op,
                )
            if op in MARKED:
                if not marks:
                    raise self.wrong("a mark", "none")
                items, stack = stack, marks.pop()
            if len(stack) < NEEDS[op]:
                raise self.wrong(f"{NEEDS[op]} values on the stack", len(stack))
            if op == "STOP":
                if marks or len(stack) != 1:
                    raise self.wrong("one value at the end", f"{len(stack)} and {len(marks)} marks")
                return stack[0]
            if op == "MARK":
                marks.append(stack)
                stack = []
            elif op in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if op == "MEMOIZE" else arg] = stack[-1]
            elif op in ("BINGET", "LONG_BINGET"):
                if arg not in memo:
                    raise self.wrong("something kept under this number", arg)
                stack.append(memo[arg])
            elif op not in ("PROTO", "FRAME"):
                self.step(op, arg, stack, items)
        raise self.wrong("a whole pickle", "no end")

    def step(self, op: str, arg: Any, stack: list[Any], items: list[Any]) -> None:
        """One opcode that makes a value or fills a container."""
        if op in FRESH:
            stack.append(FRESH[op]())
        elif op == "TUPLE":
            stack.append(tuple(items))
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack[-NEEDS[op] :] = [tuple(stack[-NEEDS[op] :])]
        elif op in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            if op not in MARKED:
                items = [stack.pop() for _ in range(NEEDS[op] - 1)][::-1]
            self.extend(stack[-1], items, list if op.startswith("APPEND") else dict)
        elif op == "GLOBAL":
            stack.append(self.named(arg))
        elif op == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            if type(name) is not str or type(module) is not str:
                raise self.wrong("a module's name and a name", module)
            stack.append(self.named(f"{module} {name}"))
        elif op == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif op == "REDUCE":
            args, function = stack.pop(), stack.pop()
            stack.append(self.apply(function, args))
        elif op == "NEWOBJ":
            args, made = stack.pop(), stack.pop()
            if made != _Global("torch Size"):
                raise self.wrong(
                    "a class that torch.save writes for tensors", getattr(made, "name", made)
                )
            stack.append(self.apply(made, args))
        elif op == "BUILD":  # a state_dict's `_metadata` (the modules' versions), which we drop
            state, target = stack.pop(), stack[-1]
            if type(target) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
                raise self.wrong("an OrderedDict and its _metadata", target)
        else:  # a number or a text
            stack.append(arg)

    def extend(self, target: Any, items: list[Any], kind: type) -> None:
        """Append items to a list, or set a dict's keys and values in turn."""
        if type(target) is not kind:
            raise self.wrong(f"a {kind.__name__}", target)
        if kind is list:
            target.extend(items)
            return
        if len(items) % 2:
            raise self.wrong("as many values as keys", len(items))
        for key in items[
            ::2
        ]:  # wide integers could all have one hash, and a tuple's hash can take for ever
            if not (
                (type(key) is str and len(key) <= NAME) or (type(key) is int and abs(key) < 1 << 63)
            ):
                raise self.wrong(
                    f"a key that is an int64 or a text of at most {NAME} characters", key
                )
        target.update(zip(items[::2], items[1::2], strict=True))

    def named(self, name: str) -> _Global:
        """The token of a name in `GLOBALS`."""
        if name not in GLOBALS:
            raise self.wrong("a global that torch.save writes for tensors", name)
        return _Global(name)

    def storage(self, pid: Any) -> _Storage:
        """("storage", class, key, location, elements), and in the legacy format None or (key, offset, elements)."""
        known = (
            type(pid) is tuple
            and len(pid) == self.fields
            and type(pid[1]) is _Global
            and pid[1].name in STORAGES
        )
        if (
            not known
            or [type(x) for x in (pid[0], *pid[2:5])] != [str, str, str, int]
            or pid[0] != "storage"
        ):
            raise self.wrong(
                f"a storage's {self.fields} fields" if self.fields else "no storage", pid
            )
        key, numel, view = pid[2], pid[4], pid[5] if len(pid) == 6 else None
        dtype = STORAGES[pid[1].name]
        if not 0 <= numel * dtype.itemsize <= LIMIT:
            raise self.wrong(f"a storage of at most {LIMIT} bytes", numel)
        if self.storages.setdefault(key, (dtype, numel)) != (dtype, numel):
            raise self.wrong(
                f"the storage of this key again, {self.storages[key]}", f"{(dtype, numel)}"
            )
        if view is None:
            return _Storage(key, dtype, 0, numel)
        if type(view) is not tuple or [type(x) for x in view] != [str, int, int]:
            raise self.wrong("a view's key, offset and elements", view)
        if not (0 <= view[1] <= numel and 0 <= view[2] <= numel - view[1]):
            raise self.wrong(f"a view within {numel} elements", f"{view[1:]}")
        return _Storage(key, dtype, view[1], view[2])

    def apply(self, function: Any, args: Any) -> Any:
        """What the allowed callables make of their arguments."""
        name = function.name if type(function) is _Global else ""
        kinds = [type(x) for x in args] if type(args) is tuple else None
        if name == "collections OrderedDict" and kinds == []:
            return {}
        if (
            name == "collections OrderedDict"
            and kinds == [list]
            and all(_is_pair(x) for x in args[0])
        ):
            made: dict[Any, Any] = {}
            self.extend(made, [x for pair in args[0] for x in pair], dict)
            return made
        if name == "torch Size" and kinds == [tuple]:
            return args[0]
        given = args if kinds is not None else ()
        if name in PARAMETERS and self.is_parameter(name, given):
            return args[0]
        if name in TENSORS and self.is_tensor(name, given):
            return self.tensor(*args[:4])
        if name in SUBCLASSES and self.is_subclass(given):
            return self.apply(args[0], args[2])
        shown = (
            f"{name}({', '.join(x.__name__ for x in kinds[:8])})"
            if name and kinds is not None
            else function
        )
        raise self.wrong("a call that torch.save writes for tensors", shown)

    def is_parameter(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether they are (tensor, requires_grad, hooks), and attributes where the function takes them."""
        kinds = [type(x) for x in args]
        return (
            len(args) == PARAMETERS[name] and kinds[:2] == [np.ndarray, bool] and kinds[2] in _HOOKS
        )

    def is_tensor(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether they are (storage, offset, size, stride), then requires_grad, hooks and no metadata from 0.4 on."""
        kinds, many = [type(x) for x in args], TENSORS[name]
        if kinds[:4] != [_Storage, int, tuple, tuple] or len(args) not in (
            many,
            7 if many == 6 else many,
        ):
            return False
        return many == 4 or (kinds[4] is bool and kinds[5] in _HOOKS and not any(args[6:]))

    def is_subclass(self, args: tuple[Any, ...]) -> bool:
        """Whether they are (function, class, its arguments, state), of a function and a class that are known."""
        if [type(x) for x in args[:3]] != [_Global, _Global, tuple] or len(args) != 4:
            return False
        return args[0].name in TENSORS | PARAMETERS and args[1].name in CLASSES

    def tensor(
        self, storage: _Storage, offset: int, shape: tuple[Any, ...], stride: tuple[Any, ...]
    ) -> np.ndarray:
        """Zeros, to be filled with element `offset + sum(i * stride)` of the storage at index i."""
        if (
            len(shape) > 32
            or len(shape) != len(stride)
            or any(type(x) is not int for x in shape + stride)
        ):
            raise self.wrong(
                "sizes and strides, at most 32 of each", f"{len(shape)} and {len(stride)}"
            )
        if not all(0 <= x < 1 << 63 for x in (offset, *shape, *stride)):
            raise self.wrong(
                "an offset, sizes and strides from 0 to 2^63", f"{offset=}, {shape=}, {stride=}"
            )
        size = math.prod(max(n, 1) for n in shape) * storage.dtype.itemsize
        self.size += size
        if self.size > LIMIT:
            raise self.wrong(f"at most {LIMIT} bytes of tensors", self.size)
        last = (
            offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
            if 0 not in shape
            else offset - 1
        )
        if last >= storage.numel:
            raise self.wrong(
                f"a tensor within {storage.numel} elements", f"{offset=}, {shape=}, {stride=}"
            )
        array = np.zeros(shape, storage.dtype)
        self.views.append((array, storage, offset, stride))
        return array

    def fill(self, data: Mapping[str, bytes | memoryview | None], order: str) -> None:
        """Copy the storages' bytes into the tensors; `order` is "<" or ">"."""
        flat = {}
        for key, (dtype, numel) in self.storages.items():
            self.at, buffer = f"storage {key[:40]!r}", data[key]
            if buffer is None or len(buffer) != numel * dtype.itemsize:
                raise self.wrong(
                    f"{numel} elements of {dtype}",
                    "none" if buffer is None else f"{len(buffer)} bytes",
                )
            words = np.frombuffer(buffer, f"{order}u{dtype.itemsize}")
            native = words.astype(f"=u{dtype.itemsize}", copy=False)
            flat[key] = native != 0 if dtype == np.bool_ else native.view(dtype)
        for array, storage, offset, stride in self.views:
            if (
                array.size
            ):  # the stride of an axis of one element is never taken, and may be any number
                steps = [
                    s * array.itemsize if n > 1 else 0
                    for n, s in zip(array.shape, stride, strict=True)
                ]
                source = flat[storage.key][storage.start + offset :]
                array[...] = np.lib.stride_tricks.as_strided(
                    source, array.shape, steps, writeable=False
                )

    def measure(self, node: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """(entries, height) of the tree under `node`; refused where it is too large or holds itself."""
        if id(node) not in known:
            known[id(node)] = STEPS + 1, 0  # refused where the node is met within itself
            if depth > DEPTH:
                raise self.wrong(f"at most {DEPTH} containers within each other", "more")
            children = []
            if type(node) in (dict, list, tuple):
                children = [
                    self.measure(x, depth + 1, known)
                    for x in (node.values() if type(node) is dict else node)
                ]
            elif type(node) not in (str, int, float, bool, type(None), np.ndarray):
                raise self.wrong(
                    "numbers, texts, containers and tensors", getattr(node, "name", node)
                )
            known[id(node)] = (
                1 + sum(n for n, _ in children),
                1 + max((h for _, h in children), default=0),
            )
        entries, height = known[id(node)]
        if entries > STEPS or depth + height > DEPTH + 1:
            raise self.wrong(
                f"{STEPS} entries and {DEPTH} levels at most", "more, or a container within itself"
            )
        return entries, height

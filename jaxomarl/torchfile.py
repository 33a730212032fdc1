"""Torch checkpoints without torch: an opcode reader for tensors and plain containers.

A checkpoint is a program for a stack machine. This reader has the few instructions that
`torch.save` writes for state_dicts. It looks names up in `GLOBALS` and imports none, so nothing in
the file is called. Source: `torch/serialization.py`, 2.13.
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
"""Most bytes of a file, and of the arrays read from it."""
STEPS = 1_000_000
"""Most opcodes of a file, and most entries of its tree; a shared entry counts each time."""
DEPTH = 100
"""Most containers nested in each other."""
NAME = 1000
"""Most characters of a key."""
ENTRIES = 100_000
"""Most entries of a zip archive."""
MAGIC = 0x1950A86A20F9469CFC6C
"""The first number of a file in the legacy format."""
PROTOCOL = 1001
"""The second number of a file in the legacy format."""
WAY_OUT = (
    "Only numbers, texts, plain containers and tensors are read: "
    "save state_dicts alone, with torch.save."
)

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
"""Functions that rebuild a tensor -> their number of arguments.

They are storage, offset, size, stride; from 0.4 on also requires_grad and hooks.
"""
PARAMETERS = {"torch._utils _rebuild_parameter": 3, "torch._utils _rebuild_parameter_with_state": 4}
"""Functions that rebuild a parameter from its tensor -> their number of arguments.

They are tensor, requires_grad, hooks; from 2.1 on also attributes.
"""
SUBCLASSES = {
    "torch._tensor _rebuild_from_type_v2",
    "torch._tensor _rebuild_from_type",
    "torch.tensor _rebuild_from_type",
}
"""Functions that rebuild a tensor that has attributes or a class of its own, since 1.7.

Their arguments are (function, class, arguments, state).
"""
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
"""Every name that a file may use. Each is a token here, and `_Reader` defines its effect.

Versions of torch write these differently, and all forms are read:
- Before 0.4 a tensor has no requires_grad and no hooks. From 0.4 to 1.0 hooks are None, since 1.1
  they are an OrderedDict. Since 2.0 a seventh argument may follow, None or empty here.
- Under Python 2 texts are byte strings, and an OrderedDict is called with a list of [key, value].
- Before 1.0 a torch.Size is built by NEWOBJ.
"""

MARKED = {"TUPLE", "APPENDS", "SETITEMS"}
"""Opcodes that take the values above the last mark."""
_OPCODES = {
    0: (
        *("PROTO", "FRAME", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "GLOBAL"),
        *("BINGET", "LONG_BINGET", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
        *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE"),
    ),
    1: (
        *("STOP", "TUPLE1", "APPENDS", "SETITEMS"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINPERSID"),
    ),
    2: ("TUPLE2", "APPEND", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"),
    3: ("TUPLE3", "SETITEM"),
}
NEEDS = {op: count for count, ops in _OPCODES.items() for op in ops}
"""Every opcode that a file may use -> the number of values that it needs on the stack.

They lie below the mark where the opcode takes one.
"""
FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
"""Opcodes that push a constant or an empty container."""


def load(path: str | Path) -> Any:
    """The tree in a `torch.save` file of either format.

    It consists of dict, list, tuple, str, int, float, bool, None, and arrays. Each array owns its
    memory, in C order. Nothing in the file is called. Raises JaxomarlError for a file that is
    damaged, too large, or holds anything else.
    """
    path = Path(path)
    way_out = "Name a file that torch.save wrote."
    try:
        if not path.is_file():
            raise refuse(str(path), "a torch checkpoint", "no file", way_out)
        size = path.stat().st_size
        raw = path.read_bytes() if size <= LIMIT else b""
    except OSError as error:
        raise refuse(str(path), "a readable file", str(error), way_out) from error
    if size > LIMIT:
        raise refuse(str(path), f"at most {LIMIT} bytes", size, "Save less in one file.")

    reader = _Reader(path)
    if raw.startswith(b"PK\3\4"):
        return _zip(reader, raw)
    return _legacy(reader, raw)


def tensors(tree: Any) -> dict[str, np.ndarray]:
    """The arrays in nested dicts, lists and tuples, by dotted name.

    A name is such as "agent_params.3.policy.fc1.weight". Raises JaxomarlError where two arrays
    have one name.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, array in _named(tree, ""):
        if name in arrays:
            way_out = "Rename the key that holds a dot."
            raise refuse("tensors", "one array of each name", name, way_out)
        arrays[name] = array
    return arrays


def _named(node: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(node, np.ndarray):
        yield name, node
    elif isinstance(node, dict | list | tuple):
        children = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in children:
            yield from _named(child, f"{name}.{key}" if name else str(key))


# --- the two formats ---


def _zip(reader: "_Reader", raw: bytes) -> Any:
    entries = _unzip(reader, raw)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise reader.wrong("one <name>/data.pkl", len(pickles))
    top = pickles[0].removesuffix("/data.pkl")

    # before torch 2.1 there is no byteorder
    order = entries.get(f"{top}/byteorder", b"little")
    if order not in (b"little", b"big"):
        raise reader.wrong("a byteorder of little or big", repr(order[:20]))

    stream = io.BytesIO(entries[f"{top}/data.pkl"])
    tree = reader.tree(stream, fields=5)
    if stream.read(1):
        raise reader.wrong("the end of data.pkl", "more bytes")
    data = {key: entries.get(f"{top}/data/{key}") for key in reader.storages}
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
            # nothing is compressed, so no entry can be larger than the file
            for info in infos:
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    expected = "stored entries, as torch.save writes them"
                    raise reader.wrong(expected, f"{info.filename}, compressed")
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
    keys = reader.run(stream)
    texts = type(keys) is list and all(type(key) is str for key in keys)
    if not texts or sorted(keys) != sorted(reader.storages):
        raise reader.wrong("the list of the storages' keys", keys)

    # counts and elements are little-endian on every machine
    data = {}
    at = stream.tell()
    for key in keys:
        reader.at = f"storage {key[:40]!r} at byte {at}"
        dtype, numel = reader.storages[key]
        if at + 8 > len(raw):
            raise reader.wrong("a storage", "the end of the file")
        count = int.from_bytes(raw[at : at + 8], "little", signed=True)
        at += 8
        end = at + numel * dtype.itemsize
        if count != numel or end > len(raw):
            given = f"a count of {count} and {len(raw) - at} bytes"
            raise reader.wrong(f"{numel} elements of {dtype}", given)
        data[key] = memoryview(raw)[at:end]
        at = end
    if at != len(raw):
        raise reader.wrong("the end of the file", f"{len(raw) - at} more bytes")
    reader.fill(data, "<")
    return tree


# --- the stack machine ---


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


_HOOKS = {dict, type(None)}
"""Types of a tensor's backward hooks, which are ignored."""


def _is_pair(x: Any) -> bool:
    """Whether it is [key, value], as Python 2 passes them to an OrderedDict."""
    return type(x) is list and len(x) == 2


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    start: int
    """Its first element in the storage of that key."""
    numel: int


@dataclasses.dataclass
class _Reader:
    """Runs the pickles of one file; tensors are arrays of zeros until `fill`."""

    path: Path
    at: str = "start"
    """The current place, for messages."""
    steps: int = 0
    size: int = 0
    """Bytes of the arrays so far."""
    fields: int = 0
    """Number of fields in a storage's persistent id; 0 where no storage may be."""
    storages: dict[str, tuple[np.dtype, int]] = dataclasses.field(default_factory=dict)
    views: list[tuple[np.ndarray, _Storage, int, tuple[int, ...]]] = dataclasses.field(
        default_factory=list
    )

    def wrong(self, expected: str, found: object) -> JaxomarlError:
        """An error that names the file and the place."""
        if isinstance(found, str):
            found = found[:200]
        elif not isinstance(found, int | float | None):
            found = f"a {type(found).__name__}"
        return refuse(f"{self.path}, {self.at}", expected, found, WAY_OUT)

    def tree(self, stream: io.BytesIO, fields: int) -> Any:
        """The pickle that holds the object."""
        self.fields = fields
        tree = self.run(stream)
        self.fields = 0
        self.at = "tree"
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
                given = f"{op} {arg}" if type(arg) is str else op
                raise self.wrong("an opcode that torch.save writes for tensors", given)
            if op in MARKED:
                if not marks:
                    raise self.wrong("a mark", "none")
                items = stack
                stack = marks.pop()
            if len(stack) < NEEDS[op]:
                raise self.wrong(f"{NEEDS[op]} values on the stack", len(stack))
            if op == "STOP":
                if marks or len(stack) != 1:
                    raise self.wrong("one value at the end", f"{len(stack)} and {len(marks)} marks")
                return stack[0]
            if op == "MARK":
                marks.append(stack)
                stack = []
            elif op == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif op in ("BINPUT", "LONG_BINPUT"):
                memo[arg] = stack[-1]
            elif op in ("BINGET", "LONG_BINGET"):
                if arg not in memo:
                    raise self.wrong("something kept under this number", arg)
                stack.append(memo[arg])
            elif op not in ("PROTO", "FRAME"):
                self.step(op, arg, stack, items)
        raise self.wrong("a whole pickle", "no end")

    def step(self, op: str, arg: Any, stack: list[Any], items: list[Any]) -> None:
        """One opcode that pushes a value or fills a container."""
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
            name = stack.pop()
            module = stack.pop()
            if type(name) is not str or type(module) is not str:
                raise self.wrong("a module's name and a name", module)
            stack.append(self.named(f"{module} {name}"))
        elif op == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif op == "REDUCE":
            args = stack.pop()
            function = stack.pop()
            stack.append(self.apply(function, args))
        elif op == "NEWOBJ":
            args = stack.pop()
            new = stack.pop()
            if new != _Global("torch Size"):
                given = getattr(new, "name", new)
                raise self.wrong("a class that torch.save writes for tensors", given)
            stack.append(self.apply(new, args))
        elif op == "BUILD":
            # a state_dict's `_metadata` (the modules' versions), which we drop
            state = stack.pop()
            target = stack[-1]
            if type(target) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
                raise self.wrong("an OrderedDict and its _metadata", target)
        else:
            # a number or a text
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
        # wide integers could all have one hash, and a tuple's hash can take for ever
        for key in items[::2]:
            text = type(key) is str and len(key) <= NAME
            number = type(key) is int and abs(key) < 1 << 63
            if not text and not number:
                expected = f"a key that is an int64 or a text of at most {NAME} characters"
                raise self.wrong(expected, key)
        target.update(zip(items[::2], items[1::2], strict=True))

    def named(self, name: str) -> _Global:
        """The token of a name in `GLOBALS`."""
        if name not in GLOBALS:
            raise self.wrong("a global that torch.save writes for tensors", name)
        return _Global(name)

    def storage(self, pid: Any) -> _Storage:
        """The storage of a persistent id ("storage", class, key, location, elements).

        In the legacy format None or (key, offset, elements) follows.
        """
        if not self.is_storage(pid):
            expected = f"a storage's {self.fields} fields" if self.fields else "no storage"
            raise self.wrong(expected, pid)
        dtype = STORAGES[pid[1].name]
        key = pid[2]
        numel = pid[4]
        if not 0 <= numel * dtype.itemsize <= LIMIT:
            raise self.wrong(f"a storage of at most {LIMIT} bytes", numel)
        known = self.storages.setdefault(key, (dtype, numel))
        if known != (dtype, numel):
            raise self.wrong(f"the storage of this key again, {known}", f"{(dtype, numel)}")

        view = pid[5] if len(pid) == 6 else None
        if view is None:
            return _Storage(key, dtype, 0, numel)
        if type(view) is not tuple or [type(x) for x in view] != [str, int, int]:
            raise self.wrong("a view's key, offset and elements", view)
        _, offset, elements = view
        if not (0 <= offset <= numel and 0 <= elements <= numel - offset):
            raise self.wrong(f"a view within {numel} elements", f"{view[1:]}")
        return _Storage(key, dtype, offset, elements)

    def is_storage(self, pid: Any) -> bool:
        """Whether a persistent id has the fields of a storage, whose class is known."""
        if not self.fields or type(pid) is not tuple or len(pid) != self.fields:
            return False
        if type(pid[1]) is not _Global or pid[1].name not in STORAGES:
            return False
        kinds = [type(x) for x in (pid[0], *pid[2:5])]
        return kinds == [str, str, str, int] and pid[0] == "storage"

    def apply(self, function: Any, args: Any) -> Any:
        """The value of a call of one of the allowed names."""
        expected = "a call that torch.save writes for tensors"
        if type(function) is not _Global or type(args) is not tuple:
            raise self.wrong(expected, function)
        name = function.name
        kinds = [type(x) for x in args]

        if name == "collections OrderedDict":
            if kinds == []:
                return {}
            if kinds == [list] and all(_is_pair(x) for x in args[0]):
                ordered: dict[Any, Any] = {}
                self.extend(ordered, [x for pair in args[0] for x in pair], dict)
                return ordered
        if name == "torch Size" and kinds == [tuple]:
            return args[0]
        if name in PARAMETERS and self.is_parameter(name, args):
            return args[0]
        if name in TENSORS and self.is_tensor(name, args):
            return self.tensor(*args[:4])
        if name in SUBCLASSES and self.is_subclass(args):
            return self.apply(args[0], args[2])
        raise self.wrong(expected, f"{name}({', '.join(kind.__name__ for kind in kinds[:8])})")

    def is_parameter(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether args are (tensor, requires_grad, hooks), and attributes where they belong."""
        if len(args) != PARAMETERS[name]:
            return False
        kinds = [type(x) for x in args]
        return kinds[:2] == [np.ndarray, bool] and kinds[2] in _HOOKS

    def is_tensor(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether args are (storage, offset, size, stride).

        From 0.4 on requires_grad, hooks and no metadata follow.
        """
        kinds = [type(x) for x in args]
        if kinds[:4] != [_Storage, int, tuple, tuple]:
            return False
        if TENSORS[name] == 4:
            return len(args) == 4
        if len(args) not in (6, 7):
            return False
        return kinds[4] is bool and kinds[5] in _HOOKS and not any(args[6:])

    def is_subclass(self, args: tuple[Any, ...]) -> bool:
        """Whether args are (function, class, arguments, state) of known function and class."""
        if [type(x) for x in args[:3]] != [_Global, _Global, tuple] or len(args) != 4:
            return False
        return args[0].name in TENSORS | PARAMETERS and args[1].name in CLASSES

    def tensor(
        self, storage: _Storage, offset: int, shape: tuple[Any, ...], stride: tuple[Any, ...]
    ) -> np.ndarray:
        """Zeros, to be filled with element `offset + sum(i * stride)` of the storage at index i."""
        whole = all(type(x) is int for x in shape + stride)
        if not whole or len(shape) > 32 or len(shape) != len(stride):
            given = f"{len(shape)} and {len(stride)}"
            raise self.wrong("sizes and strides, at most 32 of each", given)
        given = f"{offset=}, {shape=}, {stride=}"
        if not all(0 <= x < 1 << 63 for x in (offset, *shape, *stride)):
            raise self.wrong("an offset, sizes and strides from 0 to 2^63", given)
        size = math.prod(max(n, 1) for n in shape) * storage.dtype.itemsize
        self.size += size
        if self.size > LIMIT:
            raise self.wrong(f"at most {LIMIT} bytes of tensors", self.size)
        if 0 in shape:
            last = offset - 1
        else:
            last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if last >= storage.numel:
            raise self.wrong(f"a tensor within {storage.numel} elements", given)
        array = np.zeros(shape, storage.dtype)
        self.views.append((array, storage, offset, stride))
        return array

    def fill(self, data: Mapping[str, bytes | memoryview | None], order: str) -> None:
        """Copy the storages' bytes into the tensors; `order` is "<" or ">"."""
        flat = {}
        for key, (dtype, numel) in self.storages.items():
            self.at = f"storage {key[:40]!r}"
            buffer = data[key]
            if buffer is None or len(buffer) != numel * dtype.itemsize:
                given = "none" if buffer is None else f"{len(buffer)} bytes"
                raise self.wrong(f"{numel} elements of {dtype}", given)
            words = np.frombuffer(buffer, f"{order}u{dtype.itemsize}")
            native = words.astype(f"=u{dtype.itemsize}", copy=False)
            flat[key] = native != 0 if dtype == np.bool_ else native.view(dtype)
        for array, storage, offset, stride in self.views:
            if not array.size:
                continue
            # the stride of an axis of one element is never taken, and may be any number
            axes = zip(array.shape, stride, strict=True)
            steps = [s * array.itemsize if n > 1 else 0 for n, s in axes]
            source = flat[storage.key][storage.start + offset :]
            strided = np.lib.stride_tricks.as_strided
            array[...] = strided(source, array.shape, steps, writeable=False)

    def measure(self, node: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """(entries, height) of the tree under `node`.

        Raises where the tree is too large or holds itself.
        """
        if id(node) not in known:
            # while its children are measured, the node counts as too large: it may not hold itself
            known[id(node)] = (STEPS + 1, 0)
            known[id(node)] = self.measure_new(node, depth, known)
        entries, height = known[id(node)]
        if entries > STEPS or depth + height > DEPTH + 1:
            expected = f"{STEPS} entries and {DEPTH} levels at most"
            raise self.wrong(expected, "more, or a container within itself")
        return entries, height

    def measure_new(
        self, node: Any, depth: int, known: dict[int, tuple[int, int]]
    ) -> tuple[int, int]:
        """The same for a node that is not in `known`."""
        if depth > DEPTH:
            raise self.wrong(f"at most {DEPTH} containers within each other", "more")
        children = []
        if type(node) in (dict, list, tuple):
            values = node.values() if type(node) is dict else node
            children = [self.measure(value, depth + 1, known) for value in values]
        elif type(node) not in (str, int, float, bool, type(None), np.ndarray):
            given = getattr(node, "name", node)
            raise self.wrong("numbers, texts, containers and tensors", given)
        entries = 1 + sum(count for count, _ in children)
        height = 1 + max((height for _, height in children), default=0)
        return entries, height

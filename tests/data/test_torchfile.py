"""Torch checkpoints are read without torch, and a file that holds anything else is refused without running it."""

import io
import struct
import time
import warnings
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl import torchfile
from jaxomarl.base import JaxomarlError
from jaxomarl.torchfile import load, tensors

REAL = [Path(__file__).parent / "files" / f"checkpoint_{name}.pt" for name in ("zip", "legacy")]
"""Written by torch 2.13.0: a Linear and a BatchNorm1d of width 1 after one step of Adam."""
FORMATS = ("zip", "legacy")


# --- pickles by hand ---


class Code(bytes):
    """Opcodes that leave one value."""


def emit(x):
    """Opcodes that make `x`; Code is taken as it is."""
    if isinstance(x, Code):
        return x
    if x is None or isinstance(x, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[x]
    if isinstance(x, int):
        wide = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(wide)]) + wide
    if isinstance(x, float):
        return b"G" + struct.pack(">d", x)
    if isinstance(x, str):
        return b"X" + struct.pack("<I", len(x.encode())) + x.encode()
    if isinstance(x, tuple):
        return b"(" + b"".join(map(emit, x)) + b"t"
    if isinstance(x, list):
        return b"](" + b"".join(map(emit, x)) + b"e"
    return b"}(" + b"".join(emit(k) + emit(v) for k, v in x.items()) + b"u"


def name(module, attribute):
    return Code(f"c{module}\n{attribute}\n".encode())


def call(function, *args):
    return Code(function + emit(args) + b"R")


ORDERED = name("collections", "OrderedDict")
HOOKS = call(ORDERED)
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def storage(key="0", kind="FloatStorage", numel=6, view=()):
    return Code(emit(("storage", name("torch", kind), key, "cpu", numel, *view)) + b"Q")


def tensor(where, offset=0, size=(2, 3), stride=(3, 1), *more):
    return call(REBUILD, where, offset, size, stride, False, HOOKS, *more)


def pickled(x):
    return b"\x80\x02" + emit(x) + b"."


def archive(tree, data, top="archive", **entries):
    """A zip checkpoint; `data` is key -> bytes, and `entries` are further ones."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(f"{top}/data.pkl", pickled(tree))
        for key, value in (entries | {f"data/{k}": v for k, v in data.items()}).items():
            z.writestr(f"{top}/{key}", value)
    return out.getvalue()


def old(tree, data, keys=None, magic=torchfile.MAGIC, protocol=1001, tail=b""):
    """A legacy checkpoint; `data` is key -> (element count, bytes)."""
    head = (
        magic,
        protocol,
        {"protocol_version": 1001, "little_endian": True},
        tree,
        list(data) if keys is None else keys,
    )
    return (
        b"".join(map(pickled, head))
        + b"".join(struct.pack("<q", n) + b for n, b in data.values())
        + tail
    )


def write(tmp_path, raw):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(raw)
    return path


def both(form, tree, data):
    """One of the formats; `data` is key -> array."""
    if form == "zip":
        return archive(tree, {k: v.tobytes() for k, v in data.items()})
    return old(tree, {k: (v.size, v.tobytes()) for k, v in data.items()})


def refused(tmp_path, raw, match=None):
    path = write(tmp_path, raw)
    with pytest.raises(JaxomarlError, match=match) as error:
        load(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 1000


SIX = np.arange(6, dtype=np.float32)


# --- what torch writes ---


@pytest.mark.parametrize("path", REAL, ids=FORMATS)
def test_a_real_checkpoint(path):
    tree = load(path)
    assert tree["init_dict"] == {
        **{
            "gamma": 0.95,
            "alg_types": ["MADDPG", "DDPG"],
            "hidden_dim": 64,
            "discrete_action": False,
        },
    }
    (agent,) = tree["agent_params"]
    group = agent["policy_optimizer"]["param_groups"][0]
    assert (
        group["lr"] == 0.01 and group["betas"] == (0.9, 0.999) and group["params"] == [0, 1, 2, 3]
    )
    found = tensors(tree)
    assert len(found) == 20 and {str(x.dtype) for x in found.values()} == {"float32", "int64"}
    policy = {k.removeprefix("agent_params.0.policy."): v for k, v in found.items()}
    np.testing.assert_array_equal(policy["fc.weight"], np.array([[0.5, 1.5]], np.float32))
    np.testing.assert_array_equal(policy["norm.bias"], np.array([3.49], np.float32))
    np.testing.assert_array_equal(policy["norm.running_mean"], np.array([0.35], np.float32))
    assert (
        policy["norm.num_batches_tracked"].shape == () and policy["norm.num_batches_tracked"] == 1
    )
    assert found["agent_params.0.policy_optimizer.state.3.step"] == 1.0
    np.testing.assert_array_equal(tree["view"], np.arange(6).reshape(2, 3).T[1:])
    assert (
        tree["view"].flags.c_contiguous
        and tree["view"].flags.owndata
        and tree["view"].flags.writeable
    )


def test_the_two_formats_hold_the_same():
    one, two = (tensors(load(path)) for path in REAL)
    assert list(one) == list(two)
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.parametrize("form", FORMATS)
def test_plain_values(tmp_path, form):
    tree = {
        "a": [1, -2.5, None, True],
        3: ("é", (), [], {}),
        "n": {"big": 2**40, "size": call(name("torch", "Size"), (2, 3))},
    }
    expected = {
        "a": [1, -2.5, None, True],
        3: ("é", (), [], {}),
        "n": {"big": 2**40, "size": (2, 3)},
    }
    assert load(write(tmp_path, both(form, tree, {}))) == expected


@pytest.mark.parametrize("form", FORMATS)
def test_strides_and_shared_storages(tmp_path, form):
    where = storage("7", view=() if form == "zip" else (None,))
    tree = {
        "whole": tensor(where),
        "turned": tensor(where, 0, (3, 2), (1, 3)),
        "part": tensor(where, 1, (2, 2), (3, 1)),
        "spread": tensor(where, 4, (2, 1), (0, 2**62)),
        "scalar": tensor(where, 5, (), ()),
        "empty": tensor(where, 0, (0, 3), (3, 1)),
        "parameter": call(name("torch._utils", "_rebuild_parameter"), tensor(where), True, HOOKS),
    }
    found = load(write(tmp_path, both(form, tree, {"7": SIX})))
    whole = SIX.reshape(2, 3)
    expected = {
        "whole": whole,
        "turned": whole.T,
        "part": whole[:, 1:],
        "spread": np.full((2, 1), 4.0),
    }
    expected |= {"scalar": SIX[5], "empty": np.zeros((0, 3)), "parameter": whole}
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(
            found[key], value, strict=key not in ("spread", "scalar", "empty")
        )
        assert found[key].dtype == np.float32 and found[key].shape == value.shape
    found["whole"][:] = 9.0
    np.testing.assert_array_equal(found["turned"], whole.T)


KINDS = [
    *(
        ("Float", np.float32),
        ("Double", np.float64),
        ("Half", np.float16),
        ("BFloat16", jnp.bfloat16),
    ),
    *(
        ("Long", np.int64),
        ("Int", np.int32),
        ("Short", np.int16),
        ("Char", np.int8),
        ("Byte", np.uint8),
    ),
    ("Bool", np.bool_),
]


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_types_and_byte_orders(tmp_path, kind, dtype, order):
    values = np.array([1, 0, 100], dtype)
    words = values.view(f"u{values.itemsize}")
    data = {"0": (words.byteswap() if order == "big" else words).tobytes()}
    tree = tensor(storage("0", f"{kind}Storage", 3), 0, (3,), (1,))
    found = load(write(tmp_path, archive(tree, data, byteorder=order)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)


def test_a_bool_is_one_or_zero(tmp_path):
    found = load(
        write(
            tmp_path,
            archive(tensor(storage("0", "BoolStorage", 2), 0, (2,), (1,)), {"0": b"\x02\x00"}),
        )
    )
    assert found.tobytes() == b"\x01\x00"


def test_a_legacy_view(tmp_path):
    where = storage(view=[("1", 2, 3)])
    assert load(
        write(tmp_path, both("legacy", tensor(where, 1, (2,), (1,)), {"0": SIX}))
    ).tolist() == [3.0, 4.0]
    for view in (("1", 4, 3), ("1", -1, 2), ("1", 7, 0), ("1", 0), (1, 2, 3), "view"):
        where = storage(view=[view])
        refused(tmp_path, both("legacy", tensor(where, 0, (1,), (1,)), {"0": SIX}), "view")
    where = storage(view=[("1", 2, 3)])
    refused(tmp_path, both("legacy", tensor(where, 1, (3,), (1,)), {"0": SIX}), "within 3 elements")


def eras(where):
    """Version -> opcodes of the tensor [[0, 1, 2], [3, 4, 5]], as that version of torch writes it."""
    parts = (where, 0, (2, 3), (3, 1))
    typed = name("torch._tensor", "_rebuild_from_type_v2")
    parameter = name("torch.nn.parameter", "Parameter")
    with_state = name("torch._utils", "_rebuild_parameter_with_state")
    data = tensor(where)
    return {
        "0.3": call(name("torch._utils", "_rebuild_tensor"), *parts),
        "0.4 to 1.0": call(REBUILD, *parts, False, None),
        "0.4 to 1.0, Python 2": call(REBUILD, *parts, True, call(ORDERED, [])),
        "1.1": call(REBUILD, *parts, True, HOOKS),
        "2.0, no metadata": call(REBUILD, *parts, True, HOOKS, None),
        "2.0, empty metadata": call(REBUILD, *parts, True, HOOKS, {}),
        "a parameter, hooks None": call(
            name("torch._utils", "_rebuild_parameter"), data, True, None
        ),
        "a parameter with attributes": call(with_state, data, True, HOOKS, {"note": "mine"}),
        "attributes, 1.7": call(
            name("torch.tensor", "_rebuild_from_type"),
            REBUILD,
            parameter,
            (*parts, True, HOOKS),
            {"note": 1},
        ),
        "attributes": call(
            typed, REBUILD, name("torch", "Tensor"), (*parts, True, HOOKS), {"note": "mine"}
        ),
        "attributes of a parameter": call(
            typed, name("torch._utils", "_rebuild_parameter"), parameter, (data, True, HOOKS), None
        ),
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("era", eras(storage()))
def test_each_version_s_way_of_writing_a_tensor(tmp_path, era, form):
    where = storage("0", view=() if form == "zip" else (None,))
    found = load(write(tmp_path, both(form, {"w": eras(where)[era]}, {"0": SIX})))
    np.testing.assert_array_equal(found["w"], SIX.reshape(2, 3), strict=True)


@pytest.mark.parametrize("form", FORMATS)
def test_what_python_2_writes(tmp_path, form):
    text = lambda s: Code(b"U" + bytes([len(s)]) + s.encode())
    where = storage("0", view=() if form == "zip" else (None,))
    pairs = [
        [text("fc.weight"), tensor(where)],
        [text("size"), Code(name("torch", "Size") + emit(((2, 3),)) + b"\x81")],
    ]
    state = Code(call(ORDERED, pairs) + emit({"_metadata": call(ORDERED, [])}) + b"b")
    long = Code(b"T" + struct.pack("<i", 6) + b"policy")
    found = load(write(tmp_path, both(form, {long: state}, {"0": SIX})))
    assert list(found) == ["policy"] and list(found["policy"]) == ["fc.weight", "size"]
    np.testing.assert_array_equal(found["policy"]["fc.weight"], SIX.reshape(2, 3))
    assert found["policy"]["size"] == (2, 3)


def test_a_prey_of_torch_0_4_is_the_prey(tmp_path):
    from safetensors.numpy import load as parse

    from jaxomarl.envs.mpe import prey

    asset = Path(prey.__file__).parents[2] / "assets" / "mpe" / "tag-prey.safetensors"
    arrays = parse(asset.read_bytes())
    made = {}
    for era, hooks in (("0.4", None), ("1.1", HOOKS)):
        data, policy = {}, {}
        for k, (key, x) in enumerate(arrays.items()):
            data[str(k)] = np.ascontiguousarray(x, np.float32)
            where = storage(str(k), numel=x.size, view=(None,))
            stride = tuple(s // 4 for s in data[str(k)].strides)
            policy[key] = call(REBUILD, where, 0, x.shape, stride, False, hooks)
        raw = both("legacy", {"agent_params": [{}, {}, {}, {"policy": policy}]}, data)
        (tmp_path / f"{era}.pt").write_bytes(raw)
        made[era] = prey.load_prey(tmp_path / f"{era}.pt", "tag", 14)
    assert made["0.4"][1] == made["1.1"][1] and made["0.4"][1].startswith("mpe-prey-")
    for old, new, own in zip(
        made["0.4"][0].kernels, made["1.1"][0].kernels, prey.own("tag").kernels, strict=True
    ):
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old, own)


def test_hooks_that_are_anything_else_are_refused(tmp_path):
    where = storage()
    for hooks in (True, 3, "hooks", [], ()):
        refused(
            tmp_path,
            both("zip", call(REBUILD, where, 0, (2, 3), (3, 1), False, hooks), {"0": SIX}),
            "a call that",
        )
    run = name("os", "system")
    typed = name("torch._tensor", "_rebuild_from_type_v2")
    refused(
        tmp_path,
        both("zip", call(typed, run, name("torch", "Tensor"), ("true",), None), {}),
        "os system",
    )
    refused(
        tmp_path,
        both("zip", call(typed, ORDERED, name("torch", "Tensor"), (), None), {}),
        "a call that",
    )
    refused(
        tmp_path,
        both("zip", call(typed, REBUILD, ORDERED, (where, 0, (1,), (1,), False, None), None), {}),
        "call",
    )


def test_names_of_tensors():
    a, b = np.zeros(2), np.ones(3)
    tree = {"agents": [{"w": a, "lr": 0.1}, (b, None)], 3: {"x": a}, "t": "text"}
    assert {k: v.shape for k, v in tensors(tree).items()} == {
        "agents.0.w": (2,),
        "agents.1.0": (3,),
        "3.x": (2,),
    }
    assert list(tensors(a)) == [""] and tensors({"a": 1}) == {}
    with pytest.raises(JaxomarlError, match=r"a\.b"):
        tensors({"a.b": a, "a": {"b": b}})


# --- what would run code ---


def attacks(command):
    """Name -> opcodes that would run a command, were they obeyed."""
    run, text = name("os", "system"), emit(command)
    state = emit({"__setstate__": run})
    stacked = emit("os") + emit("system") + b"\x93"
    return {
        "GLOBAL os": call(run, command),
        "GLOBAL posix": call(name("posix", "system"), command),
        "GLOBAL eval": call(name("builtins", "eval"), f"__import__('os').system({command!r})"),
        "GLOBAL getattr": call(name("builtins", "getattr"), ORDERED, "__class__"),
        "GLOBAL torch": call(name("torch", "load"), command),
        "GLOBAL dotted": call(name("collections", "OrderedDict.fromkeys"), command),
        "GLOBAL alone": run,
        "STACK_GLOBAL": Code(stacked + emit((command,)) + b"R"),
        "STACK_GLOBAL of numbers": Code(emit(1) + emit(2) + b"\x93"),
        "STACK_GLOBAL of a list": Code(emit([]) + emit([]) + b"\x93"),
        "INST": Code(b"(" + text + b"ios\nsystem\n"),
        "OBJ": Code(b"(" + run + text + b"o"),
        "OBJ allowed": Code(b"(" + ORDERED + b"o"),
        "NEWOBJ": Code(run + emit((command,)) + b"\x81"),
        "NEWOBJ allowed": Code(ORDERED + emit(()) + b"\x81"),
        "NEWOBJ_EX": Code(ORDERED + emit(()) + emit({}) + b"\x92"),
        "REDUCE of a text": call(Code(text), command),
        "REDUCE of a storage class": call(name("torch", "FloatStorage"), command),
        "REDUCE with wrong arguments": call(ORDERED, [("a", 1)]),
        "REDUCE without a tuple": Code(ORDERED + emit([]) + b"R"),
        "REDUCE of a parameter": call(
            name("torch._utils", "_rebuild_parameter"), command, True, HOOKS
        ),
        "REDUCE of a size": call(name("torch", "Size"), command),
        "REDUCE of a tensor": call(REBUILD, command, 0, (1,), (1,), False, HOOKS),
        "REDUCE of few": call(REBUILD, storage()),
        "BUILD": Code(HOOKS + state + b"b"),
        "BUILD allowed": Code(HOOKS + emit({"_metadata": {}, "__setstate__": ORDERED}) + b"b"),
        "BUILD of a list": Code(emit([]) + emit({"_metadata": 1}) + b"b"),
        "BUILD of a global": Code(ORDERED + emit({"_metadata": 1}) + b"b"),
        "BUILD of slots": Code(HOOKS + emit((None, {"_metadata": 1})) + b"b"),
        "EXT1": Code(b"\x82\x01"),
        "EXT2": Code(b"\x83\x01\x00"),
        "EXT4": Code(b"\x84\x01\x00\x00\x00"),
        "PERSID": Code(b"P" + command.encode() + b"\n"),
        "BINPERSID of a module": Code(emit(("module", run, "a.py", command)) + b"Q"),
        "BINPERSID of a text": Code(text + b"Q"),
        "BINPERSID of another class": Code(emit(("storage", ORDERED, "0", "cpu", 6, None)) + b"Q"),
        "a global as a value": ORDERED,
        "a class as a value": name("torch", "FloatStorage"),
        "bytes": Code(b"C\x01a"),
        "STRING": Code(b"S'a'\n"),
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("attack", attacks(""))
def test_nothing_is_run(tmp_path, attack, form):
    sentinel = tmp_path / "sentinel"
    code = attacks(f"touch {sentinel}")[attack]
    refused(tmp_path, both(form, {"a": [1, code]}, {}))
    if form == "legacy":  # the pickles around the object are read by the same machine
        refused(tmp_path, old({}, {}, keys=code))
        refused(tmp_path, old({}, {}, magic=code))
    assert not sentinel.exists()


def test_an_error_names_the_file_the_opcode_and_the_global(tmp_path):
    refused(
        tmp_path,
        archive(call(name("os", "system"), "true"), {}),
        "GLOBAL at byte 2: .*found 'os system'",
    )
    refused(
        tmp_path,
        archive(Code(emit("posix") + emit("system") + b"\x93"), {}),
        "STACK_GLOBAL at byte .*posix system",
    )
    refused(tmp_path, archive(Code(b"(ios\nsystem\n"), {}), "INST at byte 3: .*os system")


# --- what is damaged, or too large ---


def doubled(times):
    """A list of pairs, each of two of the one before: small in the file, 2^times entries as a tree."""
    pairs = b"".join(bytes([*b"h", i, *b"h", i, 0x86, *b"q", i + 1]) for i in range(times))
    return Code(b"](Nq\x00" + pairs + b"e")


def programs(view):
    """What is wrong -> opcodes of a file whose storage 0 has six floats; `view` ends a storage's persistent id."""
    where = storage(view=view)
    return {
        "underflow": Code(b"R"),
        "underflow of a tuple": Code(b"N\x87"),
        "no mark": Code(b"t"),
        "open mark": Code(b"N(N"),
        "two values": Code(b"NN"),
        "none": Code(b""),
        "unknown number": Code(b"h\x05"),
        "kept nothing": Code(b"q\x05"),
        "pop": Code(b"NN0"),
        "unknown opcode": Code(b"\xff"),
        "append to a dict": Code(b"}Na"),
        "append to a tuple": Code(b")Na"),
        "set in a list": Code(b"]NNs"),
        "a key without a value": Code(b"}(Nu"),
        "a list as a key": {Code(b"]"): 1},
        "a tuple as a key": {(1, 2): 1},
        "a wide key": {(2**61 - 1) << 10: 1},
        "a long key": {"k" * 1001: 1},
        "a list that holds itself": Code(b"]q\x00h\x00a"),
        "a dict that holds itself": Code(b"}q\x00" + emit("a") + b"h\x00s"),
        "a tuple that holds itself": Code(b"]q\x00h\x00\x85a"),
        "deep": Code(b"]" * 1 + b"\x85" * 5000),
        "deep, by steps": Code(b"](" + b"]q\x00" + b"h\x00\x85q\x00" * 500 + b"e"),
        "many": doubled(60),
        "a wide integer": Code(b"\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000),
        "a decimal": Code(b"I" + b"1" * 5000 + b"\n"),
        "a text longer than the file": Code(b"X\xff\xff\xff\x7fabc"),
        "a text longer than memory": Code(b"\x8d" + b"\xff" * 8 + b"abc"),
        "a text that is no text": Code(b"X\x01\x00\x00\x00\xff"),
        "no storage": tensor(None),
        "a storage as a value": where,
        "a storage that is too large": tensor(storage(numel=2**40, view=view)),
        "a storage of a negative size": tensor(storage(numel=-1, view=view)),
        "a storage of a wide size": tensor(storage(numel=2**2000, view=view)),
        "a storage of two sizes": [tensor(where), tensor(storage(numel=7, view=view))],
        "a storage of two types": [tensor(where), tensor(storage(kind="IntStorage", view=view))],
        "another storage": tensor(storage(kind="QInt8Storage", view=view)),
        "past the end": tensor(where, 1),
        "before the start": tensor(where, -1),
        "a long stride": tensor(where, 0, (2, 3), (4, 1)),
        "a negative stride": tensor(where, 5, (6,), (-1,)),
        "a negative size": tensor(where, 0, (-1,), (1,)),
        "more strides than sizes": tensor(where, 0, (2,), (1, 1)),
        "a size that is a float": tensor(where, 0, (2.0,), (1,)),
        "too many axes": tensor(where, 0, (1,) * 33, (1,) * 33),
        "a spread without end": tensor(where, 0, (2**40,), (0,)),
        "wide axes": tensor(where, 0, (2**62,) * 32, (0,) * 32),
        "wider axes": tensor(where, 0, (2**2000,) * 32, (0,) * 32),
        "wide empty axes": tensor(where, 0, (0, 2**62, 2**62), (0, 0, 0)),
        "metadata": tensor(where, 0, (2, 3), (3, 1), {"conj": True}),
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("program", programs(()))
def test_a_wrong_program_is_refused(tmp_path, program, form):
    start = time.process_time()
    refused(tmp_path, both(form, programs(() if form == "zip" else (None,))[program], {"0": SIX}))
    assert time.process_time() - start < 2.0


def test_limits(tmp_path, monkeypatch):
    path = write(tmp_path, both("zip", [tensor(storage())] * 3, {"0": SIX}))
    assert len(load(path)) == 3
    for limit, least, match in (
        ("LIMIT", 71, "bytes"),
        ("STEPS", 5, "opcodes"),
        ("DEPTH", 0, "levels|containers"),
    ):
        with monkeypatch.context() as patch, pytest.raises(JaxomarlError, match=match):
            patch.setattr(torchfile, limit, least)
            load(path)
    monkeypatch.setattr(torchfile, "ENTRIES", 1)
    with pytest.raises(JaxomarlError, match="entries"):
        load(path)


def test_a_zip_of_another_shape_is_refused(tmp_path):
    tree, data = tensor(storage()), {"0": SIX.tobytes()}
    good = archive(tree, data)
    assert load(write(tmp_path, good)).shape == (2, 3)
    refused(tmp_path, archive(tree, {}), "found 'none'")
    refused(tmp_path, archive(tree, {"0": SIX.tobytes()[:-1]}), "23 bytes")
    refused(tmp_path, archive(tree, {"0": SIX.tobytes() + b"a"}), "25 bytes")
    refused(tmp_path, archive(tree, data, byteorder="middle"), "byteorder")
    refused(tmp_path, archive(Code(emit(1) + b"." + emit(1)), data), "more bytes")
    refused(tmp_path, archive(tree, data, top="a/b"), "data.pkl")
    refused(
        tmp_path,
        archive(tree, data, **{"../other/data.pkl": b"N."}).replace(
            b"archive/../o", b"archiver-.-o"
        ),
        "found 2",
    )
    refused(tmp_path, good.replace(b"archive/data/0", b"archive/data/1"), "none")
    refused(tmp_path, good.replace(SIX.tobytes(), SIX[::-1].tobytes()), "CRC")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("archive/data.pkl", pickled(tree))
        z.writestr("archive/data/0", bytes(10_000_000))
    refused(tmp_path, bomb.getvalue(), "compressed")
    with warnings.catch_warnings(), zipfile.ZipFile(twice := io.BytesIO(), "w") as z:
        warnings.simplefilter("ignore")
        z.writestr("archive/data.pkl", pickled(1))
        z.writestr("archive/data.pkl", pickled(2))
    refused(tmp_path, twice.getvalue(), "two of one name")
    at = good.rindex(b"PK\1\2") + 20  # the sizes that the directory states
    for sizes in ((24, 2**31), (2**31, 2**31), (2**32 - 1, 2**32 - 1)):
        refused(tmp_path, good[:at] + struct.pack("<II", *sizes) + good[at + 8 :])


def test_a_legacy_file_of_another_shape_is_refused(tmp_path):
    tree, data = tensor(storage(view=[None])), {"0": (6, SIX.tobytes())}
    assert load(write(tmp_path, old(tree, data))).shape == (2, 3)
    refused(tmp_path, old(tree, data, magic=1), "magic")
    refused(tmp_path, old(tree, data, magic=2**2000), "magic")
    refused(tmp_path, old(tree, data, protocol=1002), "protocol 1001")
    refused(tmp_path, old(tree, data, magic=tree))
    refused(tmp_path, old(tree, data, keys=tree))
    for keys in ([], ["1"], ["0", "0"], [0], [["0"]], "0", {"0": 1}):
        refused(tmp_path, old(tree, data, keys=keys), "keys")
    refused(tmp_path, old(tree, {"0": (5, SIX.tobytes())}), "a count of 5")
    refused(tmp_path, old(tree, {"0": (-6, SIX.tobytes())}), "a count of -6")
    refused(tmp_path, old(tree, {"0": (6, SIX.tobytes()[:-1])}), "23 bytes")
    refused(tmp_path, old(tree, data, tail=b"a"), "1 more")
    refused(tmp_path, old(tensor(storage()), data), "6 fields")


def test_no_checkpoint_at_all(tmp_path):
    for raw in (
        b"",
        b"\n",
        b"a text\n",
        b"PK\3\4",
        b"PK\3\4" + bytes(100),
        b"\x89HDF\r\n\x1a\n",
        b"\x93NUMPY\1\0",
        b"\x80\x02N.",
        b"\x80\x02)Q.",  # an empty tuple as a persistent id, where no storage may be
    ):
        refused(tmp_path, raw)
    for path in (tmp_path, tmp_path / "missing.pt", str(tmp_path / "missing.pt")):
        with pytest.raises(JaxomarlError, match="a torch checkpoint, found 'no file'"):
            load(path)


def damaged(raw, rng, times):
    """Copies of `raw` with one byte changed, or cut off."""
    for i in range(times):
        at = int(rng.integers(len(raw)))
        yield raw[:at] if i % 3 == 0 else raw[:at] + bytes([int(rng.integers(256))]) + raw[at + 1 :]


def rezipped(program):
    """The real zip with another data.pkl, and checksums that fit it."""
    out = io.BytesIO()
    with zipfile.ZipFile(REAL[0]) as source, zipfile.ZipFile(out, "w") as z:
        for entry in source.namelist():
            z.writestr(entry, program if entry.endswith("/data.pkl") else source.read(entry))
    return out.getvalue()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_damaged_file_loads_or_is_refused(tmp_path, seed):
    rng, start, loaded = np.random.default_rng(seed), time.process_time(), 0
    with zipfile.ZipFile(REAL[0]) as source:
        program = source.read(next(n for n in source.namelist() if n.endswith("/data.pkl")))
    files = [*damaged(REAL[0].read_bytes(), rng, 60), *damaged(REAL[1].read_bytes(), rng, 150)]
    for raw in [*files, *map(rezipped, damaged(program, rng, 90))]:
        try:
            tensors(load(write(tmp_path, raw)))
            loaded += 1
        except JaxomarlError:
            pass
    assert 0 < loaded < 250 and time.process_time() - start < 5.0

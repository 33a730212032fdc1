"""Output never fails: on an encoding without a character, on a pipe whose reader has left, on a closed stream."""

import codecs
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxomarl.cli import output
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make

ROOT = Path(__file__).parents[2]
DATA = {"games/bandit": ("", 40), "mpe/spread": ("medium-expert", 50), "games/chain": ("", 40)}
"""Task -> (kind of data, rows)."""
COMMANDS = """
import json, os, sys
from jaxomarl.cli import main

def run(command, *flags):
    try:
        main(command, flags)
    except SystemExit as stop:
        return stop.code

out = sys.argv[1]
codes = [
    run("", "--help"),
    run("data", "describe", "games/bandit", "--rows", "40"),
    run("train", "bc", "--rows", "40", "--seeds", "2", "--episodes", "4", "--cfg.policy-steps", "4", "--cfg.chunk", "2",
        "--cfg.policy-batch", "8", "--cfg.policy-width", "8", "--out", out),
]
if "--data" in sys.argv:
    from jaxomarl.data.catalog import load
    from jaxomarl.envs.catalog import make
    hashes = {name: load(make(name), *given)[1]["sha256"] for name, given in json.loads(sys.argv[3]).items()}
    print(json.dumps(hashes))
sys.stdout.flush()
with open(out + ".codes", "w") as file:
    json.dump(codes, file)
"""
SHELL = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
}


def start(tmp_path, *flags, env, **pipes):
    home = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "JAXOMARL_CACHE": "",
        "JAX_NUM_CPU_DEVICES": "1",
    }
    command = [sys.executable, "-c", COMMANDS, str(tmp_path / "out"), *flags]
    return subprocess.Popen(command, cwd=tmp_path, env=os.environ | home | env, **pipes)


def test_an_ascii_terminal_and_a_shell_full_of_settings(tmp_path):
    """One process for both, since each takes seconds to import JAX: nothing fails, and the bits are the plain ones."""
    env = SHELL | {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    process = start(
        tmp_path,
        "--data",
        json.dumps(DATA),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = (text.decode("ascii") for text in process.communicate(timeout=300))
    assert json.loads((tmp_path / "out.codes").read_text()) == [0, 0, 0], err
    assert "+-" in out, "the table's interval or spread is shown in other characters"
    assert "UnicodeEncodeError" not in err
    for name in SHELL:
        assert f"{name}=" in err, "what is set aside is said"

    found = json.loads(out.strip().splitlines()[-1])
    assert found == {name: load(make(name), *given)[1]["sha256"] for name, given in DATA.items()}
    (info, _) = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("run.json")]
    assert info["data_sha256"] == found["games/bandit"]
    assert info["jax"]["jax_enable_x64"] is False
    (tmp_path / "out/summary.md").read_text(encoding="utf-8")


def test_a_reader_that_leaves_ends_nothing(tmp_path):
    """stdout and stderr are pipes that nobody reads, in latin-1: all commands end well, and the work is saved."""
    ends = [os.pipe() for _ in range(2)]
    for read, _ in ends:
        os.close(read)
    env = {"PYTHONIOENCODING": "latin-1", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")}
    process = start(tmp_path, env=env, stdout=ends[0][1], stderr=ends[1][1])
    for _, write in ends:
        os.close(write)
    assert process.wait(timeout=300) == 0
    assert json.loads((tmp_path / "out.codes").read_text()) == [0, 0, 0]
    assert (tmp_path / "out/summary.md").exists()
    assert any((tmp_path / "mine").iterdir()), "a user's own cache of compiled programs is used"


# --- in this process ---


@pytest.fixture(autouse=True)
def handler():
    codecs.register_error("jaxomarl.plain", output.plain)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "a ± b • ─ é 日", b"a +- b * - e ?"),
        ("latin-1", "a ± b • ─ é 日", b"a \xb1 b * - \xe9 ?"),
        ("utf-8", "a ± b •", "a ± b •".encode()),
        ("ascii", os.fsdecode(b"caf\xe9"), b"caf\xe9"),
    ],
)
def test_a_character_that_an_encoding_lacks_is_shown_by_another(encoding, text, shown):
    assert text.encode(encoding, "jaxomarl.plain") == shown


def test_a_closed_pipe_takes_what_is_written(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="latin-1", closefd=False) as file:
        stream = output.open_stream(file)
        for _ in range(3):
            print("±" * 100_000, file=stream, flush=True)
    os.write(write, b"a library that writes past Python's streams")
    os.close(write)


def test_a_full_disk_is_no_reader_that_has_left():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        output.Reader(full).write(b"x")
    os.close(full)


def test_a_closed_stream_is_printed_to():
    stream = output.open_stream(None)
    print("nobody sees this: ±", file=stream)
    stream.close()


def test_a_stream_that_is_no_file_stays():
    stream = io.StringIO()
    assert output.open_stream(stream) is stream

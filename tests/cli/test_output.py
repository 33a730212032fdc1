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

def codes(out):
    return [
        run("", "--help"),
        run("data", "describe", "games/bandit", "--rows", "40"),
        run("train", "bc", "--rows", "40", "--seeds", "2", "--episodes", "4", "--cfg.policy-steps", "4", "--cfg.chunk",
            "2", "--cfg.policy-batch", "8", "--cfg.policy-width", "8", "--out", out),
    ]

out = sys.argv[1]
found = {"read": codes(out)}
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make
hashes = {name: load(make(name), *given)[1]["sha256"] for name, given in json.loads(sys.argv[2]).items()}
print(json.dumps(hashes))
sys.stdout.flush()
sys.stderr.flush()

read, write = os.pipe()
os.close(read)
for descriptor in (1, 2):
    os.dup2(write, descriptor)
found["unread"] = codes(out + "-unread")
with open(out + ".codes", "w") as file:
    json.dump(found, file)
"""
SHELL = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
}


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """(folder, exit code, stdout, stderr) of one process for all of it, as each takes seconds to import JAX.

    Its terminal is ASCII and its shell full of settings; then both of its pipes have no reader any more.
    """
    folder = tmp_path_factory.mktemp("process")
    env = SHELL | {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "JAXOMARL_CACHE": "",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "mine"),
        "JAX_NUM_CPU_DEVICES": "1",
    }
    command = [sys.executable, "-c", COMMANDS, str(folder / "out"), json.dumps(DATA)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | env, capture_output=True, timeout=300
    )
    return folder, done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii")


def test_an_ascii_terminal_and_a_shell_full_of_settings(process):
    """Nothing fails, and the bits are the plain ones."""
    folder, _, out, err = process
    assert json.loads((folder / "out.codes").read_text())["read"] == [0, 0, 0], err
    assert "+-" in out, "the table's interval or spread is shown in other characters"
    assert "UnicodeEncodeError" not in err
    for name in SHELL:
        assert f"{name}=" in err, "what is set aside is said"

    found = json.loads(out.strip().splitlines()[-1])
    assert found == {name: load(make(name), *given)[1]["sha256"] for name, given in DATA.items()}
    (info, _) = [json.loads(path.read_text()) for path in (folder / "out").rglob("run.json")]
    assert info["data_sha256"] == found["games/bandit"]
    assert info["jax"]["jax_enable_x64"] is False
    (folder / "out/summary.md").read_text(encoding="utf-8")


def test_a_reader_that_leaves_ends_nothing(process):
    """Nobody reads stdout and stderr: all commands end well, the process too, and the work is saved."""
    folder, code, _, err = process
    assert code == 0, err
    assert json.loads((folder / "out.codes").read_text())["unread"] == [0, 0, 0]
    assert (folder / "out-unread/summary.md").exists()
    assert any((folder / "mine").iterdir()), "a user's own cache of compiled programs is used"


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

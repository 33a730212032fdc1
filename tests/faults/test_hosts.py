"""Several hosts: how runs are divided, which batches go on, and two processes that train together."""

import csv
import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.training import hosts
from jaxomarl.training.library import Identity, StageCache

ROWS = ("a", "b", "c", "d")


@pytest.fixture
def as_host(monkeypatch):
    def become(index, count):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "process_count", lambda: count)

    return become


@pytest.mark.parametrize(("runs", "count"), [(16, 2), (5, 2), (1, 3), (7, 1)])
def test_every_run_is_on_one_host(as_host, runs, count):
    blocks = []
    for index in range(count):
        as_host(index, count)
        blocks.append(hosts.own(runs))
    assert list(itertools.chain(*blocks)) == list(range(runs))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [(("", 2, 0), "--coordinator"), (("", 0, 1), "--coordinator"), (("here:1", 2, 2), "--host")],
)
def test_flags_that_do_not_belong_together_are_refused(given, message):
    with pytest.raises(JaxomarlError, match=message):
        hosts.join(*given)


@pytest.mark.parametrize("said", ["", "no answer", "no answer\nand more"])
def test_hosts_that_do_not_meet_are_told_in_one_line(monkeypatch, said):
    def initialize(*_):
        raise RuntimeError(said)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    first = said.partition("\n")[0]
    with pytest.raises(JaxomarlError, match=f"hosts that find each other, found '?{first}") as told:
        hosts.join("here:1", 2, 0)
    assert "more" not in str(told.value)


def begun(library, rows, steps=2):
    """An unfinished batch: its folder has a checkpoint that only says that it is one."""
    folder = library.open(Identity("kind-1", rows))
    for step in range(1, steps + 1):
        place = folder.path / "checkpoints" / str(step)
        place.mkdir(parents=True)
        (place / "commit_success.txt").touch()
    return folder


def test_batches_of_two_hosts_go_on_one_after_another(tmp_path):
    library = StageCache(tmp_path)
    begun(library, ROWS[:2])
    begun(library, ROWS[2:3])
    whole = Identity("kind-1", ROWS)
    parts = library.parts(whole, [0, 1, 2, 3])
    assert sorted(parts) == [[0, 1], [2], [3]]
    # a batch of which a row is finished elsewhere is not one of these
    assert library.parts(whole, [1, 2, 3]) == [[2], [1, 3]]
    assert library.parts(Identity("other-1", ROWS), [0, 1]) == [[0, 1]]


def test_a_part_of_a_batch_is_taken_from_it(tmp_path):
    library = StageCache(tmp_path)
    wide = begun(library, ROWS)
    found = library.wider(Identity("kind-1", ROWS[1:3]))
    assert found is not None and found[0] == ROWS and found[1].path == wide.path
    assert library.wider(Identity("kind-1", ROWS)) is None
    assert library.wider(Identity("kind-1", ("a", "z"))) is None
    (wide.path / "DONE").touch()
    assert library.wider(Identity("kind-1", ROWS[1:3])) is None


# --- two processes ---


def start(out, host=None, port=0, count=2):
    own = [] if host is None else ["--coordinator", f"localhost:{port}", "--hosts", str(count)]
    own += [] if host is None else ["--host", str(host)]
    words = ["sweep", "--systems", "omsd", "--seeds", "3", "--scale", "0.05", "--save-every", "0"]
    command = [sys.executable, "-m", "jaxomarl", *words, "--out", str(out), "--resume", *own]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def returns(out):
    """Seed -> the returns of the final evaluation."""
    found = {}
    for path in out.rglob("final.csv"):
        rows = [row for row in csv.DictReader(path.open()) if row["metric"] == "return"]
        found[int(rows[0]["seed"])] = np.array([float(row["value"]) for row in rows])
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out"
    process = start(out)
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text.decode()
    return returns(out)


@pytest.mark.long
def test_two_hosts_have_the_numbers_of_one(alone, tmp_path):
    out, port = tmp_path / "out", free_port()
    both = [start(out, host, port) for host in (0, 1)]
    texts = [process.communicate(timeout=900)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert "done in" in texts[0] and "done in" not in texts[1]
    found = returns(out)
    assert sorted(found) == [0, 1, 2]
    for seed, values in alone.items():
        np.testing.assert_allclose(found[seed], values, atol=1e-4)
    summary = (out / "summary.csv").read_text().splitlines()
    assert len(summary) == 2 and ",3," in summary[1]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_one_process_goes_on_with_what_two_hosts_began(alone, tmp_path, number):
    out, port = tmp_path / "out", free_port()
    both = [start(out, host, port) for host in (0, 1)]
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and len(list(out.glob("stages/*/checkpoints/*.sha256"))) < 2:
        time.sleep(0.1)
    both[1].send_signal(number)
    if number == signal.SIGKILL:
        both[0].kill()
    texts = [process.communicate(timeout=600)[0].decode() for process in both]
    if number == signal.SIGTERM:
        assert "Continue with" in texts[0] and "Continue with" in texts[1]
    process = start(out)
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text.decode()
    found = returns(out)
    assert sorted(found) == [0, 1, 2]
    for seed, values in alone.items():
        np.testing.assert_allclose(found[seed], values, atol=1e-4)

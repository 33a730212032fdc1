"""A sweep that was killed or stopped at any point goes on to the same numbers, to the bit."""

import json
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import register
from jaxomarl.cli import commands

REGISTERS = Path(__file__).parents[1] / "registers_pair.py"
BOTH = ("weighted", "clone")
"""Two small systems of three stages, most of whose processes' seconds are imports.

The package's own resume exactly in the contract's `test_resume`; they are killed in the long test, and by campaign.py.
"""
FIRST = f"{BOTH[0]}-policy"


@pytest.fixture
def here(monkeypatch):
    """run(flags) -> exit code of a sweep in this process, which has imported JAX; what it registers is gone afterwards."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setattr("jaxomarl.cli.commands.draw", lambda *args: [])
    tables = (REGISTRY, register.MODULES, register._loaded)
    before = [dict(table) for table in tables]
    yield lambda *flags: commands.run("sweep", [*flags])
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def begun(sweeps, out, kind):
    """The chunks that the stages of a kind have begun."""
    journals = sweeps.journals(out).items()
    return [c for name, chunks in journals if name.startswith(f"{kind}-") for c in chunks]


def test_a_sweep_killed_and_stopped_gives_the_same_numbers(one_device, here, tmp_path, monkeypatch):
    """Kill -9 at a random chunk of the first stage, Ctrl-C in the last, and the command that it said to go on with.

    The long tests kill and stop at more points.
    """
    sweeps, systems, flags = (
        one_device,
        BOTH[:1],
        ("--import", str(REGISTERS), "--systems", BOTH[0]),
    )
    out, whole = tmp_path / "my out", tmp_path / "whole"
    chunk = random.Random(20_240).randrange(2, sweeps.chunks)
    process = sweeps.start(out, systems=systems)
    point = lambda: len(begun(sweeps, out, "critic")) >= chunk
    kill_when(process, point, out / "stages" / "critic-*", sweeps)

    process = sweeps.start(out, "--resume", systems=systems)
    sweeps.wait(process, lambda: bool(begun(sweeps, out, FIRST)), out / "stages" / f"{FIRST}-*")
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=300)[1]
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert "stopping at the next chunk" in text
    assert saved(out), "the chunk that Ctrl-C met was not saved"
    again = command(text, sweeps)
    assert again[:3] == [sys.executable, "-m", "experiments.sweep"] and "--resume" in again

    monkeypatch.chdir(tmp_path)
    assert here(*again[3:]) == 0
    assert here(*flags, "--out", str(whole), *sweeps.small) == 0
    assert len(sweeps.numbers(out)) == 7 and sweeps.numbers(out) == sweeps.numbers(whole)
    journals = sweeps.journals(out)
    assert journals.keys() == sweeps.journals(whole).keys()
    every = [str(c) for c in range(1, sweeps.chunks + 1)]
    for name, chunks in journals.items():
        if name.startswith(FIRST):
            assert chunks == every, "a stop saves: nothing is executed twice"
        else:
            assert sorted(set(chunks)) == every and len(chunks) <= sweeps.chunks + sweeps.every


@pytest.mark.long
def test_a_sweep_killed_at_three_points_gives_the_same_numbers(sweeps, whole, tmp_path):
    """Kill -9 at a random chunk of the first stages, during a save, and while the second system trains."""
    rng, out = random.Random(20_240), tmp_path / "out"
    stage, chunk = "critic", rng.randrange(2, sweeps.chunks)
    killed, done = Counter(), {}

    def saving():
        parts = [
            p for p in out.glob("stages/*/checkpoints/*") if not (p / "commit_success.txt").exists()
        ]
        return any(p.is_dir() and p.parent.parent.name not in sweeps.finished(out) for p in parts)

    points = {
        stage: lambda: len(begun(sweeps, out, stage)) >= chunk,
        FIRST: lambda: begun(sweeps, out, FIRST) and saving(),
        "clone-policy": lambda: len(begun(sweeps, out, "clone-policy")) >= rng.randrange(1, 3),
    }
    for number, (trains, point) in enumerate(points.items()):
        process = sweeps.start(out, *(["--resume"] if number else []), systems=BOTH)
        kill_when(process, point, out / "stages" / f"{trains}-*", sweeps)
        for name in done:
            assert sweeps.journals(out)[name] == done[name], "a finished stage was trained again"
        done |= {name: sweeps.journals(out)[name] for name in sweeps.finished(out)}
        killed.update(set(sweeps.journals(out)) - set(done))
    assert set(done) < set(sweeps.journals(out))  # the last kill has hit an unfinished stage

    code, text = sweeps.run(out, "--resume", systems=BOTH)
    assert code == 0, text
    assert sweeps.numbers(out) == sweeps.numbers(whole)
    journals = sweeps.journals(out)
    assert journals.keys() == sweeps.journals(whole).keys()
    for name, chunks in journals.items():
        assert sorted(set(map(int, chunks))) == list(range(1, sweeps.chunks + 1))
        assert len(chunks) <= sweeps.chunks + sweeps.every * killed[name]
        if name in done:
            assert chunks == done[name]
    executed = {
        name.rpartition("-")[0]: len(chunks) * sweeps.chunk for name, chunks in journals.items()
    }
    for path in out.rglob("run.json"):
        info = json.loads(path.read_text())
        for name, facts in info["stages"].items():
            kind = f"{info['system']}-policy" if name == "policy" else name
            assert [n for k, n in executed.items() if k.rpartition("-")[0] == kind] == [
                facts["updates_executed"]
            ]
        assert info["updates_executed"] == sum(
            f["updates_executed"] for f in info["stages"].values()
        )


@pytest.mark.long
def test_ctrl_c_and_sigterm_leave_a_sweep_that_goes_on(sweeps, whole, tmp_path):
    """Ctrl-C in the first stage, SIGTERM in the last of what it said to go on with, and that command again."""
    out, systems = tmp_path / "my out", BOTH[:1]
    process = sweeps.start(out, systems=systems)
    sweeps.wait(process, lambda: bool(sweeps.journals(out)), out / "stages" / "*")
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=300)[1]
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert "stopping at the next chunk" in text
    assert saved(out), "the chunk that Ctrl-C met was not saved"

    again = command(text, sweeps)
    assert "--resume" in again
    process = subprocess.Popen(
        again, cwd=tmp_path, env=sweeps.env, stderr=subprocess.PIPE, text=True
    )
    begun = lambda: any(name.startswith(FIRST) for name in sweeps.journals(out))
    sweeps.wait(process, begun, out / "stages" / f"{FIRST}-*")
    before = sweeps.journals(out)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=300)[1]
    assert process.returncode == 75, text
    assert "Traceback" not in text
    policy = next(name for name in before if name.startswith(FIRST))
    assert (
        len(sweeps.journals(out)[policy]) <= len(before[policy]) + 2
    )  # the chunk it met, and one that may have begun

    assert command(text, sweeps) == again
    done = subprocess.run(
        again, cwd=tmp_path, env=sweeps.env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    mine, all_of_it = sweeps.numbers(out), sweeps.numbers(whole)
    del mine["summary.csv"]
    assert len(mine) == 6
    assert mine == {name: all_of_it[name] for name in mine}
    for chunks in sweeps.journals(out).values():  # a stop saves: nothing is executed twice
        assert chunks == [str(c) for c in range(1, sweeps.chunks + 1)]


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_signals_ask_to_stop_and_leave_their_codes(name, code, capsys):
    """Each is heard while a command runs, and given back to who had it before."""
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with commands.Stop() as stop:
        assert not stop.asked()
        signal.raise_signal(number)
        assert stop.asked() and stop.code == code
    assert signal.getsignal(number) == before
    assert "stopping at the next chunk" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_a_sweep_killed_at_any_time(sweeps, whole_of_the_package, tmp_path, seed):
    """Kill -9 after a random time, again and again, until a process comes through."""
    rng, out, kills = random.Random(seed), tmp_path / "out", 0
    for _ in range(40):
        process = sweeps.start(out, "--resume", systems=("iql", "bc"))
        end = time.monotonic() + rng.uniform(1.0, 6.0 + 2.0 * kills)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        if process.poll() is not None:
            assert process.communicate()[0] is not None
            assert process.returncode == 0
            break
        process.kill()
        process.communicate()
        kills += 1
    assert sweeps.numbers(out) == sweeps.numbers(whole_of_the_package)
    for chunks in sweeps.journals(out).values():
        assert len(chunks) <= sweeps.chunks + sweeps.every * kills


@pytest.mark.long
def test_a_second_ctrl_c_ends_at_once(sweeps, tmp_path):
    out = tmp_path / "out"
    process = sweeps.start(out)
    sweeps.wait(process, (out / "sweep.json").exists, out)  # programs are being compiled
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    text = process.communicate(timeout=5)[1]
    assert process.returncode == 130
    assert "stopped at once" in text
    assert "Traceback" not in text


# --- how ---


def kill_when(process, point, near, sweeps):
    """Kill -9 at a moment that still holds when the process is frozen."""
    while True:
        sweeps.wait(process, point, near)
        process.send_signal(signal.SIGSTOP)
        if point():
            break
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def saved(out):
    """Committed checkpoints."""
    return list(out.glob("stages/*/checkpoints/*/commit_success.txt"))


def command(text, sweeps):
    """The command line that a stopped sweep says to go on with, for this Python."""
    line = text[text.index("Continue with:") :].splitlines()[1]
    words = shlex.split(line)
    assert words[0] == "python"
    return [sys.executable, *words[1:]]

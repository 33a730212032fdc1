"""Cells of a sweep as jobs: their commands, their tries, and submitit's local executor."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands, launch
from jaxomarl.cli.launch import Cell, CellJob
from jaxomarl.training.runner import Interrupted

pytest.importorskip("submitit")
WORDS = ["--tasks", "games/bandit", "mpe/spread", "--seeds", "2", "--launcher=slurm", "--slurm",
         "partition=gpu", "--systems", "bc", "--out", "runs/x", "--resume"]  # fmt: skip
BANDIT = ["--systems", "bc", "--seeds", "1", "--scale", "0.001"]


def test_a_job_gets_its_cell_and_everything_but_the_launchers_flags(tmp_path):
    command = launch.command_of(Cell("mpe/spread", "medium"), WORDS, tmp_path)
    assert command[1:4] == ["-m", "jaxomarl", "sweep"]
    assert command[4:8] == ["--seeds", "2", "--systems", "bc"]
    own = ["--tasks", "mpe/spread", "--out", str(tmp_path / "mpe-spread-medium"), "--resume"]
    assert command[8:] == [*own, "--data", "medium"]


def test_cells_are_tasks_by_data():
    assert launch.cells_of(("a", "b"), ()) == [Cell("a", ""), Cell("b", "")]
    assert launch.cells_of(("a",), ("x", "y")) == [Cell("a", "x"), Cell("a", "y")]
    assert (
        len(launch.plan_text(launch.cells_of(("a", "b"), ("x",)), WORDS, Path("o")).split("\n"))
        == 3
    )


def test_parameters_are_numbers_and_words():
    assert launch.parameters(["partition=gpu", "timeout_min=240"]) == {
        "partition": "gpu",
        "timeout_min": 240,
    }
    with pytest.raises(JaxomarlError, match="KEY=VALUE"):
        launch.parameters(["partition"])


@pytest.mark.parametrize(
    ("launcher", "given", "message"),
    [("pbs", {}, "local or slurm"), ("local", {"colour": "red"}, "colour")],
)
def test_other_launchers_and_parameters_are_refused(tmp_path, launcher, given, message):
    with pytest.raises(JaxomarlError, match=message):
        launch.executor_of(launcher, tmp_path, 3, given, 1)


def test_a_stopped_job_lets_its_command_save_and_is_queued_until_its_tries_are_spent():
    note = "import signal, sys, time\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\nprint(flush=True)\ntime.sleep(60)"
    job = CellJob([sys.executable, "-c", note], tries=2)
    job.process = subprocess.Popen(job.command, stdout=subprocess.PIPE)
    assert job.process.stdout
    job.process.stdout.readline()
    again = job.checkpoint()
    assert job.process.returncode == 0
    assert (again.function.command, again.function.tries) == (job.command, 1)
    assert CellJob(job.command, 1).checkpoint() is None


def test_a_command_that_fails_fails_its_job():
    with pytest.raises(RuntimeError, match="exit code 3"):
        CellJob([sys.executable, "-c", "raise SystemExit(3)"], 1)()


def test_a_job_here_has_no_time_limit_and_sees_the_devices_that_its_launcher_sees(
    tmp_path, monkeypatch
):
    executor = launch.executor_of("local", tmp_path, 3, {}, 1)
    assert executor._executor.parameters["timeout_min"] == launch.YEAR
    executor = launch.executor_of("local", tmp_path, 3, {"timeout_min": 5}, 1)
    assert executor._executor.parameters["timeout_min"] == 5
    # as submitit has it where a job asks for no GPU
    monkeypatch.setenv(launch.DEVICES, "")
    note = "import os, sys; sys.exit(os.environ.get('CUDA_VISIBLE_DEVICES', 'all') != sys.argv[1])"
    for seen, word in ((None, "all"), ("1", "1")):
        command = [sys.executable, "-c", note, word]
        assert CellJob(command, 1, environment={launch.DEVICES: seen})() == 0


def test_a_stopped_launcher_lets_its_jobs_save_and_begins_no_other(tmp_path, monkeypatch):
    """A process that hears SIGTERM once ends as a sweep does; a second signal would be counted."""
    note = (
        "import pathlib, signal, sys, time\nheard = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: heard.append(1))\n"
        "pathlib.Path(sys.argv[1]).touch()\nwhile not heard: time.sleep(0.01)\n"
        "time.sleep(0.3)\nsys.exit(74 + len(heard))"
    )
    begun = tmp_path / "begun"
    monkeypatch.setattr(launch, "WATCH", 0.05)
    monkeypatch.setattr(launch, "command_of", lambda *_: [sys.executable, "-c", note, str(begun)])
    monkeypatch.setattr(launch, "executor_of", lambda *_: Threads())
    cells = [Cell("games/bandit", ""), Cell("games/consensus", "")]
    said = []
    with pytest.raises(Interrupted):
        launch.launch("local", cells, [], tmp_path, 3, 1, {}, said.append, begun.exists)
    assert said == ["games-bandit: job 1", "games-bandit: stopped"]
    assert "exit code 75" in Threads.errors[0]
    assert not (tmp_path / launch.JOBS / launch.STOP).exists()


class Threads:
    """An executor whose jobs are threads of this process."""

    errors: ClassVar[list[str]] = []

    def submit(self, job):
        return ThreadJob(job)


class ThreadJob:
    job_id = "1"

    def __init__(self, job):
        self.thread = threading.Thread(target=self.run, args=[job])
        self.thread.start()

    def run(self, job):
        try:
            job()
        except RuntimeError as error:
            Threads.errors.append(str(error))

    def done(self):
        return not self.thread.is_alive()

    def exception(self):
        return Threads.errors[0]

    def stderr(self):
        return ""

    paths = SimpleNamespace(stderr="")


@pytest.mark.long
def test_the_command_trains_each_cell_here_and_prints_one_table(tmp_path, capsys):
    out = tmp_path / "out"
    words = [*BANDIT, "--tasks", "games/bandit", "games/consensus:n=2", "--out", str(out)]
    assert commands.run("sweep", [*words, "--launcher", "local"]) == 0
    said = capsys.readouterr()
    assert said.err.count(": done") == 2
    assert "games/bandit" in said.out and "games/consensus" in said.out
    assert {p.name for p in out.iterdir()} == {"games-bandit", "games-consensus-n-2", "jobs"}


@pytest.mark.long
def test_local_jobs_finish_one_of_them_after_it_was_stopped(tmp_path):
    """Two cells and one that is refused; one is stopped in its training and goes on by itself."""
    out = tmp_path / "out"
    cells = [Cell("games/bandit", ""), Cell("games/consensus:n=2", ""), Cell("games/nothing", "")]
    words = ["--systems", "omsd", "--seeds", "1", "--scale", "0.3"]
    said = []
    stopped = []

    def say(line):
        said.append(line)

    executor = launch.executor_of("local", out / launch.JOBS, 2, {"timeout_min": 30}, 1)
    job = executor.submit(CellJob(launch.command_of(cells[0], words, out), 2))
    deadline = time.monotonic() + 300
    while not list(out.rglob("state*")) and not job.done() and time.monotonic() < deadline:
        time.sleep(0.5)
    stopped = subprocess.run(
        ["pkill", f"-{signal.SIGUSR2.value}", "-f", f"submitit.core._submit {out}"], check=False
    )
    assert job.result() == 0 and stopped.returncode == 0
    assert "Calling checkpoint method" in job.stdout()
    with pytest.raises(JaxomarlError, match="games-nothing did not"):
        launch.launch("local", cells[1:], words, out, 2, 2, {"timeout_min": 30}, say)
    assert "games-consensus-n-2: done" in said
    assert any("error:" in line and "games/nothing" in line for line in said)
    finals = {path.relative_to(out).parts[0] for path in out.rglob("final.csv")}
    assert finals == {"games-bandit", "games-consensus-n-2"}

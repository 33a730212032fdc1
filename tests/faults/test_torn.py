"""Torn files, full disks, folders in use: a clean message, nothing half loaded, and the same numbers in the end."""

import contextlib
import errno
import fcntl
import io
import json
import logging
import re
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pair
import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import register
from jaxomarl.cli import commands
from jaxomarl.data.files import write_arrays
from jaxomarl.paths import named_in_errors
from jaxomarl.results.store import write_bytes
from jaxomarl.training import checkpoint
from jaxomarl.training.library import Folder

SMALL = (
    *("--rows", "200", "--episodes", "3", "--final-episodes", "3", "--seeds", "2"),
    *("--save-every", "0", "--cfg.chunk", "5", "--cfg.every", "2"),
    *(x for stage in ("critic", "policy") for x in (f"--cfg.{stage}-steps", "20")),
    *(x for stage in ("critic", "policy") for x in (f"--cfg.{stage}-batch", "8")),
    *(x for stage in ("critic", "policy") for x in (f"--cfg.{stage}-width", "8")),
)
STAGES = ("critic", "weighted-policy")


# Threads of a load that Orbax gave up find its event loop closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("jaxomarl.cli.commands.draw", lambda *args: [])


@pytest.fixture(scope="module", autouse=True)
def small_system():
    """A critic and a policy behind it, which are traced in a second: what is torn is not theirs."""
    tables = (REGISTRY, register.MODULES)
    before = [dict(table) for table in tables]
    register.register_system("weighted", pair.WEIGHTED)
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def run(out, *flags, system="weighted"):
    """(exit code, stderr) of a sweep in this process."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
    ):
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")  # leave the devices of this process as they are
        code = commands.run("train", [system, "--out", str(out), *SMALL, *flags])
    return code, said.getvalue()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """OUT of a finished sweep."""
    out = tmp_path_factory.mktemp("torn") / "out"
    code, text = run(out)
    assert code == 0, text
    return out


@pytest.fixture
def copy(done, tmp_path):
    """A copy to tear."""
    return Path(shutil.copytree(done, tmp_path / "out"))


def numbers(out):
    """Tables and final policies by name: what must be the same to the bit."""
    kept = ("metrics.csv", "returns.csv", "summary.csv", "policy.safetensors")
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.name in kept}


def stage(out, name):
    """The folder of a stage."""
    (folder,) = out.glob(f"stages/{name}-*")
    return folder


def newest(folder):
    """The newest checkpoint of a stage, which is its last."""
    steps = checkpoint.committed_steps(folder / "checkpoints")
    assert steps == [2, 4]
    return folder / "checkpoints" / "4"


def unfinish(out, *names):
    """As if the process had been killed before these stages were finished."""
    for name in names:
        (stage(out, name) / "DONE").unlink()
    for path in (
        *out.rglob("policy.safetensors"),
        *out.rglob("metrics.csv"),
        *out.rglob("returns.csv"),
    ):
        path.unlink()


def data_file(step):
    """The file of a checkpoint that holds its numbers."""
    return max((p for p in step.glob("state/d/*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def executed(out, name):
    return (stage(out, name) / "executed").read_text().split()


# --- checkpoints ---


@pytest.mark.parametrize("tear", [truncate, pytest.param(flip, marks=pytest.mark.long)])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(done, copy, tear):
    unfinish(copy, "weighted-policy")
    tear(data_file(newest(stage(copy, "weighted-policy"))))
    code, text = run(copy, "--resume")
    assert code == 0, text
    (line,) = [line for line in text.splitlines() if "cannot be read" in line]
    assert "checkpoints/4" in line
    assert "taking the one before" in line
    assert len(line) < 300
    assert executed(copy, "weighted-policy") == ["1", "2", "3", "4", "3", "4"]
    assert numbers(copy) == numbers(done)


def test_what_a_torn_checkpoint_leaves_running_prints_no_traceback(monkeypatch):
    """Threads that come to a closed loop are silent, and so are lost tasks of Orbax; all else is told."""
    told = []
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, lambda *facts: told.append(facts))
    for name in ("absl", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    checkpoint.orbax.__wrapped__()
    late, other = RuntimeError("Event loop is closed"), RuntimeError("something else")
    for error in (late, other):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
        sys.excepthook(RuntimeError, error, None)
    assert [str(facts[-2 if len(facts) == 3 else 0]) for facts in told] == [
        "namespace(exc_value=RuntimeError('something else'))",
        "something else",
    ]
    record = lambda text: logging.LogRecord("asyncio", 40, "base_events.py", 1, text, (), None)
    said = "Future exception was never retrieved: error reading in OCDBT database"
    assert not logging.getLogger("asyncio").filter(record(said))
    assert logging.getLogger("asyncio").filter(record("Task exception of your own"))


@pytest.mark.parametrize(
    "name", ["critic", pytest.param("weighted-policy", marks=pytest.mark.long)]
)
def test_a_finished_stage_is_never_taken_from_an_older_checkpoint(done, copy, name):
    truncate(data_file(newest(stage(copy, name))))
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert "cannot be read" in text
    assert numbers(copy) == numbers(done)
    assert executed(copy, name) == ["1", "2", "3", "4", "3", "4"]
    assert [executed(copy, other) for other in STAGES if other != name] == [
        ["1", "2", "3", "4"]
    ] * (len(STAGES) - 1)


def test_a_stage_without_any_readable_checkpoint_is_trained_again(done, copy):
    for step in (2, 4):
        truncate(data_file(stage(copy, "critic") / "checkpoints" / str(step)))
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert executed(copy, "critic") == ["1", "2", "3", "4"] * 2
    assert numbers(copy) == numbers(done)


def test_a_checkpoint_without_its_commit_file_does_not_exist(done, copy):
    unfinish(copy, "weighted-policy")
    (newest(stage(copy, "weighted-policy")) / "commit_success.txt").unlink()
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert "cannot be read" not in text
    assert executed(copy, "weighted-policy") == ["1", "2", "3", "4", "3", "4"]
    assert numbers(copy) == numbers(done)


@pytest.mark.parametrize(
    "content", ['{"kind": "crit', *(pytest.param(x, marks=pytest.mark.long) for x in ("", "null"))]
)
def test_a_torn_done_file_is_none(done, copy, content):
    path = stage(copy, "critic") / "DONE"
    path.write_text(content)
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert executed(copy, "critic") == ["1", "2", "3", "4"]  # the last checkpoint holds it whole
    assert json.loads(path.read_text()) | {"facts": 0, "sha256": 0} == json.loads(
        (stage(done, "critic") / "DONE").read_text()
    ) | {"facts": 0, "sha256": 0}
    assert numbers(copy) == numbers(done)


def test_torn_tables_are_written_again(done, copy):
    for path in (
        *copy.rglob("metrics.csv"),
        copy / "summary.csv",
        *copy.rglob("policy.safetensors"),
    ):
        truncate(path)
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert numbers(copy) == numbers(done)


def test_a_torn_sweep_json_is_named(copy):
    truncate(copy / "sweep.json")
    before = numbers(copy)
    code, text = run(copy, "--resume")
    assert code == 2
    assert "sweep.json: expected a JSON object" in text
    assert numbers(copy) == before


# --- disks ---


def test_a_full_disk_while_a_table_is_written(done, copy, tmp_path, monkeypatch):
    out = tmp_path / "new"

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    with monkeypatch.context() as patch:
        patch.setattr("jaxomarl.results.store.write_bytes", full)
        code, text = run(out)
    assert_clean(code, text, "No space left on device")
    (copy / "summary.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("jaxomarl.results.tables.write_summary", full)
        code, text = run(copy, "--resume")
    assert_clean(code, text, "No space left on device")
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert numbers(copy) == numbers(done)


def test_a_full_disk_while_a_checkpoint_is_saved(done, copy, monkeypatch):
    """The checkpoint's own writer meets a limit on the size of files."""
    save = checkpoint.save

    def full(*args):
        with limited(500):
            save(*args)

    unfinish(copy, "weighted-policy")
    shutil.rmtree(stage(copy, "weighted-policy"))
    before = {p: p.read_bytes() for p in stage(copy, "critic").rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        code, text = run(copy, "--resume")
    assert_clean(code, text, "checkpoint")
    assert {p: p.read_bytes() for p in stage(copy, "critic").rglob("*") if p.is_file()} == before
    assert checkpoint.committed_steps(stage(copy, "weighted-policy") / "checkpoints") == []
    code, text = run(copy, "--resume")
    assert code == 0, text
    assert numbers(copy) == numbers(done)


def test_a_full_disk_names_the_file(tmp_path):
    with limited(100), pytest.raises(OSError, match=r"numbers\.csv"):
        write_bytes(tmp_path / "numbers.csv", b"0" * 1000)
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_cannot_be_made():
    code, text = run("/proc/no-such-folder/out")
    assert_clean(code, text, "/proc/no-such-folder")


@contextlib.contextmanager
def limited(size):
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_clean(code, text, named):
    assert code == 74, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert named in line
    assert "--resume" in line
    assert "Traceback" not in line


# --- one folder, one process ---


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_second_process_on_the_same_out_is_refused(copy, flag):
    before = numbers(copy)
    with open(copy / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, text = run(copy, flag)
    assert code == 2
    assert "in use" in text
    assert numbers(copy) == before


def test_overwrite_keeps_the_folder_locked_while_it_trains(copy, monkeypatch):
    seen = []

    def train(groups, out, *args, **kwargs):
        with open(out / ".lock", "w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(sorted(p.name for p in out.iterdir()))
        raise OSError("enough")

    monkeypatch.setattr("jaxomarl.api.session.train_groups", train)
    assert run(copy, "--overwrite")[0] == 74
    assert seen == [[".lock", "sweep.json"]]


def test_arrays_that_cannot_be_written_name_their_file(tmp_path):
    with limited(64), pytest.raises(OSError, match=r"rows\.part cannot be written"):
        write_arrays(tmp_path / "rows.part", {"x": np.zeros(1000)})


def test_too_little_memory_is_one_line_and_its_own_exit_code(tmp_path):
    code, text = run(tmp_path / "out", "--cfg.policy-width", "3000000", system="iql")
    assert code == 71, text
    assert re.search(
        r"error: memory for one run of stage .*policy: expected at least [\d.]+ TiB", text
    )
    assert "width and batch" in text and not list((tmp_path / "out").rglob("run.json"))
    assert "Traceback" not in text


def test_a_full_disk_names_the_file_of_a_count_and_of_a_manifest(tmp_path):
    with limited(4), pytest.raises(OSError) as error:
        Folder(tmp_path).begin_chunk(1000)
    assert error.value.filename == str(tmp_path / "executed")
    with limited(4), pytest.raises(OSError) as error, named_in_errors(tmp_path / "x"):
        (tmp_path / "x").write_text("more than four", encoding="utf-8")
    assert error.value.filename == str(tmp_path / "x")

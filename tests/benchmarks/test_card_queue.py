"""The card's queue: it stops in time, continues, trains nothing twice, and keeps its bounds."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile

import pytest

from benchmarks import sizes
from benchmarks.card import __main__ as card
from benchmarks.card import expected, queue, takeaway
from benchmarks.card.cells import ACCURACY, CELLS, Cell
from jaxomarl import presets
from jaxomarl.api import plan
from jaxomarl.cli import commands
from jaxomarl.cli.imports import with_fields
from jaxomarl.cli.parsing import parse
from jaxomarl.papers.verdicts import claims

FAKE = '''
"""A cell without JAX: --steps of 0.05 s, saved at SIGTERM, each noted in updates.txt."""
import argparse, os, signal, sys, time
from pathlib import Path
flags = argparse.ArgumentParser()
flags.add_argument("--out", type=Path)
flags.add_argument("--steps", type=int, default=1)
flags.add_argument("--fail", action="store_true")
flags.add_argument("--deaf", action="store_true")
flags.add_argument("--weight", type=int, default=10)
asked = flags.parse_args()
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
asked.out.mkdir(parents=True, exist_ok=True)
note = asked.out / "updates.txt"
print("compiled programs in", os.environ["JAXOMARL_CACHE"], flush=True)
if asked.fail:
    print("error: no such thing", file=sys.stderr)
    sys.exit(2)
while (step := len(note.read_text().split()) if note.exists() else 0) < asked.steps:
    time.sleep(0.05)
    with open(note, "a") as file:
        file.write(f"{step} ")
    if told and not asked.deaf:
        sys.exit(75)
run = asked.out / "task" / "data" / "system" / "seed-0"
run.mkdir(parents=True, exist_ok=True)
(asked.out / "summary.csv").write_text("system,mean\\nbc,1.0\\n")
(run / "metrics.csv").write_text("step,value\\n" + "1,2\\n" * 20)
(run / "run.json").write_text("{}")
(run / "policy.safetensors").write_bytes(os.urandom(asked.weight))
(asked.out / "stages" / "policy-1").mkdir(parents=True, exist_ok=True)
(asked.out / "stages" / "policy-1" / "state.json").write_text("{}")
'''


def fake(name, flags="", **more):
    """A cell of the module FAKE."""
    return Cell(name, f"fake_cell {flags}", "", "", **more)


@pytest.fixture
def out(tmp_path, monkeypatch):
    """The folder of a queue whose cells may be fakes."""
    (tmp_path / "fake_cell.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path / "out"


def call(out, plan, *flags):
    """A call of the queue at toy size; its exit code."""
    return card.main(["--toy", "--out", str(out), *flags], plan)


def states(out):
    """Cell -> its state, as the file says."""
    if not (out / "queue.json").exists():
        return {}
    found = json.loads((out / "queue.json").read_text(encoding="utf-8"))["cells"]
    return {name: record["state"] for name, record in found.items()}


def updates(out, name):
    """The steps that a fake has made, in order."""
    return list(map(int, (out / "cells" / name / "updates.txt").read_text().split()))


def packed(out):
    """The names in the archives."""
    archives = sorted((out / "take").glob("card-*.zip"))
    return [name for path in archives for name in zipfile.ZipFile(path).namelist()]


# --- the calls ---


def test_a_call_stops_at_its_minutes_and_the_next_one_goes_on(out, capsys):
    plan = [fake("short"), fake("long", "--steps 60"), fake("later")]
    minutes = 0.025
    calls = 0
    while states(out).get("long") != "done":
        began = time.monotonic()
        assert call(out, plan, "--minutes", str(minutes)) == 0
        assert time.monotonic() - began < 60 * minutes + 5
        assert set(states(out).values()) <= {"done", "stopped"}
        # a busy machine needs the time to start a process
        minutes *= 1.2
        calls += 1
    assert calls > 1
    assert call(out, plan, "--minutes", "0") == 0
    assert states(out) == {"short": "done", "long": "done", "later": "done"}
    assert updates(out, "long") == list(range(60)), "no step is made twice, and none is lost"
    assert updates(out, "short") == [0], "what was done is not run again"
    programs = {line for log in (out / "logs").iterdir() for line in log.read_text().splitlines()}
    assert programs == {f"compiled programs in {out / 'programs'}"}, "each call has the same ones"

    assert call(out, plan) == 0
    assert updates(out, "later") == [0]
    assert "| long | done |" in capsys.readouterr().out


def test_a_cell_that_fails_is_named_and_the_others_are_run(out, capsys):
    plan = [fake("bad", "--fail"), fake("after-bad", needs=("bad",)), fake("good")]
    assert call(out, plan) == 1
    assert states(out) == {"bad": "failed", "good": "done"}
    said = capsys.readouterr()
    assert "| bad | failed |" in said.out and "exit code 2: error: no such thing" in said.out
    assert "after-bad: waits for bad" in said.err

    assert call(out, [*plan, fake("new")]) == 1
    assert states(out)["new"] == "done"
    order = capsys.readouterr().err
    assert order.index("new: done") < order.index("bad: failed"), "what failed is tried last"


def test_a_cell_that_does_not_save_in_time_is_killed(out):
    plan = [fake("deaf", "--steps 600 --deaf")]
    assert call(out, plan, "--minutes", "0.04") == 0
    assert states(out) == {"deaf": "stopped"}
    note = out / "cells" / "deaf" / "updates.txt"
    made = note.read_text() if note.exists() else ""
    time.sleep(0.2)
    assert len(made.split()) < 600 and (not made or note.read_text() == made), "it has ended"


def test_only_runs_what_is_named_and_what_that_needs(out):
    plan = [fake("a"), fake("b"), fake("c", needs=("a",))]
    assert call(out, plan, "--only", "c") == 0
    assert states(out) == {"a": "done", "c": "done"}


def test_a_changed_command_is_run_again(out):
    assert call(out, [fake("a")]) == 0
    assert call(out, [fake("a", "--steps 3")]) == 0
    assert updates(out, "a") == [0, 1, 2]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_queue_that_is_interrupted_lets_its_cell_save(out, number):
    script = (
        "import sys; from benchmarks.card.__main__ import Cell, main; "
        "plan = [Cell('long', 'fake_cell --steps 100', '', '')]; "
        "sys.exit(main(['--toy', '--out', sys.argv[1]], plan))"
    )
    words = [sys.executable, "-c", script, str(out)]
    running = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    note = out / "cells" / "long" / "updates.txt"
    deadline = time.monotonic() + 60
    while not note.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    code = running.wait(20)
    assert code == (130 if number == signal.SIGINT else -number)
    assert states(out)["long"] == ("stopped" if number == signal.SIGINT else "running")
    # the kernel tells the cell when its queue was killed; it holds the lock until it has saved
    while call(out, [fake("long", "--steps 100")], "--minutes", "0.001") == 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    made = updates(out, "long")
    time.sleep(0.2)
    assert 0 < len(made) < 100 and updates(out, "long") == made == list(range(len(made)))


# --- what is refused ---


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--minutes", "-1"], "--minutes"),
        (["--minutes", "nan"], "--minutes"),
        (["--max-files", "1"], "--max-files"),
        (["--max-mib", "0"], "--max-mib"),
        (["--only", "omsd-spread-experts"], "Did you mean omsd-spread-expert"),
    ],
)
def test_flags_that_mean_nothing_are_refused(tmp_path, capsys, flags, word):
    assert card.main([*flags, "--out", str(tmp_path / "new")]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_unknown_flag_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        card.main(["--minute", "3"])
    assert ended.value.code == 2 and "--minutes" in capsys.readouterr().err


def test_a_machine_without_a_card_is_refused(tmp_path, capsys):
    assert card.main(["--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert "an accelerator that JAX sees, found 'cpu" in said and "--toy" in said
    assert not (tmp_path / "new").exists()


def test_folders_of_something_else_are_refused(out, capsys):
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert call(out, [fake("a")]) == 2
    assert "nothing was touched" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    assert call(out / "thesis.tex", [fake("a")]) == 2


def test_two_sizes_and_two_calls_stay_apart(out, capsys):
    assert call(out, [fake("a")]) == 0
    assert card.main(["--list", "--out", str(out)]) == 2
    assert "a queue of full size, found 'toy size'" in capsys.readouterr().err
    with queue.locked(out):
        assert call(out, [fake("a")]) == 2
    assert "in use" in capsys.readouterr().err


def test_a_damaged_state_is_refused(out, capsys):
    assert call(out, [fake("a")]) == 0
    text = (out / "queue.json").read_text(encoding="utf-8")
    (out / "queue.json").write_text(text.replace("done", "gone"), encoding="utf-8")
    assert call(out, [fake("a")]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said(out, capsys):
    assert call(out, [fake("a")]) == 0
    (out / "logs" / "b.log").mkdir()
    assert call(out, [fake("b")]) == 74
    assert "the same command continues" in capsys.readouterr().err


# --- what is taken away ---


def test_what_is_taken_away_keeps_its_bounds_in_order_of_importance(out):
    plan = [fake("first", "--weight 300000"), fake("second", "--weight 300000")]
    assert call(out, plan, "--max-files", "2", "--max-mib", "1") == 0
    files = list((out / "take").iterdir())
    assert len(files) == 2 and sum(path.stat().st_size for path in files) <= 2**20
    run = "cells/first/task/data/system/seed-0"
    names = packed(out)
    assert f"{run}/policy.safetensors" in names
    assert "cells/second/task/data/system/seed-0/policy.safetensors" not in names
    order = ["cells/first/summary.csv", f"{run}/metrics.csv", f"{run}/run.json"]
    assert [name for name in names if name in order] == order
    assert not [name for name in names if "stages" in name], "checkpoints stay"
    said = (out / "take" / "queue.md").read_text(encoding="utf-8")
    assert "- policies of cells/second: 1 files, 0.29 MiB" in said

    # the next call packs first what this one has left out
    assert call(out, plan, "--max-files", "2", "--max-mib", "1") == 0
    names = packed(out)
    assert "cells/second/task/data/system/seed-0/policy.safetensors" in names
    said = (out / "take" / "queue.md").read_text(encoding="utf-8")
    assert "policies of cells/first: 1 files, 0.29 MiB, packed by an earlier call" in said


def test_many_small_files_fill_equal_shares(tmp_path):
    folder = tmp_path / "cells" / "a"
    folder.mkdir(parents=True)
    for k in range(60):
        (folder / f"{k:02}.csv").write_bytes(os.urandom(40_000))
    found = takeaway.items(tmp_path, ["a"], {})
    packed = takeaway.pack(tmp_path, found, takeaway.Bounds(4, 1.0))
    sizes = [path.stat().st_size for path in (tmp_path / "take").iterdir()]
    assert len(sizes) == 3 and max(sizes) <= 2**18
    assert len(packed.digests) == 18 and len(packed.left) == 42
    assert list(packed.digests) == [item.name for item in found[:18]]


def test_archives_of_calls_make_a_folder_whose_cells_are_done(out, tmp_path):
    plan = [fake("a"), fake("b")]
    assert call(out, plan) == 0
    other = tmp_path / "other"
    for path in (out / "take").glob("*.zip"):
        zipfile.ZipFile(path).extractall(other)
    assert call(other, plan) == 0
    assert not (other / "cells" / "a" / "updates.txt").exists(), "nothing was trained again"
    assert "packed by an earlier call" not in (other / "take" / "queue.md").read_text()


# --- bfloat16 ---


def summary(mean, coordinated):
    """The scores of one precision, 16 seeds."""
    return {
        "mean_low": mean - 0.05,
        "mean_high": mean + 0.05,
        "coordinated": coordinated,
        "seeds": 16,
    }


def test_bfloat16_is_taken_where_it_scores_the_same():
    assert queue.agree(summary(0.80, 1.0), summary(0.77, 1.0))
    assert queue.agree(summary(0.80, 1.0), summary(0.80, 15 / 16))
    assert not queue.agree(summary(0.80, 1.0), summary(0.80, 14 / 16))
    assert not queue.agree(summary(0.80, 1.0), summary(0.65, 1.0))


@pytest.mark.parametrize(("half", "mean"), [(True, 0.77), (False, 0.5)])
def test_the_accuracy_test_decides_the_precision_once(tmp_path, half, mean):
    state = queue.fresh(toy=False)
    plan = [cell for cell in CELLS if cell.name in (*ACCURACY, "omsd-spread-expert")]
    queue.judge_half(tmp_path, state, plan)
    assert state["half"] is None
    for cell, score in zip(plan, (0.80, mean), strict=False):
        folder = tmp_path / "cells" / cell.name
        folder.mkdir(parents=True)
        head = "system,mean_low,mean_high,coordinated,seeds"
        (folder / "summary.csv").write_text(f"{head}\nomsd,{score - 0.05},{score + 0.05},1.0,16\n")
        command = queue.command_of(cell, state)
        state["cells"][cell.name] = {"state": "done", "command": command}
    queue.judge_half(tmp_path, state, plan)
    assert state["half"] is half
    assert ("--precision bfloat16" in queue.command_of(plan[2], state)) is half


# --- the plan ---


def test_cells_have_their_own_names_and_folders_and_known_claims():
    names = [cell.name for cell in CELLS]
    assert len(set(names)) == len(names)
    assert all(set(cell.needs) <= set(names[:k]) for k, cell in enumerate(CELLS))
    known = {c.name for c in (*claims.OMSD, *claims.DOM2, *claims.DOF, *claims.CODA)}
    assert {claim for cell in CELLS for claim in cell.claims} <= known


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@pytest.mark.parametrize("toy", [False, True])
def test_each_command_is_one_that_there_is(cell, toy):
    module, *words = cell.words("OUT", toy, half=True)
    if module == "benchmarks":
        from benchmarks.__main__ import CARD

        assert words[words.index("--parts") + 1] in CARD
        return
    name = module.removeprefix("experiments.")
    asked = parse(with_fields(commands.COMMANDS), name, words)
    assert str(asked.out).startswith("OUT/")
    assert toy or asked.seeds == str(cell.seeds)


TASKS = {"coda": "mamujoco/2halfcheetah", "discrete": "smax/3m", "dom2": "mpe/tag"}


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.work], ids=lambda cell: cell.name)
def test_work_has_the_stages_and_updates_of_the_preset(cell):
    task = TASKS.get(cell.name.partition("-")[0], "mpe/spread")
    steps = dict(re.findall(r"--cfg\.(\w+)-steps (\d+)", cell.full))
    for work in cell.work:
        preset = presets.find("", task, work.system.partition("+")[0])
        cfg = sizes.configured(work.system, preset.at(task, "medium"))
        stages = plan.find_system(work.system).pipeline(sizes.SPREAD, cfg, None)
        (stage,) = [stage for stage in stages if stage.name == work.stage]
        given = [int(count) for name, count in steps.items() if work.stage.startswith(name)]
        assert work.updates == (given or [stage.steps])[0]


def test_expected_seconds_follow_from_the_pages_speeds():
    page = expected.PAGE.read_text(encoding="utf-8")
    speeds = expected.measured_speeds(page)
    row = expected.Row("omsd", "scores-conditional", 16, "bfloat16")
    assert speeds[row] == pytest.approx(4.15e-3)
    assert speeds[row._replace(precision="")] == pytest.approx(6.25e-3), "the better of two"
    assert speeds[expected.Row("dom2", "policy", 16, "")] == pytest.approx(0.0769)

    cell = next(cell for cell in CELLS if cell.name == "omsd-spread-expert")
    half = expected.expected(cell, True, speeds)
    assert half.measured == pytest.approx(500 * 0.433 + 100 * 4.15 + 100 * 2.25, rel=1e-3)
    assert half.measured < half.seconds < expected.expected(cell, False, speeds).seconds
    assert expected.expected(cell, True, {}).measured == 0.0


def test_the_list_says_what_is_measured_and_what_is_estimated(tmp_path, capsys):
    assert card.main(["--list", "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert all(f"| {cell.name} | waiting |" in said for cell in CELLS)
    assert "The rest is estimated" in said and "Machine: none yet." in said
    assert not (tmp_path / "new").exists()


def test_the_list_tells_a_cell_that_runs_from_one_whose_queue_was_killed(out, capsys):
    plan = [fake("a")]
    assert call(out, plan) == 0
    state = queue.read(out, toy=True)
    state["cells"]["a"]["state"] = "running"
    queue.write(out, state)
    capsys.readouterr()
    assert call(out, plan, "--list") == 0
    assert "| a | stopped |" in capsys.readouterr().out
    with queue.locked(out):
        assert call(out, plan, "--list") == 0
    assert "| a | running |" in capsys.readouterr().out


# --- real cells ---

BC = "experiments.sweep --resume --systems bc --seeds 1 --rows 256 --episodes 2 --final-episodes 4"
STEPS = 30_000
HIDDEN = 'raise ModuleNotFoundError("hidden", name="matplotlib")'
"""A matplotlib that is not installed: pictures take a process 1.5 s."""


@pytest.mark.long
def test_a_sweep_that_is_stopped_goes_on_and_compiles_nothing_twice(out):
    """SIGTERM reaches the queue while the sweep trains: it saves, and the next call ends it, without pictures."""
    (out.parent / "matplotlib.py").write_text(HIDDEN, encoding="utf-8")
    flags = f"--cfg.policy-steps {STEPS} --cfg.chunk 500 --cfg.policy-width 8"
    plan = [Cell("bc", BC, "", flags)]
    log = out / "logs" / "bc.log"

    ended = threading.Event()

    def stop_in_the_middle():
        while not ended.wait(0.05):
            if log.exists() and "updates x" in log.read_text():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=stop_in_the_middle)
    watcher.start()
    code = call(out, plan)
    ended.set()
    watcher.join()
    assert code == 75
    assert states(out) == {"bc": "stopped"}
    compiled = {path.name for path in (out / "programs").rglob("jit_stage-*")}
    assert compiled, "the programs that train"

    assert call(out, plan) == 0
    assert states(out) == {"bc": "done"}
    assert {path.name for path in (out / "programs").rglob("jit_stage-*")} == compiled
    (info,) = out.rglob("run.json")
    assert json.loads(info.read_text())["updates_executed"] == STEPS
    names = packed(out)
    assert "cells/bc/summary.csv" in names
    assert [name for name in names if name.endswith("policy.safetensors")]


@pytest.mark.long
def test_every_cell_runs_at_toy_size(tmp_path):
    out = tmp_path / "out"
    assert call(out, CELLS, "--minutes", "0") == 0
    assert states(out) == dict.fromkeys((cell.name for cell in CELLS), "done")

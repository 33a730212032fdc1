"""Files that are something else: links, pipes, devices, huge ones; and sealed files of other kinds."""

import json
import math
import os
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import compare, updates
from benchmarks.card import queue, takeaway
from benchmarks.card.cells import ACCURACY, CELLS
from jaxomarl import documents
from jaxomarl.api import ended, plan, policy, portions, session
from jaxomarl.base import JaxomarlError
from jaxomarl.data import npy
from jaxomarl.papers import cost_lines
from jaxomarl.papers.measured import Measure
from jaxomarl.papers.verdicts import evidence, rules
from jaxomarl.paths import replace_file
from jaxomarl.results import canvas, coordination, embedded, loggers, page, store
from jaxomarl.results.study import Study
from jaxomarl.results.tables import Record
from jaxomarl.training import checkpoint
from jaxomarl.training.library import Folder, StageCache

READS = {
    "json": lambda path: documents.read(path, "Copy it again."),
    "csv": store.read_table,
    "lines": lambda path: list(cost_lines.read_lines(path)),
    "npy": npy.map_array,
}


def odd(path, kind):
    """Something at a path that is no regular file of a usual size."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name if kind == "loop" else "/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder", "loop"])
@pytest.mark.parametrize("name", READS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name, kind):
    """A pipe would be waited for, and a device has no end."""
    odd(tmp_path / "file", kind)
    with pytest.raises(JaxomarlError, match="file"):
        READS[name](tmp_path / "file")


def test_a_policy_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "policy.safetensors")
    with pytest.raises(OSError, match="No regular file"):
        policy.read_arrays(tmp_path / "policy.safetensors")


# --- what is written in place ---


def write_lock(folder):
    with session.locked(folder):
        pass


def write_queue_lock(folder):
    with queue.locked(folder):
        pass


def write_executed(folder):
    Folder(folder).begin_chunk(1)


def write_log(folder):
    run = loggers.Logged("log", "bc", {})
    loggers.Csv(folder).log(run, 1, {"loss": 1.0})


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize(
    ("name", "write"),
    [(".lock", write_lock), (".lock", write_queue_lock), ("executed", write_executed),
     ("log.csv", write_log)],
)  # fmt: skip
def test_no_link_of_a_folder_of_results_is_written_through(tmp_path, name, write, kind):
    """A folder from elsewhere may have a link in the place of a file that is written in place."""
    out = tmp_path / "out"
    out.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("a user's file")
    if name == ".lock" and write is write_lock:
        (out / "sweep.json").write_text("{}")
    (out / name).symlink_to(victim) if kind == "link" else os.mkfifo(out / name)
    with pytest.raises(OSError, match=name):
        write(out)
    assert victim.read_text() == "a user's file"


# --- the end of a sweep ---

RECORD = Record(**{
    **dict.fromkeys(Record._fields, 1.0),
    **dict.fromkeys(
        ("task", "data", "system", "swept", "config", "stage", "diverged", "starts", "covers", "health"),
        "x",
    ),
    **dict.fromkeys(("step", "seeds", "nonfinite", "unfinished", "episodes"), 1),
    "converged": None, "mean": math.inf, "win": None,
})  # fmt: skip


@pytest.fixture
def out(tmp_path):
    """OUT of a sweep of nothing, that has ended."""
    (tmp_path / "returns.png").write_bytes(b"picture")
    (tmp_path / "summary.csv").write_text("task\n")
    ended.write(tmp_path, (), ended.Ended([RECORD], [tmp_path / "returns.png"]))
    return tmp_path


def changed(out, **entries):
    """Change entries of DONE, with the digest that fits them."""
    found = json.loads((out / "DONE").read_text())
    found.pop(documents.SEAL)
    documents.write_sealed(out / "DONE", {**found, **entries})


def test_an_end_is_read_as_it_was_written(out):
    assert ended.find(out, ()) == ended.Ended([RECORD], [out / "returns.png"])


@pytest.mark.parametrize(
    "values",
    [[], list(RECORD[:-1]), [*RECORD, 1], [None, *RECORD[1:]], [*RECORD[:-1], "x"], [*RECORD[:-1], None],
     [*RECORD[:-1], 1 << 2000], [*RECORD[:-1], True], [*RECORD[:6], 0.5, *RECORD[7:]]],
)  # fmt: skip
def test_records_of_other_kinds_are_no_end(out, values):
    """The digest fits; a table of them could not be printed."""
    changed(out, records=[values])
    assert ended.find(out, ()) is None


@pytest.mark.parametrize("name", ["../returns.png", "/etc/passwd", "nothing.png"])
def test_pictures_that_are_not_there_are_no_end(out, name):
    changed(out, pictures=[name])
    assert ended.find(out, ()) is None


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder", "loop"])
@pytest.mark.parametrize("name", ["DONE", "summary.csv"])
def test_an_end_whose_files_are_odd_is_none(out, name, kind):
    (out / name).unlink()
    odd(out / name, kind)
    assert ended.find(out, ()) is None


def test_a_file_of_another_size_is_not_read_for_its_digest(out, monkeypatch):
    (out / "summary.csv").write_text("task\nx\n")
    monkeypatch.setattr(ended, "digest_of", lambda path: pytest.fail(f"{path} is read"))
    assert ended.find(out, ()) is None


# --- links that lead out ---


def test_a_group_whose_folder_leads_out_is_refused_by_its_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "games-bandit").symlink_to(tmp_path / "elsewhere")
    (group,) = plan.resolve(["bc"], ["games/bandit"], [], "1", "", {}, 64, 0, 1.0, "", 8)
    with pytest.raises(JaxomarlError, match=r"games-bandit.*A link leads out of OUT"):
        session.group_folder(tmp_path / "out", group)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_that_is_a_link_out_is_in_no_page(tmp_path, suffix):
    """A page is given to others, and a folder from elsewhere may link to any file."""
    (tmp_path / "own").write_bytes(b"secret")
    out = tmp_path / "out"
    out.mkdir()
    (out / "directions.png").write_bytes(bytes(10_000_000))
    (out / f"directions{suffix}").unlink(missing_ok=True)
    (out / f"directions{suffix}").symlink_to(tmp_path / "own")
    assert not embedded.figures([out]).shown
    (out / f"directions{suffix}").unlink()
    (out / f"directions{suffix}").write_bytes(b"small")
    (out / "directions.png").touch()
    assert len(embedded.figures([out]).shown) == 1


def test_a_link_out_is_not_taken_away(tmp_path):
    (tmp_path / "secret.csv").write_text("x")
    (tmp_path / "out" / "cells" / "bc").mkdir(parents=True)
    (tmp_path / "out" / "cells" / "bc" / "summary.csv").write_text("y")
    (tmp_path / "out" / "cells" / "bc" / "link.csv").symlink_to(tmp_path / "secret.csv")
    found = takeaway.items(tmp_path / "out", ["bc"], {})
    assert [item.name for item in found] == ["cells/bc/summary.csv"]


# --- files of other versions, and torn ones ---


def test_a_folder_of_a_newer_version_is_refused(tmp_path):
    out = tmp_path / "out"
    asked = {"held_out": 0.1}
    session.open_folder(out, asked, resume=False, overwrite=False)
    for number, word in ((99, "at most 2, found 99"), ("2", "format: expected a whole number")):
        documents.write_sealed(out / "sweep.json", {"format": number, "asked": asked})
        with pytest.raises(JaxomarlError, match=word):
            session.open_folder(out, asked, resume=True, overwrite=False)
    session.open_folder(out, asked, resume=False, overwrite=True)


def test_a_run_of_a_newer_version_is_refused(tmp_path):
    info = {
        "system": "bc",
        "task": "t",
        "data": "d",
        "config": "c",
        "cfg": {},
        "swept": {},
        "seed": 0,
    }
    store.write_json(tmp_path / "run.json", {**info, "final_stage": "policy", "format": 99})
    with pytest.raises(JaxomarlError, match="at most 2, found 99"):
        store.read_info(tmp_path)


def rows(*metrics):
    cell = ("bc", "t", "d", "c", 0, "policy", 10)
    return [store.Row(*cell, metric, episode, 1.0) for metric, episode in metrics]


def test_a_seed_with_fewer_values_of_a_metric_is_refused_and_one_without_returns_left_out():
    record = RECORD._replace(
        system="bc", task="t", data="d", config="c", stage="policy", step=10, starts="fresh"
    )
    study = lambda final: Study([], [record], [], final, [])
    whole = rows(("return", 0), ("action_0", 0))
    assert list(coordination.infos(study(whole))[record]) == [0]
    assert coordination.infos(study(whole[1:]))[record] == {}
    with pytest.raises(JaxomarlError, match=r"bc on t/d, seed 0.*is torn"):
        coordination.infos(study([*whole, *rows(("return", 1))]))


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(IsADirectoryError, match=r"directory: '[^>]*run\.json'$"):
        replace_file(tmp_path / "run.json", b"{}")
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_evidence_of_other_seeds_is_refused_and_one_without_a_seed_comes_last():
    with pytest.raises(JaxomarlError, match="found '2 and 3'"):
        rules.paired(np.ones(2), np.ones(3))
    with pytest.raises(JaxomarlError, match="found '2 and 3'"):
        rules.check_paired(np.ones(2), np.ones(3))
    name = ("game", "bc", "std0.3")
    measures = [Measure(*name, seed, "return", float(k)) for k, seed in enumerate(["", 1, 0])]
    found = evidence.values(evidence.Evidence("x", measures, [], {}), *name[:2], "std0.3", "return")
    assert found.tolist() == [2, 1, 0]


@pytest.mark.skipif(not find_spec("matplotlib"), reason="matplotlib is not installed")
def test_a_figure_of_any_name_is_drawn_into_a_page():
    """A name that begins with a digit, such as that of a task, is no reference to a group."""
    figure, (axes,) = canvas.grid(1, 2.0, 2.0, 1)
    axes.plot([0, 1], [0, 1])
    assert 'id="1-figure_1"' in page.inline_svg(figure, "1")


def test_a_commit_that_is_no_text_is_refused(tmp_path, root):
    folder = shutil.copytree(root / "docs/evidence/dof-games", tmp_path / "dof-games")
    file = folder / "provenance.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "source": {"commit": 5}}))
    with pytest.raises(JaxomarlError, match="source, commit: expected"):
        evidence.load_evidence(folder)


# --- other sealed files ---


@pytest.mark.parametrize("runs", [0, -1])
def test_portions_without_runs_are_refused(tmp_path, runs):
    documents.write_sealed(tmp_path / "portions.json", {"runs": runs})
    with pytest.raises(JaxomarlError, match="runs: expected 1 or more"):
        portions.begun_with(tmp_path / "portions.json")


def test_rows_that_are_no_texts_are_no_batch(tmp_path):
    """Of a stage that has a checkpoint: it is trained again."""
    stage = tmp_path / "critic-1"
    (stage / "checkpoints" / "1").mkdir(parents=True)
    (stage / "checkpoints" / "1" / "commit_success.txt").touch()
    documents.write_sealed(stage / "rows.json", {"kind": "critic", "rows": [["x"]]})
    assert StageCache(tmp_path).begun("critic") == []


def test_a_folder_whose_name_is_a_digit_of_another_script_is_no_checkpoint(tmp_path):
    (tmp_path / "\u00b2").mkdir()
    (tmp_path / "\u00b2" / "commit_success.txt").touch()
    assert checkpoint.committed_steps(tmp_path) == []


# --- the card's queue, and lines of benchmarks ---


def test_a_cell_whose_table_is_damaged_is_run_again(tmp_path, capsys):
    state = queue.fresh(toy=True)
    for cell in CELLS:
        if cell.name in ACCURACY:
            command = queue.command_of(cell, state)
            state["cells"][cell.name] = {"state": "done", "command": command}
            folder = tmp_path / "cells" / cell.name
            folder.mkdir(parents=True)
            head = "system,mean_low,mean_high,coordinated,seeds"
            (folder / "summary.csv").write_text(f"{head}\nomsd,0.7,0.8,1.0,16\n")
    for content in (b"", b"system\nomsd\n", f"{head}\nomsd,x,0.8,1.0,16\n".encode(), b"\xff",
                    f"{head}\nomsd,nan,0.8,1.0,16\n".encode()):  # fmt: skip
        own = {**state, "cells": dict(state["cells"])}
        (tmp_path / "cells" / ACCURACY[1] / "summary.csv").write_bytes(content)
        queue.judge_half(tmp_path, own, CELLS)
        assert own["half"] is None and set(own["cells"]) == {ACCURACY[0]}
        assert f"{ACCURACY[1]}: is run again" in capsys.readouterr().err


def test_a_state_that_there_is_not_is_refused(tmp_path):
    record = {"state": "x", "command": "", "seconds": 1.0, "calls": 1, "reason": ""}
    queue.write(tmp_path, {**queue.fresh(toy=True), "cells": {"bc": record}})
    with pytest.raises(JaxomarlError, match="bc, state: expected one of running"):
        queue.read(tmp_path, toy=True)


@pytest.mark.parametrize("line", ["[]", "1", "[" * 3000, "\u00b2", '"x"'])
def test_lines_that_are_no_objects_are_refused_or_left_out(tmp_path, line):
    (tmp_path / "old.jsonl").write_text(line)
    with pytest.raises(JaxomarlError, match="a file of JSON lines"):
        compare.read(tmp_path / "old.jsonl")
    flags = updates.Flags(out=tmp_path / "old.jsonl", resume=True)
    assert updates.kept_lines(flags) == []


@pytest.mark.parametrize("best", ["x", [], 0.0, -1.0, math.nan, math.inf, 5e-324, None])
def test_a_best_sample_that_is_none_is_the_value(best):
    line = {"updates_per_second": 2.0, "updates_per_second_high": best}
    assert compare.costs(line) == {"updates_per_second": (0.5, 0.5)}
    assert compare.costs({"updates_per_second": best}) == {}


@pytest.mark.parametrize("entry", [{"size": []}, {"runs": [1]}, {"runs": "1"}, {"agents": {}}])
def test_a_kept_line_of_other_kinds_is_left_out(tmp_path, entry):
    line = {
        "size": "game",
        "system": "bc",
        "stage": "policy",
        "runs": 1,
        "machine": updates.machine(),
        **entry,
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    assert updates.kept_lines(updates.Flags(runs=(1,), out=tmp_path / "x.jsonl", resume=True)) == []

"""Loggers: each is told every number once, a failing one is left out, and what they keep is read back."""

import csv
import glob
import importlib.util
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxomarl.api import track
from jaxomarl.base import JaxomarlError
from jaxomarl.results import loggers, store
from jaxomarl.training.program import Progress


def absent(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    reason = f"{', '.join(missing)} missing: an extra, jaxomarl[track]"
    return pytest.mark.skipif(bool(missing), reason=reason)


class Own:
    """A user's logger."""

    def __init__(self):
        self.started, self.told, self.closed = [], [], 0

    def start(self, run):
        self.started.append((run.name, run.cell, run.info["seed"]))

    def log(self, run, step, values):
        self.told += [(run.name, step, name, value) for name, value in values.items()]

    def close(self):
        self.closed += 1


class Failing(Own):
    def log(self, run, step, values):
        raise ConnectionError("no network")


def info(seed):
    facts = {"system": "omsd", "task": "games/bandit", "data": "std0.3", "config": f"c{seed}"}
    return {**facts, "seed": seed, "cfg": {"beta": 0.5}, "swept": {"beta": 0.5}}


RUNS = [store.Run(Path(f"out/g/c-seed-{seed}"), info(seed)) for seed in range(3)]


def progress(stage, step, chosen, **more):
    rows = np.arange(len(chosen), dtype=np.float32)[:, None]
    loss = {"loss": rows + np.array([[1.0, 3.0]])}
    given = {"rate": 1.0, "seconds": 1.0, "compile_seconds": 0.0, "metrics": loss}
    sizes = {"steps": 40, "runs": len(chosen), "chosen": chosen}
    return Progress(stage, step, evaluations=more.get("evaluations", {}), **sizes, **given)


def followed(chosen, out=Path("out")):
    """A tracker after two runs of three trained a chunk, and the stage ended for all three."""
    said = []
    tracker = track.Tracker(chosen, out, said.append)
    tracker.begin(RUNS, out)
    returns = {"return": np.array([[1.0, 2.0], [3.0, 5.0]])}
    tracker.live(progress("policy", 20, (0, 2), evaluations=returns))
    rows = {"metrics": [], "health": []}
    for run in RUNS:
        steps = np.array([20, 40])
        rows["metrics"].append(
            store.metrics_rows(run.info, "policy", steps, {"loss": np.array([2.0, 1.0])})
        )
        rows["health"].append(
            store.metrics_rows(run.info, "policy", steps[1:], {"bias": np.array([0.25])})
        )
    tracker.finished(rows, "policy")
    final = [
        row
        for run in RUNS
        for row in store.returns_rows(
            run.info, "policy", np.array([40]), {"return": np.array([[1.0, np.nan]])}
        )
    ]
    tracker.final(final)
    tracker.close()
    return said


def test_every_number_is_told_once():
    own = Own()
    assert followed([own]) == []
    cell = "omsd games/bandit std0.3 beta=0.5"
    assert own.started == [(f"g/c-seed-{seed}", cell, seed) for seed in range(3)]
    told = {(name, step, metric): value for name, step, metric, value in own.told}
    assert len(told) == len(own.told), "a number was told twice"
    first = {key[1:]: value for key, value in told.items() if key[0] == "g/c-seed-0"}
    final = first.pop((40, "final/return"))
    assert np.isnan(final), "what is not finite is told as it is"
    live = {(20, "policy/loss"): 2.0, (20, "policy/return"): 1.5}
    assert first == {**live, (40, "policy/loss"): 1.0, (40, "policy/bias"): 0.25}
    assert told["g/c-seed-2", 20, "policy/return"] == 4.0, "the second row is the third run's"
    shared = {key[1:] for key in told if key[0] == "g/c-seed-1"}
    assert shared == {*first, (40, "final/return")} - {(20, "policy/return")}, "told at the end"
    assert own.closed == 1


def test_a_logger_that_fails_is_left_out_and_the_others_go_on():
    own, failing = Own(), Failing()
    said = followed([failing, own])
    line = "  ! Failing is left out from here on: ConnectionError: no network"
    assert said == [line], "once"
    alone = Own()
    followed([alone])
    np.testing.assert_equal(own.told, alone.told)
    assert failing.closed == 0


def test_what_is_no_logger_is_refused(monkeypatch):
    with pytest.raises(JaxomarlError, match=r"one of tensorboard, wandb, csv.*Did you mean wandb"):
        track.Tracker(["wandbb"], Path("out"), print)
    with pytest.raises(JaxomarlError, match="start, log and close"):
        track.Tracker([object()], None, print)
    with pytest.raises(JaxomarlError, match="a folder of results"):
        track.Tracker(["csv"], None, print)
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(JaxomarlError, match=r"pip install 'jaxomarl\[track\]'"):
            track.Tracker([name], Path("out"), print)


def test_nothing_is_opened_unless_asked(tmp_path):
    with track.tracking((), tmp_path, print) as tracker:
        assert tracker is None
    own = Own()
    with pytest.raises(KeyboardInterrupt), track.tracking([own], tmp_path, print):
        raise KeyboardInterrupt
    assert own.closed == 1 and list(tmp_path.iterdir()) == []


def test_csv_files_grow_and_continue(tmp_path):
    for times in (1, 2):  # a second process continues the files
        tracker_files(tmp_path)
        files = sorted(tmp_path.glob("log/g/*.csv"))
        rows = [list(csv.reader(file.open())) for file in files]
        assert [len(x) for x in rows] == [1 + 5 * times, 1 + 4 * times, 1 + 5 * times]
        assert all(x[0] == ["step", "name", "value"] for x in rows)
    assert rows[0][1] == ["20", "policy/loss", "2.0"]


def tracker_files(folder, *names):
    """What `followed` tells, kept by loggers in a folder."""
    chosen = [loggers.made(name, folder) for name in names or ("csv",)]
    assert followed(chosen) == []


@absent("tensorboardX", "tensorboard")
def test_tensorboards_own_reader_finds_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker_files(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard/g/c-seed-2"))
    events.Reload()
    assert {"policy/loss", "policy/return", "policy/bias", "final/return"} == set(
        events.Tags()["scalars"]
    )
    assert [(e.step, e.value) for e in events.Scalars("policy/loss")] == [(20, 3.0), (40, 1.0)]
    assert [(e.step, e.value) for e in events.Scalars("policy/return")] == [(20, 4.0)]
    assert events.Tags()["tensors"] == ["run/text_summary"]


@absent("wandb")
def test_wandbs_offline_files_hold_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "own"))
    tracker_files(tmp_path, "wandb")
    found = glob.glob(str(tmp_path / "wandb/offline-run-*/run-*.wandb"))
    assert len(found) == 3, "one run is one run there"
    histories = dict(offline(path) for path in found)
    assert set(histories) == {f"omsd games/bandit std0.3 beta=0.5 seed {k}" for k in range(3)}
    told = histories["omsd games/bandit std0.3 beta=0.5 seed 2"]
    assert {"updates": 20, "policy/loss": 3.0, "policy/return": 4.0} in told
    assert {"updates": 40, "policy/loss": 1.0, "policy/bias": 0.25} in told


def records(content):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    assert content[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:
            return
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


def offline(path):
    """(name, history) of a run's file; steps and times of wandb's own are left out."""
    from wandb.proto import wandb_internal_pb2

    name, history = "", []
    for data in records(Path(path).read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            name = record.run.display_name
            assert record.run.run_group == "omsd games/bandit std0.3 beta=0.5"
        if record.HasField("history"):
            items = record.history.item
            row = {x.key or "/".join(x.nested_key): json.loads(x.value_json) for x in items}
            history.append({k: v for k, v in row.items() if not k.startswith("_")})
    return name, history

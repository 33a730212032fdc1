"""Files: exact round trips, stable bytes, no half-written file."""

import math
import os

import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.results import store

INFO = {
    "system": "omsd",
    "task": "games/two-modes",
    "data": "both, mixed",
    "config": "9f2c",
    "cfg": {"beta": 0.1},
    "swept": {"beta": 0.1},
    "seed": 3,
    "final_stage": "policy",
}


def make_run(folder, **changes):
    store.write_json(folder / "run.json", INFO | changes)
    return folder


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_holds_every_bit_of_a_float(tmp_path, dtype):
    bits = np.random.default_rng(0).integers(0, 256, size=(4000, dtype().nbytes), dtype=np.uint8)
    x = np.concatenate(
        [bits.view(dtype).ravel(), np.array([0.0, -0.0, 0.1, 1 / 3, 1e-45, 3e38], dtype)]
    )
    x = x[~np.isnan(x)]
    store.write_table(tmp_path / "x.csv", x[:, None], ["x"])
    back = np.array([float(row["x"]) for row in store.read_table(tmp_path / "x.csv")], dtype)
    assert back.tobytes() == x.tobytes()


def test_equal_numbers_give_equal_bytes(tmp_path):
    rows = [("a", np.int64(1), np.float32(0.1), None), ('b,\n"c"', 2, float("nan"), -math.inf)]
    store.write_table(tmp_path / "a.csv", rows, "stuv")
    store.write_table(tmp_path / "b.csv", iter(rows), tuple("stuv"))
    expected = 's,t,u,v\na,1,0.10000000149011612,\n"b,\n""c""",2,nan,-inf\n'
    assert (
        (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes() == expected.encode()
    )
    assert store.read_table(tmp_path / "a.csv")[1] == {
        "s": 'b,\n"c"',
        "t": "2",
        "u": "nan",
        "v": "-inf",
    }


def test_json_is_strict_sorted_and_reads_back(tmp_path):
    value = {
        "b": np.float64(0.1),
        "a": [np.int32(2), (1, None)],
        "n": math.nan,
        "x": np.arange(3),
        "t": True,
    }
    store.write_json(tmp_path / "deep" / "x.json", value)
    back = store.read_json(tmp_path / "deep" / "x.json")
    assert back == {"a": [2, [1, None]], "b": 0.1, "n": "nan", "x": [0, 1, 2], "t": True}
    assert list(back) == sorted(back)
    with pytest.raises(TypeError):
        store.write_json(tmp_path / "y.json", {"f": print})
    assert not (tmp_path / "y.json").exists()


def test_a_writer_that_raises_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "x.csv"
    store.write_table(path, [(1,)], ["a"])
    before = path.read_bytes()

    def rows():
        yield (2,)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        store.write_table(path, rows(), ["a"])
    with pytest.raises(JaxomarlError, match="1 cells"):
        store.write_table(path, [(1, 2)], ["a"])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.csv"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, call):
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 1})

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(store.os, call, fail)
    with pytest.raises(OSError, match="No space"):
        store.write_json(path, {"a": 2})
    assert store.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_rows_of_one_run_read_back_the_same(tmp_path):
    steps = np.array([10, 20])
    evaluations = {
        "return": np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 0.1]], np.float32),
        "length": np.ones((2, 3), int),
    }
    rows = store.returns_rows(INFO, "policy", steps, evaluations)
    assert rows[0] == (
        "omsd",
        "games/two-modes",
        "both, mixed",
        "9f2c",
        3,
        "policy",
        10,
        "length",
        0,
        1.0,
    )
    assert [(r.step, r.metric, r.episode) for r in rows[3:9:2]] == [
        (10, "return", 0),
        (10, "return", 2),
        (20, "length", 1),
    ]
    assert rows[-1].value == np.float32(0.1)
    losses = store.metrics_rows(
        INFO, "critic", steps, {"loss": np.array([0.5, 0.25]), "gap": np.array([1, 2])}
    )
    assert [(r.step, r.metric, r.episode, r.value) for r in losses] == [
        (10, "gap", "", 1.0),
        (10, "loss", "", 0.5),
        (20, "gap", "", 2.0),
        (20, "loss", "", 0.25),
    ]
    for made in (rows, losses):
        store.write_table(tmp_path / "x.csv", made, store.COLUMNS)
        assert str(store.read_rows(tmp_path / "x.csv")) == str(
            made
        )  # as text, for nan is not equal to itself


def test_a_metric_of_the_wrong_length_is_refused():
    # under the tests' runtime type check jaxtyping refuses first, with a TypeError of its own
    with pytest.raises(Exception, match=r"(?s)loss.*\(2,\)|[Tt]ype-check"):
        store.metrics_rows(INFO, "critic", np.array([1, 2]), {"loss": np.ones(3)})
    with pytest.raises(Exception, match=r"(?s)return.*\(2, 4\)|[Tt]ype-check"):
        store.returns_rows(INFO, "policy", np.array([1, 2]), {"return": np.ones((3, 4))})


def test_runs_are_found_once_each_in_the_order_of_their_cell(tmp_path):
    for seed in (10, 9):
        make_run(tmp_path / "sweep" / f"seed{seed}", seed=seed)
    make_run(tmp_path / "sweep" / "deep" / "er", system="bc", seed=0)
    paths = [
        tmp_path,
        str(tmp_path / "sweep" / "seed10"),
        tmp_path / "sweep" / "seed9" / "run.json",
    ]
    runs = store.find_runs(paths)
    assert [(run.info["system"], run.info["seed"]) for run in runs] == [
        ("bc", 0),
        ("omsd", 9),
        ("omsd", 10),
    ]
    assert store.find_runs([tmp_path / "sweep" / "seed9"])[0].path.name == "seed9"
    assert store.find_runs([]) == []
    assert store.load_returns(runs) == []
    rows = store.returns_rows(runs[1].info, "policy", np.array([5]), {"return": np.ones((1, 2))})
    store.write_table(runs[1].path / "returns.csv", rows, store.COLUMNS)
    assert store.load_returns(runs) == rows
    assert store.load_final(runs) == []
    final = store.returns_rows(runs[0].info, "policy", np.array([5]), {"return": np.ones((1, 4))})
    store.write_table(runs[0].path / store.FINAL, final, store.COLUMNS)
    assert store.load_final(runs) == final and store.load_returns(runs) == rows


def test_what_is_torn_or_missing_is_refused_by_name(tmp_path):
    with pytest.raises(JaxomarlError, match="nowhere"):
        store.find_runs([tmp_path / "nowhere"])
    store.write_json(tmp_path / "a" / "run.json", {"system": "bc"})
    with pytest.raises(JaxomarlError, match=r"found .no cfg, config, data, .*task"):
        store.find_runs([tmp_path])
    (tmp_path / "a" / "run.json").write_text('{"system": ')
    with pytest.raises(JaxomarlError, match=r"run\.json"):
        store.find_runs([tmp_path])
    table = tmp_path / "x.csv"
    table.write_text("")
    with pytest.raises(JaxomarlError, match="header"):
        store.read_table(table)
    table.write_text("a,b\n1,2\n3\n")
    with pytest.raises(JaxomarlError, match="row 3"):
        store.read_table(table)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(JaxomarlError, match="columns"):
        store.read_rows(table)
    table.write_text(
        ",".join(store.COLUMNS) + "\na,b,c,d,0,e,10,return,0,1.\na,b,c,d,0,e,1x,return,0,1.0\n"
    )
    with pytest.raises(JaxomarlError, match="1x"):
        store.read_rows(table)

"""Damage that parses: flipped bits in arrays, leftovers of a kill, JSON of other types, names that are paths."""

import contextlib
import json
import tarfile
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxomarl import documents, torchfile
from jaxomarl.api import collect, policy, session
from jaxomarl.base import SHOWN, JaxomarlError, refuse
from jaxomarl.data import catalog, files
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cost_lines, measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.results import costs, store
from jaxomarl.training import checkpoint

# --- checkpoints ---


def trees(count):
    rng = np.random.default_rng(0)
    return [
        {"w": rng.random((4, 64, 64)).astype(np.float32), "n": np.int32(k)} for k in range(count)
    ]


@pytest.fixture
def folder(tmp_path):
    """Checkpoints 1 and 2."""
    for step, tree in enumerate(trees(2), 1):
        checkpoint.save(tmp_path / "c", step, tree)
    return tmp_path / "c"


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path, where, bit):
    raw = bytearray(path.read_bytes())
    raw[where] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.parametrize("eighth", range(1, 8))
def test_a_flipped_bit_of_the_arrays_is_named_and_passed_over(folder, eighth):
    file = largest(folder / "2")
    flip(file, file.stat().st_size * eighth // 8, eighth)
    said = []
    step, found = checkpoint.restore(folder, trees(1)[0], said.append)
    assert step == 1 and said and "c/2" in said[0]
    np.testing.assert_array_equal(found["w"], trees(1)[0]["w"])


def test_an_untouched_checkpoint_is_taken_and_one_of_an_older_version_too(folder):
    assert checkpoint.restore(folder, trees(1)[0])[0] == 2
    (folder / "2.sha256").unlink()
    assert checkpoint.restore(folder, trees(1)[0])[0] == 2


def test_the_digest_sees_names_types_shapes_and_values():
    one = {"a": np.zeros((2, 3), np.float32)}
    others = [
        {"b": one["a"]},
        {"a": one["a"].astype(np.int32)},
        {"a": one["a"].reshape(3, 2)},
        {"a": one["a"] - 0.0},
    ]
    assert len({checkpoint.digest_of_arrays(tree) for tree in (one, *others[:3])}) == 4
    assert checkpoint.digest_of_arrays(
        {"a": np.full((2, 3), -0.0, np.float32)}
    ) != checkpoint.digest_of_arrays(one)
    assert checkpoint.digest_of_arrays(others[3]) == checkpoint.digest_of_arrays(one)


def test_what_a_kill_leaves_goes_with_the_next_save(folder):
    (folder / "1" / "commit_success.txt").unlink()
    (folder / "2.orbax-checkpoint-tmp-17").mkdir()
    (folder / "9.sha256.part").touch()
    for step in (3, 4):
        checkpoint.save(folder, step, trees(1)[0])
    assert sorted(p.name for p in folder.iterdir()) == ["3", "3.sha256", "4", "4.sha256"]


# --- data sets ---


@pytest.fixture(scope="module")
def bandit():
    return catalog.load(make("games/bandit"), rows=16)


def written(folder, bandit, sealed=True, **changed):
    """A folder whose manifest says something else, with or without a seal that fits."""
    data, manifest = bandit
    files.save_folder(folder, data, {**manifest, **changed})
    if not sealed:
        path = folder / files.MANIFEST
        said = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in said.items() if k != files.SEAL}))
    return folder


def test_a_set_is_read_with_and_without_a_seal(tmp_path, bandit):
    for sealed in (True, False):
        data, said = files.load_folder(
            written(tmp_path / str(sealed), bandit, sealed), make("games/bandit").env.spec
        )
        assert len(data.starts) == 16 and files.SEAL not in said
        assert said["sha256"] == bandit[1]["sha256"]


@pytest.mark.parametrize(
    "quality", ["../../../escaped", "/absolute", "", ".", "..", "a/b", "a\\b", "a\nb", "x" * 101]
)
def test_a_quality_that_is_no_folder_name_is_refused(tmp_path, bandit, quality):
    with pytest.raises(JaxomarlError, match=r"quality.*Collect it again"):
        files.load_folder(
            written(tmp_path / "set", bandit, quality=quality), make("games/bandit").env.spec
        )


@pytest.mark.parametrize(
    "changed",
    [{"sha256": 1}, {"quality": None}, {"obs_dims": "2"}, {"episodes": 1.5}, {"return": []}, {"format": True},
     {"return": {"mean": "high"}}, {"return": {"mean": float("inf"), "std": 0.0, "min": 0.0, "max": 0.0}}],
)  # fmt: skip
def test_entries_of_another_type_are_named(tmp_path, bandit, changed):
    with pytest.raises(JaxomarlError, match=next(iter(changed))) as refused:
        files.load_folder(
            written(tmp_path / "set", bandit, False, **changed), make("games/bandit").env.spec
        )
    assert len(str(refused.value)) < 600


def test_an_edited_manifest_is_refused_and_says_how_to_keep_it(tmp_path, bandit):
    path = written(tmp_path / "set", bandit) / files.MANIFEST
    path.write_text(path.read_text().replace('"episodes": 16', '"episodes": 17'))
    with pytest.raises(JaxomarlError, match=rf"{files.SEAL}.*delete this entry"):
        files.read_manifest(path.parent)


# --- documents ---


@pytest.mark.parametrize(
    "text", ["", "[1]", "nan", "{", "[" * 100_000 + "]" * 100_000, '{"a": ' * 100_000, '{"a": "x"}', '{"b": 1}',
             '{"a": true}', '{"a": Infinity}', '{"a": 1e999}', "\ud800"],
)  # fmt: skip
def test_no_document_gives_another_error(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(JaxomarlError, match="the way out") as refused:
        documents.read(path, "the way out", a=float)
    assert len(str(refused.value)) < 600


def test_a_whole_number_is_a_number_and_no_text_is_one(tmp_path):
    assert documents.check("x", {"a": 1, "b": None}, "", a=float)["a"] == 1
    with pytest.raises(JaxomarlError, match=r"expected a whole number, found 'a number 1\.0'"):
        documents.check("x", {"a": 1.0}, "way", a=int)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a", str), (1, int), (1, float), (0.5, float), (True, bool), (None, None), ([1, 2], [int]), ([], [int]),
        ({"x": 1, "y": 2}, {"x": int}), (None, ({"x": int}, None)), ({"x": 0.5}, (None, {"x": float})),
    ],
)  # fmt: skip
def test_a_value_is_of_its_kind(value, kind):
    assert documents.is_of(value, kind)
    assert documents.words(kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, str), (True, int), (1.0, int), (1 << 63, int), (True, float), (float("nan"), float), (10**400, float),
        (0, bool), (0, None), ([1, "2"], [int]), ("12", [int]), ({}, {"x": int}), ({"x": "1"}, {"x": int}),
        ([], ({"x": int}, None)),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_none(value, kind):
    assert not documents.is_of(value, kind)


@pytest.mark.parametrize("entry", store.KNOWN)
def test_an_entry_that_readers_look_for_is_of_its_kind_or_named(tmp_path, entry):
    info = {name: kind() for name, kind in store.INFO.items()}
    for value in ("x" if store.KNOWN[entry] is not str else 1, [1], True):
        store.write_json(tmp_path / "run.json", {**info, entry: value})
        with pytest.raises(JaxomarlError, match=rf"run\.json, {entry}: expected"):
            store.find_runs([tmp_path])


def test_a_refusal_is_short_whatever_a_file_holds():
    text = str(refuse("f" * 5000, "e" * 5000, "x" * 5000, "way"))
    assert len(text) < 3 * SHOWN + 100 and text.endswith(" way") and "fff ... fff" in text


@pytest.mark.parametrize("entry", store.INFO)
def test_a_run_without_an_entry_is_named(tmp_path, entry):
    info = {name: kind() for name, kind in store.INFO.items() if name != entry}
    store.write_json(tmp_path / "run.json", info)
    with pytest.raises(JaxomarlError, match=f"no {entry}"):
        store.find_runs([tmp_path])


def test_a_small_torch_file_takes_no_gigabyte(tmp_path):
    """Its size bounds what is read; all that Python allocates meanwhile counts."""
    (tmp_path / "x.pt").write_bytes(b"no torch file")
    tracemalloc.start()
    try:
        with pytest.raises(JaxomarlError, match=r"x\.pt"):
            torchfile.load(tmp_path / "x.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < peak < 1 << 20


# --- run folders ---


@pytest.fixture
def run(tmp_path):
    """A finished run of behaviour cloning that an older version wrote, saved again by this one."""
    with tarfile.open(Path(__file__).parents[1] / "results" / "files" / "run-0.1.0.tar.gz") as held:
        held.extractall(tmp_path / "held", filter="data")
    folder = next(r.path for r in store.find_runs([tmp_path / "held"]) if r.info["system"] == "bc")
    found = policy.load_policy(folder)
    first = lambda tree: jax.tree.map(lambda x: x[None], tree)
    policy.save_policies(
        [folder], found.algorithm, first(found.state), first(found.past), found.spec
    )
    return folder


def test_a_flipped_bit_of_a_policy_is_refused(run):
    path = run / policy.FILE
    policy.load_policy(run)
    flip(path, path.stat().st_size - 3, 4)  # in the arrays
    with pytest.raises(JaxomarlError, match="It is damaged"):
        policy.load_policy(run)


def read_all(folder):
    """What the commands read of a run's folder."""
    runs = store.find_runs([folder])
    rows = [store.read_rows(folder / f"{name}.csv") for name in ("metrics", "returns", "final")]
    found = policy.load_policy(folder)
    return runs[0].info, rows, jax.tree.map(np.asarray, (found.state, found.past))


def test_a_flipped_bit_in_any_file_of_a_run_is_refused(run):
    table = run / "metrics.csv"
    (run / "final.csv").write_bytes((run / "returns.csv").read_bytes())
    store.seal(run)
    read_all(run)
    files = ("run.json", "metrics.csv", "returns.csv", "final.csv", policy.FILE)
    for name in files:
        whole = (run / name).read_bytes()
        for eighth in (1, 4, 7):
            flip(run / name, len(whole) * eighth // 8, eighth)
            with pytest.raises(JaxomarlError):
                read_all(run)
            (run / name).write_bytes(whole)
    read_all(run)
    table.write_text(table.read_text().replace("0.", "1.", 1))
    with pytest.raises(
        JaxomarlError, match=r"metrics\.csv.*it is damaged.*--resume makes it again"
    ):
        read_all(run)
    store.unseal(run)
    read_all(run)


def test_a_flipped_bit_in_a_digest_damages_its_file_alone(run):
    store.seal(run)
    flip(run / store.SUMS, 3, 0)
    with pytest.raises(JaxomarlError, match="it is damaged"):
        [store.read_rows(path) for path in sorted(run.glob("*.csv"))]


def test_a_sealed_file_is_read_as_it_was_written_or_refused(tmp_path):
    path = tmp_path / "DONE"
    documents.write_sealed(path, {"rows": ("a", "b"), "facts": {"seconds": 0.5, "n": 3}})
    assert documents.read_sealed(path, "", rows=list)["facts"] == {"seconds": 0.5, "n": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["DONE"]
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        for bit in (0, 4):
            flip(path, at, bit)
            with contextlib.suppress(JaxomarlError):
                # a space that became another one
                assert documents.read_sealed(path, "")["rows"] == ["a", "b"]
            path.write_bytes(whole)
    path.write_text('{"rows": []}')
    assert documents.read_sealed(path, "") == {"rows": []}


def test_what_a_kill_leaves_goes_when_the_sweep_is_resumed(tmp_path):
    out = tmp_path / "out"
    session.open_folder(out, {"held_out": 1}, resume=False, overwrite=False)
    steps = out / "stages" / "critic-0" / "checkpoints"
    checkpoint.save(steps, 3, trees(1)[0])
    kept = sorted(p.name for p in steps.iterdir())
    left = [
        steps / "2" / "d",
        steps / "4.orbax-checkpoint-tmp",
        steps / "5",
        out / "g" / "s" / "run-0",
    ]
    for folder in left:
        folder.mkdir(parents=True)
    for part in (
        left[3] / ".metrics.csv.0a.part",
        left[3] / ".policy.safetensors.part",
        out / "stages" / "critic-0" / ".DONE.1.part",
    ):
        part.touch()
    session.open_folder(out, {"held_out": 1}, resume=True, overwrite=False)
    assert sorted(p.name for p in steps.iterdir()) == kept
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(
    "left", [".rows.safetensors.part", "rows.safetensors", ".manifest.json.part"]
)
def test_a_data_set_that_was_killed_is_collected_again(tmp_path, bandit, left):
    folder = tmp_path / "set"
    folder.mkdir()
    name = left.replace("rows.safetensors", files.ARRAYS).replace("manifest.json", files.MANIFEST)
    (folder / name).touch()
    collect.collect("games/bandit", rows=16, out=folder, overwrite=True)
    assert files.read_manifest(folder)["sha256"] == bandit[1]["sha256"]
    (folder / files.MANIFEST).unlink()
    (folder / "thesis.tex").touch()
    with pytest.raises(JaxomarlError, match="It holds no data set"):
        collect.collect("games/bandit", rows=16, out=folder, overwrite=True)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("spec", None),
        ("spec", {}),
        ("spec", "x"),
        ("cfg", {"no_such": 1}),
        ("cfg", []),
        ("system", 3),
        ("seed", "0"),
    ],
)
def test_a_run_whose_json_is_of_another_kind_is_refused(run, entry, value):
    info = store.read_json(run / "run.json")
    store.write_json(run / "run.json", {**info, entry: value})
    with pytest.raises(JaxomarlError, match=entry):
        policy.load_policy(run)


@pytest.mark.parametrize(
    ("field", "value"),
    [("policy_width", "8"), ("policy_width", True), ("policy_lr", []), ("policy_anneal", 0)],
)
def test_a_setting_of_another_type_is_named(run, field, value):
    info = store.read_json(run / "run.json")
    store.write_json(run / "run.json", {**info, "cfg": {**info["cfg"], field: value}})
    with pytest.raises(JaxomarlError, match=field):
        policy.load_policy(run)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("cfg", {"policy_width": 1 << 40}),
        ("spec", {"obs_dims": [3, 1]}),
        ("spec", {"state_dim": 7}),
    ],
)
def test_arrays_of_another_policy_are_refused_and_none_is_allocated_for_them(run, part, changed):
    info = store.read_json(run / "run.json")
    store.write_json(run / "run.json", {**info, part: {**info[part], **changed}})
    if changed == {"state_dim": 7}:
        # nothing that acts reads the state
        assert policy.load_policy(run).spec.state_dim == 7
        return
    with pytest.raises(JaxomarlError, match=r"arrays that the policy reads.*none of the right"):
        policy.load_policy(run)


@pytest.mark.parametrize(
    "header", [b"[1]", b"3", b'{"a": 1}', b'{"a": {"shape": ["x"]}}', b"[" * 10_000, b'{"a": {}}']
)
def test_a_description_of_arrays_that_is_none_counts_nothing(tmp_path, header):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert costs.policy_numbers(path) is None


@pytest.mark.parametrize(
    "card", [1, {}, {"name": "x"}, {"name": [], "return": 1, "counts": {}, "ends": {}}]
)
def test_a_card_that_cannot_be_told_is_left_out(tmp_path, card):
    (tmp_path / "card.json").write_text(json.dumps([card]))
    assert store.read_cards([tmp_path]) == []


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (measured.MEASURED, ("g", "s", "", "one", "return", "1.0")),
        (measured.MEASURED, ("g", "s", "", "1", "return", "high")),
        (measured.STAGES, ("g", "s", "", "critic", "many", 0, 0, 0, "")),
    ],
)
def test_a_cell_of_evidence_that_is_no_number_is_refused(tmp_path, name, row):
    fields = (Measure if name == measured.MEASURED else StageWord)._fields
    store.write_table(tmp_path / name, [row], fields)
    read = measured.read if name == measured.MEASURED else measured.read_stages
    with pytest.raises(JaxomarlError, match=rf"{name}: expected whole numbers and a value"):
        read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [b"\xff", b"[1]", b"[" * 10_000, b'{"benchmark": 1}', b'{"benchmark": "acting", "load": "x"}'],
)
def test_a_line_of_costs_that_is_none_is_refused(tmp_path, line):
    (tmp_path / "acting.jsonl").write_bytes(line)
    with pytest.raises(JaxomarlError, match=r"acting\.jsonl, line 1"):
        cost_lines.cost_measures(tmp_path)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("horizon", "1"),
        ("obs_dims", [1 << 40, 1]),
        ("act_dims", [1.5, 1]),
        ("discrete", 0),
        ("unknown", 1),
    ],
)
def test_a_fact_of_a_task_of_another_type_is_named(run, fact, value):
    info = store.read_json(run / "run.json")
    store.write_json(run / "run.json", {**info, "spec": {**info["spec"], fact: value}})
    with pytest.raises(JaxomarlError, match=fact):
        policy.load_policy(run)


@pytest.mark.parametrize("left", [".sweep.json.0a1b2c3d.part", "stages/", ".lock"])
def test_what_a_killed_start_leaves_is_taken(tmp_path, left):
    out = tmp_path / "out"
    out.mkdir()
    (out / left).mkdir() if left.endswith("/") else (out / left).touch()
    session.open_folder(out, {}, resume=False, overwrite=False)
    assert {p.name for p in out.iterdir()} - {"stages", ".lock"} == {"sweep.json"}


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"final_episodes": "8"}, "final_episodes"),
        ({"cfg.beta": [[0.1]]}, "beta"),
        ({"cfg.beta": {}}, "beta"),
    ],
)
def test_settings_of_another_kind_are_other_results(tmp_path, found, named):
    out, asked = tmp_path / "out", {"held_out": 0.1, "final_episodes": 8, "cfg.beta": [0.1, 0.2]}
    session.open_folder(out, asked, resume=False, overwrite=False)
    session.open_folder(out, asked, resume=True, overwrite=False)
    documents.write_sealed(out / "sweep.json", {"asked": {**asked, **found}})
    with pytest.raises(JaxomarlError, match=named):
        session.open_folder(out, asked, resume=True, overwrite=False)


@pytest.mark.parametrize("other", ["thesis.tex", "stages/mine", "sweep.json.part"])
def test_what_is_not_ours_is_left_alone(tmp_path, other):
    path = tmp_path / "out" / other
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(JaxomarlError, match="nothing was touched"):
        session.open_folder(tmp_path / "out", {}, resume=False, overwrite=True)
    assert path.exists()


def test_a_kill_while_results_are_deleted_leaves_a_folder_of_ours(tmp_path, monkeypatch):
    out = tmp_path / "out"
    session.open_folder(out, {}, resume=False, overwrite=False)
    (out / "games-bandit").mkdir()

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        session.open_folder(out, {}, resume=False, overwrite=True)
    session.check_folder(out, {}, resume=False, overwrite=True)

"""What lasts of finished runs: scores, health and policies in a small folder."""

import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.papers import keep, measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import evidence
from jaxomarl.results import store

HEALTH = {"stage": "critic", "verdict": "short", "figures": {"x": 0.1}, "failed": ["x is 0.1"]}
FACTS = {"scale": 1.0, "cores": 2, "source": {"commit": "abc"}, "versions": {"jax": "0"}}


def part(folder, seeds, returns=(1.0, 3.0), scale=1.0, beta=0.5, episodes=5, **cfg):
    """An OUT folder of `reproduce` with a run of each seed."""
    command = f"reproduce omsd-scores --seeds {seeds[0]}"
    facts = {**FACTS, "command": command, "seeds": list(seeds), "scale": scale}
    store.write_json(folder / measured.PROVENANCE, facts)
    for seed in seeds:
        run = folder / "mpe-spread-medium" / "omsd" / f"seed-{seed}"
        info = {
            "system": "omsd", "task": "mpe/spread", "data": "medium", "config": "c", "cfg": cfg,
            "swept": {"beta": beta}, "seed": seed, "final_stage": "policy",
            "health": [{**HEALTH, "raise": ["critic_steps"]}],
            "data_return": {"episodes": episodes, "mean": 2.0, "std": 4.0},
            "stages": {"policy": {"seconds": 9.0, "runs": 3}, "critic": {"seconds": 1.0, "runs": 1}},
        }  # fmt: skip
        store.write_json(run / "run.json", info)
        store.write_bytes(run / "policy.safetensors", bytes([seed]))
        store.write_bytes(run / "state.bin", b"large")
        identity = ("omsd", "mpe/spread", "medium", "c", seed, "policy", 10, "return")
        rows = [(*identity, k, x + seed) for k, x in enumerate(returns)]
        store.write_table(run / store.FINAL, rows, store.COLUMNS)
    return folder


def test_parts_by_seeds_become_one_folder_that_a_judge_reads(tmp_path):
    parts = [part(tmp_path / "a", (0, 1)), part(tmp_path / "b", (2,))]
    out = tmp_path / "kept"
    assert keep.keep(parts, out) == 3

    found = evidence.load_evidence(out)
    game, setting = "mpe/spread medium", "beta=0.5"
    assert evidence.values_by_seed(found, game, "omsd", setting, "return") == {0: 2, 1: 3, 2: 4}
    assert evidence.exact(found, game, "data", "", "return") == 2.0
    # 4 / sqrt(5 - 1)
    assert evidence.exact(found, game, "data", "", "standard error") == 2.0
    assert found.stages == [StageWord(game, "omsd", setting, "critic", 0, 3, 0, 0, "x is 0.1")]
    assert found.provenance["seeds"] == [0, 1, 2]
    assert (
        found.provenance["command"]
        == "reproduce omsd-scores --seeds 0; reproduce omsd-scores --seeds 2"
    )


def test_small_files_are_kept_and_states_are_not(tmp_path):
    out = tmp_path / "kept"
    keep.keep([part(tmp_path / "a", (0, 1))], out)
    run = out / "mpe-spread-medium" / "omsd" / "beta-0.5" / "seed-1"
    assert sorted(f.name for f in run.iterdir()) == ["policy.safetensors", "run.json"]
    assert (run / "policy.safetensors").read_bytes() == b"\x01"


def test_what_sets_runs_apart_becomes_their_setting(tmp_path):
    """A planner's history, and the size of the data; how a run is cut and reported does not."""
    parts = [
        part(tmp_path / "a", (0,), history=0, chunk=5),
        part(tmp_path / "b", (0,), history=4, chunk=7, added=1),
        part(tmp_path / "c", (0,), history=4, chunk=7, episodes=50),
    ]
    assert keep.keep(parts, tmp_path / "kept") == 3
    found = evidence.load_evidence(tmp_path / "kept")
    game = "mpe/spread medium"
    settings = evidence.settings_of(found, game, "omsd")
    assert sorted(settings) == [
        "beta=0.5 episodes=5 history=0",
        "beta=0.5 episodes=5 history=4",
        "beta=0.5 episodes=50 history=4",
    ]
    assert [word.setting for word in found.stages] == settings
    # 4 / sqrt(50 - 1): of the largest set
    assert evidence.exact(found, game, "data", "", "standard error") == pytest.approx(4 / 7)
    seconds = evidence.values(found, game, "omsd", settings[0], keep.SECONDS)
    assert seconds.tolist() == [4.0]
    folders = sorted((tmp_path / "kept/mpe-spread-medium/omsd").iterdir())
    assert folders[0].name == "beta-0.5-episodes-5-history-0"


def test_a_tables_own_numbers_are_taken_along(tmp_path):
    """Each part has its seeds, an exact value that all have, and stages of which seeds add up."""
    parts = []
    for name, seed in (("a", 0), ("b", 1)):
        folder = part(tmp_path / name, (seed,))
        rows = [
            Measure("mpe/six medium", "omsd", "", seed, "ways", 2.0 + seed),
            Measure("mpe/six medium", "law", "", "", "ways", 3.0),
        ]
        words = [StageWord("g", "s", "", "model", 1 - seed, seed, 0, 0, "x" * seed)]
        measured.save_measures(folder, rows, words)
        parts.append(folder)
    keep.keep(parts, tmp_path / "kept")
    found = evidence.load_evidence(tmp_path / "kept")
    ways = evidence.values_by_seed(found, "mpe/six medium", "omsd", "", "ways")
    assert ways == {0: 2.0, 1: 3.0}
    assert evidence.exact(found, "mpe/six medium", "law", "", "ways") == 3.0
    assert len([m for m in found.measures if m.system == "law"]) == 1
    assert StageWord("g", "s", "", "model", 1, 1, 0, 0, "x") in found.stages

    other = [Measure("mpe/six medium", "law", "", "", "ways", 4.0)]
    measured.save_measures(parts[1], other)
    with pytest.raises(JaxomarlError, match="3 and 4"):
        keep.keep(parts, tmp_path / "again")


def test_what_is_read_is_what_was_kept(tmp_path):
    out = tmp_path / "kept"
    keep.keep([part(tmp_path / "a", (0,))], out)
    first = measured.read(out)[0]
    assert first == Measure("mpe/spread medium", "data", "", "", "return", 2.0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([dict(seeds=(0,)), dict(seeds=(0,))], "each run once"),
        ([dict(seeds=(0,)), dict(seeds=(1,), scale=0.5)], "folders of one scale"),
        ([dict(seeds=())], r"a final\.csv"),
    ],
    ids=["a run twice", "two scales", "nothing finished"],
)
def test_what_does_not_belong_together_is_refused(tmp_path, parts, message):
    folders = []
    for k, wanted in enumerate(parts):
        seeds = wanted["seeds"]
        if seeds:
            folders.append(part(tmp_path / str(k), **wanted))
        else:
            folder = part(tmp_path / str(k), (0,))
            next(folder.rglob(store.FINAL)).unlink()
            folders.append(folder)
    with pytest.raises(JaxomarlError, match=message):
        keep.keep(folders, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_folder_in_use_is_not_written_into(tmp_path):
    out = tmp_path / "kept"
    keep.keep([part(tmp_path / "a", (0,))], out)
    with pytest.raises(JaxomarlError, match="a new or empty folder"):
        keep.keep([part(tmp_path / "b", (1,))], out)


def test_no_folder_at_all_is_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="at least one folder"):
        keep.keep([], tmp_path / "kept")


def test_a_table_whose_command_has_not_ended_is_refused_with_what_to_run(tmp_path):
    """Its runs are there, and what the command writes at its end is not."""
    folder = part(tmp_path / "table", (0,))
    (folder / measured.PROVENANCE).unlink()
    message = "has not ended.*reproduce TABLE --out .*table` again with the same flags"
    with pytest.raises(JaxomarlError, match=message):
        keep.keep([folder], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="finished `reproduce`"):
        keep.keep([tmp_path], tmp_path / "kept")

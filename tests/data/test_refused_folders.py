"""Folders that are damaged or contradictory are refused, and so are paths of no known format."""

import json

import foreign
import h5py
import numpy as np
import pytest
from refusing import refused

from jaxomarl.data import catalog as sets
from jaxomarl.data import formats


def spoil(file, change):
    array = np.load(file)
    np.save(file, change(array))


# --- vaults, MADiff, Minari ---


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    return foreign.vault(
        tmp_path_factory.mktemp("v") / "x.vlt" / "Good", foreign.leaves(foreign.rows([5, 4]))
    )


def copy_of(folder, to):
    import shutil

    return shutil.copytree(folder, to / "copy")


def test_a_vault_whose_agents_end_apart(tmp_path):
    tree = foreign.leaves(foreign.rows([5, 4]))
    tree["terminals"][0, 2, 1] = 1
    refused(
        lambda: formats.read(foreign.vault(tmp_path / "x.vlt" / "a", tree)),
        "terminals, B 0, row 2",
        "one flag",
    )


def test_a_vault_without_a_leaf(tmp_path):
    tree = foreign.leaves(foreign.rows([5, 4]))
    del tree["rewards"]
    refused(
        lambda: formats.read(foreign.vault(tmp_path / "x.vlt" / "a", tree)),
        "rewards",
        "a leaf of this name",
    )


def test_a_vault_that_is_half_there(vault, tmp_path):
    path = copy_of(vault, tmp_path)
    biggest = max((path / "d").iterdir(), key=lambda p: p.stat().st_size)
    biggest.write_bytes(biggest.read_bytes()[: biggest.stat().st_size // 2])
    refused(lambda: formats.read(path), "truncated or damaged")
    (path / "metadata.json").write_text("{")
    refused(lambda: formats.read(path), "metadata.json", "a JSON object")
    (path / "metadata.json").write_text('{"version": 2.0}')
    refused(lambda: formats.read(path), "version", "0.1 to 1.x")


def test_a_vault_that_claims_more_than_it_holds(vault, tmp_path):
    import tensorstore

    for index, word in (
        (10**12 % (2**31), "bytes for"),
        (0, "at least one step"),
        (400_000, "missing"),
    ):
        path = copy_of(vault, tmp_path / str(index))
        base = {
            "driver": "ocdbt",
            "base": {"driver": "file", "path": f"{path}/"},
            "path": "vault_index",
        }
        store = tensorstore.open({"driver": "zarr", "kvstore": base}).result()
        store.write(np.array([index], np.int32)).result()
        refused(lambda path=path: formats.read(path), word)


def test_a_vault_with_a_link_out_of_it(vault, tmp_path):
    path = copy_of(vault, tmp_path)
    (path / "d" / "0123").symlink_to("/etc/hostname")
    refused(lambda: formats.read(path), "0123", "a link that leaves it")


def test_madiff_s_files_that_contradict_another(tmp_path):
    def spoiled(name, change):
        path = foreign.madiff(
            tmp_path / f"{name}{change.__code__.co_firstlineno}", foreign.rows([5, 4])
        )
        spoil(path / f"{name}.npy", change)
        return lambda: formats.read(path)

    refused(spoiled("path_lengths", lambda x: x + 1), "path_lengths.npy", "a sum of 9")
    refused(
        spoiled("discounts", lambda x: np.where(np.arange(9)[:, None] == 1, 0, x)),
        "discounts.npy, row 1", "contradict",
    )  # fmt: skip
    refused(
        spoiled("rewards", lambda x: x[:, :2]),
        "rewards.npy", "3 agents",
    )  # fmt: skip


def test_minari_sets_of_another_layout(tmp_path, good):
    formats.write(tmp_path / "a-v0", good, "minari")
    file = tmp_path / "a-v0" / "data" / "metadata.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in said.items() if k != "jaxomarl"}))
    refused(lambda: formats.read(tmp_path / "a-v0"), "no layout for several agents")
    file.write_text(json.dumps(said))
    with h5py.File(tmp_path / "a-v0" / "data" / "main_data.hdf5", "a") as opened:
        opened["episode_1/terminations"][3] = True
    refused(lambda: formats.read(tmp_path / "a-v0"), "episode_1", "an end at the last step only")


# --- paths ---


def test_a_path_of_no_format_lists_what_was_looked_for(tmp_path, spread):
    (tmp_path / "simple_spread" / "expert" / "seed_0_data").mkdir(parents=True)
    for name in ("obs_0", "acs_0"):
        (tmp_path / "simple_spread" / "expert" / "seed_0_data" / f"{name}.npy").touch()
    words = [f"\n  {name}: " for name in formats.FORMATS]
    text = refused(
        lambda: formats.read(tmp_path / "simple_spread"), *words, "our own folder", "Did you mean"
    )
    assert str(tmp_path / "simple_spread" / "expert") in text
    refused(lambda: formats.read(tmp_path / "nowhere"), "nothing there")
    refused(lambda: sets.load(spread, str(tmp_path / "simple_spread")), "one of these")
    refused(
        lambda: sets.load(spread, str(tmp_path), rows=5), "--rows", "no value, as the set is a path"
    )


def test_writing_is_refused_where_something_is_or_nothing_can_be(good, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for name, row in formats.FORMATS.items():
        if row.write:
            refused(
                lambda name=name: formats.write(tmp_path / "full", good, name),
                "a new or an empty folder",
            )
        else:
            refused(
                lambda name=name: formats.write(tmp_path / "new", good, name),
                "omar",
                "It can only be read.",
            )
    refused(lambda: formats.write(tmp_path / "new", good, "csv"), "vault, minari, omar", "'csv'")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]

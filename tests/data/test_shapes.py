"""Every array of every format with one axis too few, one too many, or one agent more: read, or refused truthfully."""

import json
import re

import foreign
import h5py
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.data import formats, vault_writer

CHANGES = {
    "fewer axes": lambda x: x[..., 0],
    "more axes": lambda x: x[..., None],
    "one row less": lambda x: x[:-1] if x.shape[0] > 1 else x[:, :-1],
    "wider": lambda x: np.concatenate([x, x[..., :1]], axis=-1),
    "nothing": lambda x: x[:0],
}
READ = "read"


def told(get):
    """READ, or the refusal: what it expected and what it found are never the same text, and a way out ends it."""
    try:
        raw = get()
    except JaxomarlError as error:
        text = str(error)
        said = re.fullmatch(r"(?s)(.+): expected (.+), found (.+?)\. (\S.+)", text)
        assert said and said[4].strip().endswith((".", "?")), text
        numbers = lambda x: " ".join(
            re.findall(r"[0-9]+|\b[A-Z]\b", x)
        )  # letters stand for any width
        expected, found = said[2], said[3].strip("'\"")
        assert expected != found and not expected.startswith(f"{found} "), text
        if numbers(expected) and "axes" not in expected:
            assert numbers(expected) != numbers(found), text
        return text
    sound(raw)
    return READ


def sound(raw):
    """What every reader gives: arrays of one length, N rewards a row."""
    rows = len(raw.step)
    assert {len(x) for x in (*raw.obs, *raw.action, raw.reward, raw.done, raw.left, raw.known)} == {
        rows
    }
    assert raw.reward.shape == (rows, raw.agents) and len(raw.action) == raw.agents
    assert all(x.ndim == 2 for x in (*raw.obs, *raw.action)) and (
        raw.state is None or raw.state.ndim == 2
    )


def replaced(file, name, change):
    x = file[name][()]
    del file[name]
    file[name] = change(x)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["o", "s", "a", "r", "d"])
def test_omiga(name, change, tmp_path):
    path = foreign.omiga(tmp_path / "x.hdf5", foreign.rows([5, 4], shared=True))
    with h5py.File(path, "a") as file:
        replaced(file, name, CHANGES[change])
    said = told(lambda: formats.read(path))
    assert (said == READ) == (
        (change == "fewer axes" and name in ("s", "r", "d")) or (change, name) in OMIGA
    ), said


OMIGA = {("wider", "o"), ("wider", "s"), ("wider", "a")}
"""A column more is for `fit` to find."""


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name", ["obs", "state", "actions", "avail_actions", "reward", "terminated", "filled"]
)
def test_pymarl(name, change, tmp_path):
    r = foreign.rows([3, 5], (4, 4, 4), (1, 1, 1), shared=True)
    path = foreign.pymarl(tmp_path / "x.h5", r._replace(action=[np.ones((8, 1), int)] * 3), 3)
    with h5py.File(path, "a") as file:
        replaced(file, name, CHANGES[change])
    said = told(lambda: formats.read(path))
    flat = change == "fewer axes" and name in ("actions", "reward", "terminated", "filled")
    assert (said == READ) == (
        flat or (change == "wider" and name in ("obs", "state", "avail_actions"))
    ), said
    if (name, change) == ("reward", "wider"):
        assert "(E, 7, 1) or (E, 7, 3)" in said and "(2, 7, 2)" in said


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name", ["obs", "actions", "rewards", "discounts", "path_lengths", "states", "legals"]
)
def test_madiff(name, change, tmp_path):
    r = foreign.rows([5, 4])
    path = foreign.madiff(tmp_path / "x", r, ids=False)
    np.save(path / "states.npy", r.state)
    np.save(path / "legals.npy", np.ones((9, 3, 2)))
    np.save(path / f"{name}.npy", CHANGES[change](np.load(path / f"{name}.npy")))
    said = told(lambda: formats.read(path))
    if name in ("obs", "actions", "states", "legals") and change == "wider":
        assert said == READ
    elif (name, change) == ("actions", "fewer axes"):
        assert "whole numbers" in said  # as discrete actions are laid
    elif name in ("rewards", "discounts") and change == "fewer axes":
        assert said == READ  # the team's
    elif (name, change) == ("states", "more axes"):
        assert said == READ
    else:
        assert said != READ


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name", ["obs_1", "acs_1", "rews_1", "next_obs_1", "dones_1", "states_0", "next_states_0"]
)
def test_omar(name, change, tmp_path):
    path = foreign.omar(tmp_path / "x", foreign.rows([5, 4]), flags="ended", states=True)
    file = path / "seed_0_data" / f"{name}.npy"
    array = np.load(file)
    if array.ndim == 1 and change in ("fewer axes", "wider"):
        return  # one number, or a row more: nothing of this kind
    np.save(file, CHANGES[change](array))
    said = told(lambda: formats.read(path))
    column = change == "more axes" and name in ("rews_1", "dones_1")
    assert (said == READ) == (column or (change, name) == ("wider", "acs_1")), said


@pytest.fixture(scope="module")
def minari(tmp_path_factory):
    raw = formats.read(
        foreign.omar(tmp_path_factory.mktemp("m") / "o", foreign.rows([5, 4]), flags="ended")
    )
    path = tmp_path_factory.mktemp("m") / "a-v0"
    available = np.ones((len(raw.step), 3, 2), np.float32)
    formats.write(
        path,
        raw._replace(state=np.ones((len(raw.step), 7), np.float32), available=available),
        "minari",
    )
    return path


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name",
    [
        *("observations/agent_1", "actions/agent_1", "rewards", "terminations", "truncations"),
        *("infos/rewards", "infos/state", "infos/available"),
    ],
)
def test_minari(name, change, minari, tmp_path):
    import shutil

    path = shutil.copytree(minari, tmp_path / "a-v0")
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        if file[f"episode_1/{name}"].ndim == 1 and change in ("fewer axes", "wider"):
            return
        replaced(file, f"episode_1/{name}", CHANGES[change])
    said = told(lambda: formats.read(path))
    assert (said == READ) == (change == "more axes" and name in ("terminations", "truncations")), (
        said
    )


LEAVES = [
    "observations",
    "actions",
    "rewards",
    "terminals",
    "truncations",
    "infos.state",
    "infos.legals",
]


@pytest.fixture(scope="module")
def leaves():
    tree = foreign.leaves(foreign.rows([5, 4, 3]))
    flat = {k: v for k, v in tree.items() if k != "infos"} | {"infos.state": tree["infos"]["state"]}
    return flat | {"infos.legals": np.ones((1, 12, 3, 2), np.float32)}


@pytest.mark.parametrize("change", ["fewer axes", "more axes", "wider", "one step less"])
@pytest.mark.parametrize("name", LEAVES)
def test_vault(name, change, leaves, tmp_path):
    changed = {"one step less": lambda x: x[:, :-1], **CHANGES}[change]
    for key, array in leaves.items():
        x = changed(array) if key == name else array
        vault_writer.write_array(
            tmp_path,
            f"{key}.",
            x,
            (1, 10**13 if change != "one step less" else x.shape[1], *x.shape[2:]),
        )
    vault_writer.write_array(tmp_path, "vault_index", np.array([12], np.int32), (1,))
    (tmp_path / "metadata.json").write_text(json.dumps({"version": 1.2}))
    said = told(lambda: formats.read(tmp_path))
    teams = name in ("rewards", "terminals", "truncations") and change in (
        "fewer axes",
        "more axes",
    )
    wide = change == "wider" and name in ("observations", "actions", "infos.state", "infos.legals")
    if (name, change) == ("actions", "fewer axes"):
        assert "whole numbers" in said or said == READ
    else:
        assert (said == READ) == (teams or wide), said


def test_a_team_s_reward_that_is_none_names_both_shapes(leaves, tmp_path):
    for key, array in {**leaves, "rewards": leaves["rewards"][..., :2]}.items():
        vault_writer.write_array(tmp_path, f"{key}.", array, (1, 10**13, *array.shape[2:]))
    vault_writer.write_array(tmp_path, "vault_index", np.array([12], np.int32), (1,))
    (tmp_path / "metadata.json").write_text(json.dumps({"version": 1.2}))
    said = told(lambda: formats.read(tmp_path))
    assert "rewards: expected shape (1, 12, 3) or (1, 12), found 'shape (1, 12, 2)'" in said

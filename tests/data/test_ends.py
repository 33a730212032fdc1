"""Ends, states and paddings that contradict the task's rules, whichever format they come in."""

import shutil
import warnings

import foreign
import h5py
import numpy as np
import pytest
from refusing import refused

from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.data import catalog as sets
from jaxomarl.data import files, formats
from jaxomarl.data.dataset import content_hash
from jaxomarl.data.fit import fit
from jaxomarl.data.raw import from_dataset, select_rows
from jaxomarl.envs import catalog

READERS = ("omar", "vault", "madiff", "omiga", "minari", "jaxomarl")
LENGTH = 25


def write(name, path, r, task):
    """The rows in a format, every end of an episode flagged as a termination; `died` says which where it can."""
    if name == "omar":
        return foreign.omar(path, r, flags="ended")
    if name == "vault":
        return foreign.vault(path / "x.vlt" / "y", foreign.leaves(r))
    if name == "madiff":
        return foreign.madiff(path, r)
    if name == "omiga":
        return foreign.omiga(path.with_suffix(".hdf5"), r)
    everyone = r._replace(died=r.ended)
    if name == "minari":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return foreign.minari(path.with_name(f"{path.name}-v0"), everyone)
    held = formats.read(foreign.omar(path.with_name(f"{path.name}-omar"), everyone, flags="ended"))
    data, manifest = fit(held._replace(distinct=True), foreign.ruled(task, terminates="may"))
    assert manifest["origin"]["terminations"] == len(r.lengths), (
        "an earlier version believed such flags"
    )
    files.save_folder(path, data, manifest)
    return path


def ends(manifest):
    return [manifest["origin"][k] for k in ("terminations", "time_outs")]


@pytest.mark.parametrize("name", READERS)
def test_in_a_task_that_never_terminates_an_end_is_a_time_out(name, tmp_path, spread):
    rows = foreign.rows([LENGTH] * 3, shared=True)
    path = write(name, tmp_path / "set", rows, spread)
    data, manifest = sets.load(spread, str(path))
    assert ends(manifest) == [0, 3] and not np.asarray(data.done).any()
    (line,) = [x for x in manifest["origin"]["repairs"] if "are time-outs" in x]
    assert line.startswith("3 ends at the time limit of 25 steps")
    assert manifest["sha256"] == content_hash(data)


@pytest.mark.parametrize("name", READERS)
def test_an_earlier_end_is_refused_with_its_row(name, tmp_path, spread):
    rows = foreign.rows([LENGTH, 7, LENGTH], shared=True)
    path = write(name, tmp_path / "set", rows, spread)
    row = 32 if name == "omiga" else 31  # its file has the successors as rows
    text = refused(
        lambda: sets.load(spread, str(path)), f"row {row} (episode 1, step 6)", "never terminates"
    )
    assert "one after 7 of 25 steps" in text


@pytest.mark.parametrize("name", [x for x in READERS if x != "jaxomarl"])
def test_a_robot_that_falls_keeps_its_terminations(name, tmp_path, spread):
    robot = foreign.ruled(spread, terminates="may", earliest=2)
    path = write(name, tmp_path / "set", foreign.rows([LENGTH, 7, 9], shared=True), robot)
    _, manifest = sets.load(robot, str(path))
    at_limit = (
        1 if name == "minari" else 0
    )  # it tells the two, so its termination at the limit is one
    assert ends(manifest) == [2 + at_limit, 1 - at_limit]


# --- stubs ---


def slices(r, first, every):
    """Rows of episodes `every`, each slice but the one of episode 0 beginning at the end of the episode before it."""
    last = np.cumsum(r.lengths) - 1
    starts = np.r_[0, last[:-1]]
    return np.concatenate(
        [np.arange(starts[k] + (0 if first or k else 1), last[k] + 1) for k in every]
    )


@pytest.mark.parametrize("flags", ["terminals", "truncations", "both"])
@pytest.mark.parametrize("rules", ["never", "may"])
def test_the_stubs_of_a_sliced_vault_are_dropped_and_counted(flags, rules, tmp_path, spread):
    r = foreign.rows([LENGTH] * 6)
    tree = foreign.leaves(r)
    if flags != "terminals":
        tree["truncations"] = tree["terminals"].copy()
    if flags == "truncations":
        tree["terminals"][:] = 0
    order = [3, 0, 5, 1]
    rows = slices(r, True, order)
    pick = lambda x: {k: pick(v) for k, v in x.items()} if isinstance(x, dict) else x[:, rows]
    task = foreign.ruled(spread, terminates=rules, earliest=1 if rules == "never" else 2)
    data, manifest = fit(formats.read(foreign.vault(tmp_path / "s.vlt" / "x", pick(tree))), task)
    assert (manifest["transitions"], manifest["episodes"]) == (100, 4)
    assert ends(manifest) == [0, 4] and manifest["origin"]["unknown_successors"] == 4
    (line,) = [x for x in manifest["origin"]["repairs"] if "start of a slice" in x]
    assert line.startswith("3 rows") and "row 0 (episode 0, step 0)" in line
    whole = np.concatenate([np.arange(LENGTH * k, LENGTH * (k + 1)) for k in order])
    np.testing.assert_array_equal(np.asarray(data.obs)[np.asarray(data.starts), 1], r.obs[1][whole])


def test_stubs_elsewhere_are_refused(tmp_path, spread):
    r = foreign.rows([LENGTH, 1, LENGTH, 1])
    tree = foreign.leaves(r)
    raw = formats.read(foreign.vault(tmp_path / "s.vlt" / "x", tree))
    refused(
        lambda: fit(raw, spread), "row 50 (episode 2, step 0)", "one after 1 of 25"
    )  # the last begins no slice
    plain = formats.read(foreign.omar(tmp_path / "o", foreign.rows([1, LENGTH]), flags="ended"))
    refused(
        lambda: fit(plain, spread), "row 0 (episode 0, step 0)", "one after 1 of 25"
    )  # OMAR's are not cut so
    falls = foreign.ruled(spread, terminates="may", earliest=1)
    assert fit(raw, falls)[1]["transitions"] == 52, "a task that may end after one step keeps them"


# --- both flags ---


@pytest.mark.parametrize("name", ["vault", "minari"])
def test_a_row_with_both_flags_is_read_by_the_rules(name, tmp_path, spread):
    r = foreign.rows([LENGTH, 7, LENGTH], died=[0, 1, 2])
    if name == "vault":
        tree = foreign.leaves(r)
        tree["truncations"] = tree["terminals"].copy()
        raw = formats.read(foreign.vault(tmp_path / "b.vlt" / "x", tree))
    else:
        plain = formats.read(foreign.omar(tmp_path / "o", r, flags="ended"))
        formats.write(tmp_path / "b-v0", plain._replace(distinct=True), "minari")
        with h5py.File(tmp_path / "b-v0" / "data" / "main_data.hdf5", "a") as file:
            for k in range(3):
                file[f"episode_{k}/truncations"][-1] = True
        raw = formats.read(tmp_path / "b-v0")
    _, manifest = fit(raw, foreign.ruled(spread, terminates="may"))
    assert ends(manifest) == [1, 2]
    said = " ".join(manifest["origin"]["repairs"])
    assert (
        "2 ends at the time limit of 25 steps have both flags and may be either: taken for time-outs"
        in said
    )
    assert "1 ends before the time limit have both flags: taken for terminations" in said
    full = select_rows(raw, np.repeat(np.array(r.lengths) == LENGTH, np.array(r.lengths) + 1))
    _, manifest = fit(full, spread)
    assert ends(manifest) == [0, 2]
    assert any(
        "are time-outs: done = 0 (2 have both flags)" in x for x in manifest["origin"]["repairs"]
    )


def test_a_game_that_always_ends_has_no_time_out(tmp_path):
    task, played = catalog.make("games/climbing"), foreign.climbing()
    tree = foreign.leaves(played)
    tree["actions"] = tree["actions"][..., 0].astype(np.int32)
    tree["truncations"], tree["terminals"] = tree["terminals"], np.zeros_like(tree["terminals"])
    tree["infos"] = {
        "state": np.ones((1, 6, 1), np.float32),
        "legals": np.ones((1, 6, 2, 3), np.float32),
    }
    data, manifest = sets.load(task, str(foreign.vault(tmp_path / "c.vlt" / "x", tree)))
    assert ends(manifest) == [6, 0] and np.asarray(data.done).sum() == 6
    assert any("6 ends after 1 steps are terminations" in x for x in manifest["origin"]["repairs"])


# --- what tasks say ---


def test_every_task_says_whether_it_can_terminate():
    said = {
        name: catalog.make(name).env.spec.terminates
        for name in catalog.names()
        if not name.startswith("mamujoco")
    }
    assert {said[x] for x in said if x.startswith("mpe/")} == {"never"}
    may = {"games/chain", "games/bridge"}
    assert {said[x] for x in said if x.startswith("games/") and x not in may} == {"always"}
    chain = catalog.make("games/chain:length=4").env.spec
    assert (chain.terminates, chain.earliest) == ("may", 4)
    assert said["games/bridge"] == "may" and catalog.make("games/bridge").env.spec.earliest > 4
    for name, expected in {"2halfcheetah": "never", "3hopper": "may"}.items():
        spec = catalog.make(f"mamujoco/{name}").env.spec
        assert spec.terminates == expected and (expected == "never" or spec.earliest > 1)
    assert catalog.make("jaxmarl/MPE_simple_spread_v3").env.spec.terminates == "never"
    assert catalog.make("jaxmarl/switch_riddle").env.spec.terminates == "may"


def test_a_spec_of_no_such_ending_is_refused():
    with pytest.raises(
        JaxomarlError,
        match=r"Spec\.terminates: expected \"never\" or \"may\" or \"always\", found 'no'",
    ):
        Spec((1,), (1,), 1, 5, terminates="no")
    with pytest.raises(
        JaxomarlError, match=r"Spec\.earliest: expected 1 to 5 steps, the horizon, found 6"
    ):
        Spec((1,), (1,), 1, 5, earliest=6)


# --- paddings of narrower agents ---

FILLED = ("0", "-inf", "nan", "-1e+09", "column 13 again")


def padded(x, filled, columns=2):
    """[T, O] with more columns, filled so."""
    if "column" in filled:
        return np.hstack([x, np.repeat(x[:, -1:], columns, axis=1)])
    return np.pad(x, ((0, 0), (0, columns)), constant_values=np.float32(filled))


@pytest.mark.parametrize("filled", FILLED)
@pytest.mark.parametrize("name", ["omar", "vault", "madiff", "omiga", "minari"])
def test_the_prey_s_padding_is_known_by_its_width(name, filled, tmp_path):
    task = foreign.ruled(catalog.make("mpe/tag"), dialect="mpe-omar")
    r = foreign.rows([LENGTH, LENGTH], (16, 16, 16, 14), (2,) * 4)
    wide = r._replace(
        obs=[*r.obs[:3], padded(r.obs[3], filled)], after=[*r.after[:3], padded(r.after[3], filled)]
    )
    if name != "omiga":  # its rewards are one for all
        expected, _ = fit(formats.read(foreign.omar(tmp_path / "control", r, flags="ended")), task)
    raw = formats.read(write(name, tmp_path / "set", wide, task))
    assert raw.dialects == ("mpe-omar",)
    data, manifest = fit(raw, task)
    (line,) = [x for x in manifest["origin"]["repairs"] if "the prey, is dropped" in x]
    assert f"its padding was {filled})" in line and ends(manifest) == [0, 2]
    if name != "omiga":
        now = np.asarray(data.starts)
        for block in ("obs", "action", "reward"):
            np.testing.assert_array_equal(
                np.asarray(getattr(data, block))[now], np.asarray(getattr(expected, block))[now]
            )


@pytest.mark.parametrize("filled", ["0", "-inf", "nan", "7", "column 7 again"])
@pytest.mark.parametrize("name", ["omar", "vault", "madiff", "omiga", "minari"])
def test_narrower_agents_of_a_task_of_its_own(name, filled, tmp_path, spread):
    hopper = foreign.ruled(
        spread, obs_dims=(8, 9, 8), act_dims=(1, 1, 1), state_dim=25, dialect="", terminates="may"
    )
    r = foreign.rows([LENGTH, 9], (8, 9, 8), (1, 1, 1), shared=True)
    widen = lambda x: [padded(x[0], filled, 1), x[1], padded(x[2], filled, 1)]
    wide = r._replace(obs=widen(r.obs), after=widen(r.after))
    raw = formats.read(write(name, tmp_path / "set", wide, hopper))._replace(dialects=())
    data, manifest = fit(raw, hopper)
    (line,) = [x for x in manifest["origin"]["repairs"] if "cut off as padding" in x]
    assert f"1 of obs 0 ({filled}), 1 of obs 2 ({filled})" in line
    obs, now = np.asarray(data.obs), np.asarray(data.starts)
    np.testing.assert_array_equal(obs[now][:, 2, :8], r.obs[2])
    assert not obs[:, 0, 8].any()
    inside = raw.obs[1].copy()
    inside[3, 8] = -np.inf
    refused(
        lambda: fit(raw._replace(obs=(raw.obs[0], inside, raw.obs[2])), hopper),
        "obs of agent 1",
        "finite",
        "row 3",
    )


# --- states that stand still ---


def stale(state):
    return state[(np.arange(len(state)) // LENGTH) * LENGTH]


STATES = ("vault", "omar", "omiga", "minari", "madiff", "jaxomarl")


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_stays_the_reset_s_is_made_from_the_observations(
    name, tmp_path, spread, monkeypatch
):
    r = foreign.rows([LENGTH] * 3, shared=True)
    fresh = r.state
    monkeypatch.setattr(foreign.Rows, "state", property(lambda self: stale(fresh)))
    monkeypatch.setattr(foreign.Rows, "next_state", property(lambda self: stale(fresh)))
    if name == "omar":
        path = foreign.omar(tmp_path / "set", r, flags="ended", states=True)
    elif name == "jaxomarl":
        path = tmp_path / "set"
        control = formats.read(foreign.omar(tmp_path / "o", r, flags="zero"))
        data, manifest = fit(control, spread)
        import dataclasses

        from jaxomarl.base import Episodes
        from jaxomarl.data.dataset import pack

        raw = from_dataset(data, spread.env.spec)
        first = np.flatnonzero(raw.step == 0)[np.cumsum(raw.step == 0) - 1]
        kept = {
            k: np.asarray(getattr(data, k))
            for k in ("obs", "action", "reward", "done", "step", "left", "behaviour")
        }
        old = dataclasses.replace(
            data, rows=pack(Episodes(**kept, state=raw.state[first]), spread.env.spec).rows
        )
        files.save_folder(path, old, {**manifest, "sha256": content_hash(old)})
    else:
        path = write(name, tmp_path / "set", r, spread)
        if name == "madiff":
            np.save(path / "states.npy", stale(fresh))
    data, manifest = sets.load(spread, str(path))
    assert any(
        "state: it never changes in 3 of 3 episodes" in x for x in manifest["origin"]["repairs"]
    )
    np.testing.assert_array_equal(np.asarray(data.state)[np.asarray(data.starts)], fresh)
    assert manifest["sha256"] == content_hash(data)
    if name != "jaxomarl":
        assert any(
            "WARNING: the state never changes in 3 of 3" in x for x in formats.read(path).evidence
        )


def test_a_still_state_that_cannot_be_made_is_refused_and_a_moving_one_is_kept(tmp_path, spread):
    raw = formats.read(
        foreign.vault(tmp_path / "s.vlt" / "x", foreign.leaves(foreign.rows([LENGTH] * 3)))
    )
    task = foreign.ruled(spread, state_dim=7)
    moving = np.random.default_rng(0).normal(size=(len(raw.step), 7)).astype(np.float32)
    data, manifest = fit(raw._replace(state=moving), task)
    np.testing.assert_array_equal(data.state, moving)
    assert not any("state" in x for x in manifest["origin"]["repairs"])
    first = np.flatnonzero(raw.step == 0)[np.cumsum(raw.step == 0) - 1]
    refused(
        lambda: fit(raw._replace(state=moving[first]), task),
        "data, state",
        "one that never changes in 3 of 3 episodes",
    )
    some = np.where((np.arange(len(first)) < 26)[:, None], moving[first], moving)
    _, manifest = fit(raw._replace(state=some), task)
    assert any(
        "WARNING, state: it never changes in 1 of 3 episodes" in x
        for x in manifest["origin"]["repairs"]
    )
    rest = raw._replace(state=moving[first], obs=tuple(x[first] for x in raw.obs))
    assert not any("state" in x for x in fit(rest, task)[1]["origin"]["repairs"]), (
        "nothing moves: no contradiction"
    )


def test_a_pymarl_buffer_s_still_state_is_seen(tmp_path):
    r = foreign.rows([3, 5], (4, 4), (1, 1), shared=True)
    r = r._replace(action=[np.ones((8, 1), int)] * 2)
    path = foreign.pymarl(tmp_path / "b.h5", r, 3)
    with h5py.File(path, "a") as file:
        file["state"][...] = file["state"][:, :1]
    assert any(
        "WARNING: the state never changes in 2 of 2 episodes" in x
        for x in formats.read(path).evidence
    )
    shutil.rmtree(tmp_path)

"""Sets written with the formats' own libraries are read back exactly, and equal rows train equal policies."""

import json
import warnings

import foreign
import jax
import numpy as np
import pytest
from foreign import same

from jaxomarl.algorithms import bc
from jaxomarl.data import catalog as sets
from jaxomarl.data import formats
from jaxomarl.data.dataset import content_hash, sample_transitions
from jaxomarl.data.fit import fit
from jaxomarl.data.stats import statistics
from jaxomarl.envs import catalog
from jaxomarl.training import runner

KEEPS = ("omar", "minari", "omiga")  # these have an episode's last successor
LOSES = ("vault", "madiff")


@pytest.fixture(scope="module")
def shared_rows():
    """Three episodes of 25 steps that every format can hold: one reward for all agents."""
    return foreign.rows([25, 25, 25], shared=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory, shared_rows):
    """Path of the same rows in each format; the minari library warns that there is no environment."""
    root, r = tmp_path_factory.mktemp("sets"), shared_rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = foreign.minari(root / "minari-v0", r)
    return {
        "omar": foreign.omar(root / "omar" / "medium", r),
        "vault": foreign.vault(root / "simple_spread.vlt" / "Medium", foreign.leaves(r)),
        "madiff": foreign.madiff(root / "Medium", r),
        "omiga": foreign.omiga(root / "Spread-v2-medium.hdf5", r),
        "minari": ours,
    }


@pytest.mark.parametrize("name", [*KEEPS, *LOSES])
def test_a_set_of_the_formats_own_library_is_read_exactly(name, written, shared_rows, spread):
    raw = formats.read(written[name])
    assert raw.format == name
    same(raw, shared_rows, known=name in KEEPS)
    assert raw.dialects == ("mpe-omar",) and raw.evidence
    assert raw.quality == {"minari": ""}.get(name, "medium")
    data, manifest = fit(raw, spread)
    assert not np.asarray(data.done).any(), "time-outs are no terminations"
    lost = 0 if name in KEEPS else 3
    assert manifest["origin"]["format"] == name and manifest["origin"]["unknown_successors"] == lost
    assert (manifest["origin"]["time_outs"], manifest["origin"]["terminations"]) == (3, 0)
    assert (np.asarray(data.known) == 0).sum() == lost and manifest["episodes"] == 3


def cloned(spec, data):
    """Parameters of a clone after 200 steps; a discrete set's one-hot actions are regressed like any others."""
    cfg = bc.Config(policy_steps=200, policy_batch=16, policy_width=8, chunk=200)
    past = runner.run(
        runner.Job(bc.BC, spec, [cfg], [0], data, statistics(data), say=lambda text: None)
    )
    return [np.asarray(x) for x in jax.tree.leaves(past["policy"].actor.params)]


def bitwise_equal(policies):
    for other in policies[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(policies[0], other, strict=True))
    assert all(np.isfinite(x).all() for x in policies[0]) and any(
        np.abs(x).sum() > 0 for x in policies[0]
    )


@pytest.mark.parametrize("group", [KEEPS, LOSES], ids=lambda g: "-".join(g))
def test_equal_rows_give_equal_content_and_bitwise_equal_policies(group, written, spread):
    hashes, policies = set(), []
    for name in group:
        data, manifest = sets.load(spread, str(written[name]))
        hashes.add(content_hash(data))
        assert manifest["sha256"] == content_hash(data)
        policies.append(cloned(spread.env.spec, data))
    assert len(hashes) == 1
    bitwise_equal(policies)


# --- the awkward cases ---


def test_omiga_s_dummy_row_is_a_successor_and_its_reward_counts_for_nothing(tmp_path):
    r = foreign.rows(
        [1000, 400, 1000], obs_dims=(23,) * 6, act_dims=(1,) * 6, died=[1], shared=True
    )
    raw = formats.read(
        foreign.omiga(tmp_path / "HalfCheetah-v2-6x1-medium-replay.hdf5", r, junk=1e6)
    )
    assert len(raw.step) == 1001 + 401 + 1001
    same(raw._replace(state=None), r)
    assert raw.done.sum() == 3 and not raw.distinct, (
        "d marks time limits too: fit tells them by the horizon"
    )
    assert raw.dialects == ("mamujoco-omiga",) and raw.quality == "medium-replay"
    np.testing.assert_array_equal(raw.state[1000], r.next_state[999])
    with foreign.h5py.File(tmp_path / "HalfCheetah-v2-6x1-medium-replay.hdf5", "a") as file:
        file["s"][5, 3, 0] += 1
    again = formats.read(tmp_path / "HalfCheetah-v2-6x1-medium-replay.hdf5")
    np.testing.assert_array_equal(again.state, raw.state)
    assert any("the first agent's is kept" in x for x in again.repairs) and len(
        again.repairs
    ) > len(raw.repairs)


def test_a_vault_that_leads_with_seeds_is_read_whole_and_the_seed_is_the_behaviour(
    tmp_path, spread
):
    seeds = [foreign.rows([25, 25], seed=k) for k in range(3)]
    raw = formats.read(
        foreign.vault(tmp_path / "simple_spread.vlt" / "Medium-Replay", foreign.leaves(*seeds))
    )
    for k, r in enumerate(seeds):
        mine = raw.behaviour == k
        part = raw._replace(
            **{name: getattr(raw, name)[mine] for name in ("reward", "done", "step", "left", "known", "behaviour")},
            obs=tuple(x[mine] for x in raw.obs), action=tuple(x[mine] for x in raw.action), state=raw.state[mine],
        )  # fmt: skip
        same(part, r, known=False, behaviour=np.full(52, k))
    _, manifest = fit(raw, spread)
    assert manifest["behaviours"] == 3 and manifest["quality"] == "medium-replay"
    assert any("6 ends at the time limit of 25 steps" in x for x in manifest["origin"]["repairs"])


def test_a_vault_without_an_end_at_its_end_and_with_truncations_of_its_own(tmp_path, spread):
    r = foreign.rows([25, 25, 9], died=[0])
    tree = foreign.leaves(r, flags="died")
    tree["truncations"][:, -1] = 0
    raw = formats.read(foreign.vault(tmp_path / "v.vlt" / "x", tree))
    assert raw.distinct
    same(raw, r, known=False)
    falls = spread._replace(
        env=spread.env._replace(spec=foreign.replaced(spread.env.spec, terminates="may"))
    )
    data, manifest = fit(raw, falls)
    assert np.flatnonzero(np.asarray(data.done)).tolist() == [24]
    assert [manifest["origin"][k] for k in ("terminations", "time_outs", "cut")] == [1, 1, 1]
    data, manifest = fit(raw, spread)  # whose rules end no episode
    assert not np.asarray(data.done).any()
    assert [manifest["origin"][k] for k in ("terminations", "time_outs", "cut")] == [0, 2, 1]


def test_a_vault_of_version_0_1_has_bracketed_names(tmp_path, shared_rows):
    new = foreign.leaves(shared_rows)
    path = tmp_path / "v.vlt" / "old"
    path.mkdir(parents=True)
    from jaxomarl.data import vault_writer

    flat = {k: v for k, v in new.items() if k != "infos"} | {"infos.state": new["infos"]["state"]}
    for name, array in flat.items():
        old = "".join(f"['{part}']" for part in name.split("."))
        vault_writer.write_array(path, old, array, (1, 10**13, *array.shape[2:]))
    vault_writer.write_array(path, "vault_index", np.array([75], np.int32), (1,))
    (path / "metadata.json").write_text(json.dumps({"version": 0.1}))
    same(formats.read(path), shared_rows, known=False)


@pytest.mark.parametrize("kind", ["omar", "vault", "predators only"])
def test_the_prey_is_a_fourth_agent_of_the_files_and_none_of_the_task(kind, tmp_path):
    spec = catalog.make("mpe/tag")
    task = spec._replace(
        env=spec.env._replace(spec=foreign.replaced(spec.env.spec, dialect="mpe-omar"))
    )
    dims = (16, 16, 16) if kind == "predators only" else (16, 16, 16, 14)
    r = foreign.rows([25, 25], dims, (2,) * len(dims))
    if kind == "vault":
        padded = [np.pad(x, ((0, 0), (0, 16 - x.shape[1]))) for x in r.obs]
        raw = formats.read(
            foreign.vault(tmp_path / "t.vlt" / "Expert", foreign.leaves(r._replace(obs=padded)))
        )
        assert raw.state is not None and raw.state.shape[1] == 64
    else:
        raw = formats.read(foreign.omar(tmp_path, r))
        same(raw, r)
    assert raw.agents == len(dims)
    data, manifest = fit(raw, task)
    now = np.asarray(data.starts)
    for i in range(3):
        np.testing.assert_array_equal(np.asarray(data.obs)[now, i], r.obs[i])
        np.testing.assert_array_equal(np.asarray(data.reward)[now, i], r.reward[:, i])
    np.testing.assert_array_equal(np.asarray(data.state)[now], np.concatenate(r.obs[:3], axis=1))
    dropped = any("the prey, is dropped" in x for x in manifest["origin"]["repairs"])
    assert dropped == (kind != "predators only")


@pytest.mark.parametrize("flags", ["zero", "ended"])
def test_the_particle_tasks_dones_are_not_relied_on(flags, tmp_path, spread):
    r = foreign.rows([25] * 4)
    raw = formats.read(foreign.omar(tmp_path, r, flags=flags))
    same(raw, r)
    data, manifest = fit(raw, spread)
    assert not np.asarray(data.done).any()
    wanted = (
        "dones are all zero"
        if flags == "zero"
        else "4 ends at the time limit of 25 steps are time-outs"
    )
    assert any(wanted in x for x in manifest["origin"]["repairs"])


def test_the_folder_of_all_seeds_and_one_seed_alone(tmp_path, spread):
    seeds = [
        foreign.rows([25] * (k + 1), seed=k) for k in range(3)
    ]  # the second in float64, as OMAR's buffers are
    path = foreign.omar(tmp_path / "simple_spread" / "random", *seeds)
    raw = formats.read(path)
    assert np.bincount(raw.behaviour).tolist() == [26, 52, 78] and raw.quality == "random"
    alone = formats.read(path / "seed_1_data")
    same(alone, seeds[1], behaviour=np.ones(52))
    np.testing.assert_array_equal(alone.obs[2], raw.obs[2][26:78])


def test_the_cheetah_s_states_and_its_time_limit(tmp_path):
    r = foreign.rows([1000, 1000], (6, 6), (3, 3), shared=True)
    raw = formats.read(foreign.omar(tmp_path, r, flags="ended", states=True))
    same(raw, r)
    assert (
        raw.state is not None
        and raw.state.shape == (2002, 12)
        and raw.dialects == ("mamujoco-omar",)
    )


def test_madiff_s_id_is_taken_off_only_where_it_is_one(tmp_path, shared_rows):
    with_id, without = (
        foreign.madiff(tmp_path / str(ids), shared_rows, ids) for ids in (True, False)
    )
    a, b = formats.read(with_id), formats.read(without)
    for raw in (a, b):
        same(raw, shared_rows, known=False)
    assert any("one-hot ids" in x for x in a.repairs) and not any("one-hot" in x for x in b.repairs)


# --- discrete ---


@pytest.fixture(scope="module")
def played():
    """Rows of the climbing game."""
    return foreign.climbing()


@pytest.mark.parametrize("successor", [True, False])
def test_pymarl_s_buffer_is_read_exactly(successor, tmp_path):
    r = foreign.rows([3, 5, 4], (4, 4), (1, 1), died=[0, 2] if successor else range(3), shared=True)
    r = r._replace(action=[np.random.default_rng(i).integers(0, 3, (12, 1)) for i in range(2)])
    raw = formats.read(foreign.pymarl(tmp_path / "2s3z_medium_replay.h5", r, 3, successor))
    hot = r._replace(action=[np.eye(3, dtype=np.float32)[a[:, 0]] for a in r.action])
    same(raw, hot, known=successor)
    assert raw.discrete and raw.distinct and raw.quality == "medium-replay"
    np.testing.assert_array_equal(raw.done[raw.left == 1], r.died[r.ended])
    assert raw.available is not None and raw.available.all()


def test_a_discrete_set_is_the_same_data_from_a_buffer_and_from_a_vault(tmp_path, played):
    task, wide = catalog.make("games/climbing"), np.ones((1, 6, 2, 3), np.float32)
    tree = foreign.leaves(played)
    tree["actions"] = tree["actions"][..., 0].astype(np.int32)
    tree["infos"] = {"state": np.ones((1, 6, 1), np.float32), "legals": wide}
    from_vault, _ = sets.load(task, str(foreign.vault(tmp_path / "c.vlt" / "x", tree)))
    path = foreign.pymarl(tmp_path / "c.h5", played, 3, successor=False)
    with foreign.h5py.File(path, "a") as file:
        state = file["state"][..., :1]
        del file["state"]
        file["state"] = state
    from_buffer, manifest = sets.load(task, str(path))
    assert content_hash(from_vault) == content_hash(from_buffer) == manifest["sha256"]
    np.testing.assert_array_equal(
        np.asarray(from_buffer.done)[::2], 1.0
    )  # a game of one step ends by its rules
    batches = [sample_transitions(jax.random.key(0), data, 8) for data in (from_vault, from_buffer)]
    for a, b in zip(*map(jax.tree.leaves, batches), strict=True):
        np.testing.assert_array_equal(a, b)
    bitwise_equal([cloned(task.env.spec, data) for data in (from_vault, from_buffer)])

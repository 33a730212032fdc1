"""Rules are guessed from all that a set tells; leaves, rewards and lengths of every documented kind are read."""

import json

import foreign
import h5py
import numpy as np
import pytest
from foreign import same
from refusing import refused

from jaxomarl.data import card, formats, hdf5, rules
from jaxomarl.data.fit import fit
from jaxomarl.envs import catalog
from jaxomarl.results import card_text

LENGTH = 25


# --- the guess ---


@pytest.mark.parametrize("known", rules.KNOWN, ids=lambda x: f"{x.task}-{len(x.obs)}")
def test_the_table_of_published_sets_is_the_catalog_s(known):
    task = catalog.make(known.task)
    spec = task.env.spec
    agents = spec.agents  # a prey is one more agent of the files, and none of the task
    assert (known.obs[:agents], known.act[:agents]) == (spec.obs_dims, spec.act_dims)
    assert known.horizon == spec.horizon and known.never == (spec.terminates == "never")
    assert known.state == spec.state_dim
    assert known.dialect == spec.dialect or spec.dialect == "mpe-own-prey"
    assert len(known.obs) == agents or (known.dialect, agents) == ("mpe-omar", 3)


SIZES = [
    # agents' widths, actions, lengths, state, dialects
    ((18, 18, 18), (2, 2, 2), [25, 25], None, ("mpe-omar",)),
    ((18, 18, 18), (2, 2, 2), [25, 25], 54, ("mpe-omar",)),
    ((18, 18, 18), (2, 2, 2), [25, 25], 27, ()),
    ((18, 18, 18), (2, 2, 2), [1000], None, ()),
    ((18, 18, 18), (2, 2, 2), [24, 24], None, ()),
    ((18, 18, 18), (2, 2, 1), [25, 25], None, ()),
    ((18, 18, 17), (2, 2, 2), [25, 25], None, ()),
    ((18,) * 4, (2,) * 4, [25, 25], None, ()),
    ((18,) * 4, (2,) * 4, [1000], 27, ()),
    ((16, 16, 16), (2, 2, 2), [25], None, ("mpe-omar",)),
    ((16, 16, 16, 14), (2,) * 4, [25], None, ("mpe-omar",)),
    ((16, 16, 16, 16), (2,) * 4, [25], None, ()),
    ((24, 24, 24), (2, 2, 2), [25], None, ("mpe-omar", "mpe-six")),
    ((24, 24, 24, 22), (2,) * 4, [25], None, ("mpe-omar",)),
    ((8, 9, 8), (1, 1, 1), [31, 70], 11, ("mamujoco-gymnasium-v1",)),
    ((8, 9, 8), (1, 1, 1), [31, 70], 17, ()),
    ((6, 6), (3, 3), [1000], 17, ("mamujoco-omar",)),
    ((6, 6), (3, 3), [400], 17, ()),
    ((6, 6, 6), (3, 3, 3), [1000], 17, ()),
]


@pytest.mark.parametrize(("obs", "act", "lengths", "state", "dialects"), SIZES)
def test_a_guess_agrees_with_all_that_is_known(obs, act, lengths, state, dialects, tmp_path):
    raw = formats.read(
        foreign.omar(tmp_path / "set", foreign.rows(lengths, obs, act), flags="ended")
    )
    if state:
        made = np.random.default_rng(0).normal(size=(len(raw.step), state)).astype(np.float32)
        raw = raw._replace(state=made)
    assert tuple(dict.fromkeys(x.dialect for x in rules.candidates(raw))) == dialects


def test_unknown_rules_are_said_with_the_widths(tmp_path):
    raw = formats.read(foreign.omar(tmp_path / "4ant", foreign.rows([1000], (18,) * 4, (2,) * 4)))
    assert raw.dialects == ()
    text = card_text.text(card.describe(raw, "x"))
    assert "rules unknown" in text and "mpe-omar" not in text
    assert "no known rules fit 4 agents, observations of 18 18 18 18, actions of 2 2 2 2" in text
    assert "episodes of up to 1000 steps" in text


def test_a_guess_outranks_no_mismatch_and_names_the_task_that_fits(tmp_path, spread):
    ant = foreign.ruled(
        spread,
        **{"obs_dims": (42,) * 4, "act_dims": (2,) * 4, "state_dim": 105, "horizon": 1000},
        **{"dialect": "mamujoco-gymnasium-v1", "terminates": "may"},
    )._replace(name="mamujoco/4ant")
    raw = formats.read(foreign.omar(tmp_path / "a", foreign.rows([1000], (18,) * 4, (2,) * 4)))
    text = refused(lambda: fit(raw, ant), "obs widths", "(42, 42, 42, 42)", "(18, 18, 18, 18)")
    assert "looks like" not in text
    cheetah = foreign.ruled(ant, obs_dims=(12, 12), act_dims=(3, 3), state_dim=17)._replace(
        name="mamujoco/2halfcheetah"
    )
    raw = formats.read(
        foreign.omar(tmp_path / "b", foreign.rows([1000], (6, 6), (3, 3)), flags="ended")
    )
    refused(
        lambda: fit(raw, cheetah),
        "(12, 12)",
        "(6, 6)",
        "looks like --task mamujoco/2halfcheetah:dialect=omar",
    )
    raw = formats.read(foreign.omar(tmp_path / "c", foreign.rows([25])))
    refused(lambda: fit(raw, cheetah), "data, agents", "expected 2", "looks like --task mpe/spread")


# --- a leaf for each agent, one reward for the team ---


def one_each(tree, names):
    """The leaves of a tree as OG-MARL's recorder writes them."""
    own = {k: {a: v[:, :, i] for i, a in enumerate(names)} for k, v in tree.items() if k != "infos"}
    return {**own, "infos": tree["infos"]}


def write_vault(path, tree):
    """A vault without flashbax, whose leaves need not be those of one array; the recorder's names."""
    from jaxomarl.data import vault_writer

    path.mkdir(parents=True)
    flat = {}
    for name, x in tree.items():
        parts = x.items() if isinstance(x, dict) else [("", x)]
        flat |= {f"{name}.{key}." if key else f"{name}.": np.asarray(y) for key, y in parts}
    for name, array in flat.items():
        vault_writer.write_array(path, name, array, (1, 10**13, *array.shape[2:]))
    steps = next(iter(flat.values())).shape[1]
    vault_writer.write_array(path, "vault_index", np.array([steps], np.int32), (1,))
    (path / "metadata.json").write_text(json.dumps({"version": 1.2}))
    return path


@pytest.mark.parametrize("agents", [3, 11])
def test_a_leaf_for_each_agent_is_read(agents, tmp_path):
    r = foreign.rows([LENGTH, 9], (4,) * agents, (2,) * agents, died=[1])
    tree = one_each(foreign.leaves(r, flags="died"), [f"agent_{i}" for i in range(agents)])
    raw = formats.read(write_vault(tmp_path / "v", tree))
    same(raw, r, known=False)  # agent_10 comes after agent_2
    assert any(
        "a leaf for each agent, in the order agent_0, agent_1, agent_2" in x for x in raw.evidence
    )
    np.testing.assert_array_equal(raw.done[raw.left == 1], [0, 1])


def test_leaves_of_agents_keep_their_own_widths(tmp_path):
    r = foreign.rows([LENGTH], (16, 16, 16, 14), (2, 2, 2, 2))
    names = ["adversary_0", "adversary_1", "adversary_2", "agent_0"]
    last = r.ended[None].astype(np.float32)
    tree = {
        "observations": {a: r.obs[i][None] for i, a in enumerate(names)},
        "actions": {a: r.action[i][None] for i, a in enumerate(names)},
        "rewards": {a: r.reward[None, :, i] for i, a in enumerate(names)},
        "terminals": dict.fromkeys(names, last),
        "truncations": dict.fromkeys(names, last),
    }
    raw = formats.read(write_vault(tmp_path / "v", tree))
    assert [x.shape[1] for x in raw.obs] == [16, 16, 16, 14] and raw.dialects == ("mpe-omar",)
    same(raw, r, known=False)
    fewer = {**tree, "rewards": {a: tree["rewards"][a] for a in names[:3]}}
    refused(
        lambda: formats.read(write_vault(tmp_path / "w", fewer)),
        "rewards",
        "actions.agent_0",
        "rewards.adversary_2",
    )


def test_a_refusal_lists_the_leaves_that_are_there(tmp_path):
    tree = one_each(foreign.leaves(foreign.rows([5])), ["a", "b", "c"])
    other = {"obs": tree["observations"], **{k: v for k, v in tree.items() if k != "observations"}}
    text = refused(
        lambda: formats.read(write_vault(tmp_path / "v", other)),
        "observations",
        "a leaf of this name",
    )
    for name in ("obs.a", "obs.b", "actions.a", "rewards.c", "terminals.b", "infos.state"):
        assert f"'{name}'" in text


@pytest.mark.parametrize("last", [(), (1,)], ids=["flat", "column"])
def test_a_team_s_reward_and_flags_are_every_agent_s(last, tmp_path, spread):
    r = foreign.rows([LENGTH, LENGTH], shared=True)
    tree = foreign.leaves(r)
    for name in ("rewards", "terminals", "truncations"):
        tree[name] = tree[name][..., 0].reshape(1, 50, *last)
    raw = formats.read(write_vault(tmp_path / "v", tree))
    same(raw, r, known=False)
    assert any("rewards: one for the team" in x for x in raw.repairs)
    assert fit(raw, spread)[1]["origin"]["time_outs"] == 2
    path = foreign.madiff(tmp_path / "m", r)
    for name in ("rewards", "discounts"):
        np.save(path / f"{name}.npy", np.load(path / f"{name}.npy")[:, 0].reshape(50, *last))
    raw = formats.read(path)
    same(raw, r, known=False)
    assert any("rewards: one for the team" in x for x in raw.repairs)


def test_pymarl_s_individual_rewards(tmp_path):
    r = foreign.rows([3, 5], (4, 4), (1, 1), died=[0])
    r = r._replace(action=[np.ones((8, 1), int)] * 2)
    path = foreign.pymarl(tmp_path / "e.h5", r, 3)
    with h5py.File(path, "a") as file:
        steps = file["reward"].shape[1]
        del file["reward"]
        reward = np.full((2, steps, 2), 9.0, np.float32)  # beyond an episode nothing is read
        reward[0, :3], reward[1, :5] = r.reward[:3], r.reward[3:]
        file["reward"] = reward
    hot = r._replace(action=[np.eye(3, dtype=np.float32)[a[:, 0]] for a in r.action])
    same(formats.read(path), hot)


# --- nothing in an episode ---


def test_episodes_without_a_step_are_left_out_and_counted(tmp_path):
    r = foreign.rows([3, 5], (4, 4), (1, 1), shared=True)
    r = r._replace(action=[np.ones((8, 1), int)] * 2)
    path = foreign.pymarl(tmp_path / "p.h5", r, 3)
    whole = formats.read(path)
    with h5py.File(path, "a") as file:
        for name in list(file):
            x = file[name][()]
            del file[name]
            file[name] = np.concatenate([x[:1], np.zeros_like(x[:2]), x[1:], np.zeros_like(x[:1])])
        file["filled"][2, 0] = 1  # the reset alone
    raw = formats.read(path)
    for name in ("reward", "step", "left", "done"):
        np.testing.assert_array_equal(getattr(raw, name), getattr(whole, name))
    assert raw.repairs == ("3 empty episodes, with no filled transition, are left out",)
    with h5py.File(path, "a") as file:
        file["filled"][...] = 0
    refused(lambda: formats.read(path), "at least one transition", "The set is empty")


def test_empty_episodes_of_the_other_formats(tmp_path, spread):
    r = foreign.rows([LENGTH, LENGTH], shared=True)
    path = foreign.madiff(tmp_path / "m", r)
    np.save(path / "path_lengths.npy", np.array([0, 25, 0, 25]))
    raw = formats.read(path)
    same(raw, r, known=False)
    assert any("2 empty episodes" in x for x in raw.repairs)
    one = foreign.omar(tmp_path / "o", foreign.rows([LENGTH, LENGTH]), foreign.rows([LENGTH]))
    for file in (one / "seed_1_data").iterdir():
        np.save(file, np.load(file)[:0])
    raw = formats.read(one)
    assert len(raw.step) == 52 and any(
        "1 empty folders, without a row, are left out: seed_1" in x for x in raw.repairs
    )
    formats.write(tmp_path / "a-v0", raw, "minari")
    with h5py.File(tmp_path / "a-v0" / "data" / "main_data.hdf5", "a") as file:
        file.copy("episode_1", "episode_2")
        for place in (
            "rewards",
            "terminations",
            "truncations",
            *(f"actions/agent_{i}" for i in range(3)),
        ):
            x = file[f"episode_2/{place}"][()]
            del file[f"episode_2/{place}"]
            file[f"episode_2/{place}"] = x[:0]
        for place in ("infos/rewards", *(f"observations/agent_{i}" for i in range(3))):
            x = file[f"episode_2/{place}"][()]
            del file[f"episode_2/{place}"]
            file[f"episode_2/{place}"] = x[:1]
    again = formats.read(tmp_path / "a-v0")
    np.testing.assert_array_equal(again.obs[2], raw.obs[2])
    assert again.repairs == ("1 empty episodes, of 0 steps, are left out",)


# --- HDF5 with a user's block ---


@pytest.mark.parametrize("block", [512, 1024, 4096])
@pytest.mark.parametrize("name", ["omiga", "pymarl", "minari"])
def test_hdf5_behind_a_user_s_block_is_read_alike(name, block, tmp_path):
    r = foreign.rows([3, 5], (4, 4), (1, 1), shared=True)
    if name == "minari":
        formats.write(
            tmp_path / "a-v0",
            formats.read(foreign.omar(tmp_path / "o", r, flags="ended")),
            "minari",
        )
        path, file = tmp_path / "a-v0", tmp_path / "a-v0" / "data" / "main_data.hdf5"
    elif name == "omiga":
        path = file = foreign.omiga(tmp_path / "x.hdf5", r)
    else:
        path = file = foreign.pymarl(
            tmp_path / "x.h5", r._replace(action=[np.ones((8, 1), int)] * 2), 3
        )
    plain = formats.read(path)
    with (
        h5py.File(file) as source,
        h5py.File(tmp_path / "moved", "w", userblock_size=block) as made,
    ):
        for key in source:
            source.copy(key, made)
    file.write_bytes((tmp_path / "moved").read_bytes())
    assert not file.read_bytes().startswith(hdf5.SIGNATURE) and hdf5.is_hdf5(file)
    moved = formats.read(path)
    assert moved.format == name
    for a, b in zip(
        (*plain.obs, *plain.action, plain.reward, plain.done),
        (*moved.obs, *moved.action, moved.reward, moved.done),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


# --- the mean's error ---


def test_the_card_shows_the_mean_with_its_standard_error(tmp_path, spread):
    raw = formats.read(foreign.omar(tmp_path / "o", foreign.rows([LENGTH] * 4)))
    found = card.describe(raw, "x", spread)["return"]
    returns = raw.reward[raw.left > 0].mean(axis=1).reshape(4, LENGTH).sum(axis=1)
    assert found["error"] == pytest.approx(returns.std(ddof=1) / 2, rel=1e-4)
    text = card_text.text(card.describe(raw, "x", spread))
    assert (
        f"{found['mean']:.2f} ± {found['error']:.2f} (standard error of 4 episodes; they deviate by {found['std']:.2f})"
        in text
    )
    alone = card.describe(
        formats.read(foreign.omar(tmp_path / "p", foreign.rows([LENGTH]))), "x", spread
    )
    assert alone["return"]["error"] is None and "no standard error of 1 episode" in card_text.text(
        alone
    )
    manifest = fit(raw, spread)[1]
    assert manifest["return"]["std"] / np.sqrt(manifest["episodes"] - 1) == pytest.approx(
        found["error"], rel=1e-4
    )

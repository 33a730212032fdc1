"""Data sets of the particle tasks: shares, behaviours, hashes, references, and folders that keep them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.data import files
from jaxomarl.data.catalog import load
from jaxomarl.data.dataset import content_hash
from jaxomarl.envs import catalog, stored
from jaxomarl.envs.mpe.behaviours import PARTICLES, RENUMBERED, renumbered
from jaxomarl.envs.recipes import Behaviour, roll_out_rows
from jaxomarl.presets import PRESETS

NAMES = ("spread", "tag", "world", "six")
ROWS = 5000  # 200 episodes


@pytest.fixture(scope="module")
def mixed(spread):
    return load(spread, "medium-expert", ROWS)


@pytest.mark.parametrize("quality", ["medium", "medium-expert", "random-medium", "medium-replay"])
def test_shares_are_the_papers_and_every_row_knows_its_behaviour(spread, quality):
    data, manifest = load(spread, quality, ROWS)
    kinds = PARTICLES.mixtures[quality]
    counts = {k: 0.0 for k in kinds}
    number = np.asarray(data.behaviour)[np.asarray(data.starts)]
    for kind in kinds:
        many = 1 if kind == "random" else len(stored.stored_behaviours("mpe", "spread")[kind])
        first = PARTICLES.numbers[kind]
        each = [(number == first + k).mean() for k in range(many)]
        np.testing.assert_allclose(each, kinds[kind] / many, atol=25 / ROWS)  # whole episodes
        counts[kind] = sum(each)
    assert sum(counts.values()) == 1.0
    assert manifest["behaviours"] == sum(
        1 if k == "random" else len(stored.stored_behaviours("mpe", "spread")[k]) for k in kinds
    )


def test_an_episode_has_one_behaviour_and_behaviours_are_interleaved(mixed):
    data, _ = mixed
    number = np.asarray(data.behaviour).reshape(-1, 26)
    assert (number == number[:, :1]).all()
    assert np.asarray(data.step).reshape(-1, 26)[0].tolist() == list(range(26))
    runs = 1 + (np.diff(number[:, 0]) != 0).sum()
    assert runs > 2 * len(np.unique(number))  # a prefix of the data is a sample of it


def test_the_same_arguments_give_the_same_content(mixed, spread):
    """In another process too: tests/cli/test_output.py starts one."""
    data, manifest = mixed
    again, _ = load(spread, "medium-expert", ROWS)
    assert content_hash(again) == content_hash(data) == manifest["sha256"]
    other, _ = load(spread, "medium-expert", ROWS, seed=1)
    assert content_hash(other) != manifest["sha256"]


def test_the_manifest_says_where_the_data_stand(mixed, spread):
    data, manifest = mixed
    json.dumps(manifest)
    reward = np.asarray(data.reward).reshape(-1, 26, 3).mean(axis=2).sum(axis=1)
    assert manifest["return"]["mean"] == pytest.approx(reward.mean(), rel=1e-5)
    assert manifest["references"]["expert"] == 516.8 and manifest["references"]["random"] == 159.8
    assert manifest["normalised"] == pytest.approx(100 * (reward.mean() - 159.8) / 357.0, rel=1e-5)
    number = np.asarray(data.behaviour).reshape(-1, 26)[:, 0]
    for b, mean in manifest["return_by_behaviour"].items():
        assert mean == pytest.approx(reward[number == int(b)].mean(), rel=1e-5)


def test_normalised_scores_of_the_references():
    scale = catalog.make("mpe/spread").scale
    assert (scale.normalise(516.8), scale.normalise(159.8)) == (100.0, 0.0)


# The long run plays the others: their assets are read by the same code.
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.long] * (n in ("world", "six"))) for n in NAMES],
)
def test_shipped_behaviours_play_as_their_references_say(name):
    """Fresh episodes, with the noise of the data: within four standard errors of what was written down."""
    env, told = catalog.make(f"mpe/{name}").env, stored.measured("mpe")[name]
    assert told["dialect"] == env.spec.dialect
    team = lambda reward: reward[..., 0] if env.spec.team == "first" else reward.mean(axis=-1)
    for kind in ("expert", "medium"):
        for params, row in zip(
            stored.stored_behaviours("mpe", name)[kind], told[f"{kind}_behaviours"], strict=True
        ):
            played = roll_out_rows(
                env, Behaviour(stored.acting(env.spec), params), jax.random.key(77), 1000 * 25
            )
            returns = np.concatenate([team(p.reward).sum(axis=1) for p, _ in played])
            assert len(returns) == 1000
            assert (
                abs(returns.mean() - row["data"])
                < 4 * row["data_std"] * (1 / 1000 + 1 / 10_000) ** 0.5
            )
            assert (
                abs(row["greedy"] - row["greedy_float32"]) < 0.01 * told["expert"]
            )  # storing as float16
        assert len(told[f"{kind}_behaviours"]) >= 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_a_renumbered_team_acts_as_the_first_one_where_its_agents_stand(order):
    where, speed, marks = (np.asarray(x) for x in jax.random.normal(jax.random.key(3), (3, 3, 2)))

    def seen(where, speed):
        others = [[where[j] - where[i] for j in range(3) if j != i] for i in range(3)]
        rows = [
            np.concatenate([speed[i], where[i], *(marks - where[i]), *others[i], np.zeros(4)])
            for i in range(3)
        ]
        return jnp.asarray(np.stack(rows), jnp.float32)

    params, back = stored.stored_behaviours("mpe", "spread")["expert"][0], np.argsort(order)
    first = stored.behaviour_actions(
        params, seen(where[back], speed[back])
    )  # agent order[i] stands where agent i does
    again = stored.behaviour_actions(renumbered(params, order), seen(where, speed))
    np.testing.assert_allclose(again, np.asarray(first)[list(order)], atol=1e-5)


def test_experts_of_spread_share_the_landmarks_out_in_two_ways():
    """At the same observations, experts of one numbering act nearly alike, and the two numberings apart."""
    episodes = catalog.make("mpe/spread").recipes["expert"](jax.random.key(5), 4000)
    acted = np.stack(
        [
            jax.vmap(lambda o, p=p: stored.behaviour_actions(p, o))(episodes.obs)
            for p in stored.stored_behaviours("mpe", "spread")["expert"]
        ]
    )
    apart = np.abs(acted[:, None] - acted[None]).mean(axis=(2, 3, 4))
    same = [apart[0, 1], apart[2, 3]]
    other = [apart[i, j] for i in (0, 1) for j in (2, 3)]
    assert 1.5 * max(same) < min(other)


def test_experts_of_spread_play_one_strategy_under_several_numberings():
    """The mean of the four's actions: as they were trained, as they ship, and numbered alike, beside one of them."""
    env, experts = (
        catalog.make("mpe/spread").env,
        stored.stored_behaviours("mpe", "spread")["expert"],
    )
    trained = PARTICLES.teams("spread", "expert-modes", "expert-modes")
    alike = [*experts[:2], *(renumbered(params, (2, 1, 0)) for params in experts[2:])]

    def together(params, key, seen):
        return jax.vmap(lambda one: stored.behaviour_actions(one, seen.obs))(params).mean(axis=0)

    def worth(many):
        stacked = jax.tree.map(lambda *x: np.stack(x), *many)
        played = roll_out_rows(env, Behaviour(together, stacked), jax.random.key(4), 400 * 25)
        return np.concatenate([p.reward.mean(axis=-1).sum(axis=1) for p, _ in played]).mean()

    one = worth(experts[:1])
    assert worth(trained) < 0.6 * one < worth(experts) < 0.95 * one < worth(alike)


def test_expert_modes_undoes_the_numbering_and_leaves_expert_as_it_was(spread):
    """Four teams, of which two are stored renumbered; `expert` has the stored ones and its own numbers."""
    stored_ones = stored.stored_behaviours("mpe", "spread")["expert"]
    trained, experts = (
        stored.parts(spread.env, PARTICLES, "spread", q) for q in ("expert-modes", "expert")
    )
    assert [(p.number, p.share) for p in trained] == [(151 + k, 0.25) for k in range(4)]
    assert [(p.number, p.share) for p in experts] == [(101 + k, 0.25) for k in range(4)]
    same = lambda a, b: all(np.array_equal(a[name], b[name]) for name in b)
    assert all(same(p.behaviour.params, one) for p, one in zip(experts, stored_ones, strict=True))
    assert [same(p.behaviour.params, one) for p, one in zip(trained, stored_ones, strict=True)] == [
        1,
        0,
        0,
        1,
    ]
    again = [
        renumbered(p.behaviour.params, RENUMBERED.get(k, (0, 1, 2))) for k, p in enumerate(trained)
    ]
    assert all(same(params, one) for params, one in zip(again, stored_ones, strict=True))


def test_only_spread_has_expert_modes():
    with pytest.raises(JaxomarlError, match="expert-modes"):
        load(catalog.make("mpe/tag"), "expert-modes", 50)
    assert [name for name in NAMES if "expert-modes" in catalog.make(f"mpe/{name}").recipes] == [
        "spread"
    ]
    preset = PRESETS["particle"]
    assert preset.at("mpe/spread", "expert-modes") == preset.at("mpe/spread", "expert")


FRACTION = {"spread": 0.31, "tag": 0.57, "world": 0.79, "six": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_experts_and_mediums_have_the_strength_that_is_promised(name):
    told = stored.measured("mpe")[name]
    way = (told["medium"] - told["random"]) / (told["expert"] - told["random"])
    assert way == pytest.approx(FRACTION[name], rel=0.1)
    if name == "spread":
        assert told["expert"] >= 516.8


def test_what_ships_is_small(root):
    assert sum(p.stat().st_size for p in (root / "jaxomarl" / "assets" / "mpe").iterdir()) < 8e6


# --- folders ---


@pytest.fixture(scope="module")
def kept(mixed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "data"
    files.save_folder(folder, *mixed)
    return folder


def test_a_kept_data_set_is_the_same(kept, mixed, spread):
    data, manifest = load(spread, str(kept))
    assert content_hash(data) == mixed[1]["sha256"]
    assert {k: v for k, v in manifest.items() if k != "format"} == json.loads(json.dumps(mixed[1]))


def test_a_folder_that_does_not_fit_is_refused(kept, spread, tmp_path):
    with pytest.raises(JaxomarlError, match=r"manifest\.json"):
        load(spread, str(tmp_path / "none"))
    with pytest.raises(JaxomarlError, match="dialect"):
        load(catalog.make("mpe/tag"), str(kept))
    with pytest.raises(JaxomarlError, match="--rows"):
        load(spread, str(kept), rows=5)


@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "manifest"])
def test_a_damaged_folder_is_refused(kept, spread, tmp_path, how):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in (files.ARRAYS, files.MANIFEST):
        content = bytearray((kept / name).read_bytes())
        if name == files.ARRAYS and how == "flipped":
            content[-100] ^= 1
        if name == files.ARRAYS and how == "cut":
            content = content[: len(content) // 2]
        if name == files.MANIFEST and how == "manifest":
            content = content[:50]
        if not (name == files.ARRAYS and how == "missing"):
            (folder / name).write_bytes(bytes(content))
    with pytest.raises(JaxomarlError, match=r"Collect it again|manifest"):
        load(spread, str(folder))

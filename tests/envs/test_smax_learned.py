"""Learned teams of SMAX: how they act, which snapshots lie in a band, what is stored."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.api import smax_behaviours, snapshots
from jaxomarl.api.smax_behaviours import BANDS, Played, Snapshot, Team
from jaxomarl.base import JaxomarlError, Observation
from jaxomarl.data.catalog import load
from jaxomarl.envs import catalog
from jaxomarl.envs.smax import learned
from jaxomarl.networks.actor_and_value import shared_actor_and_value

ENV = catalog.make("smax/3m").env
SPEC = ENV.spec


@pytest.fixture(scope="module")
def params():
    """A network as MAPPO trains it, under the names that stored teams have."""
    nets = shared_actor_and_value(SPEC, (8, 8), joint=True)
    actor = jax.tree.map(np.asarray, nets.actor.init(jax.random.key(0)))
    return snapshots.layers(actor)


def seen(seed=0):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(SPEC.agents, SPEC.obs_width)).astype(np.float32)
    available = rng.random((SPEC.agents, SPEC.act_width)) < 0.6
    available[:, 4] = True
    return Observation(jnp.asarray(obs), jnp.asarray(available), jnp.zeros(SPEC.agents))


def drawn(params, observation, draws=4000):
    """The share of each action over many draws."""
    act = learned.drawing(SPEC)
    keys = jax.random.split(jax.random.key(1), draws)
    return np.asarray(
        jax.jit(jax.vmap(act, in_axes=(None, 0, None)))(params, keys, observation)
    ).mean(0)


def test_a_team_draws_from_its_policy_and_never_what_is_not_legal(params):
    nets = shared_actor_and_value(SPEC, (8, 8), joint=True)
    actor = nets.actor.init(jax.random.key(0))
    now = seen()
    logits = nets.actor.apply(actor, now.obs)
    exact = np.asarray(jax.nn.softmax(jnp.where(now.available, logits / 2.0, -jnp.inf)))
    legal = np.asarray(now.available)
    uniform = legal / legal.sum(axis=1, keepdims=True)
    team = Team(params, 0, noise=0.25, temperature=2.0).stored()
    share = drawn(team, now)
    np.testing.assert_allclose(share, 0.75 * exact + 0.25 * uniform, atol=0.03)
    assert not share[~legal].any()


def test_a_band_takes_the_nearest_snapshot_then_noise_then_heat(params, monkeypatch):
    """Battles are stood in for by a rule: a team wins 0.9 less twice its noise, at heat 3 nothing."""

    def rule(env, team, episodes, seed):
        win = team.params["win"] - 2 * (team.noise - smax_behaviours.NOISE)
        if team.temperature == 3.0:
            win = 0.0
        return Played(win, 0.5, 0.1, 20.0)

    monkeypatch.setattr(smax_behaviours, "played", rule)
    plan = smax_behaviours.Plan()
    snap = lambda update, win: Snapshot({"win": win}, update, win, 2 * win)
    best = snap(40, 0.9)

    chosen = smax_behaviours.in_band(
        ENV, plan, "medium", BANDS["medium"], [snap(10, 0.1), snap(20, 0.4), best], best
    )
    assert (chosen.update, chosen.noise) == (20, 0.05), "a snapshot in the band stays as it is"
    chosen = smax_behaviours.in_band(
        ENV, plan, "medium", BANDS["medium"], [snap(10, 0.1), best], best
    )
    assert (chosen.update, chosen.noise) == (40, pytest.approx(0.25))
    chosen = smax_behaviours.in_band(
        ENV, plan, "poor", BANDS["poor"], [snap(10, 0.99), snap(60, 0.0)], snap(20, 0.99)
    )
    assert (chosen.update, chosen.temperature) == (10, 3.0), "none later than the best"
    with pytest.raises(JaxomarlError, match="--steps"):
        smax_behaviours.in_band(
            ENV, plan, "medium", BANDS["medium"], [snap(10, 0.1)], snap(10, 0.1)
        )


def test_snapshots_are_read_back_in_order(params, tmp_path):
    snapshots = [Snapshot(params, update, 0.5, 1.25) for update in (80, 400, 1200)]
    smax_behaviours.save(tmp_path / "x" / "s.safetensors", snapshots)
    back = smax_behaviours.saved(tmp_path / "x" / "s.safetensors")
    assert [(s.update, s.win, s.score) for s in back] == [(s.update, 0.5, 1.25) for s in snapshots]
    np.testing.assert_array_equal(back[1].params["kernel_1"], params["kernel_1"])
    assert set(back[0].params) == set(params)


@pytest.mark.parametrize(("least", "temperature"), [(0.6, 1.0), (0.7, 0.5), (0.9, None)])
def test_a_good_team_is_as_warm_as_it_can_be(least, temperature, params, monkeypatch):
    rule = lambda env, team, episodes, seed: Played(0.8 - 0.15 * team.temperature, 1.0, 0.1, 20.0)
    monkeypatch.setattr(smax_behaviours, "played", rule)
    plan = smax_behaviours.Plan(good=least)
    best = Snapshot(params, 40, 0.9, 1.8)
    if temperature is None:
        with pytest.raises(JaxomarlError, match=r"wins 0\.9"):
            smax_behaviours.good_team(ENV, plan, [best])
    else:
        assert smax_behaviours.good_team(ENV, plan, [best]).temperature == temperature


def test_what_is_measured_is_what_is_stored(params):
    team = Team(params, 0, noise=0.1)
    stored = team.stored()
    np.testing.assert_array_equal(
        stored["kernel_0"], np.float16(params["kernel_0"]).astype(np.float32)
    )
    assert stored["noise"] == np.float32(np.float16(0.1)) and stored["temperature"] == 1.0


@pytest.mark.long
def test_teams_are_trained_chosen_and_stored(tmp_path, monkeypatch):
    """Two seeds of a few updates: nobody wins, so the bands are wide."""
    wide = smax_behaviours.Band((0.0, 1.0))
    monkeypatch.setattr(smax_behaviours, "BANDS", {"medium": wide, "poor": wide})
    plan = smax_behaviours.Plan(steps=64, seeds=3, teams=2, good=0.0, episodes=4, measured=16)
    smax_behaviours.store("3m", tmp_path, plan)
    assert (tmp_path / "3m.safetensors").stat().st_size > 10_000
    facts = json.loads((tmp_path / "references.json").read_text())["3m"]
    assert len(facts["good"]) == 2
    assert all(team["episodes"] == 16 and 0 <= team["win"] <= 1 for team in facts["good"])


STORED = [m for m in smax_behaviours.PLANS if learned.is_stored(m)]


@pytest.mark.parametrize("map_name", STORED)
def test_shipped_teams_lie_in_their_bands(map_name):
    facts = learned.stored.measured(learned.FOLDER)[map_name]
    good = smax_behaviours.PLANS[map_name].good
    # chosen by other battles than these, so a band has three standard errors of 256 more
    for team in facts["good"]:
        assert team["win"] >= good - 0.08
    for team in facts["medium"]:
        assert 0.25 - 0.08 <= team["win"] <= 0.5 + 0.09
    for team in facts["poor"]:
        assert team["win"] <= 0.05 + 0.04 and 0.2 <= team["score"] <= 0.8
    assert facts["dialect"] == catalog.make(f"smax/{map_name}").env.spec.dialect
    assert {"good", "medium", "poor", "mixed"} <= set(catalog.make(f"smax/{map_name}").recipes)


@pytest.mark.long
@pytest.mark.parametrize("map_name", STORED)
@pytest.mark.parametrize("quality", ["good", "medium", "poor"])
def test_data_return_what_their_teams_were_measured_at(quality, map_name):
    """Four teams of equal shares of the transitions: a team's share of the episodes is inverse to their length."""
    task = catalog.make(f"smax/{map_name}")
    data, manifest = load(task, quality, 20_000)
    teams = learned.stored.measured(learned.FOLDER)[map_name][quality]
    weights = np.array([1 / team["length"] for team in teams])
    expected = np.average([team["score"] for team in teams], weights=weights)
    found = manifest["return"]
    spread = np.mean([team["score_std"] for team in teams])
    episodes = int((np.asarray(data.step) == 0).sum())
    error = spread * np.sqrt(1 / episodes + 1 / sum(team["episodes"] for team in teams))
    assert abs(found["mean"] - expected) < 4 * error
    assert np.unique(data.behaviour).size == len(teams)


def test_learned_data_are_of_the_rules_that_the_teams_know():
    changed = catalog.make("smax/3m:attack=random")
    assert "good" not in changed.recipes and "scripted" in changed.recipes

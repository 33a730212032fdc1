"""The MuJoCo tasks' shipped behaviours and the data sets that they make."""

import jax
import numpy as np
import pytest

from jaxomarl.data.catalog import load
from jaxomarl.envs import catalog, stored
from jaxomarl.envs.mamujoco.behaviours import KINDS, SHORT, WALKERS
from jaxomarl.envs.recipes import Behaviour, roll_out_rows

TOLD = stored.measured(WALKERS.folder)
EPISODES = 64
PLAYED = ("2halfcheetah", "3hopper")
"""Stand for the others, which the long run plays: one robot runs into the horizon, one falls."""


def played(env, behaviour, episodes):
    """Returns of whole episodes, nothing counted after a termination."""
    out = []
    for batch, steps in roll_out_rows(
        env, behaviour, jax.random.key(77), episodes * env.spec.horizon
    ):
        alive = np.arange(env.spec.horizon) < steps[:, None]
        out.append((batch.reward[..., 0] * alive).sum(axis=1))
    return np.concatenate(out)[:episodes]


def best(told):
    """The kind of the snapshots that reach most."""
    return "expert" if "expert" in told else "good"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n not in PLAYED)) for n in sorted(TOLD)]
)
def test_shipped_behaviours_play_as_their_references_say(name):
    """One behaviour of each kind, fresh episodes with the noise of the data: within four standard errors."""
    env, told = catalog.make(f"mamujoco/{name}").env, TOLD[name]
    assert told["dialect"] == env.spec.dialect
    episodes = 8
    for kind in (best(told), "medium"):
        row, params = (
            told[f"{kind}_behaviours"][0],
            stored.stored_behaviours(WALKERS.folder, name)[kind][0],
        )
        found = played(env, Behaviour(stored.acting(env.spec), params), episodes)
        error = row["data_std"] * (1 / episodes + 1 / EPISODES) ** 0.5
        assert abs(found.mean() - row["data"]) < 4 * error + 1e-3 * abs(row["data"])


@pytest.mark.parametrize("name", sorted(TOLD))
def test_kinds_are_ordered_by_what_they_reach(name):
    told, held = TOLD[name], stored.stored_behaviours(WALKERS.folder, name)
    kinds = [k for k in KINDS if k in told]
    assert {"random", "poor", "medium", "good"} <= set(kinds) and kinds == sorted(
        kinds, key=told.__getitem__
    )
    assert set(held) == set(kinds) - {"random"}
    for kind in kinds[1:]:
        assert len(told[f"{kind}_behaviours"]) == len(held[kind]) == len(told["medium_behaviours"])


@pytest.mark.parametrize("name", sorted(TOLD))
def test_a_robot_without_an_expert_has_no_quality_of_that_name(name):
    task = catalog.make(f"mamujoco/{name}")
    assert ("expert" in TOLD[name]) == ("expert" in task.recipes) == (task.scale is not None)
    assert {"good", "medium", "poor", "random", "medium-replay", "replay"} <= set(task.recipes)
    mixtures = (WALKERS if "expert" in TOLD[name] else SHORT).mixtures
    assert set(task.recipes) == set(mixtures) and all(
        set(kinds) <= set(TOLD[name]) for kinds in mixtures.values()
    )
    assert all(sum(kinds.values()) == pytest.approx(1.0) for kinds in mixtures.values())


@pytest.mark.long
def test_every_quality_is_mixed_of_the_kinds_that_it_names():
    task = catalog.make("mamujoco/2halfcheetah")
    assert set(task.recipes) == set(WALKERS.mixtures)
    data, manifest = load(task, "medium-replay", 9_000)
    numbers = np.asarray(data.behaviour)[np.asarray(data.starts)]
    seeds = len(TOLD["2halfcheetah"]["medium_behaviours"])
    assert manifest["behaviours"] == 1 + 2 * seeds
    shares = {kind: 0.0 for kind in ("random", "poor", "medium")}
    for kind in shares:
        many = 1 if kind == "random" else seeds
        first = WALKERS.numbers[kind]
        shares[kind] = ((numbers >= first) & (numbers < first + many)).mean()
    np.testing.assert_allclose([*shares.values()], 1 / 3, atol=1000 / 9_000)  # whole episodes
    assert manifest["references"]["expert"] == TOLD["2halfcheetah"]["expert"]


def test_other_rules_have_random_data_only():
    assert set(catalog.make("mamujoco/2halfcheetah:dialect=omar").recipes) == {"random"}
    assert catalog.make("mamujoco/2halfcheetah:dialect=omar").scale is None
    assert set(catalog.make("mamujoco/2halfcheetah:obsk=0").recipes) == {"random"}


def test_what_ships_is_small(root):
    assert (
        sum(p.stat().st_size for p in (root / "jaxomarl" / "assets" / "mamujoco").iterdir()) < 12e6
    )

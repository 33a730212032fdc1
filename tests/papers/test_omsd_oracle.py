"""Rest points of exact scores, and the table that is made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import JaxomarlError
from jaxomarl.data.catalog import load
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs.catalog import make
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.omsd import oracle, rest_points
from jaxomarl.papers.omsd.rest_points import TeamRule
from jaxomarl.stages import exact_scores
from jaxomarl.stages.score_regularised import weight

CFG = {w: REGISTRY["omsd"].Config(weighting=w) for w in ("vds", "score")}


def resting(means, weighting, shares=(0.5, 0.5), std=0.1):
    shares = jnp.log(jnp.array(shares))
    return np.asarray(
        jax.jit(rest_points.rest_point, static_argnums=3)(
            jnp.array(means), shares, jnp.array(std), CFG[weighting]
        )
    )


@pytest.mark.parametrize("weighting", CFG)
def test_one_behaviour_is_its_own_rest_point(weighting):
    np.testing.assert_allclose(resting([[0.6, -0.3]], weighting, (1.0,)), [0.6, -0.3], atol=5e-3)


def test_it_descends_the_field_of_exact_scores():
    """A single step from zero, with a mean over times and draws by `exact_scores.noise`."""
    means, shares, std = (
        jnp.array([[0.6, -0.3], [-0.2, 0.9], [0.1, 0.1]]),
        jnp.log(jnp.array([0.5, 0.2, 0.3])),
        0.3,
    )
    t = CFG["vds"].t_min + (CFG["vds"].t_max - CFG["vds"].t_min) * (jnp.arange(20) + 0.5) / 20
    alpha, sigma = (f(t)[:, None, None] for f in vp())
    z = jax.random.normal(jax.random.key(0), (8, 2))
    z = jnp.broadcast_to(jnp.concatenate([z, -z]), (20, 16, 2))
    many = lambda x: jnp.broadcast_to(x, (20, *x.shape))[:, :, None]
    weights = jnp.broadcast_to(shares[:, None], (20, 3, 16))
    eps = exact_scores.noise(
        sigma * z,
        jnp.repeat(t[:, None], 16, axis=1),
        jnp.broadcast_to(many(means), (20, 3, 16, 2)),
        weights,
        std,
    )
    w = weight(CFG["vds"], t)
    field = jnp.mean(w[:, None, None] * (eps - z), axis=(0, 1))
    slope = jnp.mean(w * (alpha * sigma)[:, 0, 0] / (alpha**2 * std**2 + sigma**2)[:, 0, 0])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rest_points, "ITERATIONS", 1)
        one = rest_points.rest_point(means, shares, jnp.array(std), CFG["vds"])
    np.testing.assert_allclose(one, -field / slope, rtol=2e-5)


def test_of_two_modes_vds_rests_at_the_mean_and_a_known_prefix_at_its_own():
    modes = [[0.8, 0.0], [-0.8, 0.0]]
    np.testing.assert_allclose(resting(modes, "vds"), 0.0, atol=1e-3)
    np.testing.assert_allclose(resting(modes, "vds", (1.0 - 1e-6, 1e-6)), modes[0], atol=0.05)
    np.testing.assert_allclose(resting(modes, "score", (0.0001, 0.9999)), modes[1], atol=0.05)


def test_on_the_bandit_the_second_agent_follows_the_first():
    """Shares that are not equal break the tie: agent 1 leans to the larger mode, and agent 2 is told of it."""
    known = make("games/bandit").behaviours["std0.1"]()._replace(shares=np.array([0.9, 0.1]))
    obs = jnp.ones((2, 2, 1))
    (first, second), _ = np.asarray(
        rest_points.team_actions(known, TeamRule("conditional", CFG["vds"]), obs)
    )[..., 0]
    alone = np.asarray(rest_points.team_actions(known, TeamRule("marginal", CFG["vds"]), obs))[
        0, :, 0
    ]
    assert alone[0] == pytest.approx(first, abs=1e-5) and alone[1] == pytest.approx(
        alone[0], abs=1e-5
    )
    assert second == pytest.approx(0.8, abs=5e-3) and 0.4 < first < 0.79


REFERENCE = {"one": 579.0, "mean": 305.0, "draw": 337.0}
RESTS = {"conditional": 426.0, "marginal": 361.0}
"""Mean returns on `expert-modes` of a script written apart, 150 episodes; rest points under vds."""


@pytest.mark.parametrize("name", [*REFERENCE, *RESTS])
def test_teams_play_what_an_independent_script_measured(name):
    task, episodes = make("mpe/spread"), 100
    rule = TeamRule(name, CFG["vds"] if name in RESTS else None)
    returns = np.asarray(
        rest_points.team_returns(task.env, task.behaviours["expert-modes"](), rule, episodes, 5)
    )
    error = returns.std() * (1 / episodes + 1 / 150) ** 0.5
    assert abs(returns.mean() - (REFERENCE | RESTS)[name]) < 3.5 * error


def test_actions_are_exchanged_in_transitions_alone():
    data, _ = load(make("games/bandit"), "std0.1", 6)
    other = oracle.with_actions(data, np.full((6, 2, 1), 0.25, np.float32))
    assert np.all(np.asarray(other.action)[data.starts] == 0.25) and other.source is None
    assert not np.any(np.asarray(other.action)[1::2])
    for name in ("obs", "state", "reward", "done"):
        np.testing.assert_array_equal(getattr(other, name), getattr(data, name))


def asked(out, **more):
    return Asked([0], 1.0, out, lambda: False, **more)


def test_what_has_no_known_behaviours_is_refused(tmp_path):
    for more, said in (({"data": ("random",)}, "--data"), ({"systems": ("iql",)}, "--systems"),
                       ({"tasks": ("games/additive",)}, "--data")):  # fmt: skip
        with pytest.raises(JaxomarlError, match=said):
            oracle.omsd_oracle(asked(tmp_path / "o", **more))
    assert not (tmp_path / "o").exists()


@pytest.mark.long
def test_the_table_is_made_and_goes_on_with_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(rest_points, "TIMES", 2)
    monkeypatch.setattr(rest_points, "PAIRS", 1)
    tiny = {"critic_steps": [1], "score_steps": [2], "policy_steps": [2], "chunk": [1], "every": [1],
            "policy_width": [8], "score_width": [8], "critic_width": [8],
            "weighting": ["score"], "score_model": ["exact", "diffusion"]}  # fmt: skip
    wanted = asked(
        tmp_path, data=("one-expert",), systems=("omsd",), rows=50, episodes=2, overrides=tiny
    )
    table = oracle.omsd_oracle(wanted)
    row = next(
        line for line in table.splitlines() if line.startswith("| one-expert | score | omsd |")
    )
    cells = [c.strip() for c in row.strip("|").split("|")]
    assert (
        float(cells[3])
        and float(cells[4])
        and not cells[5]
        and float(cells[6])
        and cells[7].endswith("%")
    )
    monkeypatch.setattr(rest_points, "team_returns", None)  # nothing is rolled out again
    monkeypatch.setattr(rest_points, "team_actions", None)
    assert oracle.omsd_oracle(wanted) == table

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.envs import games
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dof import circle, covering, models, payoffs, samplers
from jaxomarl.papers.dof import games as dof_games
from jaxomarl.results import clouds
from jaxomarl.training.runner import Interrupted


@pytest.fixture(scope="module")
def trained():
    """{kind: samples [B, 2]} of the two-mode data, one seed."""
    laws = [np.stack([v]).astype(np.float32) for v in dof_games.agreement(2)]
    y = jnp.zeros((4000, 2, 0))
    told = {
        k: models.train_and_sample(
            models.team_model(k, 2), dof_games.draw_mixture, laws, y, [0], 600
        )
        for k in ("joint", "concat")
    }
    return {k: made.x[0, 0, :, :, 0] for k, made in told.items()}


def law(x):
    return games.joint_distribution((x > 0).astype(int), x.shape[1])


# --- what is trained ---


@pytest.mark.long  # tests/probes/test_dof.py trains both kinds
def test_a_factorised_model_is_a_product_and_a_joint_one_is_not(trained):
    truth = games.consensus_distribution(2, 2)
    assert games.total_variation(law(trained["concat"]), truth) == pytest.approx(0.5, abs=0.04)
    assert games.total_variation(law(trained["joint"]), truth) < 0.04
    own = law(trained["concat"])
    assert games.total_variation(own, games.product_of_marginals(own)) < 0.03


def test_what_agents_apart_are_shown_has_the_marginals_and_no_correlation():
    """Rows for "separate" and for "pooled" of the four Gaussians: the product, and four equal quadrants."""
    four = (games.FOUR_MODES, games.FOUR_MASS, games.FOUR_VARIANCE**0.5)
    rows = lambda kind: np.asarray(
        models.team_model(kind, 2).training_rows(
            jax.random.key(0), dof_games.draw_mixture, 40_000, four
        )[0]
    )[..., 0]
    truth = games.four_gaussians_joint()
    found = lambda kind: dof_games.quadrants(rows(kind))
    assert games.total_variation(found("concat"), truth) < 0.01
    assert games.total_variation(found("separate"), games.product_of_marginals(truth)) < 0.01
    assert games.total_variation(found("separate"), truth) > 0.012
    np.testing.assert_allclose(found("pooled"), 0.25, atol=0.012)


# --- what is known ---


def test_the_additive_optimum_of_the_climbing_game():
    climbing = payoffs.GAMES["climbing"]
    best = payoffs.additive(climbing)
    assert payoffs.rmse(best, climbing) == pytest.approx(7.11, abs=5e-3)
    off = best - climbing  # orthogonal to every additive matrix
    np.testing.assert_allclose([off.sum(axis=0), off.sum(axis=1)], 0.0, atol=1e-9)
    assert (
        payoffs.rmse(payoffs.additive(payoffs.GAMES["additive"]), payoffs.GAMES["additive"]) < 1e-9
    )


@pytest.mark.parametrize(("other", "agreeing"), [(0.0, 1.0), (0.5, 1.0)])
def test_the_teams_of_the_data_cover_all_landmarks(other, agreeing):
    place = covering.starts_and_landmarks(0.0 if other else 20.0)
    x = covering.draw_teams(jax.random.key(0), 200, (place, other))[0]
    _, score, touches, covered = jax.jit(jax.vmap(covering.walk, (0, None)))(
        x.reshape(200, covering.AGENTS, -1, 2), place
    )
    assert (
        float(covered.mean()) == agreeing
        and float(touches.max()) == 0.0
        and float(score.min()) > 400
    )
    ways = np.sign(np.asarray(x[:, 0, -2]))  # the first agent goes left or right
    assert abs(ways.mean()) < 0.25 if other else abs(ways.mean()) == 1.0
    mixed = (
        np.where(np.arange(3)[None, :, None] == 0, x[ways > 0][:20], x[ways < 0][:20])
        if other
        else None
    )
    if mixed is not None:  # one agent of another team: two go to one landmark
        covered = jax.vmap(covering.walk, (0, None))(mixed.reshape(20, 3, -1, 2), place)[3]
        assert not covered.any()


def test_the_circle_is_measured_as_it_is_drawn():
    x = np.asarray(circle.draw_halves(jax.random.key(0), 20_000)[0])[..., 0]
    covered, upper, near = circle.coverage(x)
    assert (covered, upper, near) == (
        1.0,
        pytest.approx(0.5, abs=0.02),
        pytest.approx(20 / 360, abs=0.01),
    )
    points = circle.plane(x)
    assert np.mean(points[:, 1] > 0) == pytest.approx(upper, abs=1e-3)
    assert np.linalg.norm(points, axis=1).std() == pytest.approx(0.05, rel=0.05)
    condition = np.asarray(circle.draw_halves(jax.random.key(0), 20_000)[1])
    assert np.mean(condition.sum(axis=(1, 2)) == 0) == pytest.approx(circle.DROP, abs=0.02)
    told = condition[:, 0, 0] == 1
    assert (points[told, 1] >= -0.01).all()


def test_the_distance_of_samples_is_wassersteins():
    data = np.asarray(samplers.draw_two_modes(jax.random.key(0), 5000)[0])[..., 0]
    assert samplers.wasserstein(data, data) == 0.0
    assert samplers.wasserstein(data + 0.3, data) == pytest.approx(0.3, abs=1e-6)
    assert data.std() == pytest.approx(samplers.REACH, abs=0.01)


# --- the command ---


def test_flags_that_mean_nothing_are_refused(tmp_path):
    assert REPRODUCTIONS["dof-games"].load() is dof_games.dof_games
    with pytest.raises(JaxomarlError, match=r"--tasks.*nothing for dof-games"):
        dof_games.dof_games(Asked([0], 1.0, tmp_path, lambda: False, tasks=("mpe/spread",)))


def test_a_stop_is_heard_between_models(tmp_path):
    with pytest.raises(Interrupted):
        dof_games.dof_games(Asked([0], 1e-3, tmp_path, lambda: True))
    assert not list(Path(tmp_path).iterdir())


def test_a_missing_picture_stops_no_game(tmp_path, capsys):
    asked = Asked([0], 0.5, tmp_path, lambda: False)
    asked.draw(clouds.clouds, "x.png", {"data": np.zeros((3, 3))}, 1.0)
    assert asked.updates(100) == 50 and "points [K, 2]" in capsys.readouterr().err


def test_pictures_are_written(tmp_path):
    points = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    clouds.clouds(tmp_path / "a.png", {"data": points, "model": points}, 1.5, shares=True)
    clouds.plans(tmp_path / "b.png", {"p": np.zeros((4, 3, 2, 2))}, {"p": points[:2]})
    clouds.matrices(tmp_path / "c.png", {"g": [np.eye(2), -np.eye(2)]}, ["a", "b"])
    assert all((tmp_path / f"{name}.png").stat().st_size > 4000 for name in "abc")
    with pytest.raises(JaxomarlError, match="one panel or more"):
        clouds.matrices(tmp_path / "d.png", {}, ["a"])

"""Errors of score models by time, agent and prefix, where they are known: exact scores of the bandit's two modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.api import plan
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import statistics
from jaxomarl.envs.catalog import make
from jaxomarl.papers.omsd import scores
from jaxomarl.stages import scores as score_models

MODE, STD, LATE = 0.8, 0.1, scores.TIMES.index(0.98)


@pytest.fixture(scope="module")
def exact():
    """A group of one run on the bandit, its finished score stages by kind, and held-out rows."""
    overrides = {"score_model": ["exact"]}
    (group,) = plan.resolve(
        ["omsd"], ["games/bandit"], ["std0.1"], 1, overrides=overrides, rows=2000
    )
    held, _ = load(make("games/bandit"), "std0.1", 2000, seed=1)
    past = {"stats": statistics(group.data)}
    for kind in ("conditional", "marginal"):
        stage = score_models.behaviour_model(group.task.env.spec, group.cfgs[0], kind).algorithm
        past[f"scores-{kind}"] = stage.init(jax.random.key(0), past, group.data)
    return group, jax.tree.map(lambda x: jnp.asarray(x)[None], past), held


def test_a_marginal_knows_neither_mode_where_noise_is_large(exact):
    group, past, held = exact
    error = scores.model_error(group, past, held, "marginal", held.action[held.starts])
    np.testing.assert_allclose(error[LATE], (MODE**2 + STD**2) ** 0.5, atol=0.02)
    assert np.all(error[0] < 1.1 * STD)  # the noisy action shows it where noise is small
    assert np.all(np.diff(np.asarray(error), axis=0) > -0.01)


def test_the_second_agent_follows_its_prefix_right_or_wrong(exact):
    """Told of its own row's, it errs by the behaviours' noise; told of another's, in half of all rows by two modes."""
    group, past, held = exact
    own = held.action[held.starts]
    right = np.asarray(scores.model_error(group, past, held, "conditional", own)[LATE])
    wrong = np.asarray(scores.model_error(group, past, held, "conditional", own[::-1])[LATE])
    np.testing.assert_allclose(right, [(MODE**2 + STD**2) ** 0.5, STD], atol=0.02)
    differ = np.mean(np.sign(own[:, 0]) != np.sign(own[::-1, 0]))
    assert wrong[1] == pytest.approx((differ * (2 * MODE) ** 2) ** 0.5, rel=0.05)
    assert wrong[0] == pytest.approx(right[0], abs=1e-5)


def test_a_constants_error_is_the_datas_deviation(exact):
    _, _, held = exact
    row = scores.mean_action_row(held)
    assert float(row[2]) == pytest.approx(
        np.asarray(held.action[held.starts]).std(axis=0).mean(), abs=2e-3
    )

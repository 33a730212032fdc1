"""Windows whose steps are the data's have learned, windows of the right columns alone are short."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from walks import SPEC, judged, walks

from jaxomarl.algorithms.coda import AUGMENTATIONS, Alone, generator_stage
from jaxomarl.data.windows import sample_windows
from jaxomarl.health import generators
from jaxomarl.health.verdict import DIVERGED, LEARNED, SHORT
from jaxomarl.stages.generator import Generator, packed_rows, steps_of


@pytest.fixture(scope="module")
def held():
    return walks(40, 1)


def generating(change):
    """Health of a generator whose steps are those of other walks, changed."""
    steps = change(generators.held_steps(walks(20, 2)))
    return generators.generator(lambda key, state: steps, ("generator_steps",))


def shuffled(steps):
    return steps._replace(after=jax.random.permutation(jax.random.key(0), steps.after))


def test_the_datas_own_steps_have_learned(held):
    health = generating(lambda steps: steps)
    said, figures = judged(health, held)
    assert health.at_end and said.word == LEARNED
    assert figures["next_error"] < 1.5 * figures["real_error"] + 1e-3
    assert figures["reward_error"] < 1.5 * figures["real_reward_error"] + 1e-3
    assert figures["still_error"] > 1.0 and figures["marginal_distance"] < 0.2


def test_rows_in_any_order_are_short(held):
    said, figures = judged(generating(shuffled), held)
    assert said.word == SHORT
    assert figures["next_error"] == pytest.approx(figures["shuffled_error"], rel=0.2)
    assert figures["marginal_distance"] < 0.2


def test_one_row_again_and_again_is_short(held):
    """It is near its regression, and so are its rows in any order."""
    one = lambda steps: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), steps)._replace(
        counted=steps.counted
    )
    said, figures = judged(
        generating(lambda steps: one(steps)._replace(after=one(steps).row)), held
    )
    assert said.word == SHORT and figures["marginal_distance"] > 0.4


def test_steps_that_do_not_count_change_nothing(held):
    ruin = lambda steps: steps._replace(
        after=steps.after.at[::2].set(9.0), counted=steps.counted.at[::2].set(0.0)
    )
    _, half = judged(generating(lambda steps: jax.tree.map(lambda x: x[1::2], steps)), held)
    _, ruined = judged(generating(ruin), held)
    for name in ("next_error", "reward_error", "marginal_distance"):
        assert ruined[name] == pytest.approx(half[name], rel=1e-4)
    none = lambda steps: steps._replace(counted=0.0 * steps.counted)
    assert judged(generating(none), held)[0].word == DIVERGED


def test_the_distance_of_columns_is_scipys():
    rng = np.random.default_rng(0)
    first = np.round(rng.normal(size=60), 1)
    second = np.round(rng.normal(0.5, 2.0, size=80), 1)
    counted = (np.arange(60) < 45).astype(np.float32)
    found = generators.kolmogorov_smirnov(*map(jnp.asarray, (first, second, counted)))
    assert float(found) == pytest.approx(stats.ks_2samp(first[:45], second).statistic, abs=1e-5)


# --- windows as steps ---


def test_steps_of_windows_end_with_their_episode_and_are_the_datas(held):
    model = Generator(SPEC, Alone(generator_width=8, augment_horizon=3), 3)

    @jax.jit
    def steps_with_an_end_and_a_nan(held):
        rows = packed_rows(sample_windows(jax.random.key(0), held, 64, 3, full=True))
        rows = rows.at[0, 1, model.held.at["done"][0]].set(1.0).at[1, 2, 0].set(jnp.nan)
        return steps_of(model, rows)

    steps = steps_with_an_end_and_a_nan(held)
    assert (steps.counted.reshape(64, 3).sum(axis=1)[:3] == jnp.asarray([2.0, 0.0, 3.0])).all()
    assert jnp.isfinite(steps.after).all()

    said, figures = judged(generators.generator(lambda key, state: steps, ()), held)
    assert said.word == LEARNED and figures["next_error"] < 0.05


def test_figures_are_the_same_whatever_the_augmented_stage_samples_with():
    """Else a generator that two systems share would have the figures of the one that trained it."""
    plain = Alone(generator_width=8, augment_horizon=1)
    other = dataclasses.replace(plain, augment_levels=3, augment_order=1, augment_churn=0.0)
    for kind in (AUGMENTATIONS["coda"], AUGMENTATIONS["eaq"]):
        texts = []
        for cfg in (plain, other):
            stage = generator_stage(SPEC, cfg, kind, 10, 1)
            data = walks(20, 2)
            state = jax.eval_shape(stage.algorithm.init, jax.random.key(0), {}, data)
            texts.append(
                str(jax.make_jaxpr(stage.health.measure)(jax.random.key(0), state, {}, data))
            )
        assert texts[0] == texts[1]

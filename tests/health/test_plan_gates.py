"""Plans, inverse dynamics, codes and next actions: what is right has learned, what knows nothing is short."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walks import SPEC, judged, walks

from jaxomarl.base import Spec
from jaxomarl.health import behaviour, codes, plans
from jaxomarl.health.held import successors, transitions
from jaxomarl.health.verdict import DIVERGED, LEARNED, SHORT

COLUMNS = jnp.asarray(SPEC.obs_mask)
FLAT = dataclasses.replace(SPEC, discrete=True, act_dims=(3, 2))


@pytest.fixture(scope="module")
def held():
    return walks(40, 1)


@pytest.fixture(scope="module")
def flat(held):
    """The walks with one of three actions, which says where the next place lies; the second agent has two."""
    after = np.roll(np.asarray(held.obs)[:, :, 0], -1, axis=0)
    choice = np.digitize(after, [0.0, 0.3])
    choice[:, 1] = np.minimum(choice[:, 1], 1)
    action = np.eye(3)[choice] * (np.asarray(held.left) > 0)[:, None, None]
    blocks = (held.obs, held.state, action, held.reward, held.done, held.known, held.last)
    rows = np.concatenate([np.reshape(x, (len(held.left), -1)) for x in blocks], axis=1)
    layout = held.layout._replace(action=3)
    free = jnp.asarray(np.broadcast_to(FLAT.act_mask, action.shape))
    return dataclasses.replace(
        held, rows=jnp.asarray(rows, jnp.float32), layout=layout, extra={"available": free}
    )


# --- plans ---


def planned(model):
    """Health of plans whose first row ahead is `model(present row, true row)`."""

    def ahead(key, state, past, held):
        rows = transitions(held)
        after = successors(held, rows)
        counted = jnp.ones(rows.obs.shape[:2])
        return plans.FirstRows(model(rows.obs, after.obs), after.obs, counted)

    return plans.plan(ahead, lambda state, past, obs: obs, COLUMNS, ("policy_steps",))


def test_a_plan_of_what_follows_has_learned(held):
    said, figures = judged(planned(lambda now, after: after), held)
    assert said.word == LEARNED and figures["next_error"] == 0.0
    # o = [x, last x], x' = -0.8 x + 0.6 a: a regression knows all but the action's noise
    assert 0.05 < figures["linear_error"] < 0.5 * figures["still_error"]


def test_a_plan_that_stands_still_is_short(held):
    said, figures = judged(planned(lambda now, after: now), held)
    assert said.word == SHORT
    assert figures["next_error"] == pytest.approx(figures["still_error"], rel=1e-5)


def test_padded_columns_and_unknown_successors_do_not_count(held):
    padded = planned(lambda now, after: after + 9.0 * (1.0 - COLUMNS))
    assert judged(padded, held)[1]["next_error"] == 0.0
    unknown = dataclasses.replace(held, rows=held.rows.at[:, -2].set(0.0))
    assert judged(padded, unknown)[1]["still_error"] == 0.0


def test_a_plan_of_nan_has_diverged(held):
    assert judged(planned(lambda now, after: jnp.nan * after), held)[0].word == DIVERGED


def test_a_return_that_no_row_reaches_is_not_to_be_asked_for(held):
    shares = jnp.linspace(0.0, 1.0, len(held.left))[:, None] * jnp.ones(2)
    held = dataclasses.replace(held, extra={"returns": shares})
    said, figures = judged(plans.asked_return(0.75), held)
    assert said.word == LEARNED and figures["asked_share"] == pytest.approx(0.25, abs=0.01)
    said, figures = judged(plans.asked_return(0.99), held)
    assert said.word == SHORT and said.failed[0].endswith(plans.LOWER_TARGET)


# --- inverse dynamics ---


def inferred(model, spec: Spec = SPEC):
    infer = lambda state, past, obs, then, free: model(obs, then)
    return plans.inverse_dynamics(spec, infer, ("inverse_width",))


def between(obs, then):
    return ((then + 0.8 * obs)[..., :1]) / 0.6


def test_inverse_dynamics_that_are_right_have_learned(held):
    said, figures = judged(inferred(between), held)
    assert said.word == LEARNED and figures["inverse_error"] < 1e-3
    assert 0.2 < figures["action_linear_error"] < figures["action_mean_error"]


def test_inverse_dynamics_that_see_the_present_alone_are_short(held):
    blind = lambda obs, then: 0.6 * jnp.clip(2.0 * obs[..., :1], -1.0, 1.0)
    said, figures = judged(inferred(blind), held)
    assert said.word == SHORT and figures["inverse_error"] < figures["action_linear_error"]


@pytest.mark.parametrize("right, word", [(True, LEARNED), (False, SHORT)])
def test_one_hot_actions_are_right_or_wrong(flat, right, word):
    def infer(obs, then):
        choice = jnp.digitize(then[..., 0], jnp.asarray([0.0, 0.3]))
        choice = jnp.minimum(choice, jnp.asarray([2, 1]))
        return jax.nn.one_hot(choice if right else 0 * choice, 3)

    said, figures = judged(inferred(infer, FLAT), flat)
    assert said.word == word
    assert 0.2 < figures["commonest_wrong_share"] < 0.7
    if right:
        assert figures["inverse_wrong_share"] == 0.0


def test_what_is_available_is_read_where_the_data_say(held, flat):
    assert transitions(held).available.all()
    assert not transitions(flat).available[:, 1, 2].any()


# --- next actions ---


def predicting(model, spec: Spec = SPEC):
    def predict(key, state, past, held):
        rows = transitions(held)
        return behaviour.Predicted(model(rows.obs, rows.action), rows.action, jnp.ones((240, 2)))

    return behaviour.predictor(spec, predict, ("policy_steps",))


def test_next_actions(held, flat):
    curve = lambda obs, action: 0.6 * jnp.clip(2.0 * obs[..., :1], -1.0, 1.0)
    said, figures = judged(predicting(curve), held)
    assert said.word == LEARNED and figures["action_error"] < figures["linear_error"]
    assert judged(predicting(lambda obs, action: 0.0 * action), held)[0].word == SHORT

    assert judged(predicting(lambda obs, action: action, FLAT), flat)[0].word == LEARNED
    wrong = predicting(lambda obs, action: jnp.roll(action, 1, axis=-1), FLAT)
    said, figures = judged(wrong, flat)
    assert said.word == SHORT and figures["wrong_share"] == 1.0


# --- codes ---


def coded(decode, width=1):
    both = lambda state, past, obs: codes.Decoded(obs, decode(obs))
    return codes.autoencoder(both, COLUMNS, width, ("code_steps",))


def test_codes(held):
    said, figures = judged(coded(lambda rows: rows), held)
    assert said.word == LEARNED
    assert 0.0 < figures["pca_error"] < figures["mean_error"]
    said, _ = judged(coded(lambda rows: jnp.broadcast_to(rows.mean(axis=0), rows.shape)), held)
    assert said.word == SHORT
    # all components would keep everything
    assert judged(coded(lambda rows: rows, width=9), held)[1]["pca_error"] > 0.0


def test_principal_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1.0
    centre = x[:100].mean(axis=0)
    _, _, directions = np.linalg.svd(x[:100] - centre, full_matrices=False)
    expected = centre + (x[100:] - centre) @ directions[:2].T @ directions[:2]
    kept = codes.principal_components(jnp.asarray(x[:100]), jnp.asarray(x[100:]), 2)
    assert np.allclose(kept, expected, atol=1e-3)

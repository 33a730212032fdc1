"""What planners know: the row that follows, and the action that leads to it.

    next_error       root mean square error of the first row ahead of a plan, which one call of the
                     network denoises from t = 0.5; in the units of plans
    still_error      the same if nothing moves: the present row is repeated
    linear_error     the same of a linear regression on each agent's present row
    inverse_error    root mean square error of the inverse dynamics model's action between two true
                     rows
    action_mean_error, action_linear_error
                     the same of the data's mean action, and of a linear regression on each agent's
                     observation: what is known of the action without the row that follows
    inverse_wrong_share, commonest_wrong_share
                     where actions are one-hot: share of wrong actions, and that of always playing
                     the commonest one
    asked_share      share of held-out rows whose return is at least the one that acting asks for

A plan for a return that hardly any row reaches is a plan that no data show.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Dataset, Gate, Health, Past, Spec, State
from jaxomarl.health.behaviour import commonest_action, wrong_share
from jaxomarl.health.figures import linear_error, linear_prediction, rmse
from jaxomarl.health.held import successors, transitions

PLAN_GATES = (Gate("next_error", at_most=0.5, times="still_error"),)
INVERSE_GATES = (Gate("inverse_error", at_most=0.5, times="action_linear_error"),)
ONE_HOT_GATES = (Gate("inverse_wrong_share", at_most=0.5, times="commonest_wrong_share"),)
LOWER_TARGET = "lower --cfg.target, or take --cfg.target-kind quantile"
ASKED_GATES = (Gate("asked_share", at_least=0.05, way_out=LOWER_TARGET),)


class FirstRows(NamedTuple):
    """The first rows ahead of denoised plans, and of the data's own."""

    planned: Float[Array, "B N D"]
    true: Float[Array, "B N D"]
    counted: Float[Array, "B N"]
    """1.0 where the row is known, of an agent whose present the plan was given."""


Ahead = Callable[[Key[Array, ""], State, Past, Dataset], FirstRows]
"""(key, state, past, held-out episodes) -> plans that one call of the network denoised."""
Units = Callable[[State, Past, Array], Float[Array, "K N D"]]
"""(state, past, observations) -> rows of plans."""
Infer = Callable[[State, Past, Array, Array, Array], Float[Array, "K N A"]]
"""(state, past, observations, those that follow, available actions) -> the actions between."""


def plan(
    ahead: Ahead, units: Units, columns: Float[Array, "N D"], raise_fields: tuple[str, ...]
) -> Health:
    """Health of a model of plans; `columns` is 1.0 on the real columns of their rows."""

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        first = ahead(key, state, past, held)

        rows = transitions(held)
        after = successors(held, rows)
        present = units(state, past, rows.obs)
        true = units(state, past, after.obs)
        counted = columns * after.known[:, None, None]

        half = len(present) // 2
        regress = jax.vmap(linear_prediction, in_axes=1, out_axes=1)
        predicted = regress(present[:half], true[:half], present[half:])
        return {
            "next_error": rmse(first.planned, first.true, columns * first.counted[..., None]),
            "still_error": rmse(present, true, counted),
            "linear_error": rmse(predicted, true[half:], counted[half:]),
        }

    return Health(measure, PLAN_GATES, raise_fields)


def inverse_dynamics(spec: Spec, infer: Infer, raise_fields: tuple[str, ...]) -> Health:
    """Health of a model of the action that leads from one observation to the next."""
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held)
        after = successors(held, rows)
        inferred = infer(state, past, rows.obs, after.obs, rows.available)
        counted = rows.alive * after.known[:, None]
        if spec.discrete:
            commonest = commonest_action(rows.action, counted)
            return {
                "inverse_wrong_share": wrong_share(inferred, rows.action, counted),
                "commonest_wrong_share": wrong_share(commonest, rows.action, counted),
            }

        mean = jnp.broadcast_to(rows.action.mean(axis=0), rows.action.shape)
        return {
            "inverse_error": rmse(inferred, rows.action, mask * counted[..., None]),
            "action_mean_error": rmse(mean, rows.action, mask),
            "action_linear_error": linear_error(rows.obs, rows.action, mask),
        }

    gates = ONE_HOT_GATES if spec.discrete else INVERSE_GATES
    return Health(measure, gates, raise_fields)


def asked_return(target: ArrayLike) -> Health:
    """Whether the data have rows of the return that acting asks for at every step."""

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        reached = held.extra["returns"][held.starts] >= jnp.asarray(target)
        return {"asked_share": reached.astype(jnp.float32).mean()}

    return Health(measure, ASKED_GATES)

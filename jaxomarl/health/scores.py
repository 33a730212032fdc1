"""What score models know: the clean action that they see in a noisy one of a held-out row, by
diffusion time.

    score_error_0.2, _0.5, _0.98     root mean square error of the predicted clean action
    linear_error_0.2, _0.5, _0.98    the same of a linear regression on the noisy action and the
                                     model's condition, or of the mean action where that is nearer
    mean_error                       the same of the data's mean action
    excess_error                     largest ratio of the first to the second, over these times up
                                     to the largest one that the policies ask at

At small times the noisy action shows the clean one. Near t = 1 it shows nothing: what is left is
the condition. Regularisers with the weights sigma^2 ask there (docs/omsd.md), those that ask at
t = 0.02 alone are judged at 0.2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Dataset, Gate, Health, Past, Schedule, Spec, State
from jaxomarl.health.behaviour import TOLERANCE
from jaxomarl.health.figures import linear_error, rmse
from jaxomarl.health.held import transitions

TIMES = (0.2, 0.5, 0.98)
GATES = (Gate("excess_error", at_most=TOLERANCE),)

Eps = Callable[[State, Past, Array, Array, Array, Array, Array, Array], Float[Array, "K N A"]]
"""(state, past, x [K, N, A], t [K], z, obs, env_state, action) -> the predicted noise of every
agent's action, where z is the noise in x.
"""
Condition = Callable[[Past, Array, Array, Array], Float[Array, "K models C"]]
"""(past, obs, env_state, action) -> what each model is conditioned on."""


def score_model(
    spec: Spec,
    schedule: Schedule,
    eps: Eps,
    condition: Condition,
    last_time: float | Float[Array, ""],
    raise_fields: tuple[str, ...],
) -> Health:
    """Health of a stage of score models, one for each agent or one for all.

    `last_time` is the largest diffusion time at which their scores are used.
    """
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held)
        z = mask * jax.random.normal(key, rows.action.shape)
        known = condition(past, rows.obs, rows.state, rows.action)
        by_model = lambda x: x.reshape(len(x), known.shape[1], -1)
        figures = {}
        excess = jnp.zeros(())
        for t in TIMES:
            # --- the model ---
            time = jnp.full(len(z), t)
            alpha = schedule.alpha(time)[:, None, None]
            sigma = schedule.sigma(time)[:, None, None]
            x = alpha * rows.action + sigma * z
            noise = eps(state, past, x, time, z, rows.obs, rows.state, rows.action)
            error = rmse((x - sigma * noise) / alpha, rows.action, mask)

            # --- the regression ---
            inputs = jnp.concatenate([by_model(x), known], axis=-1)
            reference = linear_error(inputs, by_model(rows.action), by_model(mask[None])[0])
            asked = t <= jnp.maximum(last_time, TIMES[0])
            excess = jnp.where(asked, jnp.maximum(excess, error / reference), excess)
            figures |= {f"score_error_{t:g}": error, f"linear_error_{t:g}": reference}

        mean = jnp.broadcast_to(rows.action.mean(axis=0), rows.action.shape)
        mean_error = rmse(mean, rows.action, mask)
        return {"excess_error": excess, **figures, "mean_error": mean_error}

    return Health(measure, GATES, raise_fields)

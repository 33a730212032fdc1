"""What score models know: the clean action that they see in a noisy one of a held-out row, by
diffusion time.

    score_error_0.2, _0.5, _0.98    root mean square error of the predicted clean action
    mean_error                      the same of the data's mean action
    linear_error                    the same of a linear regression on each agent's condition

At small times the noisy action shows the clean one. Near t = 1 it shows nothing: what is left is
the condition, and a model that has learned knows at least what a linear regression on it does.
Regularisers with the weights sigma^2 ask there (docs/omsd.md).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Dataset, Gate, Health, Past, Schedule, Spec, State
from jaxomarl.health.behaviour import TOLERANCE
from jaxomarl.health.figures import linear_prediction, rmse
from jaxomarl.health.held import transitions

TIMES = (0.2, 0.5, 0.98)
LAST = f"score_error_{TIMES[-1]:g}"
GATES = (Gate(LAST, at_most=TOLERANCE, times="linear_error"),)

Eps = Callable[[State, Past, Array, Array, Array, Array, Array, Array], Float[Array, "K N A"]]
"""(state, past, x [K, N, A], t [K], z, obs, env_state, action) -> the predicted noise of every
agent's action, where z is the noise in x.
"""
Condition = Callable[[Past, Array, Array, Array], Float[Array, "K models C"]]
"""(past, obs, env_state, action) -> what each model is conditioned on."""


def score_model(
    spec: Spec, schedule: Schedule, eps: Eps, condition: Condition, raise_fields: tuple[str, ...]
) -> Health:
    """Health of a stage of score models, one for each agent or one for all."""
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held)
        z = mask * jax.random.normal(key, rows.action.shape)
        figures = {}
        for t in TIMES:
            time = jnp.full(len(z), t)
            alpha = schedule.alpha(time)[:, None, None]
            sigma = schedule.sigma(time)[:, None, None]
            x = alpha * rows.action + sigma * z
            noise = eps(state, past, x, time, z, rows.obs, rows.state, rows.action)
            figures[f"score_error_{t:g}"] = rmse((x - sigma * noise) / alpha, rows.action, mask)

        mean = jnp.broadcast_to(rows.action.mean(axis=0), rows.action.shape)
        known = condition(past, rows.obs, rows.state, rows.action)
        split = rows.action.reshape(len(z), known.shape[1], -1)
        half = len(z) // 2
        regress = jax.vmap(linear_prediction, in_axes=1, out_axes=1)
        predicted = regress(known[:half], split[:half], known[half:]).reshape(-1, *mask.shape)
        return {
            **figures,
            "mean_error": rmse(mean, rows.action, mask),
            "linear_error": rmse(jnp.clip(predicted, -1.0, 1.0), rows.action[half:], mask),
        }

    return Health(measure, GATES, raise_fields)
